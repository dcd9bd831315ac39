"""Why not: each answer is checked by planning again with the change that it names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.planner.conftest import H100, H200, L40S, ArithmeticPredictor

from energylens.api.llmdeployment import LLMDeployment, Overrides
from energylens.planner.explain.whynot import Answer, Choice, Winning, why_not
from energylens.planner.planning import problem_for
from energylens.planner.search.problem import Problem, solve
from energylens.planner.types import ClusterSnapshot
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

Ask = Callable[..., Answer]
PLAIN = {"percentile": "P50", "itlMilliseconds": 30}
TP8 = {"planning": {"overrides": {"tensorParallel": 8}}}
STEP = {"itlMilliseconds": 1, "ttftMilliseconds": 1, "maxGPUs": 1, "maxGPUsPerReplica": 1}


def choose(**values: Any) -> Choice:
    gpu, cap = values.pop("gpu", None), values.pop("cap", None)
    return Choice(gpu, Overrides().model_copy(update=values), cap)


@pytest.fixture(scope="session")
def make_problem(
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
    gpus: Mapping[str, GpuSpec],
    models: Mapping[str, ModelSpec],
    predictor: ArithmeticPredictor,
) -> Callable[..., Problem]:
    def build(model: str = "70b", used: int = 0, **parts: Any) -> Problem:
        snapshot = make_snapshot((H100, 8, 1), (H200, 8, 1), (L40S, 4, 1), used=used)
        return problem_for(make_deployment(**parts), models[model], snapshot, gpus, predictor, None, None)

    return build


def changed(spec: Mapping[str, Any], winning: Winning) -> dict[str, Any]:
    """Return the parts of a spec with the changes that an answer names, as a user would write them."""
    parts: dict[str, Any] = {key: dict(value) for key, value in spec.items()}
    for change in winning.changes:
        _, group, *names = change.field.split(".")
        at = parts.setdefault(group, {})
        for name in names[:-1]:
            at = at.setdefault(name, {})
        value: Any = change.allowed
        if change.field == "spec.energy.powerCap":
            value = {"mode": "Fixed", "wattsPerGPU": int(change.allowed.split()[2])}
        elif change.field == "spec.hardware.gpuProducts":
            value = [*at["gpuProducts"], change.allowed.strip("[]")]
        elif value.isdecimal():
            value = int(value)
        at[names[-1]] = value
    return parts


def chosen_is(problem: Problem, choice: Choice) -> bool:
    solution = solve(problem)
    i = solution.chosen
    if i is None:
        return False
    rows = solution.rows
    asked = choice.overrides.model_dump(exclude_none=True)
    if choice.gpu_product not in (None, rows.products[int(rows.product[i])]):
        return False
    columns = {name: getattr(rows if name == "replicas" else rows.layouts, name)[i] for name in asked}
    cap = choice.power_cap_watts
    same_cap = cap is None or rows.layouts.power_cap_watts[i] == cap
    return same_cap and columns == asked


def test_the_plan_itself(make_problem: Callable[..., Problem]) -> None:
    problem = make_problem(slo=PLAIN)
    assert why_not(problem, Choice()).verdict == "Chosen"
    answer = why_not(problem, choose(gpu=H200))
    assert answer.verdict == "Chosen"
    assert answer.message.startswith("this is the chosen plan: 1 x NVIDIA-H200 TP2")


def test_a_plan_that_breaks_an_objective_wins_where_that_gives_way(make_problem: Callable[..., Problem]) -> None:
    answer = why_not(make_problem(slo=PLAIN), choose(gpu=L40S))
    assert answer.verdict == "Removed"
    assert answer.message == (
        "ITL P50 above 30 ms: ITL P50 54 ms, with the safety margin 57 ms > 30 ms (1 x NVIDIA-L40S TP4, max batch 64)"
    )
    (one,) = answer.winning
    (change,) = one.changes
    assert (change.field, change.value, change.allowed) == ("spec.slo.itlMilliseconds", "30", "57")
    assert not one.wins, "the H200 is still better at 60 ms"


def test_a_plan_that_is_dearer_wins_where_its_rivals_are_too_slow(make_problem: Callable[..., Problem]) -> None:
    answer = why_not(make_problem(slo=PLAIN), choose(tensor_parallel=8))
    assert answer.verdict == "Loses"
    assert "3.6 times the energy of the plan 1 x NVIDIA-H200 TP2" in answer.message
    fields = {one.changes[0].field: one for one in answer.winning}
    tight = fields["spec.slo.itlMilliseconds"]
    assert tight.wins
    assert not tight.relaxes


@pytest.mark.parametrize(
    ("choice", "spec", "field", "value"),
    [
        (choose(max_batch_size=100), {}, "spec.planning.overrides.maxBatchSize", "not set"),
        (choose(tensor_parallel=4), TP8, "spec.planning.overrides.tensorParallel", "8"),
        (choose(cap=500.0), {}, "spec.energy.powerCap", "Never"),
    ],
)
def test_a_choice_that_the_spec_does_not_leave_names_its_field(
    choice: Choice, spec: dict[str, Any], field: str, value: str, make_problem: Callable[..., Problem]
) -> None:
    spec = {"slo": PLAIN, **spec}
    answer = why_not(make_problem(**spec), choice)
    assert answer.verdict == "Removed"
    (one,) = answer.winning
    assert (one.changes[0].field, one.changes[0].value) == (field, value)
    assert one.wins
    assert chosen_is(make_problem(**changed(spec, one)), choice)


def test_rivals_are_those_of_the_spec_with_the_choice_in_it(make_problem: Callable[..., Problem]) -> None:
    spec = {"slo": PLAIN, "planning": {"overrides": {"tensorParallel": 2}}}
    choice = choose(gpu=L40S, tensor_parallel=4)
    (one,) = why_not(make_problem(**spec), choice).winning
    assert [change.field for change in one.changes] == [
        "spec.planning.overrides.tensorParallel",
        "spec.slo.itlMilliseconds",
    ]
    assert one.wins, "with TP4 the L40S is best, with TP2 the H200 would be"
    assert chosen_is(make_problem(**changed(spec, one)), choice)


def test_other_products_compete_under_a_cap_that_is_asked_about(make_problem: Callable[..., Problem]) -> None:
    answer = why_not(make_problem(slo=PLAIN), choose(gpu=H100, tensor_parallel=4, cap=500.0))
    (one,) = answer.winning
    assert not one.wins


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (choose(tensor_parallel=3), "64 attention heads are not divisible by tensor parallel"),
        (choose(tensor_parallel=16), "no such layout can be placed on the nodes"),
        (choose(gpu=H100, tensor_parallel=1, pipeline_parallel=1), "does not fit into GPU memory"),
    ],
)
def test_what_can_never_be_says_why(choice: Choice, words: str, make_problem: Callable[..., Problem]) -> None:
    answer = why_not(make_problem(slo=PLAIN), choice)
    assert answer.verdict == "Removed"
    assert answer.asked is None
    assert words in answer.message
    assert answer.winning == ()


def test_what_needs_several_changes_names_them_all(make_problem: Callable[..., Problem]) -> None:
    spec = {"slo": {"percentile": "P50", "itlMilliseconds": 5}, "hardware": {"gpuProducts": ["H100"], "maxGPUs": 2}}
    choice = choose(gpu=L40S)
    answer = why_not(make_problem(**spec), choice)
    (one,) = answer.winning
    assert {change.field for change in one.changes} == {
        "spec.hardware.gpuProducts",
        "spec.slo.itlMilliseconds",
        "spec.hardware.maxGPUs",
    }
    assert (one.wins, one.relaxes) == (False, True)
    assert solve(make_problem(**changed(spec, one))).chosen is not None


def test_gpus_of_others_are_named(make_problem: Callable[..., Problem]) -> None:
    answer = why_not(make_problem(used=4, slo=PLAIN), choose(tensor_parallel=8, gpu=H200))
    assert "the GPUs that the plan needs are not free" in answer.message
    assert answer.winning[0].changes[0].field == "free GPUs"


ONLY_H100 = {"gpuProducts": ["H100"]}


@pytest.mark.parametrize(
    ("spec", "choice", "verdict", "changes"),
    [
        # Fields, values, changed values, whether the requested plan then wins, whether the change relaxes the field.
        (
            {"hardware": ONLY_H100},
            choose(gpu=H200),
            "Removed",
            [("spec.hardware.gpuProducts", "[H100]", f"[{H200}]", True, True)],
        ),
        (
            {"hardware": ONLY_H100, "slo": {"percentile": "P50", "itlMilliseconds": 60}},
            choose(gpu=L40S),
            "Removed",
            [("spec.hardware.gpuProducts", "[H100]", f"[{L40S}]", False, True)],
        ),
        (
            {"hardware": {"maxGPUs": 2}, "slo": {"percentile": "P50", "itlMilliseconds": 14}},
            choose(tensor_parallel=4),
            "Removed",
            [("spec.hardware.maxGPUs", "2", "4", True, True)],
        ),
        (
            {"hardware": ONLY_H100},
            choose(tensor_parallel=2),
            "Loses",
            [
                ("spec.hardware.gpuProducts", "[H100]", f"[{H200}]", True, True),
                ("spec.slo.itlMilliseconds", "30", "31", True, True),
                ("spec.hardware.maxGPUs", "not set", "3", True, False),
                ("spec.slo.joulesPerOutputToken", "not set", "1813.821m", True, False),
            ],
        ),
        (
            {},
            choose(tensor_parallel=8),
            "Loses",
            [
                ("spec.slo.ttftMilliseconds", "not set", "14", True, False),
                ("spec.slo.itlMilliseconds", "30", "12", True, False),
                ("spec.slo.tpotMilliseconds", "not set", "15", True, False),
                ("spec.slo.endToEndMilliseconds", "not set", "6153", True, False),
            ],
        ),
        ({}, choose(gpu=H100), "Loses", []),
        ({}, choose(gpu=L40S), "Removed", [("spec.slo.itlMilliseconds", "30", "57", False, True)]),
    ],
)
def test_every_change_that_helps_is_named_and_does(
    spec: dict[str, Any],
    choice: Choice,
    verdict: str,
    changes: list[tuple[str, str, str, bool, bool]],
    make_problem: Callable[..., Problem],
) -> None:
    spec = {"slo": PLAIN} | spec
    answer = why_not(make_problem(**spec), choice)
    found = [(one.changes[0].field, one.changes[0].value, one.changes[0].allowed) for one in answer.winning]
    assert answer.verdict == verdict
    assert found == [(field, value, allowed) for field, value, allowed, _, _ in changes]
    assert [(one.wins, one.relaxes) for one in answer.winning] == [(wins, relaxes) for *_, wins, relaxes in changes]
    for one in answer.winning:
        after = make_problem(**changed(spec, one))
        assert chosen_is(after, choice) is one.wins
        there = why_not(after, choice).asked
        assert there is not None
        assert one.joules_per_output_token == float(there.rows.joules_per_output_token[there.index])


@pytest.mark.parametrize(
    ("used", "choice", "allowed", "wins"),
    [(4, choose(tensor_parallel=8, gpu=H200), f"8 of {H200}", False), (7, choose(gpu=H200), f"2 of {H200}", True)],
)
def test_the_gpus_to_free_are_counted(
    used: int, choice: Choice, allowed: str, wins: bool, make_problem: Callable[..., Problem]
) -> None:
    (one,) = why_not(make_problem(used=used, slo=PLAIN), choice).winning
    assert [change.allowed for change in one.changes] == [allowed]
    assert (one.wins, one.relaxes) == (wins, True)


def test_the_rules_that_removed_requested_candidates_are_counted(make_problem: Callable[..., Problem]) -> None:
    answer = why_not(make_problem(slo=PLAIN, hardware=ONLY_H100), choose(gpu=L40S, tensor_parallel=4))
    assert [one.rule for one in answer.rejections] == ["GPUProductNotAllowed"]
    asked = solve(make_problem(slo=PLAIN, hardware=ONLY_H100, planning={"overrides": {"tensorParallel": 4}}))
    rows = asked.rows
    assert answer.rejections[0].candidates == int((rows.product == rows.products.index(L40S)).sum())
    answer = why_not(make_problem(slo=PLAIN), choose(tensor_parallel=3, gpu=H200))
    assert answer.message == (
        "64 attention heads are not divisible by tensor parallel (1 x NVIDIA-H200 TP3, max batch 1)"
    )


def test_the_largest_nodes_of_each_product_are_named(
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
    gpus: Mapping[str, GpuSpec],
    models: Mapping[str, ModelSpec],
    predictor: ArithmeticPredictor,
) -> None:
    snapshot = make_snapshot((H100, 8, 1), (L40S, 2, 1), (L40S, 4, 1))
    problem = problem_for(make_deployment(slo=PLAIN), models["70b"], snapshot, gpus, predictor, None, None)
    assert why_not(problem, choose(tensor_parallel=16)).message == (
        "no such layout can be placed on the nodes that the spec may use: "
        f"1 node of {H100} with up to 8 GPUs; 2 nodes of {L40S} with up to 4 GPUs"
    )


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ("MinimizeGPUs", "uses 4 GPUs; the plan 1 x NVIDIA-H200 TP2, max batch 256 uses 2"),
        ("MinimizePower", "uses 89 % more power than the plan 1 x NVIDIA-H200 TP2, max batch 256"),
        ("MinimizeEnergy", "uses 89 % more energy than the plan 1 x NVIDIA-H200 TP2, max batch 256"),
    ],
)
def test_the_loss_is_one_of_the_objective(objective: str, words: str, make_problem: Callable[..., Problem]) -> None:
    answer = why_not(make_problem(slo=PLAIN, energy={"objective": objective}), choose(tensor_parallel=4))
    assert answer.message.endswith(words)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    itl=st.integers(8, 80),
    ttft=st.integers(20, 400),
    max_gpus=st.integers(1, 8),
    asked=st.fixed_dictionaries(
        {},
        optional={
            "tensor_parallel": st.sampled_from([1, 2, 4, 8]),
            "replicas": st.integers(1, 3),
            "gpu": st.sampled_from([H100, H200, L40S]),
            "max_batch_size": st.sampled_from([8, 64, 512]),
        },
    ),
)
def test_a_change_that_is_said_to_win_does_and_no_nearer_one_would(
    itl: int, ttft: int, max_gpus: int, asked: dict[str, Any], make_problem: Callable[..., Problem]
) -> None:
    spec: dict[str, Any] = {
        "slo": {"percentile": "P50", "itlMilliseconds": itl, "ttftMilliseconds": ttft},
        "hardware": {"maxGPUs": max_gpus},
    }
    choice = choose(**asked)
    answer = why_not(make_problem(**spec), choice)
    assert (answer.verdict == "Chosen") == chosen_is(make_problem(**spec), choice)
    for one in answer.winning:
        (*_, change) = one.changes
        if change.field == "free GPUs" or (len(one.changes) > 1 and not one.wins):
            continue
        allowed = changed(spec, one)
        there = why_not(make_problem(**allowed), choice).asked
        assert there is not None
        assert one.joules_per_output_token == float(there.rows.joules_per_output_token[there.index])
        if not one.wins:
            continue
        assert chosen_is(make_problem(**allowed), choice), one
        name = change.field.rpartition(".")[2]
        if len(one.changes) > 1 or name not in STEP or change.value == "not set":
            continue
        # A step nearer to what the spec says now it does not win.
        step = math.copysign(STEP[name], int(change.value) - int(change.allowed))
        group = allowed["slo" if "slo" in change.field else "hardware"]
        group[name] = int(change.allowed) + int(step)
        assert not chosen_is(make_problem(**allowed), choice), one
