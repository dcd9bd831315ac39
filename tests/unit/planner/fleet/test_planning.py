"""Fleets: the joint plan against a search of every pair, and each price against planning again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.conftest import H100, H200, L40S, ArithmeticPredictor

from energylens.api.llmdeployment import LLMDeployment
from energylens.planner.fleet.joint import PowerLimit
from energylens.planner.fleet.members import FleetMember, deployment_of
from energylens.planner.fleet.planning import (
    RELAXATIONS,
    Fleet,
    FleetPlan,
    NoFleetPlan,
    alone,
    latency_frontier,
    limit_prices,
    nodes_of,
    objective_prices,
    plan_fleet,
)
from energylens.planner.planning import problem_for
from energylens.planner.search.constraints import feasible
from energylens.planner.types import ClusterSnapshot
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

ITL = {"percentile": "P50", "itlMilliseconds": 30}
Make = Callable[..., Fleet]


@pytest.fixture(scope="session")
def make_fleet(
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
    gpus: Mapping[str, GpuSpec],
    models: Mapping[str, ModelSpec],
    predictor: ArithmeticPredictor,
) -> Make:
    def build(*specs: dict[str, Any], watts: float | None = None, pools: Any = None, used: int = 0) -> Fleet:
        snapshot = make_snapshot(*(pools or ((H200, 4, 1), (H100, 4, 1), (L40S, 4, 1))), used=used)
        members = []
        for number, parts in enumerate(specs):
            model = parts.pop("model_name", "70b")
            problem = problem_for(make_deployment(**parts), models[model], snapshot, gpus, predictor, None, None)
            members.append(deployment_of(f"team-{number}/chat", problem))
        names = frozenset(member.name for member in members)
        limits = () if watts is None else (PowerLimit("feed", watts, names),)
        return Fleet(tuple(members), nodes_of(snapshot, names), limits)

    return build


def fits(fleet: Fleet, rows: tuple[int, ...]) -> bool:
    """Return whether pods fit: every pool here is one node, so that GPUs add up."""
    free = {node.product: node.gpus for node in fleet.nodes}
    for deployment, row in zip(fleet.deployments, rows, strict=True):
        candidates = deployment.solution.rows
        if candidates.nodes_per_replica[row] > 1:
            return False
        free[candidates.products[int(candidates.product[row])]] -= int(candidates.gpus[row])
    return min(free.values()) >= 0


def valid(deployment: FleetMember) -> np.ndarray:
    constraints = [c for c in deployment.solution.constraints if c.rule != "NotEnoughFreeGPUs"]
    return np.flatnonzero(feasible(constraints, len(deployment.solution.rows)))


def cheapest_pair(fleet: Fleet, watts: float) -> float:
    """Return the power of the pair with the least power including the chance of breaking objectives."""
    one, two = (each.solution.rows for each in fleet.deployments)
    least, found = np.inf, np.inf
    for i in valid(fleet.deployments[0]):
        for j in valid(fleet.deployments[1]):
            power = float(one.power_watts[i] + two.power_watts[j])
            ranked = float(one.power_watts[i] * one.ranking_factor[i] + two.power_watts[j] * two.ranking_factor[j])
            if ranked < least and power <= watts and fits(fleet, (int(i), int(j))):
                least, found = ranked, power
    return found


@pytest.mark.parametrize("watts", [1e9, 1900.0, 1500.0])
@pytest.mark.parametrize("tight", [30, 20])
def test_the_joint_plan_is_the_best_of_every_pair(watts: float, tight: int, make_fleet: Make) -> None:
    specs = [{"slo": {"percentile": "P50", "itlMilliseconds": itl}} for itl in (30, tight)]
    fleet = make_fleet(*specs, watts=watts)
    found, least = plan_fleet(fleet), cheapest_pair(fleet, watts)
    if isinstance(found, FleetPlan):
        assert found.power_watts == pytest.approx(least)
        assert fits(fleet, tuple(found.rows[d.name] for d in fleet.deployments))
        assert found.watts_of["feed"] <= watts + 1e-3
    else:
        assert np.isinf(least)


@pytest.mark.parametrize("deadline", [1800, 36_000])
def test_the_energy_of_a_job_counts_as_a_mean_power_over_its_time(deadline: int, make_fleet: Make) -> None:
    """Joules that a job takes once weigh beside watts that others draw as long as the job may take."""
    job = {"inputTokens": 300, "outputTokens": 400, "job": {"requests": 3000, "completeWithinSeconds": deadline}}
    fleet = make_fleet({"workload": job}, {"slo": ITL})
    least = np.inf
    batch, steady = fleet.deployments
    for i in valid(batch):
        for j in valid(steady):
            rows = batch.solution.rows, steady.solution.rows
            watts = rows[0].job_joules[i] / deadline
            watts += rows[1].joules_per_output_token[j] * rows[1].output_tokens_per_second[j]
            if watts < least and fits(fleet, (int(i), int(j))):
                least = float(watts)
    found = plan_fleet(fleet)
    assert isinstance(found, FleetPlan)
    assert found.energy_watts == pytest.approx(least)
    # A budget has to bear the power while requests are served.
    assert found.power_watts > found.energy_watts


def test_deployments_that_ask_for_the_same_are_evaluated_once(make_fleet: Make) -> None:
    specs = [{"slo": ITL}, {"slo": ITL}, {"slo": {**ITL, "itlMilliseconds": 31}}]
    problems = [deployment.problem for deployment in make_fleet(*specs).deployments]
    known: dict[tuple[object, ...], FleetMember] = {}
    first, same, other = (deployment_of(f"t/{i}", problem, known=known) for i, problem in enumerate(problems))
    assert same.solution is first.solution
    assert (same.name, same.problem) == ("t/1", problems[1])
    assert other.solution is not first.solution
    (elsewhere,) = make_fleet({"slo": ITL}, used=3).deployments
    assert deployment_of("t/3", elsewhere.problem, known=known).solution is not first.solution
    (busier,) = make_fleet({"slo": ITL}).deployments
    assert deployment_of("t/4", replace(busier.problem, load_factor=1.1), known=known).solution is not first.solution
    assert len(known) == 4
    assert deployment_of("t/5", problems[0], one_node=True, known=known) is not first
    assert len(known) == 5


def test_two_that_want_the_same_gpus_cost_more_than_each_alone(make_fleet: Make) -> None:
    fleet = make_fleet({"slo": ITL}, {"slo": ITL}, {"slo": ITL})
    found, each = plan_fleet(fleet), alone(fleet)
    assert isinstance(found, FleetPlan)
    assert each is not None
    assert found.energy_watts > each + 1
    assert alone(make_fleet({"slo": {"itlMilliseconds": 1}})) is None


def test_gpus_of_others_are_not_to_be_had(make_fleet: Make) -> None:
    fleet = make_fleet({"slo": ITL}, used=3)
    assert {node.gpus for node in fleet.nodes} == {1}
    found = plan_fleet(fleet)
    assert isinstance(found, NoFleetPlan)
    assert found.extra_gpus


def test_too_few_watts_name_how_many_are_missing_and_what_may_relax(make_fleet: Make) -> None:
    slo = {"percentile": "P50", "itlMilliseconds": 15}
    whole = plan_fleet(make_fleet({"slo": slo}, watts=1e9))
    assert isinstance(whole, FleetPlan)
    fleet = make_fleet({"slo": slo}, watts=whole.power_watts - 100)
    found = plan_fleet(fleet)
    assert isinstance(found, NoFleetPlan)
    assert found.extra_watts["feed"] == pytest.approx(100, abs=0.01)
    assert found.relaxed is not None
    assert found.factor == 1.5
    ((broken,),) = found.relaxed.relaxed.values()
    assert (broken.field, broken.value) == ("spec.slo.itlMilliseconds", "15")
    assert int(broken.needed) <= 1.5 * 15
    assert found.relaxed.power_watts <= whole.power_watts - 100


def test_what_has_no_plan_alone_is_told_from_what_lacks_free_gpus(make_fleet: Make) -> None:
    (impossible,) = make_fleet({"slo": {"percentile": "P50", "itlMilliseconds": 1}}).deployments
    (crowded,) = make_fleet({"slo": ITL}, used=4).deployments
    assert not impossible.is_possible
    assert crowded.is_possible


def test_replicas_over_several_nodes_are_left_out_where_they_cannot_run(make_fleet: Make) -> None:
    spec = {"slo": {"percentile": "P50", "itlMilliseconds": 500}, "hardware": {"gpuProducts": ["L40S"]}}
    (wide,) = make_fleet(dict(spec), pools=((L40S, 2, 4),)).deployments
    assert wide.is_possible
    assert not deployment_of("x/y", wide.problem, one_node=True).is_possible


@pytest.mark.parametrize("itl", [15, 16])
def test_the_price_of_an_objective_is_what_planning_without_it_saves(itl: int, make_fleet: Make) -> None:
    slo = {"percentile": "P50", "itlMilliseconds": itl, "ttftMilliseconds": 5000}
    fleet = make_fleet({"slo": slo}, {"slo": ITL})
    plan = plan_fleet(fleet)
    assert isinstance(plan, FleetPlan)
    prices = {(p.deployment, p.field): p for p in objective_prices(fleet, plan)}
    assert len(prices) == 3
    price = prices["team-0/chat", "spec.slo.itlMilliseconds"]
    without = plan_fleet(make_fleet({"slo": {**slo, "itlMilliseconds": 10**6}}, {"slo": ITL}))
    assert isinstance(without, FleetPlan)
    assert price.watts == pytest.approx(plan.power_watts - without.power_watts)
    assert price.needed is not None
    at_ten_percent_more = plan_fleet(make_fleet({"slo": {**slo, "itlMilliseconds": int(1.1 * itl)}}, {"slo": ITL}))
    assert isinstance(at_ten_percent_more, FleetPlan)
    assert price.marginal_watts == pytest.approx(plan.power_watts - at_ten_percent_more.power_watts)
    within = plan_fleet(make_fleet({"slo": {**slo, "itlMilliseconds": int(price.needed)}}, {"slo": ITL}))
    assert isinstance(within, FleetPlan)
    assert within.power_watts == pytest.approx(without.power_watts)
    assert prices["team-0/chat", "spec.slo.ttftMilliseconds"].watts == 0
    # The best plan without the ITL of the second deployment meets 30 ms, but is too likely to break them.
    other = prices["team-1/chat", "spec.slo.itlMilliseconds"]
    longer = plan_fleet(make_fleet({"slo": slo}, {"slo": {**ITL, "itlMilliseconds": 33}}))
    assert isinstance(longer, FleetPlan)
    assert other.watts == other.marginal_watts == pytest.approx(plan.energy_watts - longer.energy_watts)
    assert other.watts > 100
    assert other.needed is None


@pytest.mark.parametrize("factor", RELAXATIONS)
def test_objectives_relax_by_the_smallest_factor_that_helps(factor: float, make_fleet: Make) -> None:
    (member,) = make_fleet({"slo": ITL}).deployments
    (objective,) = member.objectives
    assert objective.needed is not None
    least = float(np.nanmin(objective.needed[member.reachable]))
    smaller = (1.0, *RELAXATIONS)[RELAXATIONS.index(factor)]
    bound = next(itl for itl in range(1, 40) if smaller * itl < least <= factor * itl)
    found = plan_fleet(make_fleet({"slo": {**ITL, "itlMilliseconds": bound}}))
    assert isinstance(found, NoFleetPlan)
    assert found.factor == factor
    assert found.relaxed is not None


def test_objectives_that_no_factor_helps_are_not_relaxed(make_fleet: Make) -> None:
    found = plan_fleet(make_fleet({"slo": {**ITL, "itlMilliseconds": 1}}))
    assert isinstance(found, NoFleetPlan)
    assert (found.relaxed, found.factor) == (None, None)


@pytest.mark.parametrize(("itl", "concurrency"), [(7, 16), (8, 64), (8, 200), (10, 64)])
def test_an_objective_that_the_plan_just_meets_costs_nothing_where_no_other_plan_is_better(
    itl: int, concurrency: int, make_fleet: Make
) -> None:
    """The chance to break the ITL is a reason against the plan only as long as the ITL is an objective."""
    load = {"workload": {"inputTokens": 300, "outputTokens": 400, "concurrency": concurrency}, "model_name": "8b"}
    fleet = make_fleet({**load, "slo": {**ITL, "itlMilliseconds": itl}})
    plan = plan_fleet(fleet)
    assert isinstance(plan, FleetPlan)
    (price,) = objective_prices(fleet, plan)
    (member,) = fleet.deployments
    rows = member.solution.rows
    least = float(rows.joules_per_output_token[valid(make_fleet(dict(load)).deployments[0])].min())
    saving = plan.energy_watts - least * member.tokens_per_second
    assert saving >= 0
    assert price.watts == pytest.approx(saving)
    assert (price.needed is not None) == (price.watts > 1e-3)


def test_a_limit_costs_energy_only_where_power_and_energy_part(make_fleet: Make) -> None:
    # At a fixed number of requests in flight a larger batch draws more watts and fewer joules per token.
    load = {"workload": {"inputTokens": 300, "outputTokens": 400, "concurrency": 64}, "model_name": "8b"}
    whole = plan_fleet(make_fleet(dict(load), watts=1e9))
    assert isinstance(whole, FleetPlan)
    for watts in np.linspace(0.5, 0.99, 12) * whole.power_watts:
        fleet = make_fleet(dict(load), watts=float(watts))
        found = plan_fleet(fleet)
        if isinstance(found, FleetPlan):
            ((cost),) = limit_prices(fleet)
            assert cost.limit == "feed"
            assert cost.energy_watts == pytest.approx(found.energy_watts - whole.energy_watts)
            return
    pytest.fail("no limit leaves a dearer plan")


def test_looser_objectives_never_need_more_power(make_fleet: Make) -> None:
    fleet = make_fleet({"slo": ITL}, {"slo": ITL}, watts=10.0)
    watts = [found for _, found in latency_frontier(fleet)]
    known = [value for value in watts if value is not None]
    assert known == sorted(known, reverse=True)
    assert None not in watts[watts.index(known[0]) :], "once there is a plan there is one for looser objectives"
    at_one = dict(latency_frontier(fleet))[1.0]
    plan = plan_fleet(replace(fleet, limits=()))
    assert isinstance(plan, FleetPlan)
    assert at_one == pytest.approx(plan.power_watts)
