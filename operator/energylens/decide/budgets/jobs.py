"""Batch jobs that count against a budget: power from their start to their end, and energy in each period. Pure.

A job ends, unlike any other load. It therefore reserves power for the quarters of an hour in which it runs, and energy
in the periods in which it runs. A job that is late counts like any other load.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from energylens.budget.course import Course
from energylens.budget.periods import Span
from energylens.budget.usage import JobEnergy
from energylens.records import dataclass

QUARTER_SECONDS = 900
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Watts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CountedJob:
    """A job that counts against a budget."""

    name: str
    """``namespace/name``."""
    course: Course
    by_plan: Course
    """The same with the start that the plan assumes, whatever was measured."""
    start: datetime | None
    """Creation of its pods, or the planned time of it; None: they are created as soon as possible."""
    has_begun: bool
    """Whether the pods exist."""
    part: float
    """The part of its power that counts against the budget."""
    busy_watts: float
    """Power that counts while the job runs, W."""
    committed_watts: float
    """Power that counts now, W."""
    counted_until: datetime | None = None
    """Time up to which its energy is in the ledger; None if it is not in it."""

    def begin(self, now: datetime) -> datetime:
        """Return when the pods were created, or will be; not after now if they exist, whatever the status says."""
        if self.has_begun and self.start is not None:
            return min(self.start, now)
        return now if self.start is None else max(self.start, now)

    def is_late(self, now: datetime) -> bool:
        """Return whether the job should have ended, so that nobody knows its end."""
        return seconds_of(now) >= seconds_of(self.begin(now)) + self.course.reserved_seconds

    def quarters(self, now: datetime) -> tuple[int, int, int]:
        """Return the first quarter of an hour in which the job runs, and those after its last answer and its end."""
        begin = seconds_of(self.begin(now))
        done, end = begin + self.course.longest_seconds, begin + self.course.reserved_seconds
        return int(begin // QUARTER_SECONDS), int(-(-done // QUARTER_SECONDS)), int(-(-end // QUARTER_SECONDS))

    def watt_hours(
        self, now: datetime, times: npt.NDArray[np.float64], since: datetime | None = None
    ) -> npt.NDArray[np.float64]:
        """Return the energy to each time that is not in the ledger, Wh, shape (n,).

        Measurements come late: energy of the last minutes counts as energy that the job still takes. A job whose
        requests should be done draws its power until it is late: its pods would not exist otherwise.

        Args:
            now: The current time.
            times: Seconds since the Unix epoch, not before ``now``, shape (n,).
            since: Begin of the period; energy before does not count.
        """
        begin, course = seconds_of(self.begin(now)), self.course
        present = seconds_of(now) - begin
        counted = [0.0, *(seconds_of(time) - begin for time in (self.counted_until, since) if time is not None)]
        offsets = np.concatenate([[min(present, max(counted)) if self.has_begun else present], times - begin])
        edges = np.cumsum([0.0, *(phase.seconds for phase in course.phases)])
        joules = np.cumsum([0.0, *(phase.seconds * phase.watts for phase in course.phases)])
        whole = np.interp(offsets, edges, joules)
        if present >= course.end_seconds and not course.idle_watts:
            whole = course.busy_watts * np.minimum(offsets, course.longest_seconds)
        return np.asarray(self.part * (whole[1:] - whole[0]) / 3600.0)


def late_watts(jobs: Iterable[CountedJob], now: datetime) -> float:
    """Return the power of the jobs that are late, W."""
    return sum(job.busy_watts for job in jobs if job.is_late(now))


def peak_watts(jobs: Collection[CountedJob], now: datetime) -> float:
    """Return the most that jobs reserve together in any quarter of an hour, W."""
    timed = [job for job in jobs if not job.is_late(now)]
    spans = [job.quarters(now) for job in timed]
    place = {time: index for index, time in enumerate(sorted({edge for span in spans for edge in span}))}
    change = np.zeros(len(place))
    for job, (first, done, end) in zip(timed, spans, strict=True):
        idle = job.part * job.course.idle_watts
        change[place[first]] += job.busy_watts
        change[place[done]] += idle - job.busy_watts
        change[place[end]] -= idle
    return late_watts(jobs, now) + float(np.cumsum(change).max(initial=0.0))


def watts_by_quarter(jobs: Iterable[CountedJob], now: datetime, first: int, count: int) -> Watts:
    """Return the power that jobs reserve in quarters of an hour, W, shape (count,).

    Args:
        jobs: The jobs.
        now: The current time.
        first: First quarter, in quarters since the Unix epoch.
        count: Number of quarters.
    """
    found = np.zeros(count)
    for job in jobs:
        begin, done, end = job.quarters(now)
        if job.is_late(now):
            found += job.busy_watts
            continue
        found[_clip(begin, first, count) : _clip(done, first, count)] += job.busy_watts
        found[_clip(done, first, count) : _clip(end, first, count)] += job.part * job.course.idle_watts
    return found


def energy_by_period(jobs: Iterable[CountedJob], periods: tuple[Span, ...], now: datetime) -> Watts:
    """Return the energy that jobs take in each period, without those that are late, Wh, shape (n,).

    Args:
        jobs: The jobs.
        periods: Periods from the present one on.
        now: The current time.
    """
    ends = np.asarray([seconds_of(period.end) for period in periods])
    start = periods[0].start
    timed = [job.watt_hours(now, ends, start) for job in jobs if not job.is_late(now)]
    return np.diff(np.sum(timed, axis=0), prepend=0.0) if timed else np.zeros(len(periods))


def energy_of(jobs: Collection[CountedJob], periods: tuple[Span, ...], now: datetime) -> JobEnergy:
    """Return the energy that jobs will take in each period; those that are late count as power without an end.

    Args:
        jobs: The jobs.
        periods: Periods from the present one on, which the jobs do not outlast.
        now: The current time.
    """
    found = energy_by_period(jobs, periods, now).tolist()
    hours = (period.hours for period in periods)
    later = tuple((length, energy) for length, energy in zip(hours, found, strict=True) if energy > 0)
    watts = sum(job.committed_watts for job in jobs if not job.is_late(now))
    return JobEnergy(found[0], later[1:] if found[0] > 0 else later, watts)


def last_end(jobs: Iterable[CountedJob], now: datetime) -> float:
    """Return when the last of some jobs ends, in seconds since the Unix epoch; ``now`` if none has an end."""
    present = seconds_of(now)
    return max((seconds_of(job.begin(now)) + job.course.reserved_seconds for job in jobs), default=present)


def seconds_of(moment: datetime) -> float:
    """Return the seconds since the Unix epoch."""
    return (moment - _EPOCH) / timedelta(seconds=1)


def _clip(quarter: int, first: int, count: int) -> int:
    return min(max(quarter - first, 0), count)
