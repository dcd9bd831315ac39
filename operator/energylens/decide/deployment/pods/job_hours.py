"""The forecast or the tariff that weighs the hours of a job. Pure."""

from __future__ import annotations

import hashlib

from energylens.api.llmdeployment import JobStart, LLMDeployment
from energylens.budget.hourly import ForecastError, HourlyValues, parse_hourly
from energylens.decide.deployment.observed.named_maps import NamedMap
from energylens.decide.reasons import Reason
from energylens.records import dataclass


@dataclass(frozen=True)
class JobHours:
    """The values that weigh the hours of a job, or why there are none."""

    values: HourlyValues | None
    reason: Reason = Reason.BEST_HOURS
    """Why there are no values."""
    message: str = ""
    digest: str = ""
    """Changes with the text that the values come from."""


def job_hours(deployment: LLMDeployment, named: NamedMap) -> JobHours | None:
    """Return the forecast or the tariff that ``job.start`` names; None without one.

    Args:
        deployment: A deployment.
        named: The ConfigMap.
    """
    start = _start_of(deployment)
    if start is None:
        return None
    forecast, tariff = start.forecast_config_map_ref, start.tariff_config_map_ref
    if forecast is not None:
        name, key, field = forecast.name, forecast.key, "forecastConfigMapRef"
        column, least = "gramsPerKilowattHour", 0.0
    else:
        assert tariff is not None
        name, key, field = tariff.name, tariff.key, "tariffConfigMapRef"
        column, least = "pricePerKilowattHour", None
    where = f"spec.workload.job.start.{field}: ConfigMap {name}"
    text, missing = named.text(where, key)
    if missing:
        return JobHours(None, Reason.FORECAST_MISSING, missing)
    digest = hashlib.sha256(f"{column}\n{text}".encode()).hexdigest()
    try:
        return JobHours(parse_hourly(text, column, least), digest=digest)
    except ForecastError as error:
        return JobHours(None, Reason.FORECAST_INVALID, f"{where}, key {key!r}: {error}", digest)


def _start_of(deployment: LLMDeployment) -> JobStart | None:
    job = deployment.spec.workload.job
    return None if job is None else job.start
