"""The joint plan of a fleet with everything that a report says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from energylens.api.llmdeployment import LLMDeployment, LLMDeploymentStatus
from energylens.api.parse import InvalidResourceError
from energylens.cli.errors import InputError
from energylens.cli.progress import progress
from energylens.clock import SystemClock
from energylens.decide.budgets.allowance import budget_of, committed_watts, growth_of
from energylens.decide.budgets.membership import Surroundings, counted_nodes, is_member, key_of, name_of, share
from energylens.decide.deployment.planning import problem_of
from energylens.decide.deployment.served import ModelProblemError, model_of
from energylens.decide.gather import gather
from energylens.decide.preview import World, counted_from_now, new_body
from energylens.planner.explain.infeasible import explain_infeasible
from energylens.planner.fleet.joint import LimitCost, PowerLimit
from energylens.planner.fleet.planning import (
    Fleet,
    FleetMember,
    FleetPlan,
    NoFleetPlan,
    ObjectivePrice,
    alone,
    deployment_of,
    latency_frontier,
    limit_prices,
    nodes_of,
    objective_prices,
    plan_fleet,
)
from energylens.planner.inventory.nodes import no_matching_gpus
from energylens.planner.types import ClusterSnapshot
from energylens.predictor.fitted.profiles import UnknownEngineError
from energylens.predictor.model.requantize import UnsupportedQuantizationError

BUDGET = "--budget-watts"


@dataclass(frozen=True)
class FleetResult:
    """The answer."""

    deployments: tuple[FleetMember, ...]
    """Those that some GPU of the cluster may serve."""
    limits: tuple[PowerLimit, ...]
    free_gpus: Mapping[str, int]
    """By product, before the fleet takes any."""
    plan: FleetPlan | None
    """Where objectives had to give way: with them relaxed."""
    missing: NoFleetPlan | None
    """Why no plan holds everything; None where one does."""
    unplaced: Mapping[str, str]
    """Deployments that have no plan even with all GPUs free, and why; the plan is that of the others."""
    prices: tuple[ObjectivePrice, ...] = ()
    """Those that cost something, the dearest first."""
    limit_costs: tuple[LimitCost, ...] = ()
    frontier: tuple[tuple[float, float | None], ...] = ()
    """Factor on all latency objectives, and the watts of the fleet."""
    alone_watts: float | None = None
    whole_products: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Limits that are about some nodes of these GPU products, and count the power on all nodes of them."""

    @property
    def holds(self) -> bool:
        """Whether everything that is asked for holds."""
        return self.missing is None and not self.unplaced


def solve_fleet(asked: Sequence[LLMDeployment], world: World, budget_watts: int | None) -> FleetResult:
    """Return the joint plan and what objectives and budgets cost in it.

    Raises:
        InputError: A model, an engine setting or a budget cannot be planned with.
        SolverError: the solver found no answer within its numerical means.
    """
    now = SystemClock().now()
    keys = {(d.metadata.namespace, d.metadata.name) for d in asked}
    others = replace(world, deployments={key: body for key, body in world.deployments.items() if key not in keys})
    snapshot = others.snapshot_for(("", ""))
    members: list[FleetMember] = []
    unplaced: dict[str, str] = {}
    known: dict[tuple[object, ...], FleetMember] = {}
    with progress(asked, "evaluating", len(asked)) as each:
        for deployment in each:
            found = _deployment(deployment, snapshot, world, now, known)
            if isinstance(found, FleetMember) and found.is_possible:
                members.append(found)
            else:
                unplaced[_name(deployment)] = found if isinstance(found, str) else _why(found)
    nodes = nodes_of(snapshot, {_name(d) for d in asked})
    free: Counter[str] = Counter()
    for node in nodes:
        free[node.product] += node.gpus
    limits = tuple(_limits(asked, others, {d.name for d in members}, budget_watts, now))
    whole = _whole_products(others, limits)
    fleet = Fleet(tuple(members), nodes, limits)
    if not members:
        return FleetResult((), limits, free, None, None, unplaced, whole_products=whole)
    answer = plan_fleet(fleet)
    if isinstance(answer, NoFleetPlan):
        frontier = tuple(latency_frontier(fleet))
        return FleetResult(
            fleet.deployments,
            limits,
            free,
            answer.relaxed,
            answer,
            unplaced,
            frontier=frontier,
            whole_products=whole,
        )
    count = sum(len(d.objectives) for d in members)
    with progress(objective_prices(fleet, answer), "pricing objectives", count) as priced:
        prices = sorted((p for p in priced if p.watts >= 1), key=lambda p: (-p.watts, p.deployment, p.field))
    return FleetResult(
        fleet.deployments,
        limits,
        free,
        answer,
        None,
        unplaced,
        tuple(prices),
        limit_prices(fleet),
        tuple(latency_frontier(fleet)),
        alone(fleet),
        whole,
    )


def _name(deployment: LLMDeployment) -> str:
    return f"{deployment.metadata.namespace}/{deployment.metadata.name}"


def _deployment(
    deployment: LLMDeployment,
    snapshot: ClusterSnapshot,
    world: World,
    now: datetime,
    known: dict[tuple[object, ...], FleetMember],
) -> FleetMember | str:
    """Return a deployment with its candidates, or why no GPU can serve it; equal ones are evaluated once."""
    name, ref = _name(deployment), deployment.spec.model.config_ref
    inputs = gather(
        # As if nothing of it ran.
        deployment.model_copy(update={"status": LLMDeploymentStatus()}),
        now=now,
        snapshot=snapshot,
        allowance=replace(world, budgets=()).allowance(new_body(deployment), now).allowance,
        learned=world.learned,
        serves_lws=world.serves_lws,
        config_map=None if ref is None else world.config_maps.get((deployment.metadata.namespace, ref.name)),
    )
    if inputs.missing is not None:
        raise InputError(f"{name}: {inputs.missing.message}")
    try:
        asked = problem_of(inputs, model_of(deployment, inputs.config))
    except (ModelProblemError, UnknownEngineError, UnsupportedQuantizationError) as error:
        raise InputError(f"{name}: {error}") from error
    if not asked.allowed_products:
        return no_matching_gpus(deployment.spec, snapshot, asked.gpus).message
    return deployment_of(name, asked, one_node=not world.serves_lws, known=known)


def _why(deployment: FleetMember) -> str:
    if deployment.solution.chosen is not None:
        return "a replica spans several nodes, which needs LeaderWorkerSet (leaderworkerset.x-k8s.io/v1)"
    return explain_infeasible(deployment.problem, deployment.solution).message


def _limits(
    asked: Sequence[LLMDeployment], others: World, members: set[str], budget_watts: int | None, now: datetime
) -> list[PowerLimit]:
    """Return the limit of the option and those of the budgets; what others have committed is taken off.

    Of a ClusterEnergyBudget of some nodes all GPUs count whose product is on such a node.
    """
    limits = [] if budget_watts is None else [PowerLimit(BUDGET, float(budget_watts), frozenset(members))]
    around = Surroundings(others.namespaces, others.snapshot.nodes)
    bodies = [{"metadata": d.metadata.model_dump(), "spec": d.spec.model_dump(by_alias=True)} for d in asked]
    for budget in others.budgets:
        name, namespace = name_of(budget), key_of(budget)[0]
        try:
            body = counted_from_now(budget, others.config_maps, now)
            spec, status = budget_of(body)
        except InvalidResourceError as error:
            raise InputError(f"{name}: {error}") from error
        mine = {"/".join(key_of(d)) for d in bodies if is_member(spec, namespace, d, around)} & members
        growth, problem = growth_of(int(body["metadata"].get("generation", 1)), spec, status, now)
        if spec.action == "Report" or not mine or (growth is None and not problem):
            continue
        if growth is None:
            raise InputError(f"{name}: {problem}")
        rest = [d for d in others.deployments.values() if is_member(spec, namespace, d, around)]
        left = growth.watts - sum(committed_watts(d) * share(spec, d, around) for d in rest)
        counted = counted_nodes(spec, around)
        products = None if counted is None else {n.product for n in others.snapshot.nodes if n.name in counted}
        limits.append(
            PowerLimit(name, max(0.0, left), frozenset(mine), None if products is None else frozenset(products))
        )
    return limits


def _whole_products(others: World, limits: Sequence[PowerLimit]) -> dict[str, tuple[str, ...]]:
    """Return the limits whose nodes are only some of those of a product, with such products."""
    around = Surroundings(others.namespaces, others.snapshot.nodes)
    named = {limit.name for limit in limits}
    found = {}
    for budget in others.budgets:
        if name_of(budget) in named:
            counted = counted_nodes(budget_of(budget)[0], around)
            outside = {
                node.product for node in others.snapshot.nodes if counted is not None and node.name not in counted
            }
            inside = {node.product for node in others.snapshot.nodes if counted is not None and node.name in counted}
            if inside & outside:
                found[name_of(budget)] = tuple(sorted(inside & outside))
    return found
