"""A measured window as the status has it: units, rounding, and what is absent."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tests.unit.decide.observations import deployment, measured, plan

from energylens.api.llmdeployment import ItlPercentiles, LengthPercentiles
from energylens.decide.deployment.trials.windows import is_new_window, measured_status, prediction_status
from energylens.measure.types import LatencyQuantiles, LengthQuantile

BEGAN, ENDED = "1970-01-01T00:16:40Z", "1970-01-01T00:26:40Z"


def test_a_window_is_new_unless_the_status_has_it() -> None:
    assert not is_new_window(deployment(), None)
    assert is_new_window(deployment(), measured())
    seen = measured_status(measured()).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert not is_new_window(deployment({"measured": seen}), measured())
    assert is_new_window(deployment({"measured": seen}), measured(window_end=1700.0))
    assert not is_new_window(deployment({"measured": seen}), None)


def test_figures_have_the_units_of_the_api() -> None:
    found = measured_status(
        measured(
            source="dcgm-exporter",
            coverage_percent=99.6,
            power_watts=799.6,
            idle_power_watts=120.4,
            output_tokens_per_second=1999.5,
            requests=4000.0,
            requests_per_second=7.8125,
            prompt_tokens=2_049_999.0,
            cached_prompt_tokens=512_000.0,
            output_tokens=1_202_400.0,
            mean_running=15.25,
            mean_waiting=0.125,
            kv_cache_usage=0.614,
            draft_tokens=3.0,
            acceptance=0.756,
            error_bound_joules=11_521.0,
        )
    )
    assert found.model_dump(by_alias=True, exclude_none=True, mode="json") == {
        "windowStart": BEGAN,
        "windowEnd": ENDED,
        "source": "DCGMExporter",
        "coveragePercent": 100,
        "powerWatts": 800,
        "idlePowerWatts": 120,
        "outputTokensPerSecond": 2000,
        "requestsPerSecond": "7812m",
        "inputTokens": 512,
        "outputTokens": 301,
        "runningRequests": "15250m",
        "waitingRequests": "125m",
        "kvCachePercent": 61,
        "prefixCacheHitPercent": 25,
        "draftTokens": "3000m",
        "acceptancePercent": 76,
        "joulesPerOutputToken": "400m",
        # 11,521 of 480,000 J are 2.4 %: a bound is rounded up.
        "energyBoundPercent": 3,
        "ttftMilliseconds": 90,
        "itlMilliseconds": 19,
    }


def test_latencies_are_rounded_up() -> None:
    found = measured_status(measured(latency=LatencyQuantiles(90.1, 19.2, tpot_ms=20.3, end_to_end_ms=4000.4)))
    assert (found.ttft_milliseconds, found.itl_milliseconds) == (91, 20)
    assert (found.tpot_milliseconds, found.end_to_end_milliseconds) == (21, 4001)


@pytest.mark.parametrize("requests", [None, 0.0])
def test_without_an_ended_request_lengths_are_absent(requests: float | None) -> None:
    found = measured_status(measured(requests=requests, prompt_tokens=1e6))
    assert (found.input_tokens, found.output_tokens) == (None, None)


@pytest.mark.parametrize("changes", [{"energy_joules": 0.0}, {"energy_joules": None}, {"error_bound_joules": None}])
def test_a_bound_needs_the_energy_that_it_bounds(changes: dict[str, Any]) -> None:
    assert measured_status(measured(**{"error_bound_joules": 10.0, **changes})).energy_bound_percent is None


def test_a_window_without_figures_has_its_times_only() -> None:
    found = measured_status(measured("Collecting", window_end=None))
    assert found.model_dump(by_alias=True, exclude_none=True, mode="json") == {
        "windowStart": BEGAN,
        "windowEnd": "",
        "coveragePercent": 0,
    }


def test_lengths_have_the_buckets_that_contain_them() -> None:
    lengths = {
        "P50": LengthQuantile(312.4, (200.4, 500.4)),
        "P95": LengthQuantile(1000.0, (1000.0, math.inf)),
    }
    found = measured_status(measured(prompt_lengths=lengths, output_lengths={"P50": lengths["P50"]}))
    assert found.input_tokens_percentiles == LengthPercentiles(
        p50=312, p50_from=200, p50_to=500, p95=1000, p95_from=1000, p95_to=None
    )
    assert found.output_tokens_percentiles is None
    assert measured_status(measured(prompt_lengths={"P95": lengths["P95"]})).input_tokens_percentiles is None


def test_itl_percentiles_are_complete_or_absent() -> None:
    values = {"P50": 10.0, "P90": 15.5, "P95": 20.0, "P99": 40.25}
    by_percentile = {name: LatencyQuantiles(50.0, value) for name, value in values.items()}
    found = measured_status(measured(latency_by_percentile=by_percentile))
    assert found.itl_percentiles == ItlPercentiles(p50="10000m", p90="15500m", p95="20000m", p99="40250m")
    for missing in values:
        partial = {name: latency for name, latency in by_percentile.items() if name != missing}
        assert measured_status(measured(latency_by_percentile=partial)).itl_percentiles is None
        silent = {**by_percentile, missing: LatencyQuantiles(50.0, None)}
        assert measured_status(measured(latency_by_percentile=silent)).itl_percentiles is None


def test_errors_are_relative_to_the_measured_figure_and_each_window_counts_once() -> None:
    found = measured(power_watts=1000.0, joules_per_output_token=0.5, latency=LatencyQuantiles(80.0, 25.0))
    errors = prediction_status(plan(), found, 3, None)
    assert errors.model_dump(by_alias=True, exclude_none=True) == {
        "energyErrorPercent": -20,
        "powerErrorPercent": -20,
        "itlErrorPercent": -20,
        "ttftErrorPercent": 25,
        "samples": 4,
    }
    assert prediction_status(plan(), found, 4, measured_status(found)).samples == 4
    assert prediction_status(plan(), found, 4, measured_status(measured(window_end=1500.0))).samples == 5
    assert prediction_status(plan(), measured(latency=None), 0, None).itl_error_percent is None
