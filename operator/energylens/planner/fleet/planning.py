"""Planning many deployments together, and what their objectives and power limits cost."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from energylens.api.quantity import parse_quantity
from energylens.api.words import counted
from energylens.planner.fleet.joint import (
    BrokenObjective,
    JointInfeasible,
    JointMember,
    JointPlan,
    JointProblem,
    LimitCost,
    PowerLimit,
    limit_costs,
    solve_joint,
)
from energylens.planner.fleet.members import FleetMember, member_of
from energylens.planner.fleet.packing import Node
from energylens.planner.inventory.access import with_one_access
from energylens.planner.search.breach import with_limit
from energylens.planner.search.constraints import Constraint
from energylens.planner.types import ClusterSnapshot
from energylens.records import dataclass

RELAXATIONS = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Factors on objectives that are tried, the smallest first, if no joint plan meets them all."""
MARGINAL = 1.1
"""Factor on an objective that defines its marginal cost."""
FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0)
"""Factors on all latency objectives at once, for the fleet's frontier."""
_NOTHING = 1e-3
"""Watts that the solver's rounding may produce."""


@dataclass(frozen=True)
class Fleet:
    """Deployments and the resources that they share."""

    deployments: tuple[FleetMember, ...]
    nodes: tuple[Node, ...]
    limits: tuple[PowerLimit, ...] = ()


@dataclass(frozen=True)
class FleetPlan:
    """One candidate per deployment."""

    rows: Mapping[str, int]
    """Chosen candidate of each deployment, as an index."""
    power_watts: float
    energy_watts: float
    watts_of: Mapping[str, float]
    """Power that counts against each limit."""
    relaxed: Mapping[str, tuple[BrokenObjective, ...]]
    """Objectives that had to be relaxed, by deployment; empty if all are met."""


@dataclass(frozen=True)
class NoFleetPlan:
    """No joint plan is feasible, and the changes that would help."""

    extra_watts: Mapping[str, float]
    extra_gpus: tuple[str, ...]
    relaxed: FleetPlan | None
    """The plan with the fewest relaxed deployments, at the smallest factor that helps."""
    factor: float | None
    """Factor by which ``relaxed`` relaxes objectives."""


@dataclass(frozen=True)
class ObjectivePrice:
    """Cost of one objective for the fleet."""

    deployment: str
    field: str
    value: str
    marginal_watts: float
    """Energy saved if the objective is relaxed by :data:`MARGINAL`, W."""
    watts: float
    """Energy saved if the objective is removed, W."""
    needed: str | None
    """Value of the objective that would allow the plan without the objective; None if removing the objective saves
    nothing, or if that plan meets the objective and is avoided for its chance of breaking the objective."""


def nodes_of(snapshot: ClusterSnapshot, owners: Collection[str]) -> tuple[Node, ...]:
    """Return the GPUs of each node that nobody but the owners holds, of nodes that a plan may use together."""
    return tuple(
        Node(n.name, n.product, max(0, n.allocatable - sum(a.gpus for a in n.allocations if a.owner not in owners)))
        for n in with_one_access(snapshot.nodes, owners)
        if n.schedulable
    )


def plan_fleet(fleet: Fleet) -> FleetPlan | NoFleetPlan:
    """Return the plan of least energy of the whole fleet, exactly, or why there is none.

    Raises:
        SolverError: the solver failed numerically.
    """
    found = _solve(fleet, {}, explain=True)
    if isinstance(found, FleetPlan):
        return found
    for factor in RELAXATIONS:
        loose = {d.name: {c.field: factor for c in d.objectives} for d in fleet.deployments}
        again = _solve(fleet, loose, explain=True)
        if isinstance(again, NoFleetPlan) and again.relaxed is not None:
            return replace(found, relaxed=again.relaxed, factor=factor)
    return found


def objective_prices(fleet: Fleet, plan: FleetPlan) -> Iterator[ObjectivePrice]:
    """Yield the cost of each objective, in watts of the whole fleet; solves at most two programs for each.

    Raises:
        SolverError: as :func:`plan_fleet`.
    """
    members = {d.name: member_of(d, d.within({}), None) for d in fleet.deployments}
    for deployment in fleet.deployments:
        for objective in deployment.objectives:
            saved, needed = [0.0, 0.0], None
            # Relaxing an objective cannot save more than removing it, so an objective that costs nothing needs no
            # second program.
            for number, factor in enumerate((math.inf, MARGINAL)):
                looser = _relaxed(deployment, objective, factor)
                if looser[0].points == members[deployment.name][0].points:
                    break
                asked = {**members, deployment.name: looser}
                found = _joint(fleet, asked)
                if found is not None:
                    rows = {name: asked[name][1][point] for name, point in found.chosen.items()}
                    # The plan stays possible. A plan of less risk that uses more energy saves nothing.
                    saved[number] = max(0.0, plan.energy_watts - _predicted(fleet, rows))
                if found is None or saved[number] <= _NOTHING:
                    break
                if number == 0 and objective.needed is not None:
                    at = float(objective.needed[looser[1][found.chosen[deployment.name]]])
                    # A plan that meets the objective was only too likely to break it.
                    needed = objective.render(at) if at > float(parse_quantity(objective.value)) else None
            yield ObjectivePrice(deployment.name, objective.field, objective.value, saved[1], saved[0], needed)


def _relaxed(deployment: FleetMember, objective: Constraint, factor: float) -> tuple[JointMember, list[int]]:
    """Return a deployment as a member of the joint problem with one objective times a factor; infinity removes it.

    The chance of breaking the original objective must not count: it would make plans that just meet the objective seem
    to cost more than plans that break it.
    """
    limit = None if math.isinf(factor) else math.floor(factor * float(parse_quantity(objective.value)))
    rows = with_limit(deployment.solution.rows, deployment.problem.spec, objective, limit)
    other = replace(deployment, solution=replace(deployment.solution, rows=rows), _points={})
    return member_of(other, other.within({objective.field: factor}), None)


def _joint(fleet: Fleet, members: Mapping[str, tuple[JointMember, list[int]]]) -> JointPlan | None:
    problem = JointProblem(tuple(members[d.name][0] for d in fleet.deployments), fleet.nodes, fleet.limits)
    found = solve_joint(problem, explain=False)
    return found if isinstance(found, JointPlan) else None


def latency_frontier(fleet: Fleet, factors: Sequence[float] = FACTORS) -> Iterator[tuple[float, float | None]]:
    """Yield the power of the whole fleet with all latency objectives times a factor; None if there is no plan.

    Power limits are left out, because the frontier is compared with them.

    Raises:
        SolverError: as :func:`plan_fleet`.
    """
    free = replace(fleet, limits=())
    for factor in factors:
        loose = {
            d.name: {c.field: factor for c in d.objectives if c.field.endswith("Milliseconds")}
            for d in fleet.deployments
        }
        found = _solve(free, loose, hard=True)
        yield factor, found.power_watts if isinstance(found, FleetPlan) else None


def limit_prices(fleet: Fleet) -> tuple[LimitCost, ...]:
    """Return the cost of each power limit, the most expensive first; the fleet must have a plan.

    Raises:
        SolverError: as :func:`plan_fleet`.
    """
    members = tuple(member_of(deployment, deployment.within({}), None)[0] for deployment in fleet.deployments)
    problem = JointProblem(members, fleet.nodes, fleet.limits)
    plan = solve_joint(problem, explain=False)
    return limit_costs(problem, plan) if isinstance(plan, JointPlan) else ()


def alone(fleet: Fleet) -> float | None:
    """Return the energy, W, if each deployment had the cluster to itself; None if one has no plan even then."""
    total = 0.0
    for deployment in fleet.deployments:
        member, rows = member_of(deployment, deployment.within({}), None)
        problem = JointProblem((member,), fleet.nodes)
        found = solve_joint(problem, explain=False) if member.points else JointInfeasible()
        if not isinstance(found, JointPlan):
            return None
        total += _predicted(replace(fleet, deployments=(deployment,)), {member.name: rows[found.chosen[member.name]]})
    return total


def _solve(
    fleet: Fleet, factors: Mapping[str, Mapping[str, float]], *, hard: bool = False, explain: bool = False
) -> FleetPlan | NoFleetPlan:
    """Solve the joint program.

    Args:
        fleet: The fleet to plan.
        factors: Factors on objectives, by deployment and field.
        hard: Whether the objectives times their factors must be met. Otherwise the original objectives must be met, and
            candidates within the factors show what relaxing would allow.
        explain: Whether to find the constraints to relax.
    """
    members, index = [], {}
    for deployment in fleet.deployments:
        mine = factors.get(deployment.name, {})
        strict = deployment.within(mine if hard else {})
        loose = deployment.within(mine) & ~strict if explain else None
        member, rows = member_of(deployment, strict, loose)
        members.append(member)
        index[deployment.name] = rows
    found = solve_joint(JointProblem(tuple(members), fleet.nodes, fleet.limits), explain=explain)
    if isinstance(found, JointPlan):
        rows_of = {name: index[name][point] for name, point in found.chosen.items()}
        return FleetPlan(rows_of, found.power_watts, _predicted(fleet, rows_of), found.watts_of, {})
    relaxed = _relaxed_plan(fleet, tuple(members), index, found) if explain else None
    gpus = tuple(
        f"{hole.count} x {counted(hole.gpus, 'GPU')} of {hole.product} on one node" for hole in found.extra_gpus
    )
    return NoFleetPlan(found.extra_watts, gpus, relaxed, None)


def _relaxed_plan(
    fleet: Fleet, members: tuple[JointMember, ...], index: Mapping[str, Sequence[int]], found: JointInfeasible
) -> FleetPlan | None:
    """Return the plan in which the objectives of some members are relaxed; None if that does not help."""
    if not found.relaxed:
        return None
    fixed = []
    for member in members:
        points = member.points
        if member.name in found.relaxed:
            points = tuple(replace(point, broken=()) for point in points)
        fixed.append(replace(member, points=points))
    joint = solve_joint(JointProblem(tuple(fixed), fleet.nodes, fleet.limits), explain=False)
    if not isinstance(joint, JointPlan):
        return None
    broken = {m.name: m.points[joint.chosen[m.name]].broken for m in members if m.points[joint.chosen[m.name]].broken}
    rows = {name: index[name][point] for name, point in joint.chosen.items()}
    return FleetPlan(rows, joint.power_watts, _predicted(fleet, rows), joint.watts_of, broken)


def _predicted(fleet: Fleet, rows: Mapping[str, int]) -> float:
    """Return the predicted energy of a choice, W, without the risk that ranks candidates."""
    return sum(
        float(d.solution.rows.joules_per_output_token[rows[d.name]]) * d.tokens_per_second for d in fleet.deployments
    )
