"""Where the energy of one candidate is spent, and what each constraint of a plan costs."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import feasible
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


def prices(problem: Problem, solution: Solution) -> tuple[Price, ...]:
    """Return what each constraint of a plan costs, the most expensive first, without those that cost nothing.

    Args:
        problem: The planning problem.
        solution: Its solution, which has a plan.
    """
    rows, chosen, objective = solution.rows, solution.chosen, problem.spec.energy.objective
    if chosen is None:
        raise ValueError("there is no plan whose constraints could have a cost")
    found, values = [], objective_values(rows, objective)
    for constraint in solution.constraints:
        if constraint.kind not in _PRICED:
            continue
        i = best(rows, feasible(solution.constraints, len(rows), without=[constraint]), objective)
        if i is None or values[i] >= values[chosen] * (1 - _WORTH_SAYING):
            continue
        needed = None if constraint.needed is None else constraint.render(float(constraint.needed[i]))
        joules = float(rows.joules_per_output_token[chosen] - rows.joules_per_output_token[i])
        if joules <= 0.0 and objective == "MinimizeEnergy":
            # The other plan only lowers the risk, which no constraint causes.
            continue
        watts = float(rows.power_watts[chosen] - rows.power_watts[i])
        found.append(Price(constraint.field, constraint.value, needed, joules, watts, i))
    return tuple(sorted(found, key=lambda price: -price.joules_saved))
