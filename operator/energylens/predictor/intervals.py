"""80 % prediction intervals, scaled so that they cover left-out runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from energylens.predictor.types import FloatArray, Interval

DEFAULT_HALF_WIDTH = {"step": 0.22, "itl": 0.25, "power": 0.18, "energy": 0.25}


@dataclass(frozen=True)
class IntervalModel:
    """Half-widths on a logarithmic scale.

    half-width = scale x sqrt(variance of the residual model), where ``scale`` was set so that 80 % of left-out runs
    fall inside (split conformal prediction, Lei et al., JASA 2018, grouped by model).
    """

    half_width: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_HALF_WIDTH))
    """Without a residual model."""
    scale: Mapping[str, float] = field(default_factory=dict)
    """Target -> factor on the residual model's standard deviation."""
    extrapolation: float = 1.5
    """Factor on half-widths of GPU products without runs."""


def around(value: FloatArray, half_width: FloatArray) -> Interval:
    """Return the interval of a positive quantity, symmetric in its logarithm."""
    return Interval(value * np.exp(-half_width), value * np.exp(half_width))
