"""Where the energy of one candidate is spent, and what each constraint of a plan costs."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from energylens.api.llmdeployment import Objective
from energylens.planner.search.breach import with_limit
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import LATENCIES, Constraint, feasible
from energylens.planner.search.objective import FREE, best
from energylens.planner.search.problem import Problem, Solution
from energylens.predictor import Predictor
from energylens.predictor.breakdown import EnergyParts, energy_parts
from energylens.predictor.types import FloatArray
from energylens.records import dataclass

_PRICED = ("GPUs", "SLO", "Power")


@dataclass(frozen=True)
class Price:
    """Cost of one constraint: the plan compared with the best plan without that constraint."""

    field: str
    value: str
    needed: str | None
    """The field's value that would allow the better plan; None if the field has no number."""
    joules_saved: float
    """Energy saved per output token; negative if the objective is not energy."""
    watts_saved: float
    plan: int
    """Row of the best plan without the constraint."""


JOB_PART = "startAndIdle"
"""Part of a job's energy beside serving: the start of the pods, and idling until the deadline."""


def parts_of(problem: Problem, rows: Candidates, i: int) -> dict[str, float] | None:
    """Return the joules per output token of a candidate by cause, named as in EnergyParts.

    None if the predictor does not provide them, as test doubles do not.
    """
    predictor = problem.predictor
    if not isinstance(predictor, Predictor):
        return None
    gpu = problem.gpus[rows.products[int(rows.product[i])]]
    layouts, load = rows.layouts.take(np.asarray([i])), problem.load
    saturated = load.concurrency is not None
    share = (load.concurrency if load.concurrency is not None else load.requests_per_second or 0.0) / rows.replicas[i]
    predict = predictor.at_concurrency if saturated else predictor.at_rate
    prediction = predict(problem.model, gpu, layouts, load.workload, np.asarray([share], dtype=np.float64))
    found = energy_parts(predictor, problem.model, gpu, layouts, load.workload, prediction, saturated=saturated)
    parts = {f.name: float(getattr(found, f.name)[0]) for f in fields(EnergyParts)}
    # Factors learned from measurement apply to the total.
    total, beside = float(rows.joules_per_output_token[i]), float(rows.idle_job_share[i])
    whole = total * (1.0 - beside) / sum(parts.values())
    found_parts = {name: whole * part for name, part in parts.items()}
    return found_parts if load.job is None else {**found_parts, JOB_PART: total * beside}


def prices(problem: Problem, solution: Solution) -> tuple[Price, ...]:
    """Return what each constraint of a plan costs, the most expensive first, without those that cost nothing.

    Args:
        problem: The planning problem.
        solution: Its solution, which has a plan.
    """
    rows, chosen, objective = solution.rows, solution.chosen, problem.spec.energy.objective
    if chosen is None:
        raise ValueError("there is no plan whose constraints could have a cost")
    found, figures = [], _figures(rows, objective)
    for constraint in solution.constraints:
        if constraint.kind not in _PRICED:
            continue
        without = with_limit(rows, problem.spec, constraint, None)
        i = best(without, feasible(solution.constraints, len(rows), without=[constraint]), objective)
        if i is None or figures[i] >= figures[chosen] * (1 - FREE):
            # The other plan may lower the risk, which no constraint causes.
            continue
        needed = None if constraint.needed is None else constraint.render(_needed(problem, solution, constraint, i))
        joules = float(rows.joules_per_output_token[chosen] - rows.joules_per_output_token[i])
        watts = float(rows.power_watts[chosen] - rows.power_watts[i])
        found.append(Price(constraint.field, constraint.value, needed, joules, watts, i))
    return tuple(sorted(found, key=lambda price: -price.joules_saved))


def _figures(rows: Candidates, objective: Objective) -> FloatArray:
    """Return the figure to minimise without risk, shape (n,): J per output token, W, or GPUs."""
    if objective == "MinimizePower":
        return rows.power_watts
    return rows.gpus.astype(np.float64) if objective == "MinimizeGPUs" else rows.joules_per_output_token


def _needed(problem: Problem, solution: Solution, constraint: Constraint, i: int) -> float:
    """Return the least value of a constraint's field with which the plan saves as much as without the constraint.

    A candidate that only just meets a latency is likely to break the objective, and may lose to another for that
    reason. That chance vanishes far from the latency, so that the search ends.

    Args:
        problem: The planning problem.
        solution: Its solution.
        constraint: The constraint.
        i: Row of the best plan without the constraint.
    """
    assert constraint.needed is not None
    rows, needed, objective = solution.rows, constraint.needed, problem.spec.energy.objective
    others, figures = feasible(solution.constraints, len(rows), without=[constraint]), _figures(rows, objective)
    as_good = figures <= figures[i] * (1 + FREE)

    def suffices(limit: float) -> bool:
        there = with_limit(rows, problem.spec, constraint, round(limit))
        plan = best(there, others & (needed <= limit), objective)
        return plan is not None and bool(as_good[plan])

    least = float(needed[others & as_good].min())
    if constraint.rule not in LATENCIES:
        return float(next(limit for limit in np.unique(needed[others]) if limit >= least and suffices(limit)))
    low, high = round(least) - 1, round(least)
    while not suffices(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return float(high)
