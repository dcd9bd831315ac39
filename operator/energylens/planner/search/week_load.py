"""The load of a week as spans of equal rates, and which hour of the week a moment belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

from energylens.api.llmdeployment import WEEKDAYS, LLMDeployment, Weekday, WorkloadSpec
from energylens.api.quantity import parse_quantity
from energylens.records import dataclass

HOURS = 168
"""Hours of a week. Every day counts as 24 hours, also a day on which clocks change."""


@dataclass(frozen=True)
class RateSpan:
    """Consecutive hours of a week with one rate; the last span of a week may reach into the next week."""

    start: int
    """First hour, from Monday 0:00 on."""
    hours: int
    requests_per_second: str
    """The rate as written in the spec."""

    @property
    def day(self) -> Weekday:
        """Weekday of the first hour."""
        return WEEKDAYS[self.start // 24]

    @property
    def hour(self) -> int:
        """Hour of the first hour, 0 to 23."""
        return self.start % 24

    def __str__(self) -> str:
        return f"{self.day} {self.hour:02d}:00"


@dataclass(frozen=True)
class WeekLoad:
    """The rates of a week."""

    zone: ZoneInfo
    rates: tuple[str, ...]
    """Requests per second of each hour from Monday 0:00 on, as written in the spec, shape (168,)."""

    @classmethod
    def of(cls, workload: WorkloadSpec) -> WeekLoad:
        """Return the week of a workload with a profile.

        A profile whose hours are in a ConfigMap has the base rate in every hour until the list is read.

        Raises:
            ValueError: There is no profile, or no base rate.
        """
        profile, base = workload.profile, workload.requests_per_second
        if profile is None or base is None:
            raise ValueError("a week needs workload.profile and workload.requestsPerSecond")
        rates = [base] * HOURS
        for entry in profile.hours or ():
            for day in entry.days:
                first = 24 * WEEKDAYS.index(day)
                for hour in range(first + entry.from_hour, first + entry.to_hour):
                    rates[hour] = entry.requests_per_second
        return cls(ZoneInfo(profile.time_zone), tuple(rates))

    @cached_property
    def spans(self) -> tuple[RateSpan, ...]:
        """The hours in spans of equal rates, ordered by first hour; one span if the load is constant."""
        values = [parse_quantity(rate) for rate in self.rates]
        starts = [hour for hour in range(HOURS) if values[hour] != values[hour - 1]] or [0]
        ends = [*starts[1:], starts[0] + HOURS]
        return tuple(RateSpan(start, end - start, self.rates[start]) for start, end in zip(starts, ends, strict=True))

    @property
    def peak(self) -> RateSpan:
        """The first span of the highest rate."""
        return max(self.spans, key=lambda span: parse_quantity(span.requests_per_second))

    @property
    def peak_text(self) -> str:
        """The highest rate in words: ``Mon 09:00, 40 requests per second``."""
        return f"{self.peak}, {self.peak.requests_per_second} requests per second"

    def hour_at(self, moment: datetime) -> int:
        """Return the hour of the week of a moment, by the clock of the time zone."""
        local = moment.astimezone(self.zone)
        return 24 * local.weekday() + local.hour

    def hours_from(self, moment: datetime) -> Iterator[datetime]:
        """Yield the moment, then without end the starts of all later hours of the local clock, in its zone.

        If a clock changes by less than an hour, a yielded start may lie within an hour, so that no hour is skipped.
        """
        yield moment
        while True:
            local = moment.astimezone(self.zone)
            past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
            moment = moment + timedelta(hours=1) - past
            yield moment


def at_rate(deployment: LLMDeployment, requests_per_second: str) -> LLMDeployment:
    """Return the deployment with a constant load in place of its profile."""
    spec = deployment.spec
    update = {"requests_per_second": requests_per_second, "profile": None}
    workload = spec.workload.model_copy(update=update)
    return deployment.model_copy(update={"spec": spec.model_copy(update={"workload": workload, "scaling": None})})


def at_peak(deployment: LLMDeployment) -> LLMDeployment:
    """Return the deployment with the highest rate of its profile as a constant load; as it is without a profile."""
    workload = deployment.spec.workload
    if workload.profile is None:
        return deployment
    return at_rate(deployment, WeekLoad.of(workload).peak.requests_per_second)
