"""Which layout takes the least energy over a week, with the best replicas of each span; and the best constant plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from energylens.api.llmdeployment import Objective
from energylens.planner.search import describe
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import feasible
from energylens.planner.search.objective import FREE, complexity, latency_steps, rounded
from energylens.planner.search.problem import Solution
from energylens.planner.search.ranking import LARGEST_TIE, simplest
from energylens.planner.search.week_load import WeekLoad
from energylens.planner.week.cycle import Cycle
from energylens.planner.week.starts import Start
from energylens.predictor.types import BoolArray, FloatArray, IntArray

_SECONDS = 3600.0
Figure = Callable[[Candidates], FloatArray]


@dataclass(frozen=True)
class Chosen:
    """The best week of one layout."""

    text: str
    """The layout with the most replicas of any span, in short."""
    rows: tuple[int, ...]
    """The candidate of each span."""
    watts: tuple[float, ...]
    """Predicted power of each span, W."""
    joules: float
    """Of a week, starts included, J."""
    starts: int
    """Of replicas, in a week."""


@dataclass(frozen=True)
class Constant:
    """The best plan with a constant number of replicas."""

    text: str
    """The plan in short."""
    joules: float
    """Of a week, J."""
    watts: tuple[float, ...]
    """Predicted power of each span, W."""


@dataclass(frozen=True)
class Week:
    """The candidates under every rate of a week; rows are the same candidates in each solution."""

    load: WeekLoad
    solutions: Mapping[str, Solution]
    """By rate."""
    objective: Objective
    starts: Mapping[int, Start]
    """Of a replica of each candidate, by row."""

    @property
    def rows(self) -> Candidates:
        """The candidates at the highest rate."""
        return self.solutions[self.load.peak.requests_per_second].rows

    @cached_property
    def hours(self) -> FloatArray:
        """Hours of each span, shape (s,)."""
        return np.asarray([float(span.hours) for span in self.load.spans])

    @cached_property
    def watts(self) -> FloatArray:
        """Power of each candidate in each span, shape (s, n)."""
        return self._each(lambda rows: rows.joules_per_output_token * rows.output_tokens_per_second)

    @cached_property
    def costs(self) -> FloatArray:
        """What is minimised of each candidate in each span, shape (s, n); infinite where a constraint is broken."""
        if self.objective == "MinimizeGPUs":
            found = self._each(lambda rows: rows.gpus.astype(np.float64))
        elif self.objective == "MinimizePower":
            found = self._each(lambda rows: rows.power_watts * rows.risk.factor)
        else:
            found = self._each(lambda rows: rows.joules_per_output_token * rows.risk.factor
                               * rows.output_tokens_per_second)  # fmt: skip
        held = {rate: feasible(solution.constraints, len(solution.rows)) for rate, solution in self.solutions.items()}
        holds = np.stack([held[span.requests_per_second] for span in self.load.spans])
        return np.where(holds, found * (self.hours * _SECONDS)[:, None], np.inf)

    @cached_property
    def groups(self) -> tuple[IntArray, ...]:
        """The candidates of each layout, by replicas ascending."""
        rows = self.rows
        changes = np.any(np.diff(np.column_stack([rows.product, layout_keys(rows)]), axis=0) != 0, axis=1)
        return tuple(np.split(np.arange(len(rows)), np.flatnonzero(changes) + 1))

    def cycle(self, group: IntArray) -> Cycle:
        """Return what one layout costs."""
        start, first = self.starts[int(group[0])], int(group[0])
        paid = start.joules
        if self.objective == "MinimizeGPUs":
            paid = start.seconds * float(self.rows.layouts.gpus[first])
        return Cycle(self.rows.replicas[group], self.costs[:, group], paid)

    def tokens(self, chosen: Chosen) -> float:
        """Return the tokens that a week generates."""
        spans = zip(self.load.spans, chosen.rows, strict=True)
        return float(
            sum(
                span.hours * _SECONDS * self.solutions[span.requests_per_second].rows.output_tokens_per_second[row]
                for span, row in spans
            )
        )

    def _each(self, figure: Figure) -> FloatArray:
        found = {rate: figure(solution.rows) for rate, solution in self.solutions.items()}
        return np.stack([found[span.requests_per_second] for span in self.load.spans])


def layout_keys(rows: Candidates) -> FloatArray:
    """Return what tells the layouts of one product apart, a row for each candidate, shape (n, k)."""
    columns = [rows.nodes_per_replica]
    columns += [np.nan_to_num(getattr(rows.layouts, f.name), nan=-1.0) for f in fields(rows.layouts)]
    return np.column_stack(columns).astype(np.float64)


def choose(week: Week, product: str | None = None) -> Chosen | None:
    """Return the best layout and its replicas; None where no layout holds every span.

    Layouts are compared by what they cost at least, and then exactly, from the lowest bound up, until no other can be
    as good. Of layouts that predictions cannot tell apart the simplest is taken, as for a constant load.

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
    """Return the least cost of each layout that may be the best, and its candidates."""
    groups = [
        group
        for group in week.groups
        if product is None or week.rows.products[int(week.rows.product[group[0]])] == product
    ]
    bounds = np.asarray([float(week.costs[:, group].min(axis=1).sum()) for group in groups])
    values: list[float] = []
    kept: list[IntArray] = []
    for i in np.argsort(bounds, kind="stable").tolist():
        if not np.isfinite(bounds[i]) or bounds[i] > min(values, default=np.inf) * LARGEST_TIE:
            break
        values.append(week.cycle(groups[i]).cheapest())
        kept.append(groups[i])
    return values, kept


def _at_most(week: Week, group: IntArray) -> int:
    """Return the candidate of a layout with which the highest rate costs least."""
    peak = week.load.spans.index(week.load.peak)
    return int(group[np.argmin(week.costs[peak, group])])


def _roomier(week: Week, index: IntArray, values: FloatArray, best: int) -> int:
    """Return the same layout with the batch of a burst where that costs nothing, as for a constant load."""
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


def _chosen(week: Week, group: IntArray) -> Chosen:
    cycle = week.cycle(group)
    path = cycle.path()
    rows = group[path]
    spans = np.arange(len(rows))
    starts = cycle.starts(path)
    watts = week.watts[spans, rows]
    joules = float((watts * week.hours).sum()) * _SECONDS + starts * week.starts[int(group[0])].joules
    most = int(rows[np.argmax(week.rows.replicas[rows])])
    return Chosen(describe.candidate(week.rows, most), tuple(map(int, rows)), tuple(map(float, watts)), joules, starts)


def best_constant(week: Week) -> Constant | None:
    """Return the plan of one layout and a constant number of replicas that costs least over the week."""
    costs = week.costs.sum(axis=0)
    if not np.isfinite(costs).any():
        return None
    row = int(np.argmin(costs))
    watts = week.watts[:, row]
    joules = float((watts * week.hours).sum()) * _SECONDS
    return Constant(describe.candidate(week.rows, row), joules, tuple(map(float, watts)))
