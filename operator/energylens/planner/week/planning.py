"""One layout and its replicas in every hour for a deployment with a profile, or why there is none. Pure."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from energylens.api.llmdeployment import (
    Alternative,
    LLMDeployment,
    PlanStatus,
    PredictedFigures,
    ReplicaLayout,
    Scaling,
)
from energylens.api.llmdeployment.plan import GpuChoice
from energylens.api.words import counted
from energylens.planner.planning import plan_and_solution, problem_for
from energylens.planner.search import describe
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import feasible
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.frontier import table_row
from energylens.planner.search.identity import identified
from energylens.planner.search.placement import layout_at
from energylens.planner.search.plan_status import plan_status
from energylens.planner.search.problem import Problem, Solution, clipped, evaluated
from energylens.planner.search.replica import ReplicaPredictor
from energylens.planner.search.space import ProductSpace
from energylens.planner.search.starts import Start, start_of
from energylens.planner.search.week_load import RateSpan, WeekLoad, at_rate
from energylens.planner.types import Change, ClusterSnapshot, Feasible, Infeasible, PowerAllowance, Relaxation
from energylens.planner.week.choice import ChosenLayout, ConstantPlan, Week, best_constant, choose, layout_keys
from energylens.planner.week.rates import figures_by_rate
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.parameters import weight_bytes
from energylens.predictor.model.requantize import with_quantization
from energylens.predictor.types import FloatArray, GpuSpec
from energylens.records import dataclass

_Result = TypeVar("_Result")
_RATE = "spec.workload.requestsPerSecond"
_PROFILE = "spec.workload.profile"
_PLACE = tuple(str(field.alias) for field in (ReplicaLayout.model_fields | GpuChoice.model_fields).values())
"""Fields of a row that define how a candidate runs."""


@dataclass(frozen=True)
class WeekPlan:
    """One layout, and its replicas in each span of the week."""

    load: WeekLoad
    plan: PlanStatus
    """The layout with the most replicas of any span, and its figures at the highest rate."""
    replicas: tuple[int, ...]
    """Replicas in each span of the load."""
    watts: tuple[float, ...]
    """Predicted power in each span, W."""
    start: Start
    """Start of one replica."""
    starts: int
    """Number of starts in a week."""
    joules: float
    """Energy of a week, starts included, J."""
    constant: ConstantPlan | None
    """The best plan with a constant number of replicas; None if none sustains every hour."""
    others: tuple[ChosenLayout, ...]
    """The best week of every other GPU product, the lowest energy first."""
    peak: Feasible
    """The planning result for the highest rate alone."""
    tokens: float
    """Tokens generated in a week."""

    @property
    def table(self) -> tuple[Mapping[str, object], ...]:
        """The candidates at the highest rate, first the layout of the week, then the best at that rate alone."""
        names = Alternative.model_fields.keys() & PlanStatus.model_fields.keys()
        figures = {name: getattr(self.plan, name) for name in names}
        predicted = self.plan.predicted
        latencies = {
            name: getattr(predicted, name)
            for name in PredictedFigures.model_fields.keys() & Alternative.model_fields.keys()
        }
        mine = table_row(Alternative(**figures, **latencies, reason=""), is_chosen=True)
        others = []
        for row in self.peak.table:
            if all(row[name] == mine[name] for name in _PLACE):
                continue
            passed = {"chosen": False, "reason": "less energy at the highest rate alone, more over the week"}
            others.append({**row, **passed} if row["chosen"] else row)
        return (mine, *others)

    @property
    def released_gpu_hours(self) -> float:
        """GPU hours of a week that are released because fewer replicas run than in the largest span."""
        per_replica = self.plan.gpus // self.plan.replicas
        most = self.plan.replicas
        spans = zip(self.load.spans, self.replicas, strict=True)
        return float(sum(span.hours * (most - count) * per_replica for span, count in spans))


@dataclass(frozen=True)
class WeekProblem:
    """A deployment with a profile, and all other inputs of its plan."""

    deployment: LLMDeployment
    model: ModelSpec
    """The checkpoint's shape."""
    snapshot: ClusterSnapshot
    gpus: Mapping[str, GpuSpec]
    """Known GPU products."""
    predictor: ReplicaPredictor
    allowance: PowerAllowance | None = None
    corrections: Corrections | None = None

    @property
    def load(self) -> WeekLoad:
        """The rates of the week."""
        return WeekLoad.of(self.deployment.spec.workload)

    @property
    def scaling(self) -> Scaling:
        """Bounds of the replicas, and the measurements of a start."""
        return self.deployment.spec.scaling or Scaling()

    def solved(self, span: RateSpan) -> tuple[Feasible | Infeasible, Solution | None]:
        """Return the plan for the rate of one span alone, and all candidates; None where none were evaluated."""
        return plan_and_solution(
            at_rate(self.deployment, span.requests_per_second),
            self.model,
            self.snapshot,
            self.gpus,
            self.predictor,
            allowance=None if self.allowance is None else self.allowance.within(span.start, span.hours),
            corrections=self.corrections,
        )

    @property
    def limits(self) -> FloatArray | None:
        """Power that budgets leave in each span, W, shape (s,); None if it is the same in every hour."""
        if self.allowance is None or self.allowance.hours is None:
            return None
        return np.asarray([self.allowance.within(span.start, span.hours).watts for span in self.load.spans])

    def answer(self, span: RateSpan) -> Feasible | Infeasible:
        """Return the plan for the rate of one span alone."""
        return self.solved(span)[0]

    def problem(self, requests_per_second: str) -> Problem:
        """Return the problem of one rate."""
        asked = at_rate(self.deployment, requests_per_second)
        served = with_quantization(self.model, asked.spec.model.quantization)
        return problem_for(asked, served, self.snapshot, self.gpus, self.predictor, self.allowance, self.corrections)


def plan_week(asked: WeekProblem) -> WeekPlan | Infeasible:
    """Return the best week, as :func:`plan_week_in_steps` does, at once."""
    return finished(plan_week_in_steps(asked))


def finished(steps: Generator[None, None, _Result]) -> _Result:
    """Return the result of steps, all of which are made at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result


def plan_week_in_steps(asked: WeekProblem) -> Generator[None, None, WeekPlan | Infeasible]:
    """Return the layout and the replicas of least energy over the week, starts included, or why there are none.

    The search covers every layout that sustains the highest rate, with every number of replicas in every span, and
    computes the energy of a layout exactly (:mod:`energylens.planner.week.cycle`). If a plan for a constant rate leaves
    out candidates on a large cluster (:mod:`energylens.planner.search.reach`), the search leaves them out, too.

    Yields between the rates, so that others can be planned meanwhile.
    """
    load = asked.load
    peak, solution = asked.solved(load.peak)
    if isinstance(peak, Infeasible):
        return _at(load.peak, peak)
    assert solution is not None
    problem = asked.problem(load.peak.requests_per_second)
    within = [_bounded(space, asked.scaling) for space in _able(problem, solution)]
    at_peak = evaluated(problem, within)
    if at_peak.chosen is None:
        return _out_of_bounds(asked, solution)
    objective = asked.deployment.spec.energy.objective

    def at(rate: str, spaces: Sequence[ProductSpace]) -> Solution:
        return evaluated(asked.problem(rate), spaces)

    rates = list(dict.fromkeys(span.requests_per_second for span in load.spans))
    figures = yield from figures_by_rate(rates, within, at_peak, at, objective)
    starts = _starts(at_peak.rows, asked, weight_bytes(problem.model))
    week = Week(load, at_peak.rows, figures, objective, starts, asked.limits)
    chosen = choose(week)
    if chosen is None:
        return _why_no_layout(asked, load)
    return _week_plan(week, chosen, problem, at_peak, peak)


def _week_plan(week: Week, chosen: ChosenLayout, problem: Problem, at_peak: Solution, peak: Feasible) -> WeekPlan:
    load = week.load
    most = max(chosen.rows, key=lambda row: int(week.rows.replicas[row]))
    status = plan_status(problem, replace(at_peak, chosen=most), most)
    # The binding constraint is the one at the highest rate alone; the layout of the week may differ.
    binding = peak.plan.binding_constraint
    status = status.model_copy(update={"planned_replicas": status.replicas, "binding_constraint": binding})
    mine = week.rows.products[int(week.rows.product[most])]
    others = [choose(week, product) for product in week.rows.products if product != mine]
    found = sorted((other for other in others if other is not None), key=lambda other: other.joules)
    return WeekPlan(
        load=load,
        plan=identified(status, problem.spec),
        replicas=tuple(int(week.rows.replicas[row]) for row in chosen.rows),
        watts=chosen.watts,
        start=week.start(chosen.rows[0]),
        starts=chosen.starts,
        joules=chosen.joules,
        constant=best_constant(week),
        others=tuple(found),
        peak=peak,
        tokens=week.tokens,
    )


def _starts(rows: Candidates, asked: WeekProblem, served_bytes: float) -> dict[tuple[int, int], Start]:
    """Return the start of a replica, by its product and its GPUs."""
    kinds = np.unique(np.column_stack([rows.product, rows.layouts.gpus]), axis=0).tolist()
    return {
        (product, gpus): start_of(gpus, asked.gpus[rows.products[product]], float(served_bytes), asked.scaling)
        for product, gpus in kinds
    }


def _bounded(space: ProductSpace, scaling: Scaling) -> ProductSpace:
    """Return the candidates within the bounds of the spec."""
    last = space.last if scaling.max_replicas is None else np.minimum(space.last, scaling.max_replicas)
    bounded = replace(space, first=np.maximum(space.first, scaling.min_replicas), last=last)
    return bounded.take(np.flatnonzero(bounded.last >= bounded.first))


def _able(problem: Problem, solution: Solution) -> list[ProductSpace]:
    """Return the layouts that sustain the rate of a solution with some number of replicas, one space for each product.

    The spaces contain every smaller number of replicas as well, because quiet hours need fewer.
    """
    rows, found = solution.rows, []
    holds = feasible(solution.constraints, len(rows))
    fixed = problem.spec.planning.overrides.replicas
    for number, product in enumerate(rows.products):
        mine = np.flatnonzero(rows.product == number)
        _, index, inverse = np.unique(layout_keys(rows.take(mine)), axis=0, return_index=True, return_inverse=True)
        inverse = inverse.ravel()
        able, last = np.zeros(index.size, dtype=bool), np.zeros(index.size, dtype=np.int64)
        np.logical_or.at(able, inverse, holds[mine])
        np.maximum.at(last, inverse, rows.replicas[mine])
        # Kept in search order, so that ties are broken as for a constant load.
        kept = np.flatnonzero(able)
        kept = kept[np.argsort(index[kept])]
        chosen = mine[index[kept]]
        first = np.full(kept.size, fixed or 1, dtype=np.int64)
        layouts, nodes = rows.layouts.take(chosen), rows.nodes_per_replica[chosen]
        found.append(clipped(problem, ProductSpace(problem.gpus[product], layouts, nodes, first, last[kept])))
    return found


def _at(span: RateSpan, refused: Infeasible) -> Infeasible:
    """Return why one rate has no plan, as an answer for the profile."""

    def renamed(change: Change | None) -> Change | None:
        return change if change is None or change.field != _RATE else replace(change, field=f"{_PROFILE} at {span}")

    relaxations = [
        replace(each, change=renamed(each.change) or each.change, also=renamed(each.also))
        for each in refused.relaxations
    ]
    text = refused.message.replace(_RATE, f"{_PROFILE} at {span}")
    message = f"{span}, {span.requests_per_second} requests per second: {text}"
    return replace(refused, message=message, relaxations=tuple(relaxations))


def _out_of_bounds(asked: WeekProblem, free: Solution) -> Infeasible:
    """Return a message that spec.scaling forbids every number of replicas that sustains the highest rate."""
    scaling, peak, rows = asked.scaling, asked.load.peak, free.rows
    index = np.flatnonzero(feasible(free.constraints, len(rows)))
    counts = rows.replicas[index]
    is_low = scaling.max_replicas is not None and int(counts.min()) > scaling.max_replicas
    field = "maxReplicas" if is_low else "minReplicas"
    value = scaling.max_replicas if is_low else scaling.min_replicas
    near = int(counts.min()) if is_low else int(counts.max())
    joules = float(np.min(rows.joules_per_output_token[index[counts == near]]))
    change = Change(f"spec.scaling.{field}", str(value), str(near))
    message = (
        f"{peak}, {peak.requests_per_second} requests per second: no layout holds the load and the objectives with "
        f"spec.scaling.{field}={value}; {counted(near, 'replica')} would"
    )
    return Infeasible(
        "LoadTooHigh" if is_low else "InsufficientGPUs", message, relaxations=(Relaxation(change, joules),)
    )


def _why_no_layout(asked: WeekProblem, load: WeekLoad) -> Infeasible:
    """Return why no layout sustains every hour although some layouts sustain the highest rate."""
    for span in load.spans:
        answer = asked.answer(span)
        if isinstance(answer, Infeasible):
            return _at(span, answer)
    rates = ", ".join(dict.fromkeys(span.requests_per_second for span in load.spans))
    message = (
        f"{_PROFILE}: every rate ({rates} requests per second) has a plan, and no single layout within the bounds of "
        "spec.scaling holds all of them"
    )
    return Infeasible("SLOInfeasible", message)


def marked(solution: Solution, found: WeekPlan) -> Solution:
    """Return a solution of the highest rate with the layout of the week as the chosen candidate."""
    rows, plan = solution.rows, found.plan
    mine = (np.asarray(rows.products, dtype=object)[rows.product] == plan.gpu_product) & (
        rows.replicas == plan.replicas
    )
    mine &= rows.nodes_per_replica == plan.nodes_per_replica
    for row in np.flatnonzero(mine).tolist():
        if dict(layout_at(rows, row)) == {name: getattr(plan, name) for name in ReplicaLayout.model_fields}:
            return replace(solution, chosen=row)
    return solution


def saving_text(found: WeekPlan) -> str:
    """Return the energy of the week compared with the best constant plan, in words."""
    text = f"the week takes {describe.kilowatt_hours(found.joules)}"
    if found.constant is None:
        return f"{text}; no constant number of replicas holds every hour"
    saved, constant = 100.0 * (1.0 - found.joules / found.constant.joules), found.constant
    return (
        f"{text}, {saved:.1f} % less than the {describe.kilowatt_hours(constant.joules)} of the best constant plan "
        f"({constant.text})"
    )
