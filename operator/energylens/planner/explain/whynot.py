"""Why a layout is not the plan: the rules that remove its candidates, the loss of the best one, and the remedies.

Exact: every candidate with the requested choices is evaluated, and every threshold of every constraint at which the
order of the best two could change is tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import field, replace
from typing import Literal

import numpy as np

from energylens.api.llmdeployment import LLMDeploymentSpec, Overrides, PowerCap
from energylens.api.words import counted
from energylens.planner.search import describe
from energylens.planner.search.breach import with_limit
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.comparison import by_risk, predicted
from energylens.planner.search.constraints import LATENCIES, Constraint, build_constraints, count_rejections, feasible
from energylens.planner.search.objective import best, objective_values
from energylens.planner.search.problem import Problem, Solution, solve
from energylens.planner.types import Change, Rejection
from energylens.predictor.types import BoolArray, FloatArray
from energylens.records import dataclass

Verdict = Literal["Chosen", "Loses", "Removed"]
NOT_SET = "not set"
_RELAXABLE = ("GPUs", "SLO", "Power")
_UNSET = {
    "ttft_milliseconds": 10**9,
    "itl_milliseconds": 10**9,
    "tpot_milliseconds": 10**9,
    "end_to_end_milliseconds": 10**9,
    "joules_per_output_token": "1G",
}
_CLOSE = 1e-6
"""Relative difference within which two objectives count as equal."""
_FAR, _VALUES = 2.0, 65
"""Values of a latency objective that are tried: so many, up to this multiple of the first that may work."""


@dataclass(frozen=True)
class Choice:
    """The requested choices; None leaves a choice to the planner."""

    gpu_product: str | None = None
    """The value of the node label ``nvidia.com/gpu.product``."""
    overrides: Overrides = field(default_factory=Overrides)
    power_cap_watts: float | None = None
    """Power cap per GPU, W; NaN is the product's default limit."""


@dataclass(frozen=True)
class Winning:
    """A change of the spec that would allow the requested plan, or also make it the best."""

    changes: tuple[Change, ...]
    """The changes, all of which are needed."""
    wins: bool
    """False: the requested plan would be allowed, but another plan would still be better."""
    relaxes: bool
    """False: the change tightens the field, which removes the better plans."""
    joules_per_output_token: float
    """Energy of the requested plan."""


@dataclass(frozen=True)
class Row:
    """One candidate."""

    rows: Candidates
    index: int


@dataclass(frozen=True)
class Answer:
    """Why the requested candidates are not the plan."""

    verdict: Verdict
    message: str
    chosen: Row | None
    """The plan; None if there is none."""
    asked: Row | None
    """The best requested candidate; if none is allowed, the one that breaks the constraints least."""
    rejections: tuple[Rejection, ...] = ()
    """Requested candidates that the rules removed."""
    winning: tuple[Winning, ...] = ()
    """Changes, the nearest first: relaxations, then tightened constraints."""


def why_not(problem: Problem, choice: Choice) -> Answer:
    """Return why the best candidate of a choice is not the plan.

    Args:
        problem: The planning problem, with at least one allowed product.
        choice: The requested choices.
    """
    solution, asked = solve(problem), solve(_with_choice(problem, choice))
    chosen = None if solution.chosen is None else Row(solution.rows, solution.chosen)
    mask = _matches(asked.rows, choice)
    if not mask.any():
        return Answer("Removed", _nowhere(problem, choice), chosen, None)
    if not (mask & asked.rows.supported & asked.rows.fits).any():
        reason = _structural(asked, mask)
        return Answer("Removed", reason, chosen, None, _rejections(asked, mask))
    if chosen is not None and _matches(solution.rows, choice)[chosen.index]:
        message = f"this is the chosen plan: {describe.candidate(chosen.rows, chosen.index)}"
        return Answer("Chosen", message, chosen, chosen)
    fixed = _fixed(problem.spec, choice, solution.rows)
    # With a choice fixed by the spec, its rivals are the other candidates under the same overrides.
    field_of = asked if fixed else solution
    rivals = ~mask if fixed else ~_matches(solution.rows, choice)
    duel = _Duel(problem, field_of, asked, mask, rivals)
    allowed = mask & feasible(asked.constraints, len(asked.rows))
    if not allowed.any():
        near = Row(asked.rows, _nearest(asked, mask))
        winning = tuple(_with_fixed(fixed, one) for one in duel.relaxations()) or (_all_at_once(fixed, asked, near),)
        return Answer("Removed", _removed(asked, mask, fixed), chosen, near, _rejections(asked, mask), winning)
    leader = best(asked.rows, allowed, problem.spec.energy.objective)
    assert leader is not None
    row = Row(asked.rows, leader)
    if fixed:
        energy = float(asked.rows.joules_per_output_token[leader])
        message = f"{_fields(fixed)} would have to change; {_compared(problem, chosen, row)}"
        first = Winning(fixed, asked.chosen is not None and bool(mask[asked.chosen]), True, energy)
        return Answer("Removed", message, chosen, row, winning=(first,))
    winning = (*duel.relaxations(), *duel.tightenings())
    return Answer("Loses", _compared(problem, chosen, row), chosen, row, _rejections(asked, mask), winning)


@dataclass(frozen=True)
class _Duel:
    """Requested candidates against all others, while one constraint changes."""

    problem: Problem
    solution: Solution
    asked: Solution
    mask: BoolArray
    rivals: BoolArray

    def relaxations(self) -> Iterator[Winning]:
        """Yield for each constraint the nearest looser value at which the requested plan wins, or at least is valid."""
        allowed_now = (self.mask & feasible(self.asked.constraints, len(self.asked.rows))).any()
        for own, other in self._pairs(self.asked.constraints, self.solution.constraints):
            mine, theirs = self._left(own, other)
            if not mine.any():
                continue
            if own.needed is None or other.needed is None:
                ours, best_rival = self._least(self.asked.rows, mine), self._least(self.solution.rows, theirs)
                if not own.holds[mine].all() and (not allowed_now or ours < best_rival):
                    yield self._winning(own, "any", mine, ours < best_rival, relaxes=True)
                continue
            looser = np.unique(own.needed[mine & ~own.holds])
            winning = [t for t in _tried(own, looser) if self._wins(own, other, mine, theirs, t)]
            if winning:
                yield self._winning(own, own.render(winning[0]), mine & (own.needed <= winning[0]), True, relaxes=True)
            elif looser.size and not allowed_now:
                yield self._winning(own, own.render(looser[0]), mine & (own.needed <= looser[0]), False, relaxes=True)

    def tightenings(self) -> Iterator[Winning]:
        """Yield for each constraint, including those not in the spec, the loosest value that removes all rivals.

        A requested candidate must be allowed.
        """
        for own, other in self._pairs(self._all_limits(self.asked), self._all_limits(self.solution)):
            if own.needed is None or other.needed is None:
                continue
            mine, theirs = self._left(own, other)
            mine &= own.holds
            limits = np.unique(other.needed[theirs & other.holds])[::-1] - other.resolution
            loosest = next((t for t in limits if self._wins(own, other, mine, theirs, t)), None)
            if loosest is not None:
                yield self._winning(own, own.render(loosest), mine & (own.needed <= loosest), True, relaxes=False)

    def _pairs(
        self, own: tuple[Constraint, ...], others: tuple[Constraint, ...]
    ) -> Iterator[tuple[Constraint, Constraint]]:
        by_rule = {constraint.rule: constraint for constraint in others}
        for constraint in own:
            if constraint.kind in _RELAXABLE:
                yield constraint, by_rule[constraint.rule]

    def _all_limits(self, solution: Solution) -> tuple[Constraint, ...]:
        spec = self.problem.spec
        slo = spec.slo.model_copy(update={k: v for k, v in _UNSET.items() if getattr(spec.slo, k) is None})
        hardware = spec.hardware
        if hardware.max_gpus is None:
            hardware = hardware.model_copy(update={"max_gpus": 10**6})
        free = [self.problem.free_gpus(product) for product in self.problem.products]
        every = spec.model_copy(update={"slo": slo, "hardware": hardware})
        found = build_constraints(solution.rows, every, self.problem.allowed_products, free, self.problem.allowance)
        known = {constraint.rule for constraint in solution.constraints}
        return tuple(c if c.rule in known else replace(c, value=NOT_SET) for c in found)

    def _left(self, own: Constraint, other: Constraint) -> tuple[BoolArray, BoolArray]:
        mine = self.mask & _without(self.asked, own.rule)
        return mine, self.rivals & _without(self.solution, other.rule)

    def _least(self, rows: Candidates, mask: BoolArray) -> float:
        values = objective_values(rows, self.problem.spec.energy.objective)
        return float(np.nanmin(np.where(mask, values, np.inf), initial=np.inf))

    def _wins(self, own: Constraint, other: Constraint, mine: BoolArray, theirs: BoolArray, limit: float) -> bool:
        assert own.needed is not None
        assert other.needed is not None
        asked, rivals = (
            with_limit(rows, self.problem.spec, own, round(limit)) for rows in (self.asked.rows, self.solution.rows)
        )
        ours = self._least(asked, mine & (own.needed <= limit))
        return ours < self._least(rivals, theirs & (other.needed <= limit)) * (1 - _CLOSE)

    def _winning(self, constraint: Constraint, allowed: str, mask: BoolArray, wins: bool, *, relaxes: bool) -> Winning:
        rows = self.asked.rows
        i = best(rows, mask, self.problem.spec.energy.objective)
        assert i is not None
        if allowed == "any":
            product = rows.products[int(rows.product[i])]
            allowed = (
                f"[{product}]" if constraint.rule == "GPUProductNotAllowed" else f"{int(rows.gpus[i])} of {product}"
            )
        change = Change(constraint.field, constraint.value, allowed)
        return Winning((change,), wins, relaxes, float(rows.joules_per_output_token[i]))


def _tried(constraint: Constraint, needed: FloatArray) -> FloatArray:
    """Return the values of a field at which a requested plan may begin to win, ascending.

    Args:
        constraint: The constraint of the field.
        needed: Values with which the requested candidates that break the constraint satisfy it, ascending.
    """
    if constraint.rule not in LATENCIES or not needed.size:
        return needed
    # A plan that only just meets a latency is likely to break it, which counts against the plan.
    return np.unique([*needed, *np.rint(np.linspace(needed[0], _FAR * needed[0], _VALUES))])


def _with_choice(problem: Problem, choice: Choice) -> Problem:
    spec = problem.spec
    asked = choice.overrides.model_dump(exclude_none=True)
    planning = spec.planning.model_copy(update={"overrides": spec.planning.overrides.model_copy(update=asked)})
    energy, cap = spec.energy, choice.power_cap_watts
    if cap is not None:
        limit = PowerCap() if math.isnan(cap) else PowerCap(mode="Fixed", watts_per_gpu=round(cap))
        energy = energy.model_copy(update={"power_cap": limit})
    return replace(problem, spec=spec.model_copy(update={"planning": planning, "energy": energy}))


def _matches(rows: Candidates, choice: Choice) -> BoolArray:
    mask = np.ones(len(rows), dtype=bool)
    if choice.gpu_product is not None:
        mask &= np.asarray([product == choice.gpu_product for product in rows.products], dtype=bool)[rows.product]
    for name, value in choice.overrides.model_dump(exclude_none=True).items():
        mask &= rows.choice(name) == value
    if choice.power_cap_watts is not None:
        caps = rows.layouts.power_cap_watts
        mask &= np.isnan(caps) if math.isnan(choice.power_cap_watts) else caps == choice.power_cap_watts
    return mask


def _fixed(spec: LLMDeploymentSpec, choice: Choice, rows: Candidates) -> tuple[Change, ...]:
    """Return the overrides that forbid the choice, and those that it needs because the planner does not try it."""
    changes = []
    for name, value in choice.overrides.model_dump(exclude_none=True).items():
        given = getattr(spec.planning.overrides, name)
        tried = value in set(rows.choice(name).tolist())
        if (given is not None and given != value) or (given is None and not tried):
            field = f"spec.planning.overrides.{Overrides.model_fields[name].alias}"
            changes.append(Change(field, NOT_SET if given is None else str(given), str(value)))
    cap, mode = choice.power_cap_watts, spec.energy.power_cap
    if cap is not None and not _matches(rows, Choice(power_cap_watts=cap)).any():
        now = f"Fixed at {mode.watts_per_gpu} W" if mode.mode == "Fixed" else mode.mode
        changes.append(Change("spec.energy.powerCap", now, "Never" if math.isnan(cap) else f"Fixed at {cap:.0f} W"))
    return tuple(changes)


def _without(solution: Solution, rule: str) -> BoolArray:
    left_out = [c for c in solution.constraints if c.rule == rule]
    return feasible(solution.constraints, len(solution.rows), without=left_out)


def _nearest(asked: Solution, mask: BoolArray) -> int:
    """Return the candidate of a mask that can run and breaks the rules least; at least one of them can run."""
    # All distances may be infinite, under a load that makes every queue grow without bound.
    among = np.flatnonzero(mask & asked.rows.supported & asked.rows.fits)
    distance = np.sum([c.distance for c in asked.constraints], axis=0)
    return int(among[np.argmin(distance[among])])


def _rejections(asked: Solution, mask: BoolArray) -> tuple[Rejection, ...]:
    left_out = replace(asked.constraints[0], rule="", holds=mask)
    return tuple(r for r in count_rejections((left_out, *asked.constraints), len(asked.rows)) if r.rule)


def _with_fixed(fixed: tuple[Change, ...], found: Winning) -> Winning:
    return replace(found, changes=(*fixed, *found.changes))


def _all_at_once(fixed: tuple[Change, ...], asked: Solution, near: Row) -> Winning:
    """Return everything that would have to be relaxed for one candidate, if no single constraint suffices."""
    changes = [
        Change(c.field, c.value, c.needed_text(near.index) or "another")
        for c in asked.constraints
        if not c.holds[near.index]
    ]
    return Winning((*fixed, *changes), False, True, float(near.rows.joules_per_output_token[near.index]))


def _removed(asked: Solution, mask: BoolArray, fixed: tuple[Change, ...]) -> str:
    left = mask.copy()
    for constraint in asked.constraints:
        if not (left & constraint.holds).any():
            i = _nearest(asked, left)
            before = f"{_fields(fixed)} would have to change, and " if fixed else ""
            return f"{before}{constraint.message}: {constraint.exceeded(i)} ({describe.candidate(asked.rows, i)})"
        left &= constraint.holds
    raise AssertionError("a candidate satisfies every rule")


def _fields(changes: tuple[Change, ...]) -> str:
    shown = [c.field + (f" ({NOT_SET})" if c.value == NOT_SET else f"={c.value}") for c in changes]
    return " and ".join(shown)


def _structural(asked: Solution, mask: BoolArray) -> str:
    for constraint in asked.constraints:
        if constraint.kind in ("Structure", "Memory") and not (mask & constraint.holds).any():
            i = int(np.flatnonzero(mask)[0])
            return f"{constraint.exceeded(i)} ({describe.candidate(asked.rows, i)})"
    return "no layout can run: some are not supported, and the others do not fit into GPU memory"


def _nowhere(problem: Problem, choice: Choice) -> str:
    nodes = "; ".join(
        f"{counted(sum(n.product == p for n in problem.nodes), 'node')} of {p} with up to "
        f"{counted(max(n.allocatable for n in problem.nodes if n.product == p), 'GPU')}"
        for p in problem.products
    )
    return f"no such layout can be placed on the nodes that the spec may use: {nodes}"


def _compared(problem: Problem, chosen: Row | None, asked: Row) -> str:
    text = describe.candidate(asked.rows, asked.index)
    if chosen is None:
        return f"{text} would be the plan"
    objective = problem.spec.energy.objective
    new = float(objective_values(asked.rows, objective)[asked.index])
    old = float(objective_values(chosen.rows, objective)[chosen.index])
    plan = describe.candidate(chosen.rows, chosen.index)
    if objective == "MinimizeGPUs" and new != old:
        return f"{text} uses {counted(round(new), 'GPU')}; the plan {plan} uses {old:.0f}"
    risk = by_risk(asked.rows, asked.index, chosen.rows, chosen.index, objective)
    if risk is not None:
        return f"{text} {risk} (the plan: {plan})"
    new = float(predicted(asked.rows, objective)[asked.index])
    old = float(predicted(chosen.rows, objective)[chosen.index])
    if math.isclose(new, old, rel_tol=_CLOSE):
        return f"{text} is as good as the plan {plan}, which has fewer GPUs, fewer replicas or a lower TTFT"
    what = "power" if objective == "MinimizePower" else "energy"
    difference = describe.compared(new, old, what)
    word = "of" if "times" in difference else "as" if difference.startswith("as ") else "than"
    return f"{text} uses {difference} {word} the plan {plan}"
