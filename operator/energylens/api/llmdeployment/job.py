"""A batch job: requests to be done by a deadline, at once or in the hours that are cleanest or cheapest."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from energylens.api.base import ApiModel, DataKey, ObjectName, Rule
from energylens.api.timestamp import moment_of

MOMENT_PATTERN = r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})$"


def _is_a_moment(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a time; write RFC 3339, such as 2026-11-28T07:00:00Z") from None
    return text


Moment = Annotated[
    str,
    Field(min_length=20, max_length=25, pattern=MOMENT_PATTERN, json_schema_extra={"format": "date-time"}),
    AfterValidator(_is_a_moment),
]
"""A time of a spec: RFC 3339, to the second, with a time zone."""


class JobForecastRef(ApiModel):
    """A key of a ConfigMap in the object's namespace with a forecast of the grid's carbon intensity."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    key: DataKey = Field(
        default="forecast.csv",
        description="Key that holds the forecast: lines of time,gramsPerKilowattHour, with times in RFC 3339.",
    )


class JobTariffRef(ApiModel):
    """A key of a ConfigMap in the object's namespace with prices of electricity."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    key: DataKey = Field(
        default="tariff.csv",
        description="Key that holds the tariff: lines of time,pricePerKilowattHour, with times in RFC 3339; a price "
        "may be negative.",
    )


def _one_source(start: JobStart) -> str | None:
    both = start.forecast_config_map_ref is not None, start.tariff_config_map_ref is not None
    if all(both):
        return "forecastConfigMapRef and tariffConfigMapRef are both set; set exactly one"
    return None if any(both) else "neither forecastConfigMapRef nor tariffConfigMapRef is set; set exactly one"


_ONE_SOURCE = Rule(
    summary="set exactly one of forecastConfigMapRef and tariffConfigMapRef",
    cel="has(self.forecastConfigMapRef) != has(self.tariffConfigMapRef)",
    message_cel="has(self.forecastConfigMapRef) ? "
    "'forecastConfigMapRef and tariffConfigMapRef are both set; set exactly one' : "
    "'neither forecastConfigMapRef nor tariffConfigMapRef is set; set exactly one'",
    check=_one_source,
)


def _from_before_by(start: JobStart) -> str | None:
    begin, end = moment_of(start.not_before), moment_of(start.complete_by)
    if begin is None or end is None or begin < end:
        return None
    return f"notBefore ({start.not_before}) must be earlier than completeBy ({start.complete_by})"


_FROM_BEFORE_BY = Rule(
    summary="notBefore is earlier than completeBy",
    cel="!has(self.notBefore) || timestamp(self.notBefore) < timestamp(self.completeBy)",
    message_cel="'notBefore (%s) must be earlier than completeBy (%s)'.format("
    "[string(self.notBefore), string(self.completeBy)])",
    check=_from_before_by,
)


class JobStart(ApiModel):
    """When the operator starts the pods of a job: where the energy is cleanest or cheapest, and the job ends in time.

    The operator starts the pods once, and never interrupts the job.
    """

    rules: ClassVar[tuple[Rule, ...]] = (_ONE_SOURCE, _FROM_BEFORE_BY)

    complete_by: Moment = Field(
        description="Time by which the last answer must be there, RFC 3339, such as 2026-11-28T07:00:00Z."
    )
    not_before: Moment | None = Field(
        default=None,
        description="Time before which the pods must not start, RFC 3339. Default: they may start at once.",
    )
    forecast_config_map_ref: JobForecastRef | None = Field(
        default=None,
        description="Start where the job causes the least carbon by this forecast, such as the forecast of an "
        "EnergyBudget. Set this or tariffConfigMapRef.",
    )
    tariff_config_map_ref: JobTariffRef | None = Field(
        default=None,
        description="Start where the energy of the job costs least by these prices. Set this or forecastConfigMapRef.",
    )


class BatchJob(ApiModel):
    """Requests that are all there at the start and have to be done by a deadline; nobody waits for the single answer.

    The operator serves the model as for any load. Clients send the requests, as many at once as the engine takes.
    """

    requests: int = Field(ge=1, le=1_000_000_000, description="Requests to complete.")
    complete_within_seconds: int = Field(
        ge=1,
        le=31_536_000,
        description="Maximum time from the creation of the pods to the last answer, loading of the model included, s.",
    )
    after_completion: Literal["Idle", "Release"] = Field(
        default="Idle",
        description="What happens to the GPUs after the last answer. Idle: the pods stay until completeWithinSeconds "
        "have passed, and the energy of the plan includes their idle power. Release: the user deletes the "
        "LLMDeployment then, and nothing more counts.",
    )
    start_seconds: int | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="Measured time from the creation of a pod until it is ready, s. Default: an estimate from the "
        "weights' bytes.",
    )
    start: JobStart | None = Field(
        default=None,
        description="Start the pods in the cleanest or cheapest hours before a deadline. Absent: they start at once.",
    )
