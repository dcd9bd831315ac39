"""Energy of pods' GPUs since a moment, for a ledger, whatever the pods were doing."""

from __future__ import annotations

from collections.abc import Sequence

from energylens.measure.counters import energy_track
from energylens.measure.types import GpuEnergySeries
from energylens.measure.window import CEILING_MARGIN, DEFAULT_CEILING_WATTS
from energylens.records import dataclass


@dataclass(frozen=True)
class EnergySpan:
    """Energy over a span that every GPU's samples cover; times in seconds since the Unix epoch."""

    start: float
    end: float
    joules: float

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / (self.end - self.start)


def energy_span(
    series: Sequence[GpuEnergySeries], gpus_owned: int, since: float, power_limit_watts: float | None
) -> EnergySpan | None:
    """Return the energy of all GPUs from ``since``, or from the first time with samples of all, to the last such time.

    Args:
        series: Counters of the GPUs that the pods hold, one for each GPU.
        gpus_owned: Number of GPUs that the pods hold.
        since: Earliest start, in seconds since the Unix epoch.
        power_limit_watts: Power limit of one GPU if its series has none; a higher reading is rejected.

    Returns:
        None if a GPU has no samples, if no time is covered by all GPUs, or if the energy exceeds what the GPUs can
        draw.
    """
    if not series or len(series) != gpus_owned:
        return None
    limits = [s.power_limit_watts or power_limit_watts or DEFAULT_CEILING_WATTS for s in series]
    tracks = [
        energy_track(s.samples, ceiling_watts=limit * CEILING_MARGIN) for s, limit in zip(series, limits, strict=True)
    ]
    whole = [track for track in tracks if track is not None]
    if len(whole) < len(series):
        return None
    start, end = max([since, *(t.first for t in whole)]), min(t.last for t in whole)
    if end <= start:
        return None
    joules = sum(track.between(start, end) for track in whole)
    # A scrape shows a value collected up to one collect interval earlier.
    slack = max(float(track.gaps(start, end).max(initial=0.0)) for track in whole)
    if joules > sum(limits) * CEILING_MARGIN * (end - start + slack):
        return None
    return EnergySpan(start, end, joules)
