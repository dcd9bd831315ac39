"""A window against its plan: which loads are compared, which objectives are broken, and what differs is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.observations import deployment, measured, plan

from energylens.api.llmdeployment import CorrectionFactors
from energylens.decide.learned.comparison import (
    FEWEST_REQUESTS,
    broken_objectives,
    error_percent,
    is_comparable,
    load_differences,
    load_share,
    measured_point,
    objectives,
)
from energylens.measure.types import LatencyQuantiles

BY_CONCURRENCY: dict[str, Any] = {"workload": {"inputTokens": 512, "outputTokens": 256, "concurrency": 16}}


@pytest.mark.parametrize(
    ("predicted", "found", "error"),
    [(1.0, 2.0, -50), (2.0, 1.0, 100), (None, 1.0, None), (1.0, None, None), (1.0, 0.0, None), (1.0, -1.0, None)],
)
def test_an_error_is_relative_to_the_measured_value(
    predicted: float | None, found: float | None, error: int | None
) -> None:
    assert error_percent(predicted, found) == error


@pytest.mark.parametrize(
    ("share", "expected"), [(0.75, True), (0.749, False), (1.33, True), (1.331, False), (None, False)]
)
def test_loads_are_compared_within_a_quarter_less_and_a_third_more(share: float | None, expected: bool) -> None:
    assert is_comparable(share) is expected


def without(**figures: int) -> Any:
    return plan(predicted=plan().predicted.model_copy(update=figures))


def test_a_rate_is_compared_by_tokens_and_a_concurrency_by_running_sequences() -> None:
    window = measured(output_tokens_per_second=1000.0, mean_running=4.0)
    assert load_share(deployment(), plan(), window) == 0.5
    assert load_share(deployment(**BY_CONCURRENCY), plan(), window) == 0.25
    # An engine that does not tell its running sequences is compared by its tokens.
    silent = replace(window, mean_running=None)
    assert load_share(deployment(**BY_CONCURRENCY), plan(), silent) == 0.5
    assert load_share(deployment(**BY_CONCURRENCY), without(concurrency=0), window) is None
    assert load_share(deployment(), without(output_tokens_per_second=0), window) is None
    assert load_share(deployment(), plan(), replace(window, output_tokens_per_second=None)) is None


@pytest.mark.parametrize(
    ("requests", "is_said"), [(FEWEST_REQUESTS, True), (FEWEST_REQUESTS - 1, False), (None, False)]
)
def test_lengths_are_compared_when_enough_requests_ended(requests: float | None, is_said: bool) -> None:
    window = measured(requests=requests, prompt_tokens=(requests or 1) * 1024.0, output_tokens=None)
    texts = load_differences(deployment(), window)
    assert texts == (["prompts have 1024 tokens on average, and the plan counts 512"] if is_said else [])


def test_one_unknown_length_does_not_hide_the_other() -> None:
    window = measured(requests=200.0, prompt_tokens=None, output_tokens=200 * 64.0)
    assert load_differences(deployment(), window) == ["outputs have 64 tokens on average, and the plan counts 256"]


LOAD = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": 2}


@pytest.mark.parametrize(("hits", "is_said"), [(0.5, False), (0.3, False), (0.51, True), (0.29, True), (None, False)])
def test_prefix_hits_may_differ_by_ten_points(hits: float | None, is_said: bool) -> None:
    asked = deployment(workload={**LOAD, "prefixCacheHitPercent": 40})
    window = measured(prompt_tokens=1000.0, cached_prompt_tokens=None if hits is None else 1000 * hits)
    texts = load_differences(asked, window)
    assert bool(texts) is is_said
    if texts:
        said = "spec.workload.prefixCacheHitPercent is 40"
        assert texts == [f"the prefix cache had {100 * (hits or 0):.0f} % of prompt tokens, {said}"]


@pytest.mark.parametrize(
    ("accepted", "is_said"), [(0.7, False), (0.5, False), (0.71, True), (0.49, True), (None, False)]
)
def test_accepted_drafts_may_differ_by_ten_points(accepted: float | None, is_said: bool) -> None:
    asked = deployment(workload={**LOAD, "speculative": {"draftTokens": 3, "acceptancePercent": 60}})
    texts = load_differences(asked, measured(draft_tokens=3.0, acceptance=accepted))
    said = (
        f"{100 * (accepted or 0):.0f} % of drafted tokens were accepted, "
        "spec.workload.speculative.acceptancePercent is 60"
    )
    assert texts == ([said] if is_said else [])


def test_drafts_that_the_spec_does_not_name_are_told() -> None:
    assert load_differences(deployment(), measured(draft_tokens=2.5, acceptance=0.62)) == [
        "the engine drafts 2.5 tokens per step, 62 % of them accepted, and spec.workload.speculative is not set"
    ]


def test_lengths_that_are_close_to_those_of_the_plan_are_not_told() -> None:
    close = measured(requests=200.0, prompt_tokens=200 * 600.0, output_tokens=200 * 240.0)
    assert load_differences(deployment(), close) == []


def test_prefix_hits_of_classes_are_compared_with_their_mean() -> None:
    parts = [
        {"name": "chat", "sharePercent": 50, "inputTokens": 512, "outputTokens": 256, "prefixCacheHitPercent": 80},
        {"name": "batch", "sharePercent": 50, "inputTokens": 512, "outputTokens": 256},
    ]
    asked = deployment(workload={"requestsPerSecond": 2, "classes": parts})
    (text,) = load_differences(asked, measured(prompt_tokens=1000.0, cached_prompt_tokens=800.0))
    assert text == "the prefix cache had 80 % of prompt tokens, 40 % by spec.workload.classes"


SLO = {"ttftMilliseconds": 100, "itlMilliseconds": 20, "tpotMilliseconds": 30, "endToEndMilliseconds": 5000}
ALL = {**SLO, "joulesPerOutputToken": "500m"}
LATENCY = LatencyQuantiles(ttft_ms=100.0, itl_ms=20.0, tpot_ms=30.0, end_to_end_ms=5000.0)


def test_an_objective_holds_up_to_its_limit() -> None:
    window = measured(latency=LATENCY, joules_per_output_token=0.5)
    found = objectives(deployment(slo=ALL), window)
    assert {name: holds for name, (_, holds) in found.items()} == dict.fromkeys(
        ("TTFT", "ITL", "TPOT", "E2E", "energy"), True
    )
    assert broken_objectives(deployment(slo=ALL), window) == []
    assert found["TTFT"][0] == "TTFT P95 100 ms"
    assert found["energy"][0] == "0.5 J per output token"


def test_broken_objectives_are_told_with_their_limits() -> None:
    slow = LatencyQuantiles(ttft_ms=101.0, itl_ms=21.0, tpot_ms=31.0, end_to_end_ms=5001.0)
    assert broken_objectives(deployment(slo=ALL), measured(latency=slow, joules_per_output_token=0.51)) == [
        "TTFT P95 101 ms > 100 ms",
        "ITL P95 21 ms > 20 ms",
        "TPOT P95 31 ms > 30 ms",
        "E2E P95 5001 ms > 5000 ms",
        "0.51 J per output token > 0.5 J",
    ]


def test_what_was_not_measured_is_neither_met_nor_broken() -> None:
    for window in (None, measured(latency=None, joules_per_output_token=None)):
        found = objectives(deployment(slo=ALL), window)
        assert [holds for _, holds in found.values()] == [None] * 5
        assert found["ITL"][0] == "ITL"
        assert found["energy"][0] == "energy per output token"
        assert broken_objectives(deployment(slo=ALL), window) == []
    assert objectives(deployment(), measured()) == {}
    assert list(objectives(deployment(slo={"tpotMilliseconds": 30}), measured())) == ["TPOT"]


def test_the_ratios_of_a_window_are_those_to_the_uncorrected_prediction() -> None:
    window = measured(
        latency=LatencyQuantiles(ttft_ms=50.0, itl_ms=30.0), power_watts=400.0, joules_per_output_token=0.8
    )
    plain = measured_point(plan(), window)
    assert (plain.ttft_ratio, plain.itl_ratio, plain.power_ratio, plain.energy_ratio) == (0.5, 1.5, 0.5, 2.0)
    applied = CorrectionFactors(ttft="2", itl="1500m", power="3", energy="4")
    corrected = measured_point(plan(correction=applied), window)
    assert (corrected.ttft_ratio, corrected.itl_ratio, corrected.power_ratio, corrected.energy_ratio) == (
        1.0,
        2.25,
        1.5,
        8.0,
    )


@pytest.mark.parametrize("value", [None, 0.0, -1.0])
def test_a_figure_that_is_not_positive_teaches_nothing(value: float | None) -> None:
    window = measured(
        latency=LatencyQuantiles(ttft_ms=value, itl_ms=value), power_watts=value, joules_per_output_token=value
    )
    found = measured_point(plan(), window)
    assert (found.ttft_ratio, found.itl_ratio, found.power_ratio, found.energy_ratio) == (None,) * 4
    unknown = measured_point(plan(), measured(latency=None))
    assert (unknown.ttft_ratio, unknown.itl_ratio) == (None, None)
    nothing = measured_point(without(power_watts=0, ttft_milliseconds=0), measured())
    assert (nothing.power_ratio, nothing.ttft_ratio) == (None, None)
    assert nothing.itl_ratio is not None
