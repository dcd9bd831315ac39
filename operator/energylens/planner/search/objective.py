"""The objective, and the order that breaks ties, so that the same inputs always give the same plan."""

from __future__ import annotations

import numpy as np

from energylens.api.llmdeployment import Objective
from energylens.planner.search.evaluate import Candidates
from energylens.predictor.types import BoolArray, FloatArray, IntArray

SIGNIFICANT_DIGITS = 6
"""Objectives that agree to so many digits count as equal, which is far below what a prediction can tell apart."""


def objective_values(rows: Candidates, objective: Objective) -> FloatArray:
    """Return what is minimised, shape (n,): joules per output token, watts or GPUs."""
    if objective == "MinimizePower":
        return rows.power_watts
    if objective == "MinimizeGPUs":
        return rows.gpus.astype(np.float64)
    return rows.joules_per_output_token


def ranked(rows: Candidates, mask: BoolArray, objective: Objective) -> IntArray:
    """Return the indices of the candidates of a mask, best first.

    Ties go to lower energy, fewer GPUs, fewer replicas, a lower TTFT (within 5 %), a smaller batch, and at last to the
    order of the space.
    """
    index = np.flatnonzero(mask)
    taken = rows.take(index)
    keys = (
        rounded(objective_values(taken, objective)),
        rounded(taken.joules_per_output_token),
        taken.gpus,
        taken.replicas,
        _steps(taken.ttft_upper_ms),
        taken.layouts.max_batch_size,
        index,
    )
    result: IntArray = index[np.lexsort(keys[::-1])]
    return result


def best(rows: Candidates, mask: BoolArray, objective: Objective) -> int | None:
    """Return the index of the best candidate of a mask, or None when the mask is empty."""
    if not mask.any():
        return None
    # Ranking everything costs more than looking at the front runners.
    values = objective_values(rows, objective)
    lowest = np.nanmin(np.where(mask, values, np.nan))
    near = mask & (values <= lowest * (1 + 10.0 ** (1 - SIGNIFICANT_DIGITS)))
    return int(ranked(rows, near, objective)[0])


def _steps(latencies: FloatArray) -> FloatArray:
    """Return latencies as whole steps of 5 %: less is not felt, the queue in front of a batch that just suffices is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(np.floor(np.log(latencies) / np.log(1.05)), nan=np.inf))


def rounded(values: FloatArray) -> FloatArray:
    """Return the values with as many digits as are compared, shape of ``values``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** (SIGNIFICANT_DIGITS - 1 - np.floor(np.log10(values)))
        rounded = np.round(values * scale) / scale
    return np.where(values > 0, rounded, values)
