"""Measured rates of the hours of a week, in the status."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from energylens.api.base import ATOMIC_LIST, ApiModel
from energylens.api.quantity import Quantity

HOURS_OF_WEEK = 168
_LENGTH = {"min_length": HOURS_OF_WEEK, "max_length": HOURS_OF_WEEK}
Seconds = Annotated[int, Field(ge=0, le=1_000_000)]
Step = Annotated[int, Field(ge=-10, le=200)]


class LearnedLoadStatus(ApiModel):
    """Rates of the 168 hours of a week from measured windows, with workload.profile.learned; Monday 0:00 is first."""

    time_zone: str = Field(
        description="Time zone of the hours; if the spec has another time zone, learning starts again."
    )
    declared_requests_per_second: Quantity = Field(
        description="workload.requestsPerSecond, of which the planned rates are steps."
    )
    window_end: str = Field(description="End of the last evaluated window; RFC 3339, UTC.")
    covered_hours: int = Field(ge=0, le=HOURS_OF_WEEK, description="Hours that were measured for long enough.")
    requests_per_second: Annotated[tuple[Quantity, ...], Field(**_LENGTH, json_schema_extra=ATOMIC_LIST)] = Field(
        description="Mean measured rate of each hour, older weeks with less weight; 0 if the hour was not measured."
    )
    measured_seconds: Annotated[tuple[Seconds, ...], Field(**_LENGTH, json_schema_extra=ATOMIC_LIST)] = Field(
        description="Measured time of each hour, older weeks with less weight, s."
    )
    planned_steps: Annotated[tuple[Step, ...], Field(**_LENGTH, json_schema_extra=ATOMIC_LIST)] = Field(
        description="Rate that each hour is planned for, in steps of 25 % above or below the declared rate."
    )
