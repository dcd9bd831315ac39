"""A measured window as the status has it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from energylens.api.llmdeployment import (
    ItlPercentiles,
    LengthPercentiles,
    LLMDeployment,
    Measured,
    PlanStatus,
    PredictionStatus,
)
from energylens.api.quantity import format_milli
from energylens.api.timestamp import timestamp
from energylens.decide.learned.comparison import energy_error_percent, error_percent
from energylens.measure.types import LengthQuantile, Percentile, WindowMeasurement

PERCENTILES: tuple[Percentile, ...] = ("P50", "P90", "P95", "P99")
SOURCES: dict[str, Literal["Prometheus", "DCGMExporter"]] = {
    "prometheus": "Prometheus",
    "dcgm-exporter": "DCGMExporter",
}
"""Names of energy sources in the API."""


def is_new_window(deployment: LLMDeployment, found: WindowMeasurement | None) -> bool:
    """Return whether a window is not the window in the status."""
    before = deployment.status.measured
    return found is not None and (before is None or before.window_end != _time(found.window_end))


def measured_status(found: WindowMeasurement) -> Measured:
    """Return a window's figures, rounded to the resolution of the API."""

    def whole(value: float | None) -> int | None:
        return None if value is None else round(value)

    def up(value: float | None) -> int | None:
        return None if value is None else math.ceil(value)

    def quantity(value: float | None) -> str | None:
        return None if value is None else format_milli(value)

    def per_request(tokens: float | None) -> int | None:
        return round(tokens / found.requests) if tokens is not None and found.requests else None

    def percent(share: float | None) -> int | None:
        return None if share is None else round(100 * share)

    ratio, bound = found.joules_per_output_token, found.error_bound_joules
    usage = found.kv_cache_usage
    return Measured(
        window_start=_time(found.window_start),
        window_end=_time(found.window_end),
        source=SOURCES.get(found.source),
        coverage_percent=round(found.coverage_percent),
        power_watts=whole(found.power_watts),
        idle_power_watts=whole(found.idle_power_watts),
        output_tokens_per_second=whole(found.output_tokens_per_second),
        requests_per_second=quantity(found.requests_per_second),
        input_tokens=per_request(found.prompt_tokens),
        output_tokens=per_request(found.output_tokens),
        input_tokens_percentiles=_length_percentiles(found.prompt_lengths),
        output_tokens_percentiles=_length_percentiles(found.output_lengths),
        running_requests=quantity(found.mean_running),
        waiting_requests=quantity(found.mean_waiting),
        kv_cache_percent=percent(usage),
        prefix_cache_hit_percent=percent(found.prefix_cache_hits),
        draft_tokens=quantity(found.draft_tokens),
        acceptance_percent=percent(found.acceptance),
        joules_per_output_token=quantity(ratio),
        energy_bound_percent=up(100 * bound / found.energy_joules)
        if bound is not None and found.energy_joules
        else None,
        ttft_milliseconds=up(found.latency.ttft_ms) if found.latency else None,
        itl_milliseconds=up(found.latency.itl_ms) if found.latency else None,
        tpot_milliseconds=up(found.latency.tpot_ms) if found.latency else None,
        end_to_end_milliseconds=up(found.latency.end_to_end_ms) if found.latency else None,
        itl_percentiles=_itl_percentiles(found),
    )


def _length_percentiles(found: Mapping[Percentile, LengthQuantile]) -> LengthPercentiles | None:
    p50, p95 = found.get("P50"), found.get("P95")
    if p50 is None or p95 is None:
        return None

    def end(quantile: LengthQuantile) -> int | None:
        return round(quantile.bucket[1]) if math.isfinite(quantile.bucket[1]) else None

    return LengthPercentiles(
        p50=round(p50.tokens),
        p50_from=round(p50.bucket[0]),
        p50_to=end(p50),
        p95=round(p95.tokens),
        p95_from=round(p95.bucket[0]),
        p95_to=end(p95),
    )


def _itl_percentiles(found: WindowMeasurement) -> ItlPercentiles | None:
    values = {percentile: latency.itl_ms for percentile, latency in found.latency_by_percentile.items()}
    p50, p90, p95, p99 = (values.get(name) for name in PERCENTILES)
    if p50 is None or p90 is None or p95 is None or p99 is None:
        return None
    return ItlPercentiles(
        **dict(zip(("p50", "p90", "p95", "p99"), map(format_milli, (p50, p90, p95, p99)), strict=True))
    )


def prediction_status(
    plan: PlanStatus, found: WindowMeasurement, samples: int, before: Measured | None
) -> PredictionStatus:
    """Return the errors of one window; ``samples`` counts windows, each once."""
    predicted, latency = plan.predicted, found.latency
    new = before is None or before.window_end != _time(found.window_end)
    return PredictionStatus(
        energy_error_percent=energy_error_percent(plan, found.joules_per_output_token),
        power_error_percent=error_percent(predicted.power_watts, found.power_watts),
        itl_error_percent=error_percent(predicted.itl_milliseconds, latency.itl_ms if latency else None),
        tpot_error_percent=error_percent(predicted.tpot_milliseconds, latency.tpot_ms if latency else None),
        end_to_end_error_percent=error_percent(
            predicted.end_to_end_milliseconds, latency.end_to_end_ms if latency else None
        ),
        ttft_error_percent=error_percent(predicted.ttft_milliseconds, latency.ttft_ms if latency else None),
        samples=samples + 1 if new else samples,
    )


def _time(seconds: float | None) -> str:
    return "" if seconds is None else timestamp(datetime.fromtimestamp(seconds, tz=UTC))
