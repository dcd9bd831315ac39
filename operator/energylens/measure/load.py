"""Load of engines over a span of time: tokens, requests, running sequences, drafts and latencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from energylens.measure.counters import FloatArray, ordered, token_track
from energylens.measure.latencies import latencies_of
from energylens.measure.lengths import lengths_of
from energylens.measure.types import Percentile, Sample, TokenSeries


def load_figures(tokens: Sequence[TokenSeries], start: float, end: float, percentile: Percentile) -> dict[str, Any]:
    """Return the fields of a :class:`~energylens.measure.types.WindowMeasurement` that come from the engines' counters.

    Args:
        tokens: Series of the engines, each with tokens over the whole span.
        start: Start of the span, in seconds since the Unix epoch.
        end: End of the span.
        percentile: Percentile of ``latency``.
    """
    tracks = [track for series in tokens if (track := token_track(series.generation_tokens)) is not None]
    output_tokens = sum(track.between(start, end) for track in tracks)
    requests = _counted([series.requests for series in tokens], start, end)
    running = _mean_sum([series.running for series in tokens], start, end)
    drafted, acceptance = _speculation(tokens, start, end)
    # Engines that count drafts, such as vLLM, observe ITL once for all tokens of a step.
    together = 1.0
    if drafted is not None and acceptance is not None and any(series.draft_rounds for series in tokens):
        together += drafted * acceptance
    latencies = latencies_of(tokens, start, end, running, output_tokens / together / (end - start))
    return {
        "output_tokens": output_tokens,
        "draft_tokens": drafted,
        "acceptance": acceptance,
        "prompt_tokens": _counted([series.prompt_tokens for series in tokens], start, end),
        "cached_prompt_tokens": _counted([series.cached_prompt_tokens for series in tokens], start, end),
        "requests": requests,
        "requests_per_second": None if requests is None else requests / (end - start),
        "output_tokens_per_second": output_tokens / (end - start),
        "mean_running": running,
        "mean_waiting": _mean_sum([series.waiting for series in tokens], start, end),
        "kv_cache_usage": max(
            (sample.value for series in tokens for sample in series.kv_cache_usage if start <= sample.time <= end),
            default=None,
        ),
        "latency": latencies[percentile],
        "latency_by_percentile": latencies,
        "prompt_lengths": lengths_of((series.prompt_length for series in tokens), start, end),
        "output_lengths": lengths_of((series.output_length for series in tokens), start, end),
    }


def is_fresh(series: TokenSeries, end: float, stale_after_seconds: float) -> bool:
    """Return whether an engine's latest tokens were counted shortly enough before ``end``."""
    return any(sample.time >= end - stale_after_seconds for sample in series.generation_tokens)


def step_values(samples: Sequence[Sample], grid: FloatArray) -> FloatArray:
    """Return the value of the newest sample at or before each time, NaN before the first; shape of ``grid``."""
    points = ordered(samples)
    times, values = np.array([p.time for p in points]), np.array([np.nan] + [p.value for p in points])
    return np.asarray(values[np.searchsorted(times, grid, side="right")], dtype=np.float64)


def _counted(counters: Sequence[Sequence[Sample]], start: float, end: float) -> float | None:
    """Return the sum of all counters; None unless every counter covers the whole span."""
    tracks = [token_track(samples) for samples in counters]
    whole = [track for track in tracks if track is not None and track.first <= start and track.last >= end]
    return sum(track.between(start, end) for track in whole) if len(whole) == len(counters) else None


def _speculation(tokens: Sequence[TokenSeries], start: float, end: float) -> tuple[float | None, float | None]:
    """Return the draft tokens per step of a sequence, and the accepted share; None unless every engine drafts."""
    rounds, drafted, accepted = (
        _counted([getattr(series, name) for series in tokens], start, end)
        for name in ("draft_rounds", "drafted_tokens", "accepted_tokens")
    )
    if rounds and drafted and accepted is not None:
        return drafted / rounds, accepted / drafted
    length, rate = (
        _mean_sum([getattr(s, name) for s in tokens], start, end) for name in ("accept_length", "accept_rate")
    )
    if not length or not rate:
        return None, None
    return (length / len(tokens) - 1.0) / (rate / len(tokens)), rate / len(tokens)


def _mean_sum(gauges: Sequence[Sequence[Sample]], start: float, end: float) -> float | None:
    """Return the mean over time of the sum of all gauges; None unless every gauge is present."""
    if not gauges or not all(gauges):
        return None
    times = {sample.time for samples in gauges for sample in samples if start < sample.time < end}
    grid = np.array(sorted({start, end, *times}))
    total = np.sum([step_values(samples, grid[:-1]) for samples in gauges], axis=0)
    known = ~np.isnan(total)
    lengths = np.diff(grid)
    return float((total * lengths)[known].sum() / lengths[known].sum()) if known.any() else None
