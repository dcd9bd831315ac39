"""The joint plan of a fleet with all figures of its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime

from energylens.api.llmdeployment import LLMDeployment, LLMDeploymentStatus
from energylens.cli.errors import InputError
from energylens.cli.progress import progress
from energylens.clock import SystemClock
from energylens.decide.deployment.observed.named_maps import NamedMaps
from energylens.decide.deployment.observed.served import ModelProblemError, model_of
from energylens.decide.deployment.plans.planning import problem_of
from energylens.decide.gather import Offered, gather
from energylens.decide.preview import World, new_body
from energylens.decide.shared_limits import UnusableBudgetError, shared_limits
from energylens.planner.explain.infeasible import explain_infeasible
from energylens.planner.fleet.joint import LimitCost, PowerLimit
from energylens.planner.fleet.members import FleetMember, deployment_of
from energylens.planner.fleet.planning import (
    Fleet,
    FleetPlan,
    NoFleetPlan,
    ObjectivePrice,
    alone,
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
from energylens.records import dataclass

BUDGET = "--budget-watts"


@dataclass(frozen=True)
class FleetResult:
    """The joint plan and its report."""

    deployments: tuple[FleetMember, ...]
    """Deployments that at least one GPU of the cluster can serve."""
    limits: tuple[PowerLimit, ...]
    free_gpus: Mapping[str, int]
    """Free GPUs by product, before the fleet takes any."""
    plan: FleetPlan | None
    """The plan with relaxed objectives, if no plan meets all of them."""
    missing: NoFleetPlan | None
    """Why no plan meets all constraints; None if one does."""
    unplaced: Mapping[str, str]
    """Deployments without a plan even if all GPUs were free, and why; the joint plan is of the others."""
    prices: tuple[ObjectivePrice, ...] = ()
    """Objectives that cost energy, the most expensive first."""
    limit_costs: tuple[LimitCost, ...] = ()
    frontier: tuple[tuple[float, float | None], ...] = ()
    """Pairs of a factor on all latency objectives and the fleet's power, W; None without a plan."""
    alone_watts: float | None = None
    whole_products: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Limits on some nodes of a GPU product that are checked against the power on all of its nodes."""
    stopped: Mapping[str, str] = field(default_factory=dict)
    """Deployments of which no pods are to run, and why; the joint plan is of the others."""

    @property
    def holds(self) -> bool:
        """Whether the plan meets all constraints."""
        return self.missing is None and not self.unplaced


def solve_fleet(asked: Sequence[LLMDeployment], world: World, budget_watts: int | None) -> FleetResult:
    """Return the joint plan and the costs of objectives and budgets.

    Raises:
        InputError: A model, an engine setting or a budget cannot be planned with.
        SolverError: the solver found no answer within its numerical means.
    """
    stopped = {
        d.owner: "spec.suspend is true" if d.spec.suspend else "spec.replicas is 0" for d in asked if d.spec.is_stopped
    }
    running = [d for d in asked if not d.spec.is_stopped]
    return replace(_solve(running, asked, world, budget_watts), stopped=stopped)


def _solve(
    running: Sequence[LLMDeployment], asked: Sequence[LLMDeployment], world: World, budget_watts: int | None
) -> FleetResult:
    """Return the joint plan of the deployments that run; all of ``asked`` hold no GPUs and watts beside it."""
    now = SystemClock().now()
    keys = {(d.metadata.namespace, d.metadata.name) for d in asked}
    others = replace(world, deployments={key: body for key, body in world.deployments.items() if key not in keys})
    snapshot = others.snapshot_for(("", ""))
    members, unplaced = _members(running, snapshot, world, now)
    nodes = nodes_of(snapshot, {d.owner for d in asked})
    free: Counter[str] = Counter()
    for node in nodes:
        free[node.product] += node.gpus
    names = frozenset(d.name for d in members)
    try:
        shared = tuple(shared_limits(running, others, names, now))
    except UnusableBudgetError as error:
        raise InputError(str(error)) from error
    own = () if budget_watts is None else (PowerLimit(BUDGET, float(budget_watts), names),)
    limits = (*own, *(PowerLimit(found.name, found.watts, found.members, found.products) for found in shared))
    whole = {found.name: found.partly for found in shared if found.partly}
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


def _members(
    asked: Sequence[LLMDeployment], snapshot: ClusterSnapshot, world: World, now: datetime
) -> tuple[list[FleetMember], dict[str, str]]:
    """Return the deployments that some plan can serve, and by name why no plan can serve the others."""
    members: list[FleetMember] = []
    unplaced: dict[str, str] = {}
    known: dict[tuple[object, ...], FleetMember] = {}
    with progress(asked, "evaluating", len(asked)) as each:
        for deployment in each:
            found = _deployment(deployment, snapshot, world, now, known)
            if isinstance(found, FleetMember) and found.is_possible:
                members.append(found)
            else:
                unplaced[deployment.owner] = found if isinstance(found, str) else _why(found)
    return members, unplaced


def _deployment(
    deployment: LLMDeployment,
    snapshot: ClusterSnapshot,
    world: World,
    now: datetime,
    known: dict[tuple[object, ...], FleetMember],
) -> FleetMember | str:
    """Return a deployment with its candidates, or why no GPU can serve it; equal ones are evaluated once."""
    name = deployment.owner
    allowance = replace(world, budgets=()).allowance(new_body(deployment), now).allowance
    inputs = gather(
        # The deployment is evaluated as if none of its pods ran.
        deployment.model_copy(update={"status": LLMDeploymentStatus()}),
        Offered(snapshot, allowance, world.learned, world.serves_lws),
        NamedMaps.of(deployment, lambda name: world.config_maps.get((deployment.metadata.namespace, name))),
        now=now,
    )
    missing = inputs.missing or inputs.no_hours
    if missing is not None:
        raise InputError(f"{name}: {missing.message}")
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
