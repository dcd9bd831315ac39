"""The deployments of a fleet, and their candidates as points of the joint program."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import field, replace
from functools import cached_property

import numpy as np

from energylens.api.quantity import parse_quantity
from energylens.planner.fleet.joint import BrokenObjective, FrontierPoint, JointMember
from energylens.planner.search.constraints import Constraint, feasible
from energylens.planner.search.frontier import pareto
from energylens.planner.search.identity import inputs_hash
from energylens.planner.search.objective import best, joules_at_risk, ranked, rounded
from energylens.planner.search.problem import Problem, Solution, solve
from energylens.predictor.types import BoolArray
from energylens.records import dataclass

_EXACT = 0.0


@dataclass(frozen=True)
class FleetMember:
    """One deployment of a fleet with all of its candidates."""

    name: str
    """``namespace/name``."""
    problem: Problem
    solution: Solution
    tokens_per_second: float
    """Output tokens per second at which the deployment's energy is counted. A job counts with all its tokens over the
    time until its deadline, so that its energy is a mean power like that of other deployments."""
    one_node: bool = False
    """Whether replicas over several nodes cannot run, as without LeaderWorkerSet."""
    _points: dict[tuple[bytes, bool], list[tuple[FrontierPoint, int]]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Points by mask and ``broken``, since every program needs those that meet all objectives. Equal deployments share
    them."""

    def points(self, mask: BoolArray, broken: bool) -> list[tuple[FrontierPoint, int]]:
        """Return the potentially best candidates of a mask, shape (n,), as points, and the index of each.

        Args:
            mask: Candidates to consider.
            broken: Whether points list the objectives that they break.
        """
        key = mask.tobytes(), broken
        if key not in self._points:
            self._points[key] = list(_points(self, mask, broken)) if mask.any() else []
        return self._points[key]

    @cached_property
    def reachable(self) -> BoolArray:
        """Candidates that can run the load, regardless of free GPUs and objectives; shape (n,)."""
        given_up = [c for c in self.solution.constraints if c.kind == "SLO" or c.rule == "NotEnoughFreeGPUs"]
        rows = self.solution.rows
        able = feasible(self.solution.constraints, len(rows), without=given_up)
        able &= np.isfinite(rows.joules_per_output_token)
        return able & (rows.nodes_per_replica == 1) if self.one_node else able

    @property
    def objectives(self) -> tuple[Constraint, ...]:
        """The deployment's latency and energy objectives."""
        return tuple(c for c in self.solution.constraints if c.kind == "SLO")

    @property
    def is_possible(self) -> bool:
        """Whether some candidate would meet every constraint if all GPUs of the cluster were free."""
        return bool(self.within({}).any())

    def within(self, factors: Mapping[str, float]) -> BoolArray:
        """Return the candidates that meet each objective times its factor (1 if none is given); shape (n,)."""
        mask = self.reachable.copy()
        for objective in self.objectives:
            factor = factors.get(objective.field, 1.0)
            if factor == 1.0 or objective.needed is None:
                mask &= objective.holds
            elif not math.isinf(factor):
                mask &= objective.needed <= factor * float(parse_quantity(objective.value))
        return mask


def deployment_of(
    name: str,
    problem: Problem,
    *,
    one_node: bool = False,
    known: MutableMapping[tuple[object, ...], FleetMember] | None = None,
) -> FleetMember:
    """Return a deployment with every candidate evaluated.

    Args:
        name: ``namespace/name``.
        problem: The planning problem.
        one_node: Whether to leave out replicas over several nodes.
        known: Evaluated deployments by their inputs. A deployment that differs only in name or priority reuses one of
            them; any other is added.
    """
    known = {} if known is None else known
    key = (*_inputs(problem), one_node)
    if key not in known:
        known[key] = _evaluated(name, problem, one_node)
    return replace(known[key], name=name, problem=problem)


def _inputs(problem: Problem) -> tuple[object, ...]:
    """Return the inputs of a solution: the inputs of a plan, and where GPUs are free for the deployment."""
    digest = inputs_hash(
        problem.spec,
        problem.model,
        problem.nodes,
        problem.gpus,
        problem.predictor.version,
        problem.allowance,
        problem.corrections,
    )
    free = tuple((product, problem.free_gpus(product)) for product in problem.products)
    return digest, free, problem.load_factor, problem.within_limits


def _evaluated(name: str, problem: Problem, one_node: bool) -> FleetMember:
    solution = solve(problem)
    rows = solution.rows
    able = rows.sustainable & np.isfinite(rows.joules_per_output_token)
    holding = able & feasible([c for c in solution.constraints if c.rule != "NotEnoughFreeGPUs"], len(rows))
    leader = best(rows, holding if holding.any() else able, "MinimizeEnergy")
    load = problem.load
    if load.job is not None:
        tokens = load.in_flight * load.workload.output_tokens / load.job.seconds
    else:
        tokens = np.nan if leader is None else float(rows.output_tokens_per_second[leader])
    return FleetMember(name, problem, solution, tokens, one_node)


def member_of(deployment: FleetMember, strict: BoolArray, loose: BoolArray | None) -> tuple[JointMember, list[int]]:
    """Return a deployment as a member of the joint problem, and the candidate of each point."""
    found: list[tuple[FrontierPoint, int]] = []
    for mask, broken in ((strict, False), (loose, True)):
        if mask is not None:
            found += deployment.points(mask, broken)
    nodes = frozenset(node.name for node in deployment.problem.nodes)
    return JointMember(deployment.name, tuple(point for point, _ in found), nodes), [row for _, row in found]


def _points(deployment: FleetMember, mask: BoolArray, broken: bool) -> Iterator[tuple[FrontierPoint, int]]:
    """Yield the potentially best candidates: among candidates on the same pods, the frontier of energy and power.

    A candidate with more pods of the same size is left out if one with fewer pods needs no more energy or power.
    """
    rows = deployment.solution.rows
    # The candidate that the planner prefers comes first, so it is kept among equals.
    index = ranked(rows, mask, "MinimizeEnergy")
    energy = joules_at_risk(rows)[index] * deployment.tokens_per_second
    power = rows.power_watts[index]
    pods = (rows.replicas * rows.nodes_per_replica)[index]
    sizes = rows.gpus_per_node[index]
    # Each kind is encoded as one number, because sorting rows of a table is a hundred times slower.
    kinds = rows.product[index] * (int(sizes.max()) + 1) + sizes
    for kind in np.unique(kinds):
        mine = np.flatnonzero(kinds == kind)
        costs = np.column_stack([rounded(energy[mine]), rounded(power[mine]), pods[mine].astype(np.float64)])
        for at in mine[pareto(costs, _EXACT)]:
            i = int(index[at])
            point = FrontierPoint(
                product=rows.products[int(rows.product[i])],
                gpus_per_pod=int(sizes[at]),
                pods=int(pods[at]),
                power_watts=float(power[at]),
                energy_watts=float(energy[at]),
                broken=tuple(_broken(deployment.objectives, i)) if broken else (),
            )
            yield point, i


def _broken(objectives: Iterable[Constraint], i: int) -> Iterator[BrokenObjective]:
    for objective in objectives:
        if not objective.holds[i] and objective.needed is not None:
            yield BrokenObjective(objective.field, objective.value, objective.render(float(objective.needed[i])))
