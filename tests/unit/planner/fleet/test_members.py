"""The points of a deployment, against every candidate, and the candidates within factors on objectives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.planner.conftest import H200, L40S, ArithmeticPredictor

from energylens.api.llmdeployment import LLMDeployment
from energylens.planner.fleet.joint import BrokenObjective
from energylens.planner.fleet.members import FleetMember, deployment_of, member_of
from energylens.planner.fleet.milp import Program
from energylens.planner.planning import problem_for
from energylens.planner.search.objective import best, joules_at_risk, ranked, rounded
from energylens.planner.types import ClusterSnapshot
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec


@pytest.fixture(scope="module")
def build(
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
    gpus: Mapping[str, GpuSpec],
    models: Mapping[str, ModelSpec],
    predictor: ArithmeticPredictor,
) -> Callable[..., FleetMember]:
    def built(model: str, used: int = 0, **parts: object) -> FleetMember:
        snapshot = make_snapshot((H200, 4, 2), (L40S, 4, 2), used=used)
        problem = problem_for(make_deployment(**parts), models[model], snapshot, gpus, predictor, None, None)
        return deployment_of("team/chat", problem)

    return built


@pytest.fixture(scope="module")
def member(build: Callable[..., FleetMember]) -> FleetMember:
    return build("70b", slo={"percentile": "P50", "itlMilliseconds": 15, "ttftMilliseconds": 5000})


def kind(member: FleetMember, i: int) -> tuple[int, int]:
    rows = member.solution.rows
    return int(rows.product[i]), int(rows.gpus_per_node[i])


@pytest.mark.parametrize("deviation", [0.0, 0.1])
def test_points_are_the_candidates_that_no_other_on_such_pods_dominates(
    build: Callable[..., FleetMember], deviation: float
) -> None:
    member = build("8b", workload={"inputTokens": 300, "outputTokens": 400, "concurrency": 64})
    rows, rng = member.solution.rows, np.random.default_rng(1)
    rows = replace(
        rows,
        joules_per_output_token=rows.joules_per_output_token * rng.choice([0.9, 1.0, 1.1], len(rows)),
        power_watts=rows.power_watts * rng.choice([0.6, 0.8, 1.0], len(rows)),
        unshared_deviation=deviation * (np.arange(len(rows)) % 3).astype(np.float64),
    )
    member = replace(member, solution=replace(member.solution, rows=rows), _points={})
    mask = member.reachable
    energy = rounded(joules_at_risk(rows) * member.tokens_per_second)
    power, pods = rounded(rows.power_watts), rows.replicas * rows.nodes_per_replica
    kept: dict[tuple[int, int], list[tuple[float, float, int]]] = {}
    wanted = []
    for i in ranked(rows, mask, "MinimizeEnergy").tolist():
        costs = float(energy[i]), float(power[i]), int(pods[i])
        better = kept.setdefault(kind(member, i), [])
        if not any(all(a <= b for a, b in zip(other, costs, strict=True)) for other in better):
            better.append(costs)
            wanted.append(i)
    # A candidate that is ranked later may still need less of everything.
    costs_of = {i: (float(energy[i]), float(power[i]), int(pods[i])) for i in wanted}
    wanted = [
        i
        for i in wanted
        if not any(
            j != i
            and kind(member, i) == kind(member, j)
            and all(a <= b for a, b in zip(other, costs_of[i], strict=True))
            for j, other in costs_of.items()
        )
    ]
    found = member.points(mask, broken=False)
    assert sorted(i for _, i in found) == sorted(wanted)
    assert len({kind(member, i) for i in wanted}) > 2
    assert len(wanted) > len(kept)
    for point, i in found:
        assert (point.product, point.gpus_per_pod, point.pods) == (
            rows.products[int(rows.product[i])],
            int(rows.gpus_per_node[i]),
            int(pods[i]),
        )
        assert point.power_watts == rows.power_watts[i]
        assert point.energy_watts == pytest.approx(joules_at_risk(rows)[i] * member.tokens_per_second)
        assert point.broken == ()


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.1, 2.0, np.inf])
def test_a_factor_on_an_objective_leaves_the_other_as_it_is(member: FleetMember, factor: float) -> None:
    by_name = {objective.field: objective for objective in member.objectives}
    bound, other = by_name["spec.slo.itlMilliseconds"], by_name["spec.slo.ttftMilliseconds"]
    assert bound.needed is not None
    found = member.within({bound.field: factor})
    for i in range(len(found)):
        loose = bound.needed[i] <= 15 * factor if np.isfinite(factor) else True
        assert found[i] == bool(member.reachable[i] and other.holds[i] and loose)
    assert (member.within({bound.field: 1.0}) == member.within({})).all()


def test_points_that_break_objectives_say_what_they_need(member: FleetMember) -> None:
    strict, loose = member.within({}), member.within({"spec.slo.itlMilliseconds": 2.0})
    joint, rows = member_of(member, strict, loose & ~strict)
    (bound,) = (c for c in member.objectives if c.field == "spec.slo.itlMilliseconds")
    assert bound.needed is not None
    kept, broken = [], []
    for point, i in zip(joint.points, rows, strict=True):
        if strict[i]:
            kept.append(i)
            assert point.broken == ()
        else:
            broken.append(i)
            assert point.broken == (BrokenObjective(bound.field, "15", str(int(bound.needed[i]))),)
    assert kept
    assert broken
    assert joint.nodes == frozenset(node.name for node in member.problem.nodes)
    assert member_of(member, strict, None)[1] == kept
    assert member.points(np.zeros_like(strict), broken=False) == []


def test_only_the_name_and_the_problem_of_an_equal_deployment_differ(member: FleetMember) -> None:
    known: dict[tuple[object, ...], FleetMember] = {}
    first = deployment_of("a/b", member.problem, known=known)
    alone = deployment_of("a/b", member.problem, one_node=True, known=known)
    assert len(known) == 2
    assert (first.one_node, alone.one_node) == (False, True)
    rows = alone.solution.rows
    assert (alone.reachable == (first.reachable & (rows.nodes_per_replica == 1))).all()
    wide = replace(member.problem, within_limits=True)
    deployment_of("a/b", wide, known=known)
    assert len(known) == 3


def test_a_program_without_variables_has_an_empty_optimum() -> None:
    found = Program().solve()
    assert found is not None
    assert found.shape == (0,)


def test_energy_is_counted_at_the_throughput_of_the_best_plan_of_an_empty_cluster(
    build: Callable[..., FleetMember],
) -> None:
    """Two deployments of one load must weigh alike, whichever GPUs are free for them."""
    load = {"inputTokens": 300, "outputTokens": 400, "concurrency": 64}
    slo = {"percentile": "P50", "itlMilliseconds": 7}
    free, crowded = (build("8b", used=used, workload=load, slo=slo) for used in (0, 4))
    chosen = free.solution.chosen
    assert chosen is not None
    assert crowded.solution.chosen is None
    best_of_all = build("8b", workload=load).solution
    assert best_of_all.chosen is not None
    tokens = float(free.solution.rows.output_tokens_per_second[chosen])
    assert tokens != best_of_all.rows.output_tokens_per_second[best_of_all.chosen]
    assert free.tokens_per_second == crowded.tokens_per_second == tokens
    impossible = build("8b", workload=load, slo={"itlMilliseconds": 1})
    assert impossible.tokens_per_second == best_of_all.rows.output_tokens_per_second[best_of_all.chosen]


def test_energy_is_counted_at_the_throughput_of_a_plan_that_holds_the_load(build: Callable[..., FleetMember]) -> None:
    """Four replicas with batches of 64 would use less energy, but 300 requests wait for places there."""
    load = {"inputTokens": 300, "outputTokens": 400, "concurrency": 300}
    planning = {"overrides": {"maxBatchSize": 64, "tensorParallel": 1, "pipelineParallel": 1}}
    impossible = build("8b", workload=load, slo={"itlMilliseconds": 1}, planning=planning)
    rows = impossible.solution.rows
    able = rows.sustainable & np.isfinite(rows.joules_per_output_token)
    leader, lower = best(rows, able, "MinimizeEnergy"), best(rows, np.isfinite(rows.power_watts), "MinimizeEnergy")
    assert leader is not None
    assert lower is not None
    assert not rows.sustainable[lower]
    assert impossible.tokens_per_second == rows.output_tokens_per_second[leader]
    assert impossible.tokens_per_second != rows.output_tokens_per_second[lower]
