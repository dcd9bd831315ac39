"""Lengths of requests over a window, from the engines' histograms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from energylens.measure.quantiles import quantile, window_histogram
from energylens.measure.types import HistogramSample, LengthQuantile, Percentile

_LEVELS: dict[Percentile, float] = {"P50": 0.50, "P95": 0.95}


def lengths_of(
    series: Iterable[Sequence[HistogramSample]], start: float, end: float
) -> dict[Percentile, LengthQuantile]:
    """Return quantiles of the lengths of the requests that ended from ``start`` to ``end``, s, on all engines together.

    The result is empty without any observation, and if an engine with observations is missing its histogram, since the
    others would then stand for requests that may differ.
    """
    every = list(series)
    found = window_histogram(every, start, end) if all(every) else None
    if found is None:
        return {}
    result: dict[Percentile, LengthQuantile] = {}
    for percentile, level in _LEVELS.items():
        tokens, low, high = quantile(found, level)
        result[percentile] = LengthQuantile(tokens, (low, high))
    return result
