"""Separate prefill and decode against replicas of both: which is better, why, and the figures of both roles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.conftest import ArithmeticPredictor
from tests.unit.planner.search.test_objective import Row, candidates

from energylens.api.llmdeployment import Alternative, LLMDeploymentSpec, PlanStatus, PredictedFigures
from energylens.planner.explain.disaggregation import (
    NOT_SERVED,
    WITHIN_ERROR,
    alternative_of,
    figures_of,
    followed,
    loses,
    with_pair,
)
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.disaggregation import Disaggregated, Pair
from energylens.planner.search.frontier import alternative, table_row
from energylens.planner.search.placement import placement_at
from energylens.planner.search.problem import Problem, Solution
from energylens.predictor.model.architecture import ModelSpec

OUTPUTS = 200
PREFILL: Row = {"joules": 20.0, "watts": 300, "replicas": 1, "batch": 4}
"""20 J per prompt, 0.1 J for each of its output tokens."""
DECODE: Row = {"joules": 0.27, "watts": 400, "replicas": 1}
TOGETHER: Row = {"joules": 0.4, "watts": 800}


def spec(
    objective: str = "MinimizeEnergy", disaggregation: str = "Compare", slo: dict[str, int] | None = None
) -> LLMDeploymentSpec:
    return LLMDeploymentSpec.model_validate(
        {
            "model": {"name": "example/model"},
            "workload": {"inputTokens": 500, "outputTokens": OUTPUTS, "requestsPerSecond": "1"},
            "energy": {"objective": objective},
            "slo": slo or {},
            "planning": {"disaggregation": disaggregation},
            "routing": {
                "inferencePool": {"endpointPicker": {"name": "epp"}},
                "disaggregation": {"router": "LLMD", "sidecarImage": "llm-d/sidecar:v1"},
            },
        }
    )


def pairs(prefill: Row | None = None, decode: Row | None = None, broken: tuple[str, ...] = ()) -> Disaggregated:
    """Return one pair, whose figures are the sums of two rows."""
    first, second = candidates(PREFILL | (prefill or {})), candidates(DECODE | (decode or {}))
    joules = float(first.joules_per_output_token[0] / OUTPUTS + second.joules_per_output_token[0])
    watts, gpus = float(first.power_watts[0] + second.power_watts[0]), int(first.gpus[0] + second.gpus[0])
    pair = Pair(0, 0, joules, joules, watts, gpus, 120.2, 150.0, 900.4, 990.0)
    return Disaggregated(first, second, ((pair, broken),))


@pytest.mark.parametrize(
    ("prefill", "decode", "together", "loses_to_it"),
    [
        # 0.37 J against 0.4 J.
        ({}, {}, {}, False),
        ({}, {"joules": 0.3}, {}, True),
        ({"joules": 26.0}, {}, {}, True),
        ({"joules": 25.9}, {}, {}, False),
        # Risk adds to the energy of the role that has it.
        ({}, {"unshared": 0.2}, {}, True),
        ({"unshared": 0.2}, {"joules": 0.2}, {}, False),
        ({"joules": 60.0, "unshared": 0.3}, {"joules": 0.02}, {}, True),
        ({"joules": 60.0}, {"joules": 0.02}, {}, False),
        ({}, {"joules": 0.31}, {"unshared": 0.2}, False),
        # A difference of 8 % is a tie where layouts differ by as much, in whichever of the three.
        ({"own": 0.3}, {}, {}, True),
        ({}, {"own": 0.3}, {}, True),
        ({}, {}, {"own": 0.3}, True),
        # A chance of breaking a latency of one percent counts as 3 % of energy: 0.41 J against 0.40 J.
        ({}, {"joules": 0.31}, {"breach": 0.008}, True),
        ({}, {"joules": 0.31}, {"breach": 0.009}, False),
    ],
)
def test_a_pair_has_to_use_clearly_less_energy(prefill: Row, decode: Row, together: Row, loses_to_it: bool) -> None:
    assert loses(pairs(prefill, decode), candidates(TOGETHER | together), 0, spec()) is loses_to_it


@pytest.mark.parametrize(
    ("slo", "objective", "loses_to_it"),
    [
        # 120.2 ms are predicted, 150 ms with the margin: a chance of 10 % counts as 35 % of energy or power.
        ({"ttftMilliseconds": 150}, "MinimizeEnergy", True),
        ({"ttftMilliseconds": 150}, "MinimizePower", True),
        ({"ttftMilliseconds": 150}, "MinimizeGPUs", False),
        # 1 % counts as 3 %: 0.38 J against 0.4 J.
        ({"ttftMilliseconds": 220}, "MinimizeEnergy", False),
        # 900.4 ms, 990 ms with the margin.
        ({"endToEndMilliseconds": 990}, "MinimizeEnergy", True),
        ({"endToEndMilliseconds": 2000}, "MinimizeEnergy", False),
    ],
)
def test_a_pair_that_may_break_an_objective_has_to_use_less(
    slo: dict[str, int], objective: str, loses_to_it: bool
) -> None:
    asked = spec(objective, slo=slo)
    assert loses(pairs(), candidates(TOGETHER | {"watts": 760}), 0, asked) is loses_to_it


@pytest.mark.parametrize(("limit", "loses_to_it"), [(30, True), (90, False)])
@pytest.mark.parametrize("latency", ["itl", "tpot"])
def test_the_latencies_between_tokens_are_those_of_decode(latency: str, limit: int, loses_to_it: bool) -> None:
    found = pairs()
    slow: dict[str, Any] = {f"{latency}_ms": np.array([20.0]), f"{latency}_upper_ms": np.array([30.0])}
    found = replace(found, decode=replace(found.decode, **slow))
    asked = spec(slo={f"{latency}Milliseconds": limit})
    assert loses(found, candidates(TOGETHER), 0, asked) is loses_to_it


def test_a_pair_that_breaks_an_objective_loses() -> None:
    assert loses(pairs(broken=("TTFT P95 9 ms > 5 ms",)), candidates(TOGETHER), 0, spec())


@pytest.mark.parametrize(("decode", "loses_to_it"), [({"watts": 400}, False), ({"watts": 500}, True)])
def test_with_the_objective_of_power_watts_decide(decode: Row, loses_to_it: bool) -> None:
    # 700 W or 800 W against 800 W, with twice the energy per token.
    found = pairs(decode=decode | {"joules": 0.8})
    assert loses(found, candidates(TOGETHER), 0, spec("MinimizePower")) is loses_to_it


def test_risk_counts_in_watts_too() -> None:
    risky = pairs(decode={"unshared": 0.3})
    assert loses(risky, candidates(TOGETHER), 0, spec("MinimizePower"))
    assert not loses(pairs(), candidates({"watts": 690, "unshared": 0.3}), 0, spec("MinimizePower"))


@pytest.mark.parametrize(
    ("replicas", "joules", "loses_to_it"), [(3, 0.1, False), (1, 0.9, True), (2, 0.4, False), (2, 0.36, True)]
)
def test_gpus_decide_before_energy(replicas: int, joules: float, loses_to_it: bool) -> None:
    # Four GPUs of both roles against 6, 2 and 4.
    both = candidates({"replicas": replicas, "joules": joules})
    assert loses(pairs(), both, 0, spec("MinimizeGPUs")) is loses_to_it


def unpredicted(rows: Candidates, **fields: Any) -> PlanStatus:
    """Return the first row as a plan without figures."""
    figures: Any = dict.fromkeys(
        ("power_watts", "idle_power_watts", "output_tokens_per_second", "concurrency", "ttft_milliseconds"), 0
    )
    energy: Any = dict.fromkeys(
        ("joules_per_output_token", "joules_per_output_token_low", "joules_per_output_token_high"), "0"
    )
    return PlanStatus(
        hash="", predictor_version="1", confidence="Measured", binding_constraint="None", **placement_at(rows, 0),
        predicted=PredictedFigures(**figures, **energy, itl_milliseconds=17), **fields,
    )  # fmt: skip


CHOSEN = (0.4, 800.0, 6)
"""Joules per output token, watts and GPUs of the chosen plan."""


@pytest.mark.parametrize(
    ("objective", "chosen", "better", "text"),
    [
        ("MinimizeEnergy", CHOSEN, True, "uses 8 % less energy"),
        ("MinimizeEnergy", (0.3, 800.0, 6), False, "uses 23 % more energy"),
        ("MinimizeEnergy", (0.37, 800.0, 6), False, "uses as much energy"),
        ("MinimizePower", CHOSEN, True, "draws 12 % less power"),
        ("MinimizePower", (0.4, 500.0, 6), False, "draws 40 % more power"),
        ("MinimizePower", (0.4, 700.0, 6), False, "draws as much power"),
        ("MinimizeGPUs", CHOSEN, True, "uses 4 GPUs instead of 6"),
        ("MinimizeGPUs", (0.4, 800.0, 2), False, "uses 4 GPUs instead of 2"),
        ("MinimizeGPUs", (0.4, 800.0, 4), False, "uses 4 GPUs instead of 4"),
    ],
)
def test_the_reason_of_a_pair_compares_what_is_minimised(
    objective: str, chosen: tuple[float, float, int], better: bool, text: str
) -> None:
    found = pairs()
    for disaggregation, excuse in (("Compare", f", but {NOT_SERVED}"), ("Follow", f", {WITHIN_ERROR}")):
        shown = alternative_of(found, found.best, (), spec(objective, disaggregation), chosen)
        assert shown.reason == f"prompts on 1 x TP2, max batch 4: {text}{excuse if better else ''}"


def test_a_pair_is_shown_with_the_figures_of_both_roles_and_what_it_breaks() -> None:
    found = pairs()
    shown = alternative_of(found, found.best, ("ITL P95 9 ms > 5 ms", "9 W > 5 W (cap)"), spec(), CHOSEN)
    assert shown.reason == "prompts on 1 x TP2, max batch 4: ITL P95 9 ms > 5 ms; 9 W > 5 W (cap)"
    assert (shown.gpus, shown.replicas, shown.max_batch_size) == (4, 1, 64)
    assert (shown.joules_per_output_token, shown.power_watts) == ("370m", 700)
    assert (shown.ttft_milliseconds, shown.end_to_end_milliseconds) == (121, 901)
    assert shown.prefill is not None
    assert (shown.prefill.replicas, shown.prefill.max_batch_size) == (1, 4)
    assert alternative_of(found, found.best, (), spec(), CHOSEN, reason="said").reason == "said"


@pytest.mark.parametrize(
    ("held", "longest", "expected"),
    [(9000.0, 8000, 8000), (7000.5, 8000, 7000), (np.inf, 8000, 8000), (9.0, None, None)],
)
def test_the_plan_of_a_pair_has_the_figures_of_both_roles(
    held: float, longest: int | None, expected: int | None
) -> None:
    found = pairs()
    one = np.ones(1)
    first = replace(
        found.prefill, joules_low=16 * one, joules_high=30 * one, idle_power_watts=100.4 * one, concurrency=2.2 * one,
        utilization=0.401 * one, kv_cache_tokens=held * one,
    )  # fmt: skip
    second = replace(
        found.decode, joules_low=0.2 * one, joules_high=0.5 * one, idle_power_watts=200.4 * one, concurrency=8.4 * one,
        utilization=0.3 * one,
    )  # fmt: skip
    decode = unpredicted(second, longest_request_tokens=longest)
    for one_of_them, other, percent in ((first, second, 41), (replace(first, utilization=0.1 * one), second, 30)):
        both = Disaggregated(one_of_them, other, found.pairs)
        fields = figures_of(both, both.best, spec(), decode)
        figures = fields["predicted"]
        assert (fields["gpus"], fields["prefill"].max_batch_size) == (4, 4)
        assert fields["longest_request_tokens"] == expected
        assert figures.joules_per_output_token == "370m"
        assert (figures.joules_per_output_token_low, figures.joules_per_output_token_high) == ("280m", "650m")
        assert (figures.power_watts, figures.idle_power_watts, figures.concurrency) == (700, 301, 11)
        assert (figures.ttft_milliseconds, figures.end_to_end_milliseconds) == (121, 901)
        assert (figures.itl_milliseconds, figures.utilization_percent) == (17, percent)


def shown_at(joules: Sequence[float], reason: str = "uses more energy") -> tuple[Alternative, ...]:
    """Return plans without roles of given energies."""
    rows = candidates(*({"joules": each} for each in joules))
    return tuple(alternative(rows, i, reason) for i in range(len(joules)))


@pytest.fixture
def problem_of(models: dict[str, ModelSpec], predictor: ArithmeticPredictor) -> Callable[..., Problem]:
    """Return a function that makes a problem of a spec, with no nodes."""
    return lambda asked: Problem(asked, "team/chat", models["8b"], (), {}, predictor, None)


@pytest.mark.parametrize(("objective", "place"), [("MinimizeEnergy", 2), ("MinimizePower", 0), ("MinimizeGPUs", 4)])
def test_a_pair_takes_the_place_of_the_last_alternative(
    objective: str, place: int, problem_of: Callable[..., Problem]
) -> None:
    # The pair uses 0.37 J per token and 700 W; the others draw 800 W, and have four GPUs as the pair has.
    found, rows = pairs(), candidates(TOGETHER)
    others = shown_at([0.35, 0.36, 0.38, 0.39, 0.41])
    table = tuple(table_row(each, is_chosen=False) for each in shown_at([0.35, 0.37, 0.38]))
    status, shown = with_pair(
        problem_of(spec(objective)), Solution(rows, (), 0), 0, unpredicted(rows, alternatives=others), table, found
    )
    assert [each.prefill is not None for each in status.alternatives].index(True) == place
    assert [each for each in status.alternatives if each.prefill is None] == list(others[:4])
    assert [row["joulesPerOutputToken"] for row in shown] == ["350m", "370m", "370m", "380m"]
    assert [row["prefill"] for row in shown] == [None, None, "1 x TP2, max batch 4", None]
    assert not any(row["chosen"] for row in shown)


@pytest.mark.parametrize(
    ("objective", "gpus", "reason"),
    [
        ("MinimizeEnergy", 4, "uses 8 % more energy"),
        ("MinimizePower", 4, "draws 14 % more power"),
        ("MinimizeGPUs", 4, "uses 8 % more energy"),
        ("MinimizeGPUs", 8, "uses 8 GPUs instead of 4"),
    ],
)
def test_a_pair_that_is_the_plan_says_why_others_are_not(
    objective: str, gpus: int, reason: str, problem_of: Callable[..., Problem]
) -> None:
    found, together = pairs(), candidates(TOGETHER | {"replicas": gpus // 2})
    best = alternative(together, 0, "")
    breaks = "ITL P95 9 ms > 5 ms"
    others = (*shown_at([0.3]), *shown_at([0.31, 0.32, 0.33, 0.34, 0.35], breaks))
    table = (table_row(shown_at([0.31], breaks)[0], is_chosen=False), table_row(best, is_chosen=True))
    status, rows = followed(problem_of(spec(objective)), found, unpredicted(found.decode), best, others, table)
    assert status.prefill is not None
    assert (status.gpus, status.predicted.power_watts) == (4, 700)
    # Four that break an objective, and the best plan without roles.
    assert status.alternatives == (*others[1:5], best.model_copy(update={"reason": reason}))
    assert [(row["reason"], row["chosen"]) for row in rows] == [
        (breaks, False),
        ("prompts on 1 x TP2, max batch 4", True),
        (reason, False),
    ]


def test_a_pair_may_be_the_only_plan(problem_of: Callable[..., Problem]) -> None:
    found = pairs()
    status, rows = followed(problem_of(spec()), found, unpredicted(found.decode), None, (), ())
    assert status.alternatives == ()
    assert [row["chosen"] for row in rows] == [True]
