"""Figures of the last measured window, as status has them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from energylens.api.base import ApiModel
from energylens.api.quantity import Quantity


class ItlPercentiles(ApiModel):
    """Inter-token latency, ms, from the engine's histogram, as precise as its buckets."""

    p50: Quantity = Field(description="Median, ms.")
    p90: Quantity = Field(description="90th percentile, ms.")
    p95: Quantity = Field(description="95th percentile, ms.")
    p99: Quantity = Field(description="99th percentile, ms.")


class LengthPercentiles(ApiModel):
    """Lengths of requests from the engine's histogram, tokens.

    A histogram counts requests in buckets: each percentile is interpolated within its bucket, from `From` to `To`.
    """

    p50: int = Field(description="Median, interpolated.")
    p50_from: int = Field(description="Lower end of the bucket of the median.")
    p50_to: int | None = Field(default=None, description="Upper end of that bucket; absent: no end.")
    p95: int = Field(description="P95, interpolated.")
    p95_from: int = Field(description="Lower end of the bucket of P95.")
    p95_to: int | None = Field(default=None, description="Upper end of that bucket; absent: no end.")


class Measured(ApiModel):
    """Figures from the counters over the last full window. A figure that was not measured is absent, never zero."""

    window_start: str = Field(description="Start of the window; RFC 3339, UTC.")
    window_end: str = Field(description="End of the window; RFC 3339, UTC.")
    source: Literal["Prometheus", "DCGMExporter"] | None = Field(
        default=None, description="Source of the energy counters."
    )
    coverage_percent: int = Field(
        description="GPUs with samples over the whole window, as a share of the deployment's GPUs, %."
    )
    power_watts: int | None = Field(default=None, description="Mean power of all GPUs of the deployment, W.")
    idle_power_watts: int | None = Field(default=None, description="Mean power while no request ran, W.")
    output_tokens_per_second: int | None = Field(default=None, description="Tokens generated per second.")
    requests_per_second: Quantity | None = Field(default=None, description="Completed requests per second.")
    input_tokens: int | None = Field(
        default=None, description="Mean prompt tokens of a request, including cached tokens."
    )
    output_tokens: int | None = Field(default=None, description="Mean generated tokens of a request.")
    input_tokens_percentiles: LengthPercentiles | None = Field(
        default=None,
        description="Prompt tokens of a request by percentile; absent if the engine has no histogram of them.",
    )
    output_tokens_percentiles: LengthPercentiles | None = Field(
        default=None,
        description="Generated tokens of a request by percentile; absent if the engine has no histogram of them.",
    )
    running_requests: Quantity | None = Field(default=None, description="Mean number of running requests.")
    waiting_requests: Quantity | None = Field(
        default=None, description="Mean number of requests waiting in the engines."
    )
    kv_cache_percent: int | None = Field(default=None, description="Highest use of the KV cache in any replica, %.")
    prefix_cache_hit_percent: int | None = Field(
        default=None, description="Share of prompt tokens found in the prefix cache, by the engine's counters, %."
    )
    draft_tokens: Quantity | None = Field(
        default=None, description="Mean tokens drafted per sequence and step; absent without speculative decoding."
    )
    acceptance_percent: int | None = Field(default=None, description="Accepted tokens over drafted tokens, %.")
    joules_per_output_token: Quantity | None = Field(default=None, description="GPU energy per generated token, J.")
    energy_bound_percent: int | None = Field(
        default=None, description="Largest error of the energy from the window's edges and counter resets, %."
    )
    energy_watt_hours_this_period: int | None = Field(
        default=None,
        description="GPU energy measured since the period of spec.energy.budget began, Wh; absent without "
        "spec.energy.budget.energyWattHours.",
    )
    ttft_milliseconds: int | None = Field(
        default=None, description="Time to first token at the percentile of spec.slo, from the engine's histogram, ms."
    )
    itl_milliseconds: int | None = Field(
        default=None, description="Inter-token latency at the percentile of spec.slo, from the engine's histogram, ms."
    )
    tpot_milliseconds: int | None = Field(
        default=None,
        description="Time per output token of a request at the percentile of spec.slo, from the engine's histogram, "
        "ms.",
    )
    end_to_end_milliseconds: int | None = Field(
        default=None,
        description="From a request's arrival to its last token at the percentile of spec.slo, from the engine's "
        "histogram, ms.",
    )
    itl_percentiles: ItlPercentiles | None = Field(default=None, description="Inter-token latency by percentile.")
