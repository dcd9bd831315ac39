"""Time, power and energy that budgets leave a batch job, and whether a job fits.

A job starts once and ends. It fits if budgets leave its power in every quarter of an hour from its start to its end,
the latter with a throughput that is lower than predicted by the headroom, and its energy in every period that it
touches.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import field, replace
from functools import lru_cache

import numpy as np

from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass

QUARTER = 900
"""Seconds of the slots in which power is reserved."""
LOOK_AHEAD = 7 * 24 * 3600
"""Time in which a free start is looked for, to name it in a message, s."""
MOST_WAIT = 28 * 24 * 3600
"""Time after the earliest start in which starts are compared with budgets, s."""
_LONG_AGO = 10**9
"""Length that the present period has, whose begin does not matter, s."""
_FEW = 8
"""Periods of a run that are all looked at."""
WATT_HOUR = 1e-6
"""Energy below which differences count as zero, Wh."""


@dataclass(frozen=True)
class Courses:
    """Planned courses of n jobs from the creation of their pods on, arrays of shape (n,)."""

    start_seconds: FloatArray
    start_watts: FloatArray
    serving_seconds: FloatArray
    watts: FloatArray
    idle_seconds: FloatArray
    idle_watts: FloatArray
    longest_seconds: FloatArray
    """Until the last answer if the throughput is lower than predicted by the headroom, s."""

    @property
    def seconds(self) -> FloatArray:
        """Time for which power is reserved, s."""
        whole: FloatArray = self.start_seconds + self.serving_seconds + self.idle_seconds
        return np.maximum(whole, self.longest_seconds)

    def watt_hours(self, offset: FloatArray | float) -> FloatArray:
        """Return the energy up to a time after the creation of the pods, Wh; 0 before."""
        total, left = np.zeros(self.watts.shape), np.maximum(np.full(self.watts.shape, offset), 0.0)
        for seconds, watts in (
            (self.start_seconds, self.start_watts),
            (self.serving_seconds, self.watts),
            (self.idle_seconds, self.idle_watts),
        ):
            total += np.minimum(left, seconds) * watts
            left = np.maximum(left - seconds, 0.0)
        return total / 3600.0


@dataclass(frozen=True)
class _Run:
    """Consecutive periods of equal length that leave equal energy."""

    begin: int
    """Begin of the first of them, s since the Unix epoch."""
    seconds: int
    count: int
    left: float
    """Energy left in each of them, Wh."""

    @property
    def end(self) -> int:
        """End of the last of them."""
        return self.begin + self.count * self.seconds


@lru_cache(maxsize=256)
def _runs(ends: tuple[int, ...], left: tuple[float, ...]) -> tuple[_Run, ...]:
    """Return the runs of periods, from their ends; the begin of the first one is long ago."""
    found = [_Run(ends[0] - _LONG_AGO, _LONG_AGO, 1, left[0])] if ends else []
    for begin, end, watt_hours in zip(ends, ends[1:], left[1:], strict=False):
        before = found[-1]
        if len(found) > 1 and before.seconds == end - begin and before.left == watt_hours:
            found[-1] = replace(before, count=before.count + 1)
        else:
            found.append(_Run(begin, end - begin, 1, watt_hours))
    return tuple(found)


def _between(courses: Courses, since: FloatArray | float, until: FloatArray | float) -> FloatArray:
    return np.asarray(courses.watt_hours(until) - courses.watt_hours(since))


def _worst_periods(courses: Courses, offset: float, seconds: int, count: int) -> list[FloatArray | int]:
    """Return numbers of the periods of a run among which is the one that takes most energy.

    The power of a job rises once and falls once, so that this is the first or the last period, or one at the begin or
    the end of the requests.

    Args:
        courses: The jobs.
        offset: Begin of the run after the creation of the pods, s.
        seconds: Length of a period.
        count: Number of periods.
    """
    if count <= _FEW:
        return list(range(count))
    begin = np.nan_to_num(courses.start_seconds)
    done = begin + np.nan_to_num(courses.serving_seconds)
    near = [np.floor((edge - offset) / seconds) + shift for edge in (begin, done) for shift in (-1, 0, 1)]
    return [0, count - 1, *(np.clip(number, 0, count - 1) for number in near)]


@dataclass(frozen=True)
class EnergyRoom:
    """Energy that one budget leaves a job in each of its periods."""

    field: str
    """The limit, as messages name it: ``EnergyBudget team/cap: spec.energyWattHours``."""
    limit_watt_hours: int | None
    """Value of the field, Wh; None if the energy follows from another figure."""
    ends: tuple[int, ...]
    """End of each period from the present one on, s since the Unix epoch."""
    left_watt_hours: tuple[float, ...]
    """Energy left in each period, infinite where it is not limited."""

    def in_steps(self) -> list[int | None]:
        """Return the energy left in each period in steps of a hundredth of the limit; None where it is not limited."""
        step = max(1.0, (self.limit_watt_hours or 0) / 100.0)
        return [int(left // step) if np.isfinite(left) else None for left in self.left_watt_hours]

    @property
    def runs(self) -> tuple[_Run, ...]:
        """The periods, with those of equal length that leave equal energy together; the first one stands alone."""
        return _runs(self.ends, self.left_watt_hours)

    def excess(self, courses: Courses, start: float, now: float) -> FloatArray:
        """Return the most energy above what is left in any period, Wh, shape (n,); negative if there is some left."""
        worst = np.full(courses.watts.shape, -np.inf)
        begin = max(start, now)
        last = start + float(np.nan_to_num(courses.seconds).max(initial=0.0))
        for run in self.runs:
            if run.end <= begin or run.begin >= last:
                continue
            first, count = run.begin, run.count
            if begin >= first:
                # The period in which the job begins, or is now.
                gone = int((begin - first) // run.seconds) + 1
                first, count = first + gone * run.seconds, count - gone
                worst = np.maximum(worst, _between(courses, begin - start, first - start) - run.left)
            for number in _worst_periods(courses, first - start, run.seconds, count):
                since = first - start + number * run.seconds
                worst = np.maximum(worst, _between(courses, since, since + run.seconds) - run.left)
        return worst

    def suffices(self, courses: Courses, starts: IntArray, now: float) -> BoolArray:
        """Return at which starts there is enough energy for one job, shape (m,)."""
        ends, left = np.asarray([*self.ends, np.inf]), np.asarray([*self.left_watt_hours, np.inf])
        fits, since = np.ones(starts.shape, dtype=bool), np.maximum(starts, now).astype(np.float64)
        whole, period = float(courses.seconds[0]), np.searchsorted(ends, since, side="right")
        while True:
            until = np.minimum(ends[np.minimum(period, ends.size - 1)], starts + whole)
            taken = _taken(courses, until - starts) - _taken(courses, since - starts)
            fits &= taken <= left[np.minimum(period, ends.size - 1)] + WATT_HOUR
            if (until >= starts + whole).all():
                return fits
            since, period = until, period + 1


def _taken(courses: Courses, offsets: FloatArray) -> FloatArray:
    """Return the energy of one job up to times after the creation of its pods, Wh, shape (m,)."""
    seconds = [float(each[0]) for each in (courses.start_seconds, courses.serving_seconds, courses.idle_seconds)]
    watts = [float(each[0]) for each in (courses.start_watts, courses.watts, courses.idle_watts)]
    joules = np.cumsum([0.0, *(length * power for length, power in zip(seconds, watts, strict=True))])
    return np.asarray(np.interp(offsets, np.cumsum([0.0, *seconds]), joules) / 3600.0)


@dataclass(frozen=True)
class Holder:
    """A job that reserves power of the same budget."""

    name: str
    """``namespace/name``."""
    first: int
    """First quarter of an hour, in quarters since the Unix epoch."""
    end: int
    watts: int
    until_deleted: bool = False
    """Whether the job is late, so that nobody knows its end."""


@dataclass(frozen=True)
class Fit:
    """How n jobs fit, arrays of shape (n,)."""

    left_watts: FloatArray
    """Power that a job may draw at the allowed start that leaves most, W."""
    excess_watt_hours: tuple[FloatArray, ...]
    """By budget of energy, Wh: energy above what is left at the best allowed start. Only starts with enough power, and
    enough energy of the budgets before, count, unless there is none."""
    together: BoolArray
    """Whether at some allowed start there is enough power and enough energy."""

    @property
    def energy(self) -> tuple[BoolArray, ...]:
        """Whether each budget of energy has enough at the best allowed start."""
        return tuple(excess <= WATT_HOUR for excess in self.excess_watt_hours)


@dataclass(frozen=True)
class JobRoom:
    """What budgets leave one job over time; times are seconds since the Unix epoch."""

    now: int
    earliest: int
    """The earliest start; of a job whose pods exist, their creation."""
    complete_by: int | None = None
    """Time by which the last answer must be there; None if the job starts at ``earliest`` and at no other time."""
    has_begun: bool = False
    quarters: tuple[int, ...] = ()
    """Quarters of an hour since the Unix epoch at which the power left changes, ascending; empty without a limit."""
    watts: tuple[float, ...] = ()
    """Power left from each of these quarters on, W."""
    energy: tuple[EnergyRoom, ...] = ()
    holders: tuple[Holder, ...] = field(default=(), compare=False)
    """Jobs that hold power."""

    @property
    def most_watts(self) -> float:
        """The most power that is left at any time, W; infinite without a limit."""
        return max(self.watts, default=np.inf)

    def within(self, watts: float) -> JobRoom:
        """Return the room under a further limit of power, W."""
        if not self.quarters:
            return replace(self, quarters=(min(self.earliest, self.now) // QUARTER,), watts=(watts,))
        return replace(self, watts=tuple(min(watts, left) for left in self.watts))

    def document(self) -> list[object]:
        """Return what a plan depends on, as plain values that change at most every quarter of an hour.

        The plan of a job that runs does not depend on what becomes free.
        """
        if self.has_begun:
            return ["runs"]
        power = list(zip(self.quarters, self.watts, strict=True))
        energy = [[each.field, each.in_steps()] for each in self.energy]
        return [self.earliest // QUARTER, self.complete_by, power, energy]

    def fit(self, courses: Courses) -> Fit:
        """Return which jobs fit at some allowed start."""
        shape = courses.watts.shape
        left, together = np.full(shape, -np.inf), np.zeros(shape, dtype=bool)
        alone, after = ([np.full(shape, np.inf) for _ in self.energy] for _ in range(2))
        hopeless = ~(courses.watts <= self.most_watts)
        for start in self._starts(courses):
            allowed = self._may_start(courses, start)
            most = np.where(allowed, self._left_watts(courses, start), -np.inf)
            left, enough = np.fmax(left, most), courses.watts <= most
            for number, room in enumerate(self.energy):
                excess = room.excess(courses, start, self.now)
                alone[number] = np.fmin(alone[number], np.where(allowed, excess, np.inf))
                after[number] = np.fmin(after[number], np.where(enough, excess, np.inf))
                enough = enough & (excess <= WATT_HOUR)
            together |= enough
            if (together | hopeless).all():
                break
        best = tuple(np.where(np.isfinite(then), then, ever) for then, ever in zip(after, alone, strict=True))
        return Fit(left, best, together)

    def fits_at(self, courses: Courses, starts: IntArray) -> BoolArray:
        """Return at which starts one job fits, shape (m,).

        Args:
            courses: One job.
            starts: Seconds since the Unix epoch, shape (m,).
        """
        fits = self._powered(courses, starts)
        for room in self.energy:
            fits &= room.suffices(courses, starts, self.now)
        return fits

    def first_fit(self, courses: Courses, after: int, until: int | None = None) -> int | None:
        """Return the first start of one job, at a quarter of an hour, at which the job fits; None if there is none.

        Args:
            courses: One job.
            after: The first start to try, s since the Unix epoch.
            until: The last start to try; None for a week later.
        """
        last = after + LOOK_AHEAD if until is None else min(until, after + MOST_WAIT)
        starts = np.asarray([after, *_quarters_between(after, last)], dtype=np.int64)
        fitting = np.flatnonzero(self.fits_at(courses, starts))
        return int(starts[fitting[0]]) if fitting.size else None

    def _powered(self, courses: Courses, starts: IntArray) -> BoolArray:
        """Return at which starts there is enough power for one job, shape (m,)."""
        if not self.quarters:
            return np.ones(starts.shape, dtype=bool)
        watts, idle = float(courses.watts[0]), float(courses.idle_watts[0]) if courses.idle_seconds[0] > 0 else 0.0
        begin = np.maximum(starts, self.now) // QUARTER
        done, end = (
            np.maximum(np.ceil((starts + float(seconds[0])) / QUARTER).astype(np.int64), begin)
            for seconds in (courses.longest_seconds, courses.seconds)
        )
        first = min(int(begin.min()), self.quarters[0])
        last = max(int(end.max()), self.quarters[-1] + 1)
        left = np.repeat(self.watts, np.diff([first, *self.quarters[1:], last]))

        def lacks(needed: float, since: IntArray, until: IntArray) -> IntArray:
            count = np.concatenate([[0], np.cumsum(left < needed)])
            return np.asarray(count[until - first] - count[since - first])

        return np.asarray((lacks(watts, begin, done) == 0) & (lacks(idle, done, end) == 0))

    def _starts(self, courses: Courses) -> tuple[int, ...]:
        """Return the starts to try: of power and of its reservation, only the quarter of an hour matters."""
        if self.complete_by is None or self.has_begun:
            return (self.earliest,)
        finite = courses.longest_seconds[np.isfinite(courses.longest_seconds)]
        if not finite.size:
            return (self.earliest,)
        last = min(self.complete_by - int(finite.min()), self.earliest + MOST_WAIT)
        return _distinct_starts(self, last, QUARTER * int(np.nan_to_num(courses.seconds).max() // QUARTER + 1))

    def _may_start(self, courses: Courses, start: int) -> BoolArray:
        """Return which jobs end in time with a start; a job that cannot starts at the earliest one."""
        if self.complete_by is None or start == self.earliest:
            return np.ones(courses.watts.shape, dtype=bool)
        return np.asarray(start + courses.longest_seconds <= self.complete_by)

    def _left_watts(self, courses: Courses, start: int) -> FloatArray:
        """Return the power that each job may draw with a start, W: idle GPUs may need less than is left."""
        if not self.quarters:
            return np.full(courses.watts.shape, np.inf)
        # The least that is left from the start up to each change, and up to each job's end.
        index = int(np.searchsorted(self.quarters, max(start, self.now) // QUARTER, side="right")) - 1
        changes = np.asarray(self.quarters[max(index, 0) :])
        least = np.minimum.accumulate(self.watts[max(index, 0) :])

        def up_to(seconds: FloatArray) -> FloatArray:
            end = np.ceil((start + np.nan_to_num(seconds)) / QUARTER)
            return np.asarray(least[np.maximum(np.searchsorted(changes, end, side="left") - 1, 0)])

        idle = np.where(courses.idle_seconds > 0, courses.idle_watts, 0.0)
        return np.minimum(up_to(courses.longest_seconds), up_to(courses.seconds) + courses.watts - idle)


def _quarters_between(first: int, last: int) -> range:
    """Return the quarters of an hour after one time and up to another, s since the Unix epoch."""
    return range((first // QUARTER + 1) * QUARTER, last + 1, QUARTER)


@lru_cache(maxsize=64)
def _distinct_starts(room: JobRoom, last: int, seconds: int) -> tuple[int, ...]:
    """Return the earliest start and the quarters of an hour up to ``last`` at which budgets leave something else.

    Args:
        room: The room.
        last: The last start.
        seconds: Time for which the longest job reserves power, s.
    """
    seen: set[tuple[object, ...]] = set()
    found = []
    for start in (room.earliest, *_quarters_between(room.earliest, last)):
        first = max(bisect_right(room.quarters, start // QUARTER) - 1, 0)
        until = bisect_left(room.quarters, -(-(start + seconds) // QUARTER))
        changes = zip(room.quarters[first + 1 : until], room.watts[first + 1 : until], strict=True)
        key: list[object] = [room.watts[first : first + 1]]
        key += [(quarter - start // QUARTER, watts) for quarter, watts in changes]
        key += [_seen_of(run, start, start + seconds) for energy in room.energy for run in energy.runs]
        if (known := tuple(key)) not in seen:
            seen.add(known)
            found.append(start)
    return tuple(found)


def _seen_of(run: _Run, start: int, end: int) -> tuple[float, ...]:
    """Return what a job that reserves power from ``start`` to ``end`` depends on in a run of periods."""
    if run.end <= start or run.begin >= end:
        return ()
    if run.begin > start:
        return run.begin - start, run.seconds, run.left, min(run.end, end) - start
    ends = (run.begin - start) % run.seconds or run.seconds
    # Within one period it does not matter when the period ends.
    return (run.left,) if ends >= end - start else (ends, run.seconds, run.left, min(run.end, end) - start)
