"""The replicas of every hour of a week in the status, and what they save."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from energylens.api.base import ATOMIC_LIST, ApiModel
from energylens.api.llmdeployment.profile import Weekday
from energylens.api.quantity import Quantity


class ScheduledReplicas(ApiModel):
    """Replicas from one hour of the week until the next entry."""

    day: Weekday = Field(description="Day of the week.")
    hour: int = Field(ge=0, le=23, description="Hour, 0 to 23, local time.")
    requests_per_second: Quantity = Field(description="Arrival rate from this hour on.")
    replicas: int = Field(ge=1, description="Replicas from this hour on.")
    power_watts: int = Field(ge=0, description="Predicted power of all GPUs from this hour on, W.")


class ScheduleStatus(ApiModel):
    """Replicas over the week, with workload.profile: one layout, and the replicas of each hour."""

    replicas: int = Field(ge=1, description="Replicas now; a budget may leave fewer, see plan.replicas.")
    next_change_time: str | None = Field(
        default=None,
        description="When the number of replicas changes next, early by the start-up time if it rises; RFC 3339, UTC. "
        "Absent if it never changes.",
    )
    next_replicas: int | None = Field(default=None, description="Replicas from nextChangeTime on.")
    start_seconds: int = Field(
        ge=0, description="Time by which replicas are started before the hour that needs them, s."
    )
    starting_since: str | None = Field(
        default=None,
        description="When replicas were last added; absent once these are ready and startSeconds was measured. RFC "
        "3339, UTC.",
    )
    start_joules: int = Field(ge=0, description="GPU energy of the start of one replica that the plan counts, J.")
    week_watt_hours: int = Field(ge=0, description="Predicted GPU energy of a week, starts included, Wh.")
    starts: int = Field(ge=0, description="Starts of a replica in a week.")
    constant_watt_hours: int | None = Field(
        default=None,
        description="Predicted GPU energy of a week of the best plan with a constant number of replicas, Wh. Absent if "
        "no plan with a constant number of replicas meets the spec.",
    )
    constant_plan: str | None = Field(
        default=None, description="The best plan with a constant number of replicas, in short."
    )
    released_gpu_hours: int = Field(
        ge=0,
        description="GPU hours of a week that the schedule leaves to others, compared with its highest number of "
        "replicas. Power of released GPUs is not counted.",
    )
    inputs_hash: str = Field(
        default="",
        description="Hash of the inputs and of the schedule itself; nothing is planned again while it stays the same.",
    )
    hours: Annotated[tuple[ScheduledReplicas, ...], Field(max_length=168, json_schema_extra=ATOMIC_LIST)] = Field(
        description="The week as changes of replicas or load, from Monday 0:00 local time on. Hours before the first "
        "entry belong to the last entry."
    )
