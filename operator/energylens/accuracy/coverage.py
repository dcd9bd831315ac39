"""How often the measured value lies within the 80 % interval of its prediction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from energylens.accuracy.evaluate import QUANTITIES, Predicted
from energylens.predictor.fitted.features import NEAREST
from energylens.predictor.types import BoolArray, FloatArray
from energylens.records import dataclass


@dataclass(frozen=True)
class Coverage:
    """Coverage of some runs by quantity; NaN if nothing was predicted."""

    name: str
    runs: int
    inside: Mapping[str, float]
    """Share of measured values within the interval, percent."""
    below: Mapping[str, float]
    """Share of measured values below the lower end, percent."""
    width: Mapping[str, float]
    """Median of upper end / lower end."""


def coverage_table(mask: BoolArray, measured: Mapping[str, FloatArray], predicted: Predicted) -> list[Coverage]:
    """Return the coverage of the runs of ``mask``, shape (n,), in total and by the nearest measurement."""
    usable = mask & predicted.ok
    parts = {"all": usable} | {f"nearest: {name}": usable & (predicted.nearest == i) for i, name in enumerate(NEAREST)}
    return [_coverage(name, part, measured, predicted) for name, part in parts.items() if part.any()]


def _coverage(name: str, part: BoolArray, measured: Mapping[str, FloatArray], predicted: Predicted) -> Coverage:
    inside, below, width = {}, {}, {}
    for quantity in QUANTITIES:
        low, high = predicted.intervals[quantity].low[part], predicted.intervals[quantity].high[part]
        truth = measured[quantity][part]
        known = np.isfinite(truth)
        low, high, truth = low[known], high[known], truth[known]
        nothing = truth.size == 0
        inside[quantity] = np.nan if nothing else 100 * float(np.mean((truth >= low) & (truth <= high)))
        below[quantity] = np.nan if nothing else 100 * float(np.mean(truth < low))
        width[quantity] = np.nan if nothing else float(np.median(high / low))
    return Coverage(name, int(part.sum()), inside, below, width)
