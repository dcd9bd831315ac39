"""The nearest change of each constraint that would make a plan feasible, and the best plan's cost after the change.

Each change is found by evaluating every candidate without that constraint. If no single change suffices, pairs are
tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np

from energylens.api.llmdeployment import LLMDeploymentSpec, Overrides, PowerCap
from energylens.api.quantity import parse_quantity
from energylens.planner.search import describe
from energylens.planner.search.constraints import Constraint, feasible
from energylens.planner.search.objective import best
from energylens.planner.search.problem import Problem, Solution, solve
from energylens.planner.types import Change, Relaxation
from energylens.predictor.model.parameters import weight_bytes
from energylens.predictor.types import BoolArray

_LOAD_STEP = 2.0
_LOAD_STEPS = 13
"""Loads down to a ten-thousandth of what the GPUs sustain are tried; a smaller load would be another deployment."""
_MOST_TIMES_TOO_HIGH = 2.0**80
"""The largest quantity in Kubernetes is 2^63; a plan that sustains less than 2^-17 requests per second sustains
nothing."""
_SAME = 1e-6
"""Relative difference below which two rates count as equal; rates of three digits differ by at least 0.1 %."""
_RELAXABLE = ("GPUs", "SLO", "Power")


def nearest_changes(
    problem: Problem, solution: Solution, placements: tuple[Relaxation, ...] = ()
) -> tuple[Relaxation, ...]:
    """Return for each constraint the nearest change that alone suffices, or, if there is none, the pairs that suffice.

    Args:
        problem: The planning problem.
        solution: Its solution, without a feasible candidate.
        placements: Changes of nodes that suffice.
    """
    single = (
        *placements,
        *_choices(problem),
        *_limits(problem, solution),
        *_loads(problem, solution),
        *_deadlines(problem, solution),
    )
    return single or tuple(_pairs(problem, solution))


def _limits(problem: Problem, solution: Solution) -> Iterator[Relaxation]:
    """Yield the changes of the GPU limits, the objectives and the power budget."""
    rows = solution.rows
    for constraint in solution.constraints:
        if constraint.kind not in _RELAXABLE:
            continue
        mask = feasible(solution.constraints, len(rows), without=[constraint])
        if mask.any():
            yield _relaxed(problem, solution, mask, (constraint,))


def _pairs(problem: Problem, solution: Solution) -> Iterator[Relaxation]:
    """Yield the pairs of limits that suffice together."""
    rows = solution.rows
    relaxable = [c for c in solution.constraints if c.kind in _RELAXABLE]
    yield from _loads_with_objective(problem, solution)
    for pair in combinations(relaxable, 2):
        mask = feasible(solution.constraints, len(rows), without=pair)
        if mask.any():
            yield _relaxed(problem, solution, mask, pair)


def _relaxed(problem: Problem, solution: Solution, mask: BoolArray, constraints: tuple[Constraint, ...]) -> Relaxation:
    """Return the smallest change of one or two constraints that admits a candidate of the mask.

    For two constraints the sum of their relative changes is minimised. The energy is that of the best candidate within
    the changed limits.
    """
    rows = solution.rows
    distance = np.sum([c.distance for c in constraints], axis=0)
    among = np.flatnonzero(mask)
    nearest = int(among[np.argmin(distance[among])])
    for constraint in constraints:
        mask = mask & (constraint.distance <= constraint.distance[nearest])
    chosen = best(rows, mask, problem.spec.energy.objective)
    assert chosen is not None
    first, *second = (_change(solution, constraint, nearest, chosen) for constraint in constraints)
    return Relaxation(first, float(rows.joules_per_output_token[chosen]), *second)


def _change(solution: Solution, constraint: Constraint, nearest: int, chosen: int) -> Change:
    rows = solution.rows
    product = rows.products[int(rows.product[chosen])]
    if constraint.needed is not None:
        allowed = constraint.render(float(constraint.needed[nearest]))
    elif constraint.rule == "GPUProductNotAllowed":
        allowed = f"[{product}]"
    else:
        allowed = f"{int(rows.gpus[chosen])} of {product}"
    return Change(constraint.field, constraint.value, allowed)


def _loads(problem: Problem, solution: Solution) -> Iterator[Relaxation]:
    """Yield the nearest load that some plan sustains within all other constraints."""
    nearest = _nearest_load(problem, solution, lambda constraint: False) if _can_run(solution) else None
    if nearest is not None:
        relaxed = solve(nearest)
        assert relaxed.chosen is not None
        yield Relaxation(_load_change(solution, nearest), float(relaxed.rows.joules_per_output_token[relaxed.chosen]))


def _deadlines(problem: Problem, solution: Solution) -> Iterator[Relaxation]:
    """Yield the nearest deadline of a job that a plan within all other constraints meets."""
    rows, job, asked = solution.rows, problem.load.job, problem.spec.workload.job
    without = [c for c in solution.constraints if c.kind == "Load"]
    mask = feasible(solution.constraints, len(rows), without=without) & np.isfinite(rows.completion_seconds)
    mask &= rows.utilization_limit > 0
    if job is None or asked is None or not mask.any():
        return
    start = job.start_of(problem.gpus[problem.products[0]], weight_bytes(problem.model)).seconds
    seconds = start + (rows.completion_seconds[mask] - start) / rows.utilization_limit[mask]
    nearest = describe.up(float(seconds.min()))
    later = asked.model_copy(update={"complete_within_seconds": nearest})
    workload = problem.spec.workload.model_copy(update={"job": later})
    relaxed = solve(replace(problem, spec=problem.spec.model_copy(update={"workload": workload})))
    if relaxed.chosen is not None:
        field = "spec.workload.job.completeWithinSeconds"
        change = Change(field, str(asked.complete_within_seconds), str(nearest))
        yield Relaxation(change, float(relaxed.rows.joules_per_output_token[relaxed.chosen]))


def _loads_with_objective(problem: Problem, solution: Solution) -> Iterator[Relaxation]:
    """Yield for each objective and budget the nearest load of a plan that breaks no other rule, and the excess."""
    for constraint in solution.constraints if _can_run(solution) else ():
        if constraint.kind not in ("SLO", "Power"):
            continue
        within_power = constraint.kind != "Power"
        nearest = _nearest_load(problem, solution, partial(_same_field, constraint), within_power=within_power)
        if nearest is None:
            continue
        relaxed = solve(nearest)
        twin = next(c for c in relaxed.constraints if _same_field(constraint, c))
        mask = feasible(relaxed.constraints, len(relaxed.rows), without=[twin])
        found = _relaxed(nearest, relaxed, mask, (twin,))
        yield Relaxation(_load_change(solution, nearest), found.joules_per_output_token, found.change)


def _same_field(one: Constraint, other: Constraint) -> bool:
    return one.field == other.field


def _can_run(solution: Solution) -> bool:
    """Return whether some candidate can sustain any load."""
    hard = [c for c in solution.constraints if c.kind in ("Structure", "Memory", "GPUs")]
    return bool(feasible(hard, len(solution.rows)).any())


def _load_change(solution: Solution, nearest: Problem) -> Change:
    load = next(c for c in solution.constraints if c.kind == "Load")
    return Change(load.field, load.value, _load_text(nearest))


def _choices(problem: Problem) -> Iterator[Relaxation]:
    """Yield the changes of overrides and of a fixed power cap, each to the nearest value that works."""
    planning = problem.spec.planning
    given = planning.overrides
    for name, field in Overrides.model_fields.items():
        value = getattr(given, name)
        if value is not None:
            freed = planning.model_copy(update={"overrides": given.model_copy(update={name: None})})
            spec = problem.spec.model_copy(update={"planning": freed})
            yield from _chosen(replace(problem, spec=spec), f"spec.planning.overrides.{field.alias}", name, value)
    watts = problem.spec.energy.power_cap.watts_per_gpu
    if watts is not None:
        uncapped = replace(problem, spec=_with_cap(problem.spec, PowerCap(mode="Plan")))
        for step in _chosen(uncapped, "spec.energy.powerCap.wattsPerGPU", "power_cap_watts", watts):
            yield _nearest_cap(problem, step, watts)


def _nearest_cap(problem: Problem, step: Relaxation, watts: int) -> Relaxation:
    """Return the nearest whole watts to a fixed power cap that work, between the cap and a step that works."""
    broken = watts
    while abs(int(step.allowed) - broken) > 1:
        middle = (int(step.allowed) + broken) // 2
        cap = PowerCap(mode="Fixed", watts_per_gpu=middle)
        capped = replace(problem, spec=_with_cap(problem.spec, cap), within_limits=True, within_power=True)
        solution = solve(capped)
        if solution.chosen is None:
            broken = middle
        else:
            joules = float(solution.rows.joules_per_output_token[solution.chosen])
            step = Relaxation(replace(step.change, allowed=str(middle)), joules)
    return step


def _with_cap(spec: LLMDeploymentSpec, cap: PowerCap) -> LLMDeploymentSpec:
    return spec.model_copy(update={"energy": spec.energy.model_copy(update={"power_cap": cap})})


def _chosen(problem: Problem, field: str, column: str, value: int) -> Iterator[Relaxation]:
    """Yield the value of a column nearest to the given one for which some candidate satisfies every constraint."""
    solution = solve(replace(problem, within_limits=True, within_power=True))
    rows = solution.rows
    if solution.chosen is None:
        return
    taken = rows.choice(column)
    defaults = np.asarray([problem.gpus[product].power_limit_watts for product in rows.products])[rows.product]
    taken = np.where(np.isnan(taken), defaults, taken)
    mask = feasible(solution.constraints, len(rows))
    distance = np.where(mask, np.abs(taken - value), np.inf)
    i = best(rows, distance == distance.min(), problem.spec.energy.objective)
    assert i is not None
    yield Relaxation(Change(field, str(value), f"{taken[i]:.0f}"), float(rows.joules_per_output_token[i]))


def largest_load(problem: Problem, solution: Solution, leave_out: Sequence[str] = ()) -> str:
    """Return the nearest load that a plan can sustain, as the spec writes it; ``0`` if there is none.

    Args:
        problem: A problem without a feasible candidate at its full load.
        solution: Solution of the problem.
        leave_out: Kinds of constraints to ignore.
    """
    nearest = _nearest_load(
        problem, solution, lambda constraint: constraint.kind in leave_out, within_power="Power" not in leave_out
    )
    return "0" if nearest is None else _load_text(nearest)


def _nearest_load(
    problem: Problem, solution: Solution, leave_out: Callable[[Constraint], bool], *, within_power: bool = True
) -> Problem | None:
    """Return the problem at the nearest load with a feasible candidate, or None if no load has one.

    The load that a plan sustains has no closed form, so loads are tried in growing steps from the offered load, and the
    step that yields a candidate is bisected. A higher load counts only if an energy objective may need it, since energy
    per token falls with the load while latencies rise. With ``within_power``, candidates that exceed the available
    power under any load are not evaluated.
    """

    def at(factor: float) -> Problem | None:
        scaled = replace(problem, load_factor=factor, within_limits=True, within_power=within_power)
        tried = solve(scaled)
        without = [c for c in tried.constraints if leave_out(c)]
        return scaled if feasible(tried.constraints, len(tried.rows), without=without).any() else None

    seeks_energy = problem.spec.slo.joules_per_output_token is not None
    start = _carried_factor(problem, solution)
    for direction in (1.0 / _LOAD_STEP, _LOAD_STEP) if seeks_energy else (1.0 / _LOAD_STEP,):
        if not seeks_energy and at(start * direction**_LOAD_STEPS) is None:
            continue
        # If the GPUs sustain only a part of the load, that part is tried first.
        factor = start if start == 1.0 else start / direction
        for _ in range(_LOAD_STEPS):
            before, factor = factor, factor * direction
            found = at(factor)
            if found is not None:
                return _as_written(at, _halved(at, before, found))
    return None


def _carried_factor(problem: Problem, solution: Solution) -> float:
    """Return the largest power of 1/2, at most 1, of the load that some candidate sustains, objectives aside.

    Doubling steps find it in a few tries, however far the load is from what GPUs sustain. The result is 1 if no load is
    sustained.
    """
    lowest = 1.0 / (problem.load.concurrency or _MOST_TIMES_TOO_HIGH)

    def carries(halvings: int) -> bool:
        return _is_carried(solve(replace(problem, load_factor=max(lowest, _LOAD_STEP**-halvings), within_limits=True)))

    if _is_carried(solution):
        return 1.0
    fails, holds = 0, 1
    while not carries(holds):
        if _LOAD_STEP**-holds <= lowest:
            return 1.0
        fails, holds = holds, 2 * holds
    while holds - fails > 1:
        middle = (fails + holds) // 2
        fails, holds = (fails, middle) if carries(middle) else (middle, holds)
    return max(lowest, _LOAD_STEP**-holds)


def _is_carried(solution: Solution) -> bool:
    """Return whether some candidate sustains the load, objectives and power aside."""
    soft = [c for c in solution.constraints if c.kind in ("SLO", "Power")]
    return bool(feasible(solution.constraints, len(solution.rows), without=soft).any())


def _halved(at: Callable[[float], Problem | None], broken: float, found: Problem) -> Problem:
    """Return the problem at the last load that works on the way to one that does not.

    Only loads in the form that a spec writes are tried, so that the result does not depend on where the search began.
    """
    while (middle := _written_between(found, broken)) is not None:
        taken = at(middle)
        if taken is None:
            broken = middle
        else:
            found = taken
    return found


def _written_between(found: Problem, broken: float) -> float | None:
    """Return a factor between two others whose load has three digits, or is a whole number of requests in flight.

    None if there is none.
    """
    if found.load.concurrency is not None:
        offered = found.spec.workload.in_flight or 1
        low, high = sorted((found.load.concurrency, int(offered * broken)))
        middle = max(int(np.sqrt(low * high)), low + 1)
        # Half a request more keeps the product from being rounded down to one request fewer.
        return (middle + 0.5) / offered if middle < high else None
    rate = found.load.requests_per_second or 0.0
    whole = rate / found.load_factor
    low_rate, high_rate = sorted((rate, whole * broken))
    for written in (describe.floor_quantity, describe.ceil_quantity):
        near = float(parse_quantity(written(float(np.sqrt(low_rate * high_rate)))))
        if low_rate * (1 + _SAME) < near < high_rate * (1 - _SAME):
            return near / whole
    return None


def _as_written(at: Callable[[float], Problem | None], found: Problem) -> Problem:
    """Return the problem at a load of three digits near the found one, so that messages name a load that was tried."""
    rate = found.load.requests_per_second
    if rate is None:
        return found
    offered = rate / found.load_factor
    texts = (describe.floor_quantity(rate), describe.ceil_quantity(rate))
    for text in texts if texts[0] != texts[1] else ():
        written = at(float(parse_quantity(text)) / offered)
        if written is not None:
            return written
    return found


def _load_text(problem: Problem) -> str:
    load = problem.load
    if load.concurrency is not None:
        return str(load.concurrency)
    return describe.floor_quantity(load.requests_per_second or 0.0)
