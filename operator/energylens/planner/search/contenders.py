"""The candidates that a search can choose or show for at least one set of free GPUs.

Predictions do not depend on free GPUs. When GPUs are taken or freed, the candidates of an earlier search can be
filtered, ranked and shown again. A search on 16 GPUs of each of five products has 4,000 candidates or more; about 500
of them can ever matter.

Whether a candidate can be placed follows from the number of its pods and their size. If it can, so can each candidate
of the same product whose smaller pods fit into the places of its own: places for two pods of four GPUs hold four pods
of two. Such a candidate is available whenever the first one is, and makes it irrelevant by being better in
everything that a rule of the search compares.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from energylens.api.llmdeployment import LLMDeploymentSpec, Objective
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import FREE_GPUS, Constraint, feasible
from energylens.planner.search.frontier import latencies, pareto
from energylens.planner.search.objective import FREE, joules_at_risk, objective_values
from energylens.planner.search.ranking import LARGEST_TIE
from energylens.planner.search.steps import directions
from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass

_ROOMIER = 2.0 * float(np.log1p(FREE))
"""Difference of log(value) by which the best candidate of a mask may exceed the lowest if predictions count as certain:
the difference allowed for a larger batch, and as much again for rounding."""
_REACH = float(np.log(LARGEST_TIE)) + _ROOMIER
"""The same difference if ties are considered."""
_ONE_GPU = 1e3
"""Weight of a GPU against differences of log(energy) with the objective MinimizeGPUs: more than any difference."""


def contenders(rows: Candidates, constraints: Sequence[Constraint], spec: LLMDeploymentSpec) -> IntArray:
    """Return the indices of the candidates that suffice for every search that differs in free GPUs only, ascending.

    A search among them chooses and shows the same candidates as a search among all. It also tries other steps under the
    same conditions.

    Args:
        rows: Candidates with the steps of the space.
        constraints: Constraints of these candidates, without a limit on power.
        spec: The deployment's spec.
    """
    lasting = [c for c in constraints if c.field != FREE_GPUS]
    soft = [c for c in lasting if c.kind == "SLO"]
    objective, size = spec.energy.objective, len(rows)
    values, valid = objective_values(rows, objective), feasible(lasting, size)
    runnable = feasible(lasting, size, without=soft) & np.isfinite(values)
    places = _Places.of(rows)
    keep = _frontier(rows, runnable, (values, *latencies(rows, spec)), places)
    score = _score(rows, objective)
    for mask in (valid, runnable):
        keep |= _near(rows, mask, score, _REACH, places)
    keep |= _near(rows, valid, _score(rows.without_risk(), objective), _ROOMIER, places)
    keep |= _near(rows, valid, rows.power_watts, 0.0, places)
    # The binding constraint is found by the lowest value without each constraint; other steps by the lowest with all.
    fewer, more = directions(rows, lasting, spec)
    without = [feasible(lasting, size, without=[c]) for c in lasting if c.kind in ("GPUs", "SLO")]
    for mask in (valid, *without, fewer | more):
        keep |= _near(rows, mask, values, 0.0, places)
    return np.flatnonzero(keep)


@dataclass(frozen=True)
class _Places:
    """The places that each candidate needs."""

    sizes: IntArray
    """Sizes of pods, GPUs, shape (k,), ascending."""
    size: IntArray
    """Each candidate's size as an index into ``sizes``, shape (n,)."""
    pods: IntArray
    """Pods of each candidate, shape (n,)."""
    implied: IntArray
    """Pods of each size that can be placed where the candidate can, shape (n, k)."""

    @classmethod
    def of(cls, rows: Candidates) -> _Places:
        """Return the places of candidates."""
        gpus, pods = rows.gpus_per_node, rows.replicas * rows.nodes_per_replica
        sizes, size = np.unique(gpus, return_inverse=True)
        return cls(sizes, size, pods, pods[:, None] * (gpus[:, None] // sizes))


def _score(rows: Candidates, objective: Objective) -> FloatArray:
    """Return the logarithm of the value by which the best candidate is found, shape (n,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if objective == "MinimizeGPUs":
            return np.asarray(rows.gpus * _ONE_GPU + np.log(joules_at_risk(rows)))
        return np.asarray(np.log(objective_values(rows, objective)))


def _frontier(rows: Candidates, mask: BoolArray, costs: Sequence[FloatArray], places: _Places) -> BoolArray:
    """Return which candidates of a mask have no other that is as good in every cost and available whenever they are.

    The frontier that is shown has a resolution, within which dominance is not transitive. A candidate that is as good
    without any resolution dominates whatever the other one does, so that leaving the other out changes nothing.
    """
    keep = np.zeros(len(rows), dtype=bool)
    for number in range(len(rows.products)):
        index = np.flatnonzero(mask & (rows.product == number))
        columns = np.column_stack([np.nan_to_num(values[index], nan=np.inf) for values in costs])
        kept = pareto(np.column_stack([columns, places.implied[index]]), resolution=0.0)
        keep[index[_with_equal_before(columns, kept)]] = True
    return keep


def _with_equal_before(columns: FloatArray, kept: IntArray) -> BoolArray:
    """Return which rows are kept, or equal to a kept one that comes after them, shape (n,).

    Of candidates with equal costs, the frontier that is shown has the first.
    """
    order = np.lexsort(columns.T)
    differs = (columns[order[1:]] != columns[order[:-1]]).any(axis=1)
    group = np.zeros(len(columns), dtype=np.int64)
    group[order[1:]] = np.cumsum(differs)
    last = np.full(len(columns), -1)
    np.maximum.at(last, group[kept], kept)
    return np.asarray(np.arange(len(columns)) <= last[group])


def _near(rows: Candidates, mask: BoolArray, values: FloatArray, reach: float, places: _Places) -> BoolArray:
    """Return which candidates of a mask are at most ``reach`` above each one that is available whenever they are."""
    keep = np.zeros(len(rows), dtype=bool)
    for number in range(len(rows.products)):
        index = np.flatnonzero(mask & (rows.product == number) & np.isfinite(values))
        lowest = np.full(index.size, np.inf)
        for column in range(places.sizes.size):
            implied = places.implied[index, column]
            same = index[places.size[index] == column]
            by_pods = np.full(int(implied.max(initial=0)) + 1, np.inf)
            np.minimum.at(by_pods, places.pods[same], values[same])
            lowest = np.minimum(lowest, np.minimum.accumulate(by_pods)[implied])
        keep[index[values[index] <= lowest + reach]] = True
    return keep
