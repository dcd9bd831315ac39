"""Quantiles over a window from cumulative histograms, as Prometheus's histogram_quantile defines them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from energylens.measure.types import Histogram, HistogramSample


def window_histogram(series: Iterable[Sequence[HistogramSample]], start: float, end: float) -> Histogram | None:
    """Return the observations from ``start`` to ``end``, s, of all series together.

    An interval between samples that lies partly in the window counts by the share of its time inside. A falling count
    means that the engine restarted. Series with different buckets are combined on their common bounds, which is exact
    for cumulative counts. None without any observation.
    """
    parts = [part for samples in series for part in _parts(samples, start, end)]
    if not parts:
        return None
    shared = frozenset.intersection(*(frozenset(part) for part in parts))
    bounds = tuple(sorted(shared))
    counts = tuple(sum(part[bound] for part in parts) for bound in bounds)
    if not counts or counts[-1] <= 0:
        return None
    return Histogram(bounds, counts)


def _parts(samples: Sequence[HistogramSample], start: float, end: float) -> Iterable[dict[float, float]]:
    points = sorted({sample.time: sample for sample in samples}.values(), key=lambda sample: sample.time)
    for before, after in itertools.pairwise(points):
        inside = min(after.time, end) - max(before.time, start)
        if inside <= 0:
            continue
        share = inside / (after.time - before.time)
        new = np.array(after.histogram.counts)
        same = before.histogram.bounds == after.histogram.bounds
        delta = new - np.array(before.histogram.counts) if same else new
        if np.any(delta < 0):
            delta = new
        yield dict(zip(after.histogram.bounds, (delta * share).tolist(), strict=True))


def quantile(histogram: Histogram, q: float) -> tuple[float, float, float]:
    """Return the ``q`` quantile, linear within its bucket, and the bounds of that bucket.

    Buckets start at 0. For a quantile in the infinite bucket, the last finite bound is returned, since the quantile is
    only known to be above it.

    Raises:
        ValueError: ``q`` is not within (0, 1], or the histogram is empty.
    """
    if not 0 < q <= 1:
        raise ValueError(f"q is {q}, must be above 0 and at most 1")
    total = histogram.counts[-1] if histogram.counts else 0.0
    if total <= 0:
        raise ValueError("the histogram holds no observation")
    rank = q * total
    index = int(np.searchsorted(histogram.counts, rank, side="left"))
    index = min(index, len(histogram.bounds) - 1)
    lower = histogram.bounds[index - 1] if index else 0.0
    upper = histogram.bounds[index]
    if math.isinf(upper):
        return lower, lower, upper
    below = histogram.counts[index - 1] if index else 0.0
    inside = histogram.counts[index] - below
    return lower + (upper - lower) * (rank - below) / inside, lower, upper
