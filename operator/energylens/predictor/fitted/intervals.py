"""80 % prediction intervals, scaled so that they cover left-out runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from energylens.predictor.types import FloatArray, Interval

DEFAULT_SCALE = {f"{t}/{k}": 1.3 for t in ("step", "itl", "power", "energy") for k in ("seen", "new")}


@dataclass(frozen=True)
class IntervalModel:
    """Half-widths on a logarithmic scale: scale x standard deviation of the residual model, noise included.

    The scales were set so that 80 % of left-out runs fall inside (split conformal prediction, Lei et al., JASA 2018),
    once for runs of known layouts and once with a whole model left out. Between the two they follow how much of the
    prior variance is left.
    """

    scale: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_SCALE))
    """``<target>/seen`` and ``<target>/new`` -> factor."""
    extrapolation: float = 1.5
    """Factor on half-widths of GPU products and engines without runs."""

    def half_width(
        self, target: str, variance: FloatArray, prior: float, noise: FloatArray, spread: FloatArray
    ) -> FloatArray:
        """Return the half-width of the logarithm, shape (n,).

        Args:
            target: ``step``, ``itl``, ``power`` or ``energy``.
            variance: Posterior variance of the residual model, shape (n,).
            prior: Its variance where nothing is known.
            noise: Variance of a single measurement, shape (n,).
            spread: How the errors of physics compare with their prior deviation, shape (n,).
        """
        unknown = np.clip(variance / prior, 0.0, 1.0)
        seen, new = self.scale[f"{target}/seen"], self.scale[f"{target}/new"]
        return np.asarray((seen + (new - seen) * unknown) * np.sqrt(spread**2 * variance + noise))


def around(value: FloatArray, half_width: FloatArray) -> Interval:
    """Return the interval of a positive quantity, symmetric in its logarithm."""
    return Interval(value * np.exp(-half_width), value * np.exp(half_width))
