"""Why nothing fits, and the nearest change of each constraint that would.

A message names the field, its value and the nearest thing that works, for somebody who sees nothing but the message.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from energylens.api.llmdeployment import Overrides
from energylens.planner import describe
from energylens.planner.constraints import FREE_GPUS, Constraint, count_rejections, feasible
from energylens.planner.evaluate import POWER_LIMIT_REASON
from energylens.planner.objective import best
from energylens.planner.problem import Problem, Solution, solve
from energylens.planner.types import Infeasible, InfeasibleReason, Relaxation
from energylens.predictor.parameters import weight_bytes
from energylens.predictor.types import BoolArray

_LOAD_STEPS = 10
"""Halvings of the load's logarithmic range, which is then known to 1 %."""
_LOWEST_LOAD = 1e-4
"""Share of the offered load below which nobody would call it the same deployment."""


def explain_infeasible(problem: Problem, solution: Solution) -> Infeasible:
    """Return why a problem without a feasible candidate has none.

    The reason is that of the first rule, in their order, that leaves no candidate.
    """
    relaxations = tuple(_relaxations(problem, solution))
    reason, message = _headline(problem, solution, relaxations)
    named = message.partition("=")[0]
    # Free GPUs are not for the reader to set; the message has said where they are missing.
    others = [r for r in relaxations if r.field not in (named, FREE_GPUS)]
    if others:
        options = ", or ".join(f"{r.field}={r.allowed}" for r in others[:3])
        message = f"{message}; would also work: {options}"
    rejections = count_rejections(solution.constraints, len(solution.rows))
    return Infeasible(reason, message, rejections, relaxations)


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
        return "LoadTooHigh", _load_message(culprit, relaxations, problem)
    if culprit.kind == "SLO":
        return "SLOInfeasible", _slo_message(solution)
    return "BudgetExceeded", (
        f"{culprit.field}={culprit.value} leaves too little power: the lowest {_figure(solution, culprit, before)}"
    )


def _culprit(solution: Solution) -> tuple[Constraint | None, BoolArray]:
    """Return the first rule that leaves nothing, None without candidates, and what the rules before it had left."""
    left = np.ones(len(solution.rows), dtype=bool)
    for constraint in solution.constraints if len(solution.rows) else ():
        if not (left & constraint.holds).any():
            return constraint, left
        left &= constraint.holds
    return None, left


def _lowest(constraint: Constraint, mask: BoolArray) -> int:
    assert constraint.needed is not None
    return int(np.nanargmin(np.where(mask, constraint.needed, np.inf)))


def _override_message(
    problem: Problem, solution: Solution, culprit: Constraint | None, relaxations: tuple[Relaxation, ...]
) -> str:
    given = problem.spec.planning.overrides.model_dump(by_alias=True, exclude_none=True)
    fields = " with ".join(f"spec.planning.overrides.{name}={value}" for name, value in given.items())
    if culprit is None:
        nodes = ", ".join(f"{sum(n.product == p for n in problem.nodes)} nodes of {p}" for p in problem.products)
        why = f"no such layout can be placed on {nodes}"
        if problem.load.concurrency is not None:
            why += f" for {problem.load.concurrency} concurrent requests"
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
        f"spec.model.name={problem.model.name} needs {describe.gigabytes(weight_bytes(problem.model))} of weights and "
        f"the KV cache of a request beside them; the largest replica{within} has {gpus} GPUs of "
        f"{rows.products[int(rows.product[largest])]} with {describe.gigabytes(float(memory[largest]))}"
    )


def _gpus_message(problem: Problem, solution: Solution, culprit: Constraint, before: BoolArray) -> str:
    rows = solution.rows
    # The nearest that holds every other rule is the better advice; where there is none, what the model needs at least.
    others = feasible(solution.constraints, len(rows), without=[culprit])
    mask = others if others.any() else before
    if culprit.needed is not None:
        i = _lowest(culprit, mask)
        return (
            f"{culprit.field}={culprit.value}: needs at least {culprit.render(float(culprit.needed[i]))} GPUs of "
            f"{rows.products[int(rows.product[i])]} ({describe.candidate(rows, i)})"
        )
    i = int(np.argmin(np.where(mask, rows.gpus, np.iinfo(np.int64).max)))
    product = rows.products[int(rows.product[i])]
    free = ", ".join(str(gpus) for gpus in problem.free_gpus(product))
    nodes = int(rows.nodes_per_replica[i])
    where = "on one node" if nodes == 1 else f"on each of {nodes} nodes"
    return (
        f"not enough free GPUs: needs {int(rows.gpus_per_node[i])} GPUs of {product} {where} for "
        f"{describe.candidate(rows, i)}; free on its nodes now: {free}"
    )


def _load_message(culprit: Constraint, relaxations: tuple[Relaxation, ...], problem: Problem) -> str:
    nearest = next((r for r in relaxations if r.field == culprit.field), None)
    most = nearest.allowed if nearest is not None else _largest_load(problem, ("SLO", "Power"))[0]
    limit = f" within spec.hardware.maxGPUs={problem.spec.hardware.max_gpus}" if problem.spec.hardware.max_gpus else ""
    return f"{culprit.field}={culprit.value} is too high: the most that a plan{limit} sustains is {most}"


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
            figures.append(f"with the rest held the lowest {_figure(solution, c, others)}")
    return f"{together} cannot be met together: " + "; ".join(figures or ["no two of them hold at once"])


def _figure(solution: Solution, constraint: Constraint, mask: BoolArray) -> str:
    assert constraint.needed is not None
    i = _lowest(constraint, mask)
    name, _, unit = constraint.what.rpartition(" in ")
    value = float(constraint.needed[i])
    shown = describe.joules(value) if unit == "J" else f"{value:.0f} {unit}"
    return f"{name} is {shown} ({describe.candidate(solution.rows, i)})"


def _relaxations(problem: Problem, solution: Solution) -> Iterator[Relaxation]:
    yield from _override_relaxations(problem)
    rows, objective = solution.rows, problem.spec.energy.objective
    for constraint in solution.constraints:
        if constraint.kind not in ("GPUs", "SLO", "Power"):
            continue
        mask = feasible(solution.constraints, len(rows), without=[constraint])
        if not mask.any():
            continue
        if constraint.needed is not None:
            nearest = float(np.nanmin(np.where(mask, constraint.needed, np.inf)))
            mask &= constraint.needed <= nearest
        chosen = best(rows, mask, objective)
        assert chosen is not None
        product = rows.products[int(rows.product[chosen])]
        if constraint.needed is not None:
            allowed = constraint.render(nearest)
        elif constraint.rule == "GPUProductNotAllowed":
            allowed = f"[{product}]"
        else:
            allowed = f"{int(rows.gpus[chosen])} of {product}"
        yield Relaxation(constraint.field, constraint.value, allowed, float(rows.joules_per_output_token[chosen]))
    load = next((c for c in solution.constraints if c.kind == "Load"), None)
    hard = [c for c in solution.constraints if c.kind in ("Structure", "Memory", "GPUs")]
    if load is not None and feasible(hard, len(rows)).any():
        allowed, energy = _largest_load(problem, ())
        if energy is not None:
            yield Relaxation(load.field, load.value, allowed, energy)


def _override_relaxations(problem: Problem) -> Iterator[Relaxation]:
    given = problem.spec.planning.overrides
    for name in Overrides.model_fields:
        value = getattr(given, name)
        if value is None:
            continue
        planning = problem.spec.planning.model_copy(update={"overrides": given.model_copy(update={name: None})})
        solution = solve(replace(problem, spec=problem.spec.model_copy(update={"planning": planning})))
        if solution.chosen is None:
            continue
        rows, i = solution.rows, solution.chosen
        works = getattr(rows, name) if name == "replicas" else getattr(rows.layouts, name)
        field = f"spec.planning.overrides.{Overrides.model_fields[name].alias}"
        yield Relaxation(field, str(value), str(int(works[i])), float(rows.joules_per_output_token[i]))


def _largest_load(problem: Problem, leave_out: tuple[str, ...]) -> tuple[str, float | None]:
    """Return the largest load that a plan can take, as the spec writes it, and that plan's joules per output token.

    Halves the logarithmic range below the offered load. The load that a plan sustains has no closed form.
    """

    def energy_at(factor: float) -> float | None:
        solution = solve(replace(problem, load_factor=factor, within_limits=True))
        without = [c for c in solution.constraints if c.kind in leave_out]
        mask = feasible(solution.constraints, len(solution.rows), without=without)
        i = best(solution.rows, mask, problem.spec.energy.objective)
        return None if i is None else float(solution.rows.joules_per_output_token[i])

    low, high = _LOWEST_LOAD, 1.0
    energy = energy_at(low)
    if energy is None:
        return "0", None
    for _ in range(_LOAD_STEPS):
        middle = float(np.sqrt(low * high))
        at_middle = energy_at(middle)
        if at_middle is None:
            high = middle
        else:
            low, energy = middle, at_middle
    load = replace(problem, load_factor=low).load
    if load.concurrency is not None:
        return str(load.concurrency), energy
    return describe.floor_quantity(load.requests_per_second or 0.0), energy
