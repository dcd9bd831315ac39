"""The joint plan of several deployments: one frontier point each, of least total energy within shared watts and GPUs.

Choosing one point per member under several knapsacks is a multiple-choice knapsack problem. HiGHS (Huangfu and Hall
2018, "Parallelizing the dual revised simplex method") solves it exactly, as a mixed-integer program with a gap of zero.
Whether pods fit on nodes is part of the program and also exact; see :mod:`energylens.planner.fleet.packing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from typing import Literal

import numpy as np

from energylens.api.words import counted
from energylens.planner.fleet.milp import Program, SolverError
from energylens.planner.fleet.packing import Demand, Hole, Node, add_packing
from energylens.records import dataclass

WATTS_TOLERANCE = 1e-3
"""Tolerance by which a solution may exceed a power limit: the solver's rounding error, far below any measurable power.
"""


@dataclass(frozen=True)
class BrokenObjective:
    """An objective that a point breaks, and the value at which the point would meet it."""

    field: str
    """Path in the spec, such as ``spec.slo.itlMilliseconds``."""
    value: str
    """Current value of the objective."""
    needed: str
    """The lowest value that the point meets."""


@dataclass(frozen=True)
class FrontierPoint:
    """One way to serve a member: a point of the member's frontier."""

    product: str
    gpus_per_pod: int
    pods: int
    """Pods over all replicas."""
    power_watts: float
    energy_watts: float
    """The quantity to minimise, W: joules per output token, including the risk of the prediction, times the member's
    output tokens per second. Under a load by concurrency, points generate tokens at different rates; all points of a
    member are then counted at the rate of one of them."""
    broken: tuple[BrokenObjective, ...] = ()
    """Objectives that the point breaks. Such a point is never chosen, but shows what relaxing the objectives would
    allow."""

    @property
    def gpus(self) -> int:
        """GPUs of all pods."""
        return self.gpus_per_pod * self.pods


@dataclass(frozen=True)
class JointMember:
    """A deployment of which exactly one point is chosen."""

    name: str
    points: tuple[FrontierPoint, ...]
    nodes: frozenset[str] | None = None
    """Names of the nodes that the member's pods may use; None for all."""


@dataclass(frozen=True)
class PowerLimit:
    """Watts that some members may draw together. Limits may nest and overlap."""

    name: str
    watts: float
    members: frozenset[str]
    products: frozenset[str] | None = None
    """Only points on these GPU products count; None for all."""


@dataclass(frozen=True)
class JointProblem:
    """The members, the GPUs that are free for them, and the limits that they share."""

    members: tuple[JointMember, ...]
    nodes: tuple[Node, ...]
    limits: tuple[PowerLimit, ...] = ()


@dataclass(frozen=True)
class JointPlan:
    """The optimum."""

    chosen: Mapping[str, int]
    """Index into the points of each member."""
    power_watts: float
    energy_watts: float
    """The minimised quantity: the sum of the chosen points' ``energy_watts``."""
    watts_of: Mapping[str, float]
    """Power that counts against each limit."""


@dataclass(frozen=True)
class JointInfeasible:
    """No choice meets all constraints; each field says what relaxing one kind of constraint alone would take.

    An empty mapping or tuple means that relaxing that kind alone does not help.
    """

    impossible: tuple[str, ...] = ()
    """Members without a point that meets their objectives: no shared resource is the cause."""
    extra_watts: Mapping[str, float] = field(default_factory=dict)
    """Least total watts by which limits would have to rise."""
    extra_gpus: tuple[Hole, ...] = ()
    """Fewest additional GPUs that would be needed, each entry on one node."""
    relaxed: Mapping[str, int] = field(default_factory=dict)
    """The fewest members whose objectives would have to be relaxed, with the point that would serve each."""


JointResult = JointPlan | JointInfeasible
_Relax = Literal["Nothing", "Watts", "GPUs", "Objectives"]


def solve_joint(problem: JointProblem, *, explain: bool = True) -> JointResult:
    """Return the points of least total energy that meet every limit, or the constraints to relax.

    Args:
        problem: The joint problem. Points that break an objective are used only for the explanation.
        explain: Whether to find the constraints to relax if no choice is feasible; solves up to four more programs.

    Raises:
        ValueError: two members have the same name, a limit names an unknown member, or a figure is not a finite number
            of at least 0.
        SolverError: the solver failed numerically.
    """
    _check(problem)
    plan = _solve(problem, "Nothing")
    if isinstance(plan, JointPlan):
        return plan
    impossible = tuple(m.name for m in problem.members if all(p.broken for p in m.points))
    if not explain:
        return JointInfeasible(impossible)
    watts, gpus = _solve(problem, "Watts"), _solve(problem, "GPUs")
    objectives = _solve(problem, "Objectives")
    return JointInfeasible(
        impossible,
        extra_watts=watts.extra_watts if isinstance(watts, _Relaxed) else {},
        extra_gpus=gpus.extra_gpus if isinstance(gpus, _Relaxed) else (),
        relaxed=objectives.relaxed if isinstance(objectives, _Relaxed) else {},
    )


@dataclass(frozen=True)
class LimitCost:
    """Cost of one power limit, with all other limits in place."""

    limit: str
    energy_watts: float
    """Energy that the best plan without the limit would save, W."""
    watts_more: float
    """Watts by which the limit would have to rise for that plan."""


def limit_costs(problem: JointProblem, plan: JointPlan) -> tuple[LimitCost, ...]:
    """Return the limits that exclude a better plan, the most expensive first; solves one program for each limit.

    Raises:
        SolverError: as :func:`solve_joint`.
    """
    costs = []
    for limit in problem.limits:
        others = tuple(other for other in problem.limits if other is not limit)
        better = solve_joint(replace(problem, limits=others), explain=False)
        if not isinstance(better, JointPlan):
            raise SolverError(f"without the limit {limit.name} nothing is feasible, with it something is")
        saved = plan.energy_watts - better.energy_watts
        more = _counted(limit, problem.members, better.chosen) - limit.watts
        if saved > WATTS_TOLERANCE and more > 0:
            costs.append(LimitCost(limit.name, saved, more))
    return tuple(sorted(costs, key=lambda cost: (-cost.energy_watts, cost.limit)))


@dataclass(frozen=True)
class _Relaxed:
    extra_watts: Mapping[str, float]
    extra_gpus: tuple[Hole, ...]
    relaxed: Mapping[str, int]


def _check(problem: JointProblem) -> None:
    names = [member.name for member in problem.members]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"members: {', '.join(twice)} is listed twice")
    for limit in problem.limits:
        unknown = sorted(limit.members - set(names))
        if unknown:
            raise ValueError(f"limit {limit.name}: {', '.join(unknown)} is not a member")
    for member in problem.members:
        for point in member.points:
            for what in ("power_watts", "energy_watts"):
                value = getattr(point, what)
                if not (np.isfinite(value) and value >= 0):
                    raise ValueError(f"{member.name}: {what}={value}; it must be a finite number of at least 0")
            if point.gpus_per_pod < 1 or point.pods < 1:
                raise ValueError(
                    f"{member.name}: {counted(point.pods, 'pod')} of {counted(point.gpus_per_pod, 'GPU')}; "
                    "each must be positive"
                )


def _counts(limit: PowerLimit, point: FrontierPoint) -> bool:
    return limit.products is None or point.product in limit.products


def _counted(limit: PowerLimit, members: Iterable[JointMember], chosen: Mapping[str, int]) -> float:
    points = (m.points[chosen[m.name]] for m in members if m.name in limit.members)
    return sum(point.power_watts for point in points if _counts(limit, point))


def _solve(problem: JointProblem, relax: _Relax, most_relaxed: int | None = None) -> JointPlan | _Relaxed | None:
    """Solve the program with at most one kind of constraint relaxed at a price; return None if there is no solution.

    Args:
        problem: The joint problem.
        relax: The kind of constraint that may be broken. The program then minimises by how much, otherwise the energy.
        most_relaxed: With Objectives: minimise the energy while at most this many members break objectives.
    """
    program = Program()
    columns: list[tuple[JointMember, int]] = []
    demands: dict[tuple[str, frozenset[str] | None, int], Demand] = {}
    of_member: dict[str, list[tuple[int, FrontierPoint]]] = {}
    for member in problem.members:
        usable = [i for i, point in enumerate(member.points) if relax == "Objectives" or not point.broken]
        if not usable:
            return None
        columns += [(member, i) for i in usable]
        points = [member.points[i] for i in usable]
        mine = program.add_variables([_cost(point, relax, most_relaxed) for point in points], upper=1.0)
        program.add_row(dict.fromkeys(mine, 1.0), 1.0, 1.0)
        of_member[member.name] = list(zip(mine, points, strict=True))
        for column, point in of_member[member.name]:
            key = (point.product, member.nodes, point.gpus_per_pod)
            demands.setdefault(key, Demand(*key)).pods[column] = float(point.pods)
    if most_relaxed is not None:
        broken = {c: 1.0 for points in of_member.values() for c, point in points if point.broken}
        program.add_row(broken, -np.inf, float(most_relaxed))
    holes = add_packing(program, tuple(demands.values()), problem.nodes, elastic=relax == "GPUs")
    slacks: dict[str, int] = {}
    for limit in problem.limits:
        row = {c: p.power_watts for name in limit.members for c, p in of_member[name] if _counts(limit, p)}
        if relax == "Watts":
            (slacks[limit.name],) = program.add_variables([1.0], integral=False)
            row[slacks[limit.name]] = -1.0
        program.add_row(row, -np.inf, limit.watts)
    values = program.solve()
    if values is None:
        return None
    chosen = {m.name: i for (m, i), value in zip(columns, values, strict=False) if value > 0.5}
    if relax == "Objectives" and most_relaxed is None:
        count = sum(bool(m.points[chosen[m.name]].broken) for m in problem.members)
        return _solve(problem, relax, count)
    if relax == "Nothing":
        return _plan(problem, chosen)
    return _Relaxed(
        {name: float(values[c]) for name, c in slacks.items() if values[c] > WATTS_TOLERANCE},
        tuple(replace(hole, count=round(values[c])) for c, hole in holes if values[c] > 0.5),
        {m.name: chosen[m.name] for m in problem.members if m.points[chosen[m.name]].broken},
    )


def _cost(point: FrontierPoint, relax: _Relax, most_relaxed: int | None) -> float:
    if relax == "Nothing" or most_relaxed is not None:
        return point.energy_watts
    return float(bool(point.broken)) if relax == "Objectives" else 0.0


def _plan(problem: JointProblem, chosen: Mapping[str, int]) -> JointPlan:
    points = [member.points[chosen[member.name]] for member in problem.members]
    watts_of = {limit.name: _counted(limit, problem.members, chosen) for limit in problem.limits}
    for limit in problem.limits:
        if watts_of[limit.name] > limit.watts + WATTS_TOLERANCE:
            raise SolverError(f"the solution draws {watts_of[limit.name]} W of {limit.name}={limit.watts} W")
    return JointPlan(chosen, sum(p.power_watts for p in points), sum(p.energy_watts for p in points), watts_of)
