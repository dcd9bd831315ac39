"""Messages that explain why no plan is feasible.

A message names the field, its value and the nearest value that works, so that a reader needs nothing but the message.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from energylens.api.timestamp import timestamp
from energylens.api.words import counted
from energylens.planner.explain.relaxations import largest_load, nearest_changes
from energylens.planner.search import describe
from energylens.planner.search.constraints import ENERGY_RULE, FREE_GPUS, Constraint, feasible
from energylens.planner.search.job_room import courses_of, holders_text
from energylens.planner.search.problem import Problem, Solution
from energylens.planner.search.structure import POWER_LIMIT_REASON
from energylens.planner.types import Infeasible, InfeasibleReason, PowerAllowance, Relaxation
from energylens.predictor.model.parameters import weight_bytes
from energylens.predictor.types import BoolArray

_NAMED_CHANGES = 3
"""Number of changes that a message names; status lists all of them."""


def explain_infeasible(problem: Problem, solution: Solution, placements: tuple[Relaxation, ...] = ()) -> Infeasible:
    """Return why a problem without a feasible candidate has none.

    The reason is the first rule, in their order, that leaves no candidate.

    Args:
        problem: The planning problem.
        solution: Its solution, without a feasible candidate.
        placements: Changes of nodes that would suffice.
    """
    relaxations = nearest_changes(problem, solution, placements)
    reason, message = _headline(problem, solution, relaxations)
    # The message already has the value that works if the limit is in watts, not if it is in watt-hours.
    in_watts = reason != "BudgetExceeded" or problem.allowance is None or problem.allowance.limit is None
    in_watts = in_watts and (problem.allowance is None or problem.allowance.room is None)
    text = with_options(message, relaxations, message.partition("=")[0] if in_watts else "")
    return Infeasible(reason, text, solution.rejections, relaxations)


def with_options(message: str, relaxations: tuple[Relaxation, ...], named: str = "") -> str:
    """Return a message with the changes that would work, except the field whose value the message already has."""
    # The reader cannot set free GPUs; the message already says where they are missing.
    others = [r for r in relaxations if r.also is not None or r.field not in (named, FREE_GPUS)]
    if not others:
        return message
    options = ", or ".join(_in_words(r) for r in others[:_NAMED_CHANGES])
    also = "also " if any(r.also is None and r.field in (named, FREE_GPUS) for r in relaxations) else ""
    return f"{message}; would {also}work: {options}"


def _in_words(relaxation: Relaxation) -> str:
    changes = " with ".join(map(str, relaxation.changes))
    return f"{changes} (at {describe.joules(relaxation.joules_per_output_token)} per output token)"


def _headline(
    problem: Problem, solution: Solution, relaxations: tuple[Relaxation, ...]
) -> tuple[InfeasibleReason, str]:
    culprit, before = _culprit(solution)
    set_overrides = problem.spec.planning.overrides.model_dump(by_alias=True, exclude_none=True)
    watts = problem.spec.energy.power_cap.watts_per_gpu
    if culprit is not None and culprit.kind == "Structure" and watts is not None:
        limits = sorted({str(r) for r in solution.rows.reason if str(r).startswith(POWER_LIMIT_REASON)})
        if limits:
            return "InvalidOverride", f"spec.energy.powerCap.wattsPerGPU={watts}: {'; '.join(limits)}"
    if culprit is None or (culprit.kind in ("Structure", "Memory") and set_overrides):
        return "InvalidOverride", _override_message(problem, solution, culprit, relaxations)
    if culprit.kind == "Structure":
        return "ModelUnsupported", f"spec.model.name={problem.model.name} cannot be planned: {culprit.message}"
    if culprit.kind == "Memory" or culprit.rule == "GPUProductNotAllowed":
        return "ModelTooLarge", _too_large_message(problem, solution, culprit)
    if culprit.kind == "GPUs":
        return "InsufficientGPUs", _gpus_message(problem, solution, culprit, before)
    if culprit.kind == "Load":
        return "LoadTooHigh", _load_message(culprit, relaxations, problem, solution)
    if culprit.kind == "SLO":
        return "SLOInfeasible", _slo_message(solution)
    assert problem.allowance is not None
    message = _budget_message(solution, culprit, before, problem.allowance)
    return "BudgetExceeded", message + _when(problem, solution, _lowest(culprit, before))


def _culprit(solution: Solution) -> tuple[Constraint | None, BoolArray]:
    """Return the first rule that leaves no candidate (None without candidates), and the candidates before that rule."""
    left = np.ones(len(solution.rows), dtype=bool)
    for constraint in solution.constraints if len(solution.rows) else ():
        if not (left & constraint.holds).any():
            return constraint, left
        left &= constraint.holds
    return None, left


def _lowest(constraint: Constraint, mask: BoolArray) -> int:
    """Return the candidate of a mask that needs the least of a field; NaN, an unknown figure, comes last."""
    assert constraint.needed is not None
    among = np.flatnonzero(mask)
    return int(among[np.argmin(np.nan_to_num(constraint.needed[among], nan=np.inf))])


def _override_message(
    problem: Problem, solution: Solution, culprit: Constraint | None, relaxations: tuple[Relaxation, ...]
) -> str:
    given = problem.spec.planning.overrides.model_dump(by_alias=True, exclude_none=True)
    fields = " with ".join(f"spec.planning.overrides.{name}={value}" for name, value in given.items())
    if culprit is None:
        nodes = ", ".join(
            f"{counted(sum(n.product == p for n in problem.nodes), 'node')} of {p}" for p in problem.products
        )
        why = f"no such layout can be placed on {nodes}"
        if problem.load.concurrency is not None and problem.load.job is None:
            why += f" for {counted(problem.load.concurrency, 'concurrent request')}"
    else:
        why = culprit.message
    works = [f"{r.field}={r.allowed}" for r in relaxations if r.field.startswith("spec.planning.overrides.")]
    return f"{fields}: {why}" + (f"; nearest that works: {', or '.join(works)}" if works else "")


def _too_large_message(problem: Problem, solution: Solution, culprit: Constraint) -> str:
    rows, hardware = solution.rows, problem.spec.hardware
    hard = [c for c in solution.constraints if c.kind == "GPUs" and c.rule != "NotEnoughFreeGPUs"]
    allowed = rows.supported & feasible(hard, len(rows))
    memory = rows.layouts.gpus * np.asarray([problem.gpus[p].memory_bytes for p in rows.products])[rows.product]
    largest = int(np.argmax(np.where(allowed, memory, -1.0)))
    limits = [
        f"spec.hardware.{name}={value}"
        for name, value in hardware.model_dump(by_alias=True, exclude_none=True).items()
        if name in ("maxGPUs", "maxGPUsPerReplica")
    ]
    if hardware.gpu_products:
        limits.append(f"spec.hardware.gpuProducts=[{', '.join(hardware.gpu_products)}]")
    within = f" within {' and '.join(limits)}" if limits else ""
    gpus = int(rows.layouts.gpus[largest])
    return (
        f"spec.model.name={problem.model.name} needs {describe.gigabytes(weight_bytes(problem.model))} for its "
        f"weights, and room for the KV cache of one request; the largest replica{within} has "
        f"{counted(gpus, 'GPU')} of "
        f"{rows.products[int(rows.product[largest])]} with {describe.gigabytes(float(memory[largest]))}"
    )


def _gpus_message(problem: Problem, solution: Solution, culprit: Constraint, before: BoolArray) -> str:
    rows = solution.rows
    # The nearest candidate that satisfies every other rule is the best advice; without one, the model's least need.
    others = feasible(solution.constraints, len(rows), without=[culprit])
    mask = others if others.any() else before
    if culprit.needed is not None:
        i = _lowest(culprit, mask)
        return (
            f"{culprit.field}={culprit.value}: needs at least {counted(int(culprit.needed[i]), 'GPU')} of "
            f"{rows.products[int(rows.product[i])]} ({describe.candidate(rows, i)})"
        )
    i = int(np.argmin(np.where(mask, rows.gpus, np.iinfo(np.int64).max)))
    product = rows.products[int(rows.product[i])]
    free = ", ".join(str(gpus) for gpus in problem.free_gpus(product))
    shut = sum(node.product == product and not node.schedulable for node in problem.nodes)
    closed = f" ({shut} of these nodes are cordoned, not ready or being removed)" if shut else ""
    nodes = int(rows.nodes_per_replica[i])
    where = "on one node" if nodes == 1 else f"on each of {nodes} nodes"
    return (
        f"not enough free GPUs: needs {counted(int(rows.gpus_per_node[i]), 'GPU')} of {product} {where} for "
        f"{describe.candidate(rows, i)}; free on its nodes now: {free}{closed}"
    )


def _load_message(
    culprit: Constraint, relaxations: tuple[Relaxation, ...], problem: Problem, solution: Solution
) -> str:
    nearest = next((r for r in relaxations if r.field == culprit.field), None)
    most = nearest.allowed if nearest is not None else largest_load(problem, solution, ("SLO", "Power"))
    limit = f" within spec.hardware.maxGPUs={problem.spec.hardware.max_gpus}" if problem.spec.hardware.max_gpus else ""
    job = problem.load.job
    if job is not None:
        start = job.start_of(problem.gpus[problem.products[0]], weight_bytes(problem.model)).seconds
        return (
            f"{culprit.field}={culprit.value} is too high for spec.workload.job.completeWithinSeconds="
            f"{job.seconds:.0f}, of which the start of the pods takes {start:.0f} s: the most that a plan{limit} "
            f"completes is {most}"
        )
    return f"{culprit.field}={culprit.value} is too high: the highest load that a plan{limit} sustains is {most}"


def _slo_message(solution: Solution) -> str:
    rows = solution.rows
    slos = [c for c in solution.constraints if c.kind == "SLO"]
    viable = feasible(
        solution.constraints, len(rows), without=[c for c in solution.constraints if c.kind in ("SLO", "Power")]
    )
    alone = [c for c in slos if not (viable & c.holds).any()]
    if alone:
        return "; ".join(f"{c.field}={c.value} cannot be met: the lowest {_figure(solution, c, viable)}" for c in alone)
    together = " and ".join(f"{c.field}={c.value}" for c in slos)
    figures = []
    for c in slos:
        others = viable & feasible([o for o in slos if o is not c], len(rows))
        if others.any():
            figures.append(f"with the other constraints met, the lowest {_figure(solution, c, others)}")
    return f"{together} cannot be met together: " + "; ".join(figures or ["no two of them can be met together"])


def _budget_message(solution: Solution, culprit: Constraint, before: BoolArray, allowance: PowerAllowance) -> str:
    """Say by how much the budget is missed, and which plan would fit the budget but break objectives."""
    rows, i = solution.rows, _lowest(culprit, before)
    text = _lacking(solution, culprit, i, allowance)
    soft = [c for c in solution.constraints if c.kind in ("SLO", "Load")]
    for left_out in (soft[1:], soft):
        smaller = feasible(solution.constraints, len(rows), without=left_out)
        if smaller.any():
            break
    else:
        return f"{text}; no plan fits"
    j = int(np.argmax(np.where(smaller, np.nan_to_num(rows.output_tokens_per_second), -1.0)))
    broken = [c for c in soft if not c.holds[j]]
    # If the queue grows without bound, latencies have no figures, and the message about the load suffices.
    shown = [c for c in broken if c.kind != "SLO" or c.needed_text(j) is not None] or broken
    fits = f"{describe.candidate(rows, j)} at {rows.power_watts[j]:.0f} W"
    return f"{text}; a smaller plan that fits: {fits}, but {'; '.join(c.exceeded(j) for c in shown)}"


def _lacking(solution: Solution, culprit: Constraint, i: int, allowance: PowerAllowance) -> str:
    """Say by how much power or energy is missing for the candidate that needs least of it."""
    rows = solution.rows
    if culprit.rule == ENERGY_RULE:
        assert culprit.excess is not None
        lacking = float(culprit.excess[i]) * float(culprit.value or 1.0)
        value = f"={culprit.value} Wh" if culprit.value else ""
        return (
            f"{culprit.field}{value} leaves too little energy: the job takes at least {lacking:.0f} Wh more "
            f"({describe.candidate(rows, i)}) than is left in a period"
        )
    watts = float(np.rint(rows.power_watts[i]))
    lowest = f"the lowest predicted power is {watts:.0f} W ({describe.candidate(rows, i)})"
    if allowance.room is None or watts <= allowance.watts:
        missing = f", {watts - allowance.watts:.0f} W too much" if watts > allowance.watts else ""
        return f"{allowance} leaves too little power{'' if missing else ' while the job runs'}: {lowest}{missing}"
    return f"{allowance} leaves too little power at any time: {lowest}, {watts - allowance.watts:.0f} W too much"


def _when(problem: Problem, solution: Solution, i: int) -> str:
    """Say which jobs hold the power that a job needs, and when there is room; "" for any other load."""
    job, room = problem.spec.workload.job, None if problem.allowance is None else problem.allowance.room
    if job is None or room is None:
        return ""
    course = courses_of(solution.rows.take(np.array([i])), job)
    since, until = room.earliest, room.complete_by
    if until is None:
        until = since + int(course.longest_seconds[0])
    free = room.first_fit(course, max(room.earliest, room.now))
    when = "" if free is None else f"; there is room from {timestamp(datetime.fromtimestamp(free, UTC))} on"
    return holders_text(room, since, until).replace(": ", "; ", 1) + when


def _figure(solution: Solution, constraint: Constraint, mask: BoolArray) -> str:
    assert constraint.needed is not None
    i = _lowest(constraint, mask)
    name, _, unit = constraint.what.rpartition(" in ")
    value = float(constraint.needed[i])
    shown = describe.joules(value) if unit == "J" else f"{value:.0f} {unit}"
    return f"{name} is {shown} ({describe.candidate(solution.rows, i)})"
