"""What a plan of a large cluster leaves out could not be chosen, and what leaves it as it is makes no other inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.search.large import MODELS, PRODUCTS, asked, cluster, problem

from energylens.data import load_gpus, load_model, load_predictor
from energylens.planner import plan, plan_inputs_hash
from energylens.planner.answers import Answers, Question
from energylens.planner.search import problem as problems
from energylens.planner.search import reach
from energylens.planner.search.evaluate import evaluate
from energylens.planner.search.identity import is_made_from
from energylens.planner.search.problem import solve
from energylens.planner.search.reach import (
    SMALL,
    STEPS,
    inventory_within,
    places_within,
    seen_within,
    solve_within,
)
from energylens.planner.types import (
    ClusterSnapshot,
    Feasible,
    GpuAllocation,
    GpuNode,
    Infeasible,
    PlanningResult,
    PowerAllowance,
    Taint,
)

SPECS: tuple[dict[str, Any], ...] = (
    {},
    {"workload": {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "40"}},
    {"slo": {"itlMilliseconds": 12, "ttftMilliseconds": 200, "percentile": "P99"}},
    {"energy": {"objective": "MinimizePower"}},
    {"energy": {"objective": "MinimizeGPUs"}},
    {"energy": {"powerCap": {"mode": "Plan"}}, "hardware": {"gpuProducts": ["L40S", "H100"]}},
)


@pytest.mark.parametrize(("model", "spec"), [*((MODELS[0], spec) for spec in SPECS), (MODELS[1], {})])
def test_the_plan_is_the_best_of_the_whole_cluster(model: str, spec: dict[str, Any]) -> None:
    asks = problem(model, 10, **spec)
    few, most = solve_within(asks)
    every = solve(asks)
    assert most in STEPS
    assert few.chosen is not None
    assert every.chosen is not None
    for name in ("replicas", "joules_per_output_token", "power_watts", "itl_ms", "gpus_per_node"):
        assert getattr(few.rows, name)[few.chosen] == getattr(every.rows, name)[every.chosen]
    assert few.rows.products[few.rows.product[few.chosen]] == every.rows.products[every.rows.product[every.chosen]]


@pytest.mark.parametrize("model", MODELS)
def test_no_candidate_draws_less_than_its_gpus_draw_empty(model: str) -> None:
    rows = solve(problem(model, 3)).rows
    floor = np.asarray([load_gpus()[product].idle_watts for product in rows.products])[rows.product]
    able = rows.supported & rows.fits & np.isfinite(rows.power_watts)
    assert able.any()
    assert (rows.power_watts[able] >= (rows.gpus * floor)[able]).all()


def test_a_small_cluster_is_evaluated_whole() -> None:
    asks = problem(MODELS[0], SMALL // 8)
    assert solve_within(asks)[1] is None


def test_a_plan_that_needs_many_gpus_is_found_within_a_wider_bound() -> None:
    load = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "200"}
    found, most = solve_within(problem(MODELS[0], 10, workload=load))
    assert found.chosen is not None
    assert most is None or most > STEPS[0]


def test_one_node_more_makes_no_other_inputs_of_a_plan_that_it_cannot_change() -> None:
    deployment, gpus, predictor = asked(), load_gpus(), load_predictor()
    model = load_model(MODELS[0])
    result = plan(deployment, model, cluster(10), gpus, predictor)
    assert isinstance(result, Feasible)

    def inputs(nodes: int) -> str:
        return plan_inputs_hash(deployment, model, cluster(nodes), gpus, predictor.version, plan=result.plan)

    assert is_made_from(result.plan, inputs(10))
    assert inputs(11) == inputs(40) == inputs(10)
    # With so few nodes that what the plan can be about shrinks, it is another question.
    assert inputs(1) != inputs(10)


def test_watts_that_restrict_nothing_are_no_input() -> None:
    deployment, gpus, predictor = asked(), load_gpus(), load_predictor()
    model = load_model(MODELS[0])
    plain = plan(deployment, model, cluster(2), gpus, predictor)
    assert isinstance(plain, Feasible)
    wide, tight = (
        plan(deployment, model, cluster(2), gpus, predictor, allowance=PowerAllowance(watts, "EnergyBudget a/b"))
        for watts in (plain.plan.predicted.power_watts + 0.0, plain.plan.predicted.power_watts - 1.0)
    )
    assert isinstance(wide, Feasible)
    assert wide.plan.hash == plain.plan.hash
    assert not wide.restricted
    # The plan of least energy draws the least power here, so that a watt less leaves none.
    assert isinstance(tight, Infeasible)
    assert tight.reason == "BudgetExceeded"


WITHOUT_POWER: tuple[tuple[float, dict[str, Any]], ...] = (
    (0.0, {}),
    (0.6, {}),
    (0.97, {"workload": {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "10"}}),
    (0.6, {"workload": {"inputTokens": 512, "outputTokens": 256, "concurrency": 40}}),
    (0.97, {"slo": {"itlMilliseconds": 60}, "hardware": {"maxGPUs": 4}}),
    (0.6, {"planning": {"overrides": {"replicas": 3}}}),
    (0.6, {"planning": {"overrides": {"tensorParallel": 4}}, "energy": {"powerCap": {"mode": "Plan"}}}),
)
"""Shares of the least power that a plan takes."""


@pytest.mark.parametrize(("share", "spec"), WITHOUT_POWER)
def test_too_little_power_is_explained_as_by_a_search_of_the_whole_cluster(
    spec: dict[str, Any], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, model, gpus, predictor = asked(**spec), load_model(MODELS[0]), load_gpus(), load_predictor()
    snapshot = ClusterSnapshot(cluster(17).nodes[17:])
    free = plan(deployment, model, snapshot, gpus, predictor)
    assert isinstance(free, Feasible)
    assert free.plan.lowest_power_watts is not None
    left = PowerAllowance(max(1.0, float(int(share * free.plan.lowest_power_watts))), "EnergyBudget team/cap")

    def answer() -> PlanningResult:
        return plan(deployment, model, snapshot, gpus, predictor, allowance=left)

    bounded = answer()
    for module in (reach, problems):
        monkeypatch.setattr(module, "most_powered", lambda problem, idle_watts: None)
    whole = answer()
    assert isinstance(bounded, Infeasible)
    assert isinstance(whole, Infeasible)
    assert bounded.reason == whole.reason == "BudgetExceeded"
    assert bounded.most_gpus in STEPS
    assert whole.most_gpus is None
    assert (bounded.message, bounded.relaxations) == (whole.message, whole.relaxations)


def test_without_power_no_more_candidates_are_evaluated_than_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[int] = []

    def count(*arguments: Any, **options: Any) -> Any:
        rows = evaluate(*arguments, **options)
        evaluated.append(len(rows))
        return rows

    monkeypatch.setattr("energylens.planner.search.problem.evaluate", count)

    def candidates(watts: float | None) -> int:
        evaluated.clear()
        question(nodes=200).planned(None if watts is None else PowerAllowance(watts, "EnergyBudget team/cap"))
        return sum(evaluated)

    plenty = candidates(None)
    assert candidates(1.0) <= plenty
    # The nearest load that works is looked for among the few candidates that have the power.
    assert candidates(60.0) <= 3 * plenty


def test_that_there_is_too_little_power_is_found_once(counted: list[str]) -> None:
    answers = Answers()
    first = answers.of(question("a", watts=1.0))
    assert isinstance(first, Infeasible)
    assert counted == ["a", "a"]
    for same in (question("b", watts=1.0), question("c", nodes=11, watts=1.0), question("d", held=3, watts=1.0)):
        assert answers.of(same) == first
    assert counted == ["a", "a"]
    # Other watts, fewer nodes than the answer is about, and a node that a taint keeps away may all change the answer.
    answers.of(question("e", watts=2.0))
    answers.of(question("f", nodes=1, watts=1.0))
    assert counted[2:] == ["e", "f", "f"]


def test_changes_of_nodes_that_would_bring_power_are_looked_for_again(counted: list[str]) -> None:
    answers, asks = Answers(), question("a", watts=1.0)
    first, *others = asks.snapshot.nodes
    tainted = replace(first, name="tainted", taints=(Taint("team", "other"),))
    for _ in range(2):
        answers.of(replace(asks, snapshot=replace(asks.snapshot, nodes=(first, *others, tainted))))
    assert counted == ["a", "a", "a"]


def question(name: str = "a", nodes: int = 10, held: int = 0, watts: float | None = None, **parts: Any) -> Question:
    snapshot = cluster(nodes)
    if held:
        first = replace(snapshot.nodes[0], allocations=(GpuAllocation("team/other", held),))
        snapshot = replace(snapshot, nodes=(first, *snapshot.nodes[1:]))
    allowance = None if watts is None else PowerAllowance(watts, "EnergyBudget team/cap")
    return Question(asked(name, **parts), load_model(MODELS[0]), snapshot, load_gpus(), load_predictor(), allowance)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the deployments that were planned."""
    planned: list[str] = []
    original = Question.planned

    def count(self: Question, allowance: PowerAllowance | None) -> Any:
        planned.append(self.deployment.metadata.name)
        return original(self, allowance)

    monkeypatch.setattr(Question, "planned", count)
    return planned


def test_equal_questions_are_planned_once(counted: list[str]) -> None:
    answers = Answers()
    first = answers.of(question("a"))
    for same in (question("b"), question("c", nodes=11), question("d", held=3), question("e", watts=5000.0)):
        again = answers.of(same)
        assert isinstance(again, Feasible)
        assert isinstance(first, Feasible)
        assert again.plan.hash == first.plan.hash
    assert counted == ["a"]


def test_other_questions_are_planned(counted: list[str]) -> None:
    answers = Answers()
    answers.of(question("a"))
    for index, other in enumerate(
        (
            question("b", slo={"itlMilliseconds": 33}),
            question("c", hardware={"gpuProducts": ["H100"]}),
            question("d", nodes=1),
            question("e", watts=50.0),
        )
    ):
        answers.of(other)
        assert counted[1 + index] == other.deployment.metadata.name


def test_a_kept_answer_has_the_identity_of_who_asks(counted: list[str]) -> None:
    answers = Answers()
    plain, other = answers.of(question("a")), answers.of(question("b", engine={"env": [{"name": "A", "value": "1"}]}))
    assert counted == ["a"]
    assert isinstance(plain, Feasible)
    assert isinstance(other, Feasible)
    assert plain.plan.serving_hash != other.plan.serving_hash
    assert plain.plan.hash != other.plan.hash


def test_no_more_answers_are_kept_than_asked_for(counted: list[str]) -> None:
    answers = Answers(most=3)
    for itl in range(30, 36):
        answers.of(question(slo={"itlMilliseconds": itl}))
    assert len(answers) <= 3
    answers.of(question(slo={"itlMilliseconds": 35}))
    assert len(counted) == 6


def test_places_count_only_where_they_are_fewer_than_a_candidate_needs() -> None:
    assert places_within([8] * 10, 16) == places_within([8] * 9 + [8, 3], 16)
    assert places_within([8, 8], 16) != places_within([8, 7], 16)
    assert places_within([8, 4], None) == {1: 12, 2: 6, 3: 3, 4: 3, 5: 1, 6: 1, 7: 1, 8: 1}
    assert places_within([], 16) == {}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"slo": {"itlMilliseconds": 12}},
        {"hardware": {"maxGPUsPerReplica": 8}},
        {"hardware": {"maxGPUsPerReplica": 8}, "slo": {"itlMilliseconds": 12}},
    ],
)
def test_a_kept_answer_is_what_planning_would_answer_while_the_cluster_fills_up(parts: dict[str, Any]) -> None:
    taken = (0, 3, 4, 30, 37, 39)
    assert len(planned_while_the_cluster_fills_up(taken, **parts)) < len(taken)


def test_a_limit_on_gpus_is_named_only_while_it_binds() -> None:
    # An L40S would be better; once none is left, the limit is not what is in the way.
    bound = planned_while_the_cluster_fills_up((0, 38, 40), hardware={"gpuProducts": ["H100"]})
    assert bound == {0: "spec.hardware.gpuProducts", 38: "spec.hardware.gpuProducts", 40: "None"}


def planned_while_the_cluster_fills_up(gpus_taken: Sequence[int], **parts: Any) -> dict[int, str]:
    """Compare kept answers with new ones; return what binds the plan wherever no kept answer was one."""
    answers, planned = Answers(), dict[int, str]()
    model, gpus, predictor, full = load_model(MODELS[0]), load_gpus(), load_predictor(), cluster(10)
    for taken in gpus_taken:
        # The L40S nodes fill up one after the other, four GPUs each.
        left = [min(4, max(0, taken - 4 * index)) for index in range(10)]
        nodes = [
            replace(node, allocations=(GpuAllocation("team/other", held),)) if held else node
            for node, held in zip(full.nodes[10:], left, strict=True)
        ]
        snapshot = replace(full, nodes=(*full.nodes[:10], *nodes))
        before = len(answers)
        found = answers.of(Question(asked(f"d{taken}", **parts), model, snapshot, gpus, predictor))
        anew = plan(asked(**parts), model, snapshot, gpus, predictor)
        assert isinstance(found, Feasible)
        assert isinstance(anew, Feasible)
        if len(answers) > before:
            planned[taken] = found.plan.binding_constraint
        assert found.plan.model_copy(update={"inputs_hash": None}) == anew.plan.model_copy(update={"inputs_hash": None})
        assert found.table == anew.table
    return planned


@pytest.mark.parametrize("model", MODELS)
def test_what_a_plan_sees_of_nodes_changes_whenever_its_inputs_do(model: str) -> None:
    gpus = load_gpus()
    for most in (None, *STEPS[:2]):
        seen = dict[object, str]()
        for counts in ((1, 1), (2, 1), (8, 1), (8, 2), (9, 2), (15, 2), (16, 2), (17, 2), (40, 2), (40, 15), (40, 40)):
            nodes = tuple(
                GpuNode(f"{product}-{index}", product, size)
                for (product, size), count in zip(PRODUCTS, counts, strict=True)
                for index in range(count)
            )
            spec, served = asked(model=model).spec, load_model(model)
            inputs = str(inventory_within(spec, served, nodes, gpus, most))
            found = seen_within(nodes, most)
            assert seen.setdefault(found, inputs) == inputs, counts
        assert len(seen) > 4
