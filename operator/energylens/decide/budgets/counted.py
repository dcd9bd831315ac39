"""Power of deployments that counts against a budget: now, and reserved in each hour of the week. Pure.

Replicas that follow the hours of a week reserve the power of each hour, a batch job that of the hours from its start to
its end, and every other plan its power in all hours. Hours are counted in quarters, since time zones differ from UTC by
quarters of an hour, and since replicas start early.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from energylens.api.energybudget import EnergyBudgetSpec
from energylens.budget.periods import Span, periods_from
from energylens.budget.usage import NO_JOBS, JobEnergy
from energylens.decide.budgets.jobs import (
    QUARTER_SECONDS,
    CountedJob,
    energy_of,
    last_end,
    late_watts,
    peak_watts,
    seconds_of,
    watts_by_quarter,
)
from energylens.decide.budgets.membership import Surroundings, is_member, share
from energylens.decide.planned import HOURS, PlannedDeployment, WeekWatts
from energylens.records import dataclass

QUARTERS = 4 * HOURS
"""Quarters of an hour in a week."""
_QUARTER = timedelta(minutes=15)
_YEAR = tuple(timedelta(weeks=week) for week in range(53))
"""Time zones change their clocks a week apart or more, such as Europe and America in October and November."""
Slots = npt.NDArray[np.float64]
"""Power of each quarter of an hour, from Monday 0:00 on, W, shape (672,)."""


@dataclass(frozen=True)
class CountedWatts:
    """Power that counts against a budget, W."""

    committed: float
    """By plans as they are now."""
    constant: float
    """Reserved in every hour, so that no other plan may use it."""
    weeks: Mapping[str, Slots] = field(default_factory=dict)
    """Reserved by the hour, by the time zone of the hours."""
    jobs: tuple[CountedJob, ...] = ()
    """Batch jobs, which reserve power from their start to their end."""

    def reserved(self, now: datetime) -> float:
        """Return the most that is reserved in any hour, W."""
        return self.constant + self._weekly(now) + peak_watts(self.jobs, now)

    def steady(self, now: datetime) -> float:
        """Return the most that is reserved in any hour by deployments whose end is not known, W."""
        return self.constant + self._weekly(now) + late_watts(self.jobs, now)

    def at_quarters(self, now: datetime, first: int, count: int) -> Slots:
        """Return the power that is reserved in quarters of an hour, W, shape (count,).

        Args:
            now: The current time.
            first: First quarter, in quarters since the Unix epoch.
            count: Number of quarters.
        """
        found = self.constant + watts_by_quarter(self.jobs, now, first, count)
        if self.weeks:
            monday = int(seconds_of(datetime(1970, 1, 5, tzinfo=UTC))) // QUARTER_SECONDS
            found = found + self._hourly("UTC", now)[np.arange(first - monday, first - monday + count) % QUARTERS]
        return np.asarray(found)

    def energy(self, spec: EnergyBudgetSpec, period: Span, now: datetime) -> JobEnergy:
        """Return the energy that the jobs will take in each period of a budget."""
        if not self.jobs:
            return NO_JOBS
        hours = (last_end(self.jobs, now) - seconds_of(period.start)) / 3600.0
        return energy_of(self.jobs, periods_from(spec.period, ZoneInfo(spec.time_zone), period, hours), now)

    def _weekly(self, now: datetime) -> float:
        return float(self._hourly("UTC", now).max()) if self.weeks else 0.0

    def by_slot(self, zone: str, now: datetime) -> Slots:
        """Return the power reserved in each quarter of an hour of a time zone's week, W.

        Zones change their clocks at different times: the result is the most that coincides in any week of a year, so
        that no plan depends on the date.
        """
        return self.constant + peak_watts(self.jobs, now) + self._hourly(zone, now)

    def _hourly(self, zone: str, now: datetime) -> Slots:
        here, others = ZoneInfo(zone), [ZoneInfo(other) for other in self.weeks]
        moments = [now + later for later in _YEAR]
        shifts = {tuple(_offset(here, moment) - _offset(other, moment) for other in others) for moment in moments}
        most = np.zeros(QUARTERS)
        for shift in shifts:
            rolled = (np.roll(slots, ahead) for slots, ahead in zip(self.weeks.values(), shift, strict=True))
            most = np.maximum(most, sum(rolled, np.zeros(QUARTERS)))
        return most


NO_WATTS = CountedWatts(0.0, 0.0)


def summed(found: Iterable[CountedWatts]) -> CountedWatts:
    """Return the power of several deployments together."""
    committed, constant = 0.0, 0.0
    weeks: dict[str, Slots] = {}
    jobs: list[CountedJob] = []
    for each in found:
        jobs += each.jobs
        committed, constant = committed + each.committed, constant + each.constant
        for zone, slots in each.weeks.items():
            weeks[zone] = weeks[zone] + slots if zone in weeks else slots
    return CountedWatts(committed, constant, weeks, tuple(jobs))


def counted_watts(
    spec: EnergyBudgetSpec, namespace: str, deployment: PlannedDeployment, around: Surroundings
) -> CountedWatts | None:
    """Return the power of a deployment that counts against a budget; None if it is no member.

    Args:
        spec: The budget's.
        namespace: The budget's; "" for a ClusterEnergyBudget.
        deployment: With the plan that it adopted.
        around: Namespaces and nodes.
    """
    if not is_member(spec, namespace, deployment, around):
        return None
    part, committed, week = share(spec, deployment, around), deployment.committed_watts, deployment.reserved_week
    job = counted_job(deployment, part)
    if job is not None:
        return CountedWatts(committed * part, 0.0, jobs=(job,))
    if week is None:
        return CountedWatts(committed * part, deployment.reserved_watts * part)
    return CountedWatts(committed * part, 0.0, {week.time_zone: part * slots_of(week)})


def counted_job(deployment: PlannedDeployment, part: float) -> CountedJob | None:
    """Return the batch job of a deployment as it counts; None if it has none, or reserves nothing.

    Args:
        deployment: With the plan that it adopted.
        part: The part of its power that counts.
    """
    job, watts = deployment.job, deployment.reserved_watts
    if job is None or not watts:
        return None
    committed = part * deployment.committed_watts
    return CountedJob(
        deployment.owner, job.course, job.by_plan, job.start, job.has_begun, part, part * watts, committed
    )


def slots_of(week: WeekWatts) -> Slots:
    """Return the power of a week by quarters of an hour; a quarter in which replicas start for the next has theirs."""
    slots = np.repeat(np.asarray(week.watts, dtype=np.float64), 4)
    found = slots
    for ahead in range(1, quarters_ahead(week.lead_seconds) + 1):
        found = np.maximum(found, np.roll(slots, -ahead))
    return found


def quarters_ahead(lead_seconds: float) -> int:
    """Return the quarters of an hour before an hour in which its replicas start."""
    return min(QUARTERS - 1, -int(-lead_seconds // _QUARTER.total_seconds()))


def _offset(zone: ZoneInfo, moment: datetime) -> int:
    """Return the quarters by which the clock of a time zone is ahead of UTC."""
    offset = moment.astimezone(zone).utcoffset() or timedelta(0)
    return round(offset / _QUARTER)
