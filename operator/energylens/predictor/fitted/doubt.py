"""How the errors of candidates' energies lie apart: what tells whether a lower prediction is a lower energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from energylens.predictor.fitted.intervals import IntervalModel
from energylens.predictor.fitted.residual import ResidualModel, layout_variance
from energylens.predictor.types import FloatArray, IntArray


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
    """Return how candidates' energies err apart.

    What is known of a model, its storage and its family on a product holds for all of its layouts.

    Args:
        scales: Of the intervals.
        residual: With its variances; None where there is none, and nothing is taken as shared.
        classes: Of their intervals, shape (n,).
        widen: Factor on half-widths of splits, links and products that were never measured, which some candidates have
            and others have not; shape (n,).
        variance: Of the logarithm of energy, noise of measurement left out, shape (n,).
        spread: Of errors over the batch, as in `noise.physics_spread`, shape (n,).
    """
    own = np.inf
    if residual is not None:
        own = sum(layout_variance(residual.targets[target].terms) for target in ("step", "power"))
    layout = scales.deviation("energy", classes, np.minimum(variance, own), spread)
    whole = scales.deviation("energy", classes, variance, spread)
    return Doubt(np.sqrt((widen**2 - 1.0) * whole**2 + layout**2), layout)
