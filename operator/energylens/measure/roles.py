"""Latencies of requests whose prompt another engine processed: the parts of prefill and decode pods together. Pure.

Tokens and the time between them are those of the decode pods, which generate every token that a client gets; a prefill
pod generates one that is dropped. The decode pods see a request only when its prompt is processed, so that its time to
first token is the sum of both. The sum of two percentiles is at most as good as the percentile of the sum, and the
prediction is made in the same way. Requests that the router gave to a decode pod alone are in the figures of the
decode pods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from energylens.measure.load import is_fresh, load_figures
from energylens.measure.types import LatencyQuantiles, Percentile, TokenSeries, WindowMeasurement


def with_prefill(
    decode: WindowMeasurement,
    prefill: Sequence[TokenSeries],
    expected: int,
    percentile: Percentile,
    stale_after_seconds: float,
    *,
    apart: bool = True,
) -> WindowMeasurement:
    """Return a window of decode pods, whose energy is that of all pods, with the latencies and queues of both roles.

    Args:
        decode: The window.
        prefill: Counters of the prefill pods.
        expected: Number of prefill pods.
        percentile: Percentile of ``latency``.
        stale_after_seconds: Longest age of a sample at the end of the window, s.
        apart: Whether a decode pod gets a request only when its prompt is processed. Where both pods get the request at
            once, as with SGLang, the latencies of the decode pod are those of the whole request.
    """
    start, end = decode.window_start, decode.window_end
    if decode.output_tokens is None or start is None or end is None:
        return decode
    # An idle decode pod says nothing about the GPUs of the prefill pods.
    decode = replace(decode, idle_power_watts=None)
    usable = [series for series in prefill if is_fresh(series, end, stale_after_seconds)]
    if len(usable) < expected and not apart:
        return replace(decode, mean_waiting=None)
    if len(usable) < expected:
        unknown = {
            name: replace(each, ttft_ms=None, ttft_bucket_ms=None, end_to_end_ms=None, end_to_end_bucket_ms=None)
            for name, each in decode.latency_by_percentile.items()
        }
        text = f"; no time to first token: counters of {len(usable)} of {expected} prefill pods"
        return replace(
            decode,
            message=decode.message + text,
            latency_by_percentile=unknown,
            latency=unknown.get(percentile),
            mean_waiting=None,
        )
    found = load_figures(usable, start, end, percentile)
    parts = found["latency_by_percentile"]
    usages = [usage for usage in (decode.kv_cache_usage, found["kv_cache_usage"]) if usage is not None]
    whole = decode.latency_by_percentile
    both = {name: _together(each, parts[name]) if apart else each for name, each in whole.items()}
    return replace(
        decode,
        latency_by_percentile=both,
        latency=both.get(percentile),
        mean_running=_sum(decode.mean_running, found["mean_running"]),
        mean_waiting=_sum(decode.mean_waiting, found["mean_waiting"]),
        kv_cache_usage=max(usages, default=None),
    )


def _together(decode: LatencyQuantiles, prefill: LatencyQuantiles) -> LatencyQuantiles:
    """Return the latencies of both roles; those of the decode pods if no request was at a prefill pod."""
    if prefill.ttft_ms is None:
        return decode
    return replace(
        decode,
        ttft_ms=_sum(decode.ttft_ms, prefill.ttft_ms),
        ttft_bucket_ms=_bucket(decode.ttft_bucket_ms, prefill.ttft_bucket_ms),
        end_to_end_ms=_sum(decode.end_to_end_ms, prefill.ttft_ms),
        end_to_end_bucket_ms=_bucket(decode.end_to_end_bucket_ms, prefill.ttft_bucket_ms),
    )


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _bucket(one: tuple[float, float] | None, other: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if one is None or other is None else (one[0] + other[0], one[1] + other[1])
