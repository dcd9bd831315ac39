"""When to start a job, so that its energy causes the least carbon or costs least, and it ends in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from energylens.budget.hourly import HourlyValues
from energylens.records import dataclass

MIN_GAIN = 0.02
"""Share of the weighted energy by which another start must be better than the planned one. A move costs nothing, but
clients wait for the planned time, which therefore must not change with the noise of forecasts."""
_JOULES_PER_KILOWATT_HOUR = 3.6e6
QUARTER_SECONDS = 900
"""Slots in which budgets reserve power for jobs."""
Starts = npt.NDArray[np.int64]
"""Starts in seconds since the Unix epoch."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Phase:
    """A part of a job with constant power."""

    seconds: int
    watts: float


@dataclass(frozen=True)
class StartChoice:
    """The best start of a job within the time that its values cover."""

    start: datetime
    """A whole second."""
    amount: float
    """Energy times value: grams for g/kWh, or a price."""
    at_once: float | None
    """The same for the earliest start; None if values do not cover it."""
    until: datetime
    """Latest start that was compared."""


def best_start(
    phases: Sequence[Phase],
    earliest: datetime,
    latest: datetime,
    values: HourlyValues,
    planned: datetime | None = None,
    allowed: Callable[[Starts], npt.NDArray[np.bool_]] | None = None,
    lengths: Sequence[int] = (),
) -> StartChoice | None:
    """Return the whole second at which a job starts best, the earliest of equal ones; None if no start is covered.

    The weighted energy is piecewise linear in the start, with bends where a phase begins or ends together with a value,
    so that one of these moments, or an end of the allowed time, is exactly the best. If not all starts are
    allowed, the ends of the quarters of an hour of the start and of the end are compared as well.

    Args:
        phases: The job, from the start of its pods on; the values must cover all of it.
        earliest: The job may start from here on.
        latest: The last start that ends in time, no earlier than ``earliest``.
        values: Grams or prices per kilowatt-hour.
        planned: A start that was planned before. It is kept unless another one is better by ``MIN_GAIN``.
        allowed: Function from starts, in seconds since the Unix epoch, shape (m,), to whether they are allowed; None if
            all are.
        lengths: Seconds after the start at which reservations end, which therefore bound the allowed starts.
    """
    length = sum(phase.seconds for phase in phases)
    first = max(_up(earliest), _up(values.times[0]))
    last = min(_down(latest), _down(values.end) - length)
    if last < first:
        return None
    edges = np.array([_seconds(time) for time in (*values.times, values.end)])
    offsets = np.cumsum([0, *(phase.seconds for phase in phases)])
    bends = (edges[:, None] - offsets[None, :]).ravel()
    # Values may begin within a second.
    starts = np.unique(np.concatenate([np.floor(bends), np.ceil(bends), [first, last]]).astype(np.int64))
    starts = starts[(starts >= first) & (starts <= last)]
    if allowed is not None:
        quarters = np.arange(first // QUARTER_SECONDS, last // QUARTER_SECONDS + 2) * QUARTER_SECONDS
        ends = [quarters - length % QUARTER_SECONDS for length in lengths]
        more = np.concatenate([starts, quarters, quarters - 1, *ends])
        starts = np.unique(more[(more >= first) & (more <= last)])
        starts = starts[allowed(starts)]
        if not starts.size:
            return None
    amounts = _amounts(phases, starts, edges, np.asarray(values.values))
    least = float(amounts.min())
    best = int(np.flatnonzero(amounts <= least + 1e-9 * max(abs(least), 1e-12))[0])
    start, amount = int(starts[best]), float(amounts[best])
    kept = first - 1 if planned is None else _up(planned)
    if first <= kept <= last and (allowed is None or allowed(np.array([kept]))[0]):
        before = float(_amounts(phases, np.array([kept]), edges, np.asarray(values.values))[0])
        if before - amount <= MIN_GAIN * max(abs(before), abs(amount)):
            start, amount = kept, before
    covered = _up(earliest) >= _up(values.times[0])
    return StartChoice(
        start=_moment(start),
        amount=amount,
        at_once=float(_amounts(phases, np.array([first]), edges, np.asarray(values.values))[0]) if covered else None,
        until=_moment(last),
    )


def _amounts(
    phases: Sequence[Phase],
    starts: npt.NDArray[np.int64],
    edges: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the weighted energy of each start, shape (n,), kWh times value."""
    # The integral of the values from the first edge to each edge.
    whole = np.concatenate([[0.0], np.cumsum(values * np.diff(edges))])
    total, at = np.zeros(starts.shape), starts.astype(np.float64)
    for phase in phases:
        until = at + phase.seconds
        total += phase.watts * (np.interp(until, edges, whole) - np.interp(at, edges, whole))
        at = until
    return total / _JOULES_PER_KILOWATT_HOUR


def _seconds(moment: datetime) -> float:
    return (moment - _EPOCH) / timedelta(seconds=1)


def _up(moment: datetime) -> int:
    return math.ceil(_seconds(moment))


def _down(moment: datetime) -> int:
    return math.floor(_seconds(moment))


def _moment(seconds: int) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)
