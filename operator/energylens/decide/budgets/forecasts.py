"""The forecast that a budget's spec names, from its ConfigMap. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energylens.api.energybudget import EnergyBudgetSpec
from energylens.budget.carbon import Forecast, ForecastError, parse_forecast
from energylens.decide.reasons import BudgetReason

Problem = tuple[BudgetReason, str]
"""Why a budget cannot be checked."""


def place(namespace: str, spec: EnergyBudgetSpec) -> tuple[str, str]:
    """Return namespace and name of the ConfigMap of a spec with a carbon limit, in a budget of ``namespace``."""
    assert spec.carbon is not None
    ref = spec.carbon.forecast_config_map_ref
    return ref.namespace or namespace, ref.name


def where(namespace: str, spec: EnergyBudgetSpec) -> str:
    """Return the name of the ConfigMap for messages."""
    return f"spec.carbon.forecastConfigMapRef: ConfigMap {'/'.join(place(namespace, spec))}"


def forecast_of(
    namespace: str, spec: EnergyBudgetSpec, found: Mapping[str, Any] | None
) -> tuple[Forecast | None, Problem | None]:
    """Return a budget's forecast, or why there is none; neither without a carbon limit.

    Args:
        namespace: Namespace of the budget; "" for a ClusterEnergyBudget.
        spec: Spec of the budget.
        found: The ConfigMap; None if it does not exist.
    """
    if spec.carbon is None:
        return None, None
    key, named = spec.carbon.forecast_config_map_ref.key, where(namespace, spec)
    if found is None:
        return None, (BudgetReason.FORECAST_MISSING, f"{named} does not exist")
    text = (found.get("data") or {}).get(key)
    if text is None:
        keys = ", ".join(sorted(found.get("data") or {})) or "none"
        return None, (BudgetReason.FORECAST_MISSING, f"{named} has no key {key!r}; its keys: {keys}")
    try:
        return parse_forecast(text), None
    except ForecastError as error:
        return None, (BudgetReason.FORECAST_INVALID, f"{named}, key {key!r}: {error}")
