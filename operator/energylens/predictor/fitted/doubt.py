"""Spread of candidates' energy errors relative to each other: whether a lower prediction means a lower energy."""

from __future__ import annotations

import numpy as np

from energylens.predictor.fitted.intervals import IntervalModel
from energylens.predictor.fitted.residual import ResidualModel, layout_variance
from energylens.predictor.types import FloatArray, IntArray
from energylens.records import dataclass


@dataclass(frozen=True)
class Doubt:
    """Standard deviations of the error of log(energy) of n candidates, shape (n,) each; see `Prediction`."""

    unshared: FloatArray
    layout: FloatArray


def doubt_of(
    scales: IntervalModel,
    residual: ResidualModel | None,
    classes: IntArray,
    widen: FloatArray,
    variance: FloatArray,
    spread: FloatArray,
) -> Doubt:
    """Return how far the errors of candidates' energies differ from each other.

    Errors due to a model, its storage format and its family on a product are shared by all of its layouts.

    Args:
        scales: Scales of the intervals.
        residual: The residual model with its variances. None without one; then no error counts as shared.
        classes: Classes of the candidates' intervals, shape (n,).
        widen: Factor on half-widths for splits, links and products that were never measured, which differ between
            candidates; shape (n,).
        variance: Variance of the logarithm of energy without measurement noise, shape (n,).
        spread: Spread of errors over the batch, as in `noise.physics_spread`, shape (n,).
    """
    own = np.inf
    if residual is not None:
        own = sum(layout_variance(residual.targets[target].terms) for target in ("step", "power"))
    layout = scales.deviation("energy", classes, np.minimum(variance, own), spread)
    whole = scales.deviation("energy", classes, variance, spread)
    return Doubt(np.sqrt((widen**2 - 1.0) * whole**2 + layout**2), layout)
