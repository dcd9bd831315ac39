"""Latencies of prefill and decode pods together; energy and tokens are measured before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.measure.builders import engine, gpu, options

from energylens.measure.roles import with_prefill
from energylens.measure.types import Histogram, HistogramSample, TokenSeries, WindowMeasurement
from energylens.measure.window import measure_window


def observed(series: TokenSeries, seconds: float) -> TokenSeries:
    """Return a series whose requests all got their first token within a bucket that ends at ``seconds``."""
    bounds = (seconds / 2, seconds, float("inf"))
    samples = tuple(
        HistogramSample(time, Histogram(bounds, (0.0, count, count))) for time, count in ((0.0, 0.0), (600.0, 100.0))
    )
    return replace(series, ttft=samples)


def window(decode: TokenSeries) -> WindowMeasurement:
    return measure_window([gpu("A"), gpu("B")], [decode], 2, options())


def test_the_first_token_takes_both_and_the_tokens_are_those_of_decode() -> None:
    decode, prefill = observed(engine("d", 300.0), 0.1), observed(engine("p", 5.0), 0.4)
    alone = window(decode)
    found = with_prefill(alone, [prefill], 1, "P95", 120.0)
    assert alone.latency is not None
    assert found.latency is not None
    assert alone.latency.ttft_ms is not None
    only_prompts = with_prefill(window(observed(engine("d", 300.0), 0.1)), [prefill], 1, "P95", 120.0)
    assert found == only_prompts
    assert found.latency.ttft_ms == pytest.approx(alone.latency.ttft_ms * 5)
    assert found.latency.ttft_bucket_ms == pytest.approx((250.0, 500.0))
    assert found.latency.itl_ms == alone.latency.itl_ms
    assert found.output_tokens == alone.output_tokens == pytest.approx(180_000)
    assert found.joules_per_output_token == alone.joules_per_output_token
    assert found.mean_running == 16


def test_requests_that_the_router_gave_to_decode_alone_have_its_latency() -> None:
    alone = window(observed(engine("d", 300.0), 0.1))
    found = with_prefill(alone, [engine("p", 0.0)], 1, "P95", 120.0)
    assert found.latency == alone.latency


def test_a_silent_prefill_pod_leaves_the_first_token_unknown() -> None:
    alone = window(observed(engine("d", 300.0), 0.1))
    found = with_prefill(alone, [observed(engine("p", 5.0), 0.4)], 2, "P95", 120.0)
    assert found.latency is not None
    assert alone.latency is not None
    assert (found.latency.ttft_ms, found.latency.end_to_end_ms) == (None, None)
    assert found.latency.itl_ms == alone.latency.itl_ms
    assert found.mean_waiting is None
    assert "counters of 1 of 2 prefill pods" in found.message
    assert found.joules_per_output_token == alone.joules_per_output_token


def test_idle_decode_pods_do_not_make_the_gpus_idle() -> None:
    alone = replace(window(engine("d", 300.0)), idle_power_watts=100.0)
    assert with_prefill(alone, [engine("p", 5.0)], 1, "P95", 120.0).idle_power_watts is None


def test_without_tokens_there_is_nothing_to_add() -> None:
    empty = WindowMeasurement("Collecting", "no window yet")
    assert with_prefill(empty, [engine("p", 5.0)], 1, "P95", 120.0) is empty


def test_where_both_pods_get_a_request_at_once_the_decode_pod_times_the_whole_request() -> None:
    alone, prompts = window(observed(engine("d", 300.0), 0.1)), observed(engine("p", 5.0), 0.4)
    found = with_prefill(alone, [prompts], 1, "P95", 120.0, apart=False)
    assert (found.latency, found.latency_by_percentile) == (alone.latency, alone.latency_by_percentile)
    assert found.mean_running == with_prefill(alone, [prompts], 1, "P95", 120.0).mean_running
    silent = with_prefill(alone, [prompts], 2, "P95", 120.0, apart=False)
    assert (silent.latency, silent.mean_waiting) == (alone.latency, None)
