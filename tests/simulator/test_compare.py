"""What the serving model says of loads is what a simulated replica does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.simulator.compare import MIXES, Case, judged, physics, predicted, simulated

from energylens.predictor.core import Predictor

SIZE = (1_500, 40)
"""Requests of a run, and runs."""
CHAT = Case("Qwen/Qwen3-8B", "H100", 1, 300, 400, 256, 0.9, *SIZE)
LONG = Case("Qwen/Qwen3-8B", "H100", 1, 2000, 200, 256, 0.7, *SIZE)
FEW_PLACES = Case("Qwen/Qwen3-8B", "H100", 1, 300, 100, 32, 0.9, *SIZE)
LARGE = Case("meta-llama/Llama-3.1-70B-Instruct", "H100", 4, 1000, 300, 64, 0.7, *SIZE)
EXPERTS = Case("Qwen/Qwen3-30B-A3B", "H100", 2, 1000, 1000, 128, 0.8, *SIZE)

WITHIN = 0.10
NEAR_PLACES = 0.25
"""P95 and P99 of TTFT where one request in three waits for a place: the tail of a few long waits."""
SMALL_STEPS = 0.15
"""P95 and P99 of TTFT where a prompt takes several steps: 10.0 % off with the coefficients of 2026.1-15d00063."""
BURSTS = 0.25
LONG_BURSTS = 0.45
"""TTFT at an SCV of 10: 21 % off at P95 and 35 % at P99 in this case, and several times where places fill."""
DOCUMENTS = Case("Qwen/Qwen3-8B", "H100", 1, 0, 0, 256, 0.5, *SIZE, classes=MIXES["chat and documents"])
REASONING = replace(DOCUMENTS, utilization=0.8, classes=MIXES["chat and reasoning"])
REPORTS = replace(DOCUMENTS, utilization=0.8, classes=MIXES["search, chat and long reports"])
CASES = (
    (CHAT, WITHIN),
    (replace(CHAT, utilization=0.5, outputs=0.5), WITHIN),
    (LONG, WITHIN),
    (replace(LONG, utilization=0.5, step_tokens=1024), SMALL_STEPS),
    (FEW_PLACES, NEAR_PLACES),
    (replace(FEW_PLACES, utilization=0.5), WITHIN),
    (LARGE, WITHIN),
    (EXPERTS, WITHIN),
    (replace(CHAT, utilization=0.8, arrivals=4.0), BURSTS),
    (replace(CHAT, utilization=0.5, arrivals=10.0), LONG_BURSTS),
    (DOCUMENTS, WITHIN),
    (replace(DOCUMENTS, utilization=0.8), WITHIN),
    (REASONING, WITHIN),
)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return physics()


@pytest.mark.parametrize(("case", "within"), CASES, ids=[case.name for case, _ in CASES])
def test_percentiles_are_those_of_the_simulator(predictor: Predictor, case: Case, within: float) -> None:
    off = judged(predictor, case).errors
    tails = {name: value for name, value in off.items() if name in ("ttft p95", "ttft p99")}
    rest = {name: value for name, value in off.items() if name not in tails}
    assert {name: round(value, 3) for name, value in tails.items() if abs(value) > within} == {}
    assert {name: round(value, 3) for name, value in rest.items() if abs(value) > min(within, 0.12)} == {}
    assert abs(off["throughput"]) < 0.03


def test_the_first_tokens_of_short_prompts_among_long_ones_are_those_of_the_simulator(predictor: Predictor) -> None:
    # TPOT and the whole time are not: they are up to 26 % too low where one request in twenty is a long report.
    off = judged(predictor, REPORTS).errors
    assert {level: off[f"ttft {level}"] for level in ("p50", "p95", "p99")} == pytest.approx(
        dict.fromkeys(("p50", "p95", "p99"), 0.0), abs=WITHIN
    )


@pytest.mark.parametrize("arrivals", [1.0, 4.0, 10.0])
def test_a_mixture_of_experts_sustains_what_its_utilization_says(predictor: Predictor, arrivals: float) -> None:
    # With requests that start together, it would serve a quarter more; bursts end where outputs vary.
    case = Case("openai/gpt-oss-20b", "H200", 1, 200, 100, 64, 0.95, *SIZE, arrivals=arrivals, outputs=0.5)
    rate, _ = predicted(predictor, case)
    assert simulated(predictor, case, rate, case.slots).throughput == pytest.approx(1.0, abs=0.03)
    beyond = replace(case, requests=6_000)
    assert simulated(predictor, beyond, rate * 1.1 / 0.95, case.slots).throughput < 0.98
