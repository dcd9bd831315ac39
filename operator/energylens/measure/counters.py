"""Reset-aware accumulation and interpolation of counters. Times in seconds, energies in joules."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from energylens.measure.types import Sample
from energylens.records import dataclass

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Track:
    """A counter without its resets: what was counted since the first sample. Arrays of shape (n,), n >= 1."""

    times: FloatArray
    """Strictly ascending."""
    total: FloatArray
    """Starts at 0, never falls."""
    lost: FloatArray
    """Upper bound, per sample, of what was lost uncounted since the previous sample."""

    @property
    def first(self) -> float:
        """Time of the first sample."""
        return float(self.times[0])

    @property
    def last(self) -> float:
        """Time of the last sample."""
        return float(self.times[-1])

    def at(self, times: float | FloatArray) -> FloatArray:
        """Return the total at ``times`` by linear interpolation; held constant outside the samples."""
        return np.asarray(np.interp(times, self.times, self.total), dtype=np.float64)

    def between(self, start: float, end: float) -> float:
        """Return what was counted from ``start`` to ``end``."""
        return float(self.at(end) - self.at(start))

    def lost_between(self, start: float, end: float) -> float:
        """Return the bound on what was lost uncounted in intervals that touch (start, end)."""
        touching = (self.times[1:] > start) & (self.times[:-1] < end)
        return float(self.lost[1:][touching].sum())

    def slopes(self, start: float, end: float) -> FloatArray:
        """Return the mean rate of every interval between samples that touches (start, end), shape (m,)."""
        touching = (self.times[1:] > start) & (self.times[:-1] < end)
        return (np.diff(self.total) / np.diff(self.times))[touching]

    def gaps(self, start: float, end: float) -> FloatArray:
        """Return the length of every interval between samples that touches (start, end), shape (m,)."""
        touching = (self.times[1:] > start) & (self.times[:-1] < end)
        return np.diff(self.times)[touching]


def ordered(samples: Iterable[Sample]) -> list[Sample]:
    """Return samples by time, one per time; among samples with equal time the first one given remains."""
    by_time: dict[float, Sample] = {}
    for sample in samples:
        by_time.setdefault(sample.time, sample)
    return [by_time[time] for time in sorted(by_time)]


def energy_track(samples: Iterable[Sample], *, ceiling_watts: float) -> Track | None:
    """Accumulate an energy counter in joules.

    A value that repeats was not measured again (dcgm-exporter collects every 30 s by default and is scraped more
    often), so only its first sight counts. A fall is a reset to zero (driver reload) when the new value can have been
    drawn since the sample before at ``ceiling_watts``; the joules between that sample and the reload are lost, and
    bounded by the ceiling. Any other fall is a sample out of order or of a second exporter when the counter comes back
    to where it was: that sample is left out. When it does not come back, counting goes on from the new value.

    Returns None when there is no sample.
    """
    points = ordered(samples)
    if not points:
        return None
    values = np.array([point.value for point in points])
    later_max = np.append(np.maximum.accumulate(values[::-1])[::-1][1:], -np.inf)
    times, totals, losses = [points[0].time], [0.0], [0.0]
    previous = points[0].value
    for index in range(1, len(points)):
        point = points[index]
        delta = point.value - previous
        if delta == 0:
            continue
        lost = 0.0
        if delta < 0:
            most = ceiling_watts * (point.time - times[-1])
            if point.value <= most:
                delta, lost = point.value, most - point.value
            elif later_max[index] >= previous:
                continue
            else:
                delta, lost = 0.0, most
        times.append(point.time)
        totals.append(totals[-1] + delta)
        losses.append(lost)
        previous = point.value
    return Track(np.array(times), np.array(totals), np.array(losses))


def token_track(samples: Iterable[Sample]) -> Track | None:
    """Accumulate a serving counter; any fall is a reset to zero (the engine restarted), repeats are true zeros.

    Returns None when there is no sample.
    """
    points = ordered(samples)
    if not points:
        return None
    values = np.array([point.value for point in points])
    deltas = np.diff(values, prepend=values[0])
    deltas = np.where(deltas < 0, values, deltas)
    return Track(np.array([point.time for point in points]), np.cumsum(deltas), np.zeros(len(points)))
