"""What a plan of a large cluster leaves out could not be chosen, and what leaves it as it is makes no other inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.search.large import MODELS, PRODUCTS, asked, cluster, problem

from energylens.data import load_gpus, load_model, load_predictor
from energylens.planner import answers as kept_answers
from energylens.planner import plan, plan_inputs_hash
from energylens.planner.answers import Answers
from energylens.planner.question import Question
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
    original, searched = Question.planned, Question.searched

    def count(self: Question, allowance: PowerAllowance | None) -> Any:
        planned.append(self.deployment.metadata.name)
        return original(self, allowance)

    def count_search(self: Question) -> Any:
        planned.append(self.deployment.metadata.name)
        return searched(self)

    monkeypatch.setattr(Question, "planned", count)
    monkeypatch.setattr(Question, "searched", count_search)
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


def test_no_more_is_kept_than_asked_for(counted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_answers, "MOST_LATEST", 1)
    # The answers to these bounds are of about one size.
    first, last = 31, 36
    one = Answers()
    one.of(question(slo={"itlMilliseconds": first}))
    answers = Answers(most_bytes=3 * one.size)
    for itl in range(first, last + 1):
        answers.of(question(slo={"itlMilliseconds": itl}))
    assert 2 * one.size < answers.size <= 4 * one.size
    del counted[:]
    # Asked for equally often, the first ones keep their place. The latest answer is kept beside them.
    for itl in (first, last):
        answers.of(question(slo={"itlMilliseconds": itl}))
    assert not counted
    answers.of(question(slo={"itlMilliseconds": last - 1}))
    assert counted == ["a"]


@pytest.mark.parametrize("watts", [None, 1.0, 1e6])
def test_answers_are_the_same_where_none_are_kept(watts: float | None, counted: list[str]) -> None:
    none, asked = Answers(0), question(watts=watts)
    assert none.of(asked) == Answers().of(asked)
    del counted[:]
    none.of(asked)
    assert counted[:1] == ["a"]
    assert none.size == 0


def test_a_spec_is_kept_for_the_latest_nodes_only() -> None:
    answers = Answers()
    answers.of(question(nodes=10))
    size = answers.size
    answers.of(question(nodes=1))
    assert 0 < answers.size < size


def test_a_cluster_that_became_small_is_searched_whole() -> None:
    answers = Answers()
    large, small = question(nodes=10), question(nodes=8)
    assert answers.of(large).most_gpus == 16
    found, anew = answers.of(small), small.planned(None)
    assert isinstance(found, Feasible)
    assert isinstance(anew, Feasible)
    assert anew.most_gpus is None
    assert replace(found, rejections=()) == replace(anew, rejections=())


def test_places_count_only_where_they_are_fewer_than_a_candidate_needs() -> None:
    assert places_within([8] * 10, 16) == places_within([8] * 9 + [8, 3], 16)
    assert places_within([8, 8], 16) != places_within([8, 7], 16)
    assert places_within([8, 4], None) == {1: 12, 2: 6, 3: 3, 4: 3, 5: 1, 6: 1, 7: 1, 8: 1}
    assert places_within([], 16) == {}


@pytest.mark.parametrize("parts", [{}, {"hardware": {"gpuProducts": ["H100"]}}])
def test_an_answer_is_that_of_a_new_search_while_the_cluster_fills_up(
    parts: dict[str, Any], counted: list[str]
) -> None:
    answers, bound = Answers(), set[str]()
    for taken in (0, 3, 38, 40):
        # The L40S nodes fill up one after the other, four GPUs each.
        held = [0] * 10 + [min(4, max(0, taken - 4 * index)) for index in range(10)]
        asks = replace(question("kept", **parts), snapshot=filled(cluster(10), held))
        found, anew = answers.of(asks), replace(asks, deployment=asked("anew", **parts)).planned(None)
        assert isinstance(anew, Feasible)
        assert isinstance(found, Feasible)
        assert replace(found, rejections=()) == replace(anew, rejections=())
        bound.add(found.plan.binding_constraint)
    # A plan on H100 draws more, so that more candidates can matter.
    assert counted.count("kept") <= 2
    # An L40S would be better; once none is left, the limit is not what is in the way.
    assert bound == {"spec.hardware.gpuProducts" if parts else "free GPUs", "None"}


def filled(snapshot: ClusterSnapshot, held: Sequence[int]) -> ClusterSnapshot:
    """Return the nodes with so many GPUs of each held by another deployment."""
    nodes = zip(snapshot.nodes, held, strict=True)
    return replace(
        snapshot,
        nodes=tuple(replace(n, allocations=(GpuAllocation("team/other", gpus),) if gpus else ()) for n, gpus in nodes),
    )


def test_a_pool_without_nodes_for_large_pods_makes_no_new_search(counted: list[str]) -> None:
    answers = Answers()
    # kube-scheduler spreads pods: soon no node has eight free GPUs, then none has four.
    for name, held in (("a", 0), ("b", 1), ("c", 5)):
        answers.of(replace(question(name), snapshot=filled(cluster(10), [held] * 10 + [0] * 10)))
    assert counted == ["a"]


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
