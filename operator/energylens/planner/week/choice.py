"""The layout with the least energy over a week, with the best replicas of each span; and the best constant plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property

import numpy as np

from energylens.api.llmdeployment import Objective
from energylens.planner.search import describe
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import feasible
from energylens.planner.search.objective import FREE, complexity, latency_steps, rounded
from energylens.planner.search.problem import Solution
from energylens.planner.search.ranking import LARGEST_TIE, simplest
from energylens.planner.search.starts import Start
from energylens.planner.search.week_load import WeekLoad
from energylens.planner.week.cycle import Cycle
from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass

_SECONDS = 3600.0


@dataclass(frozen=True)
class ChosenLayout:
    """The best week of one layout."""

    text: str
    """The layout with its most replicas of any span, as text."""
    rows: tuple[int, ...]
    """Candidate of each span, as an index."""
    watts: tuple[float, ...]
    """Predicted power of each span, W."""
    joules: float
    """Energy of a week, starts included, J."""
    starts: int
    """Number of replica starts in a week."""


@dataclass(frozen=True)
class ConstantPlan:
    """The best plan with a constant number of replicas."""

    text: str
    """The plan as text."""
    joules: float
    """Energy of a week, J."""
    watts: tuple[float, ...]
    """Predicted power of each span, W."""


@dataclass(frozen=True)
class RateFigures:
    """The figures of all candidates under one rate that the week needs.

    All figures of many rates would fill the memory.
    """

    costs: FloatArray
    """The quantity to minimise, per second, shape (n,); infinite if a constraint is broken, or if not evaluated."""
    watts: FloatArray
    """Predicted power, W, shape (n,)."""
    tokens_per_second: float
    """Tokens that all replicas of any candidate generate, per second."""

    @classmethod
    def of(cls, solution: Solution, objective: Objective) -> RateFigures:
        """Return the figures of the candidates of a solution."""
        rows = solution.rows
        watts = rows.joules_per_output_token * rows.output_tokens_per_second
        if objective == "MinimizeGPUs":
            costs = rows.gpus.astype(np.float64)
        else:
            costs = (rows.power_watts if objective == "MinimizePower" else watts) * rows.ranking_factor
        holds = feasible(solution.constraints, len(rows))
        tokens = rows.output_tokens_per_second[holds]
        return cls(np.where(holds, costs, np.inf), watts, float(tokens[0]) if tokens.size else 0.0)

    def placed(self, index: IntArray, size: int) -> RateFigures:
        """Return the figures of ``index``, shape (n,), among ``size`` candidates; the others have infinite costs."""
        costs, watts = np.full(size, np.inf), np.zeros(size)
        costs[index], watts[index] = self.costs, self.watts
        return RateFigures(costs, watts, self.tokens_per_second)


@dataclass(frozen=True)
class Week:
    """The same candidates under every rate of a week."""

    load: WeekLoad
    rows: Candidates
    """Solution under the highest rate."""
    figures: Mapping[str, RateFigures]
    """Figures by rate."""
    objective: Objective
    starts: Mapping[tuple[int, int], Start]
    """Start of a replica by the index of its product in ``rows.products`` and its GPUs."""
    limits: FloatArray | None = None
    """Power that budgets leave in each span, W, shape (s,); None if ``costs`` know the limit."""

    @cached_property
    def hours(self) -> FloatArray:
        """Hours of each span, shape (s,)."""
        return np.asarray([float(span.hours) for span in self.load.spans])

    @cached_property
    def costs(self) -> FloatArray:
        """The quantity to minimise for each candidate under each rate, per second, shape (k, n)."""
        return np.stack([figures.costs for figures in self.figures.values()])

    @cached_property
    def watts(self) -> FloatArray:
        """Power of each candidate under each rate, W, shape (k, n)."""
        return np.stack([figures.watts for figures in self.figures.values()])

    @cached_property
    def rate_of(self) -> IntArray:
        """Index of the rate of each span, shape (s,)."""
        rates = list(self.figures)
        return np.asarray([rates.index(span.requests_per_second) for span in self.load.spans])

    @cached_property
    def rate_seconds(self) -> FloatArray:
        """Seconds of a week with each rate, shape (k,)."""
        return np.asarray(
            np.bincount(self.rate_of, weights=self.hours * _SECONDS, minlength=len(self.figures)), dtype=np.float64
        )

    @cached_property
    def groups(self) -> tuple[IntArray, ...]:
        """The candidates of each layout, by replicas ascending."""
        rows = self.rows
        changes = np.any(np.diff(np.column_stack([rows.product, layout_keys(rows)]), axis=0) != 0, axis=1)
        return tuple(np.split(np.arange(len(rows)), np.flatnonzero(changes) + 1))

    def start(self, row: int) -> Start:
        """Return the start of a replica of a candidate."""
        return self.starts[int(self.rows.product[row]), int(self.rows.layouts.gpus[row])]

    def cycle(self, group: IntArray) -> Cycle:
        """Return the costs of one layout over the cycle."""
        first = int(group[0])
        start = self.start(first)
        paid = start.joules
        if self.objective == "MinimizeGPUs":
            paid = start.seconds * float(self.rows.layouts.gpus[first])
        costs = self.costs[self.rate_of[:, None], group[None, :]] * (self.hours * _SECONDS)[:, None]
        return Cycle(self.rows.replicas[group], np.where(self.within_limits(group), costs, np.inf), paid)

    def within_limits(self, group: IntArray) -> BoolArray:
        """Return in which spans budgets allow each of m candidates, shape (s, m)."""
        if self.limits is None:
            return np.ones((self.hours.size, group.size), dtype=bool)
        watts = np.rint(self.watts[self.rate_of[:, None], group[None, :]])
        return np.asarray(watts <= self.limits[:, None])

    @property
    def tokens(self) -> float:
        """Tokens that a week generates."""
        rates = [figures.tokens_per_second for figures in self.figures.values()]
        return float(np.dot(rates, self.rate_seconds))

    def joules(self, watts: FloatArray) -> float:
        """Return the energy of a week, J; ``watts`` of each span, shape (s,)."""
        return float((watts * self.hours).sum()) * _SECONDS


def layout_keys(rows: Candidates) -> FloatArray:
    """Return a key for each layout of a product, one row per candidate, shape (n, k)."""
    columns = [rows.nodes_per_replica]
    columns += [np.nan_to_num(getattr(rows.layouts, f.name), nan=-1.0) for f in fields(rows.layouts)]
    return np.column_stack(columns).astype(np.float64)


def choose(week: Week, product: str | None = None) -> ChosenLayout | None:
    """Return the best layout and its replicas; None if no layout sustains every span.

    Layouts are compared by a lower bound of their cost, and then exactly, in ascending order of the bound, until no
    other layout can be as good. Among layouts that predictions cannot distinguish, the simplest is chosen, as for a
    constant load.

    Args:
        week: The candidates.
        product: Only layouts on this GPU product; None for all.
    """
    values, groups = _values(week, product)
    if not groups:
        return None
    most = [_at_most(week, group) for group in groups]
    index = np.asarray(most)
    ordered = np.asarray(values)
    risk = week.rows.risk.take(index)
    tied = simplest(ordered, risk, [costs[index] for costs in complexity(week.rows)])
    rows = week.rows.take(index)
    keys = (rounded(ordered), rows.gpus, rows.replicas, latency_steps(rows.ttft_upper_ms), rows.layouts.max_batch_size)
    best = min(tied.tolist(), key=lambda i: (*(key[i] for key in keys), i))
    return _chosen(week, groups[_roomier(week, index, ordered, best)])


def _values(week: Week, product: str | None) -> tuple[list[float], list[IntArray]]:
    """Return a lower bound of the cost of each potentially best layout, and its candidates."""
    groups = [
        group
        for group in week.groups
        if product is None or week.rows.products[int(week.rows.product[group[0]])] == product
    ]
    bounds = np.asarray([float(np.dot(week.costs[:, group].min(axis=1), week.rate_seconds)) for group in groups])
    values: list[float] = []
    kept: list[IntArray] = []
    for i in np.argsort(bounds, kind="stable").tolist():
        if not np.isfinite(bounds[i]) or bounds[i] > min(values, default=np.inf) * LARGEST_TIE:
            break
        value = week.cycle(groups[i]).cheapest()
        if np.isfinite(value):
            values.append(value)
            kept.append(groups[i])
    return values, kept


def _at_most(week: Week, group: IntArray) -> int:
    """Return the candidate of a layout with the least cost at the highest rate."""
    return int(group[np.argmin(week.figures[week.load.peak.requests_per_second].costs[group])])


def _roomier(week: Week, index: IntArray, values: FloatArray, best: int) -> int:
    """Return the layout with a batch large enough for bursts if that costs nothing, as for a constant load."""
    rows, i = week.rows, int(index[best])
    layouts, wanted = rows.layouts, float(rows.burst_sequences[i])
    batches = layouts.max_batch_size[index]
    same: BoolArray = (rows.product[index] == rows.product[i]) & (batches >= layouts.max_batch_size[i])
    same &= (rows.nodes_per_replica[index] == rows.nodes_per_replica[i]) & (values <= values[best] * (1.0 + FREE))
    for degree in layouts.split:
        same &= degree[index] == degree[i]
    found = np.flatnonzero(same)
    enough = found[batches[found] >= wanted]
    if layouts.max_batch_size[i] >= wanted:
        return best
    return int(found[np.argmax(batches[found])] if not enough.size else enough[np.argmin(batches[enough])])


def _chosen(week: Week, group: IntArray) -> ChosenLayout:
    cycle = week.cycle(group)
    path = cycle.path()
    rows, starts = group[path], cycle.starts(path)
    watts = week.watts[week.rate_of, rows]
    joules = week.joules(watts) + starts * week.start(int(group[0])).joules
    most = int(rows[np.argmax(week.rows.replicas[rows])])
    return ChosenLayout(
        describe.candidate(week.rows, most), tuple(map(int, rows)), tuple(map(float, watts)), joules, starts
    )


def best_constant(week: Week) -> ConstantPlan | None:
    """Return the plan of one layout and a constant number of replicas with the least cost over the week."""
    costs = np.asarray(week.rate_seconds @ week.costs)
    if week.limits is not None:
        costs = np.where(week.within_limits(np.arange(costs.size)).all(axis=0), costs, np.inf)
    if not np.isfinite(costs).any():
        return None
    row = int(np.argmin(costs))
    watts = week.watts[week.rate_of, row]
    return ConstantPlan(describe.candidate(week.rows, row), week.joules(watts), tuple(map(float, watts)))
