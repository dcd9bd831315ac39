"""The objective, and the order that breaks ties, so that equal inputs always give the same plan."""

from __future__ import annotations

import numpy as np

from energylens.api.llmdeployment import Objective
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.ranking import simplest
from energylens.predictor.types import BoolArray, FloatArray, IntArray

FREE = 1e-3
"""Relative difference of energy that counts as zero when a larger batch is compared with a smaller one."""
SIGNIFICANT_DIGITS = 6
"""Objectives that agree in this many digits count as equal; predictions are far less precise."""


def objective_values(rows: Candidates, objective: Objective) -> FloatArray:
    """Return the figure to minimise, shape (n,): joules per output token or watts, including risk, or GPUs."""
    if objective == "MinimizePower":
        return rows.power_watts * rows.ranking_factor
    if objective == "MinimizeGPUs":
        return rows.gpus.astype(np.float64)
    return joules_at_risk(rows)


def joules_at_risk(rows: Candidates) -> FloatArray:
    """Return the joules per output token by which candidates are ranked, shape (n,).

    They are higher if less is known, and if a latency objective may be broken.
    """
    return np.asarray(rows.joules_per_output_token * rows.ranking_factor)


def complexity(rows: Candidates) -> tuple[IntArray, ...]:
    """Return the criteria between candidates that predictions cannot distinguish, shape (n,) each, lower first.

    They are the nodes of a replica, its pipeline stages, how far the nearest measured run is, and whether the tokens
    per step differ from the engine's default.
    """
    other_steps = (rows.layouts.max_batched_tokens > 0).astype(np.int64)
    return rows.nodes_per_replica, rows.layouts.pipeline_parallel, rows.nearest, other_steps


def ranked(rows: Candidates, mask: BoolArray, objective: Objective) -> IntArray:
    """Return the indices of the candidates of a mask, lowest objective first.

    Ties are broken by lower energy, fewer GPUs, fewer replicas, a lower TTFT (in steps of 5 %), a smaller batch, and
    finally the order of the space.
    """
    index = np.flatnonzero(mask)
    taken = rows.take(index)
    keys = (
        rounded(objective_values(taken, objective)),
        rounded(joules_at_risk(taken)),
        taken.gpus,
        taken.replicas,
        latency_steps(taken.ttft_upper_ms),
        taken.layouts.max_batch_size,
        index,
    )
    result: IntArray = index[np.lexsort(keys[::-1])]
    return result


def best(rows: Candidates, mask: BoolArray, objective: Objective) -> int | None:
    """Return the index of the best candidate of a mask, or None if the mask is empty.

    Among the candidates that predictions cannot distinguish from the lowest (`ranking.ties`), only the simplest remain,
    and the first of them by :func:`ranked` is the best.
    """
    index = np.flatnonzero(mask)
    if not index.size:
        return None
    values = objective_values(rows, objective)[index]
    if objective == "MinimizeGPUs":
        # GPUs are counted, not predicted, so there is no risk.
        index = index[values == values.min()]
        values = joules_at_risk(rows)[index]
    tied = simplest(values, rows.risk.take(index), [costs[index] for costs in complexity(rows)])
    # Ranking only the lowest candidates is cheaper than ranking all.
    front = tied[values[tied] <= values[tied].min() * (1 + 10.0 ** (1 - SIGNIFICANT_DIGITS))]
    near = np.zeros(len(rows), dtype=bool)
    near[index[front]] = True
    return _roomier(rows, mask, objective, int(ranked(rows, near, objective)[0]))


def _roomier(rows: Candidates, mask: BoolArray, objective: Objective, i: int) -> int:
    """Return the same candidate with a batch that holds a burst, if that costs nothing.

    Requests of a burst wait if the batch has no place for them. The result has the smallest batch of the mask that
    holds a burst, otherwise the largest, among those whose objective is less than `FREE` higher.
    """
    layouts, wanted = rows.layouts, float(rows.burst_sequences[i])
    if layouts.max_batch_size[i] >= wanted:
        return i
    same = mask & (rows.product == rows.product[i]) & (rows.replicas == rows.replicas[i])
    same &= (rows.nodes_per_replica == rows.nodes_per_replica[i]) & (
        layouts.max_batch_size >= layouts.max_batch_size[i]
    )
    for degree in (*layouts.split, layouts.max_batched_tokens):
        same &= degree == degree[i]
    index = np.flatnonzero(same)
    for values in (objective_values(rows, objective), joules_at_risk(rows)):
        index = index[values[index] <= values[i] * (1.0 + FREE)]
    batches = layouts.max_batch_size[index]
    enough = index[batches >= wanted]
    return int(index[np.argmax(batches)] if not enough.size else enough[np.argmin(layouts.max_batch_size[enough])])


def latency_steps(latencies: FloatArray) -> FloatArray:
    """Return latencies in whole steps of 5 %, the least that users notice; a wait for a place in a batch is longer."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(np.floor(np.log(latencies) / np.log(1.05)), nan=np.inf))


def rounded(values: FloatArray) -> FloatArray:
    """Return the values rounded to the digits that are compared, shape of ``values``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** (SIGNIFICANT_DIGITS - 1 - np.floor(np.log10(values)))
        rounded = np.round(values * scale) / scale
    return np.where(values > 0, rounded, values)
