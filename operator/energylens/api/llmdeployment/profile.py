"""The load over the hours of a week, where it is not the same all the time."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from energylens.api.base import ATOMIC_LIST, DISTINCT, SET_LIST, ApiModel, DataKey, ObjectName, Rule
from energylens.api.quantity import PositiveQuantity
from energylens.api.time_zone import KNOWN_TIME_ZONE, TimeZone

Weekday = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
WEEKDAYS: tuple[Weekday, ...] = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _from_before_to(hours: ProfileHours) -> str | None:
    if hours.from_hour < hours.to_hour:
        return None
    return (
        f"fromHour ({hours.from_hour}) must be less than toHour ({hours.to_hour}); "
        "write hours that span midnight as two entries"
    )


_FROM_BEFORE_TO = Rule(
    summary="fromHour is less than toHour; hours that span midnight are two entries",
    cel="self.fromHour < self.toHour",
    message_cel="'fromHour (%s) must be less than toHour (%s); write hours that span midnight as two entries'.format("
    "[self.fromHour, self.toHour])",
    check=_from_before_to,
)


class ProfileHours(ApiModel):
    """The same hours of some days of the week, and the load in these hours."""

    rules: ClassVar[tuple[Rule, ...]] = (_FROM_BEFORE_TO,)

    days: Annotated[
        tuple[Weekday, ...], Field(min_length=1, max_length=len(WEEKDAYS), json_schema_extra=SET_LIST), DISTINCT
    ] = Field(default=WEEKDAYS, description="Days of the week. Default: every day.")
    from_hour: int = Field(default=0, ge=0, le=23, description="First hour of each day, 0 to 23.")
    to_hour: int = Field(
        default=24, ge=1, le=24, description="Hour at which these hours end, 1 to 24, more than fromHour."
    )
    requests_per_second: PositiveQuantity = Field(
        description="Mean arrival rate over all replicas in these hours, above 0."
    )


class HoursRef(ApiModel):
    """A key of a ConfigMap in the object's namespace."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    key: DataKey = Field(
        default="hours.yaml", description="Key that holds the list, in YAML or JSON, with the fields of hours."
    )


class LearnedProfile(ApiModel):
    """Rates of the hours that the operator learns from measured windows."""

    min_coverage_percent: int = Field(
        default=80,
        ge=1,
        le=100,
        description="Share of the 168 hours of a week that must have been measured before hours are planned for less "
        "than workload.requestsPerSecond, %.",
    )
    earlier_weeks_percent: int = Field(
        default=50,
        ge=0,
        le=95,
        description="Weight of the measurements of all earlier weeks, when an hour of the week is measured again, % "
        "of their weight before. 0: only the last week counts.",
    )


_SOURCES = ("hours", "hoursConfigMapRef", "learned")


def _one_source(profile: LoadProfile) -> str | None:
    values = (profile.hours, profile.hours_config_map_ref, profile.learned)
    found = [name for name, value in zip(_SOURCES, values, strict=True) if value is not None]
    if len(found) > 1:
        return f"{found[0]} and {found[1]} are both set; set exactly one of hours, hoursConfigMapRef and learned"
    return None if found else "none of hours, hoursConfigMapRef and learned is set; set exactly one"


_ONE_SOURCE = Rule(
    summary="set exactly one of hours, hoursConfigMapRef and learned",
    cel="[has(self.hours), has(self.hoursConfigMapRef), has(self.learned)].filter(x, x).size() == 1",
    message_cel="!has(self.hours) && !has(self.hoursConfigMapRef) && !has(self.learned) ? "
    "'none of hours, hoursConfigMapRef and learned is set; set exactly one' : "
    "(has(self.hours) ? 'hours' : 'hoursConfigMapRef') + ' and ' + "
    "(has(self.hours) && has(self.hoursConfigMapRef) ? 'hoursConfigMapRef' : 'learned') + "
    "' are both set; set exactly one of hours, hoursConfigMapRef and learned'",
    check=_one_source,
)
MOST_ENTRIES = 168
"""Most entries of a list in a ConfigMap: one for each hour of the week."""


class LoadProfile(ApiModel):
    """Arrival rates of the 168 hours of a week; every week is the same."""

    rules: ClassVar[tuple[Rule, ...]] = (_ONE_SOURCE, KNOWN_TIME_ZONE)

    time_zone: TimeZone = Field(
        default="UTC",
        description="Time zone of the hours: a name of the IANA time zone database, such as Europe/Berlin. The hours "
        "follow the local clock, also when clocks change.",
    )
    hours: (
        Annotated[tuple[ProfileHours, ...], Field(min_length=1, max_length=64, json_schema_extra=ATOMIC_LIST)] | None
    ) = Field(
        default=None,
        description="Hours with another load than workload.requestsPerSecond. If several entries have the same hour, "
        "the last of these entries applies. Set this, hoursConfigMapRef or learned.",
    )
    hours_config_map_ref: HoursRef | None = Field(
        default=None,
        description="ConfigMap with the list of hours, up to 168 entries, such as one that a forecast writes. The "
        "operator reads it at every resync and plans again when the list changes. Set this, hours or learned.",
    )
    learned: LearnedProfile | None = Field(
        default=None,
        description="The operator learns the rate of each hour from measured windows (status.learnedLoad); until an "
        "hour was measured, workload.requestsPerSecond applies. Set this, hours or hoursConfigMapRef.",
    )
