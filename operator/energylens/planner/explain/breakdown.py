"""Where the energy of one candidate is spent, and what each constraint of a plan costs."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from energylens.planner.search.breach import with_limit
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import LATENCIES, Constraint, feasible
from energylens.planner.search.objective import best, objective_values
from energylens.planner.search.problem import Problem, Solution
from energylens.predictor import Predictor
from energylens.predictor.breakdown import EnergyParts, energy_parts
from energylens.records import dataclass

_WORTH_SAYING = 1e-4
"""Relative difference of the objective below which a constraint counts as free."""
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


_FAR = 64
"""Multiple of a latency beyond which no larger one is tried."""


def prices(problem: Problem, solution: Solution) -> tuple[Price, ...]:
    """Return what each constraint of a plan costs, the most expensive first, without those that cost nothing.

    Args:
        problem: The planning problem.
        solution: Its solution, which has a plan.
    """
    rows, chosen, objective = solution.rows, solution.chosen, problem.spec.energy.objective
    if chosen is None:
        raise ValueError("there is no plan whose constraints could have a cost")
    found, value = [], float(objective_values(rows, objective)[chosen])
    for constraint in solution.constraints:
        if constraint.kind not in _PRICED:
            continue
        without = with_limit(rows, problem.spec, constraint, None)
        i = best(without, feasible(solution.constraints, len(rows), without=[constraint]), objective)
        if i is None or objective_values(without, objective)[i] >= value * (1 - _WORTH_SAYING):
            continue
        needed = None if constraint.needed is None else constraint.render(_needed(problem, solution, constraint, i))
        joules = float(rows.joules_per_output_token[chosen] - rows.joules_per_output_token[i])
        if joules <= 0.0 and objective == "MinimizeEnergy":
            # The other plan only lowers the risk, which no constraint causes.
            continue
        watts = float(rows.power_watts[chosen] - rows.power_watts[i])
        found.append(Price(constraint.field, constraint.value, needed, joules, watts, i))
    return tuple(sorted(found, key=lambda price: -price.joules_saved))


def _needed(problem: Problem, solution: Solution, constraint: Constraint, i: int) -> float:
    """Return the least value of a constraint's field with which a candidate is the plan.

    A candidate that only just meets a latency is likely to break it, and may lose to another for that reason.
    """
    assert constraint.needed is not None
    rows, others = solution.rows, feasible(solution.constraints, len(solution.rows), without=[constraint])
    least, needed = float(constraint.needed[i]), constraint.needed

    def wins(limit: int) -> bool:
        there = with_limit(rows, problem.spec, constraint, limit)
        return best(there, others & (needed <= limit), problem.spec.energy.objective) == i

    if constraint.rule not in LATENCIES or wins(round(least)):
        return least
    low, high = round(least), 2 * round(least)
    while not wins(high):
        low, high = high, 2 * high
        if high > _FAR * least:
            return least
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wins(middle) else (middle, high)
    return float(high)
