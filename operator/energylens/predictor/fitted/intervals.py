"""Prediction intervals of 80 %, scaled so that they cover left-out runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

import numpy as np

from energylens.predictor.fitted.features import NEAREST
from energylens.predictor.prediction import Interval
from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass

TARGETS = ("step", "tpot", "itl", "power", "energy")
"""Targets: mean step, which determines throughput, time per output token, median ITL, power, and energy per token."""
UPPER_END = 1.2816
"""Upper end of the 80 % interval of a normal distribution, in standard deviations from its mean."""
DEFAULT_SCALE = {f"{target}/{name}": 1.3 for target in TARGETS for name in NEAREST}
SEVERAL_RANKS = "/ranks"


def interval_class(nearest: IntArray, several: BoolArray) -> IntArray:
    """Return the class that decides the width of an interval, shape (n,).

    Args:
        nearest: The nearest measurement, indices into ``NEAREST``, shape (n,).
        several: Whether a replica has data-parallel ranks that wait for each other, shape (n,); physics errs most for
            them.
    """
    return np.asarray(nearest + len(NEAREST) * several)


@dataclass(frozen=True)
class IntervalModel:
    """Half-widths on a logarithmic scale: scale x standard deviation of the residual model, noise included.

    There is one scale for each kind of nearest measurement, and for replicas of one rank and of several. It is set so
    that 80 % of the runs without a nearer fitted run lie within the interval (split conformal prediction, Lei et al.,
    JASA 2018, in groups as in Vovk, 2012). Within a group the residual model decides the widths.
    """

    scale: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_SCALE))
    """``<target>/<one of NEAREST>`` -> factor for one rank; with ``/ranks`` the factor for several, otherwise the one
    for one rank."""
    extrapolation: float = 1.5
    """Factor on half-widths for splits, links and kinds of model that were never measured, which no left-out run
    represents."""

    def half_width(
        self, target: str, classes: IntArray, variance: FloatArray, noise: FloatArray, spread: FloatArray
    ) -> FloatArray:
        """Return the half-width of the logarithm, shape (n,).

        Args:
            target: One of ``TARGETS``.
            classes: Classes from :func:`interval_class`, shape (n,).
            variance: Posterior variance of the residual model, shape (n,).
            noise: Variance of a single measurement, shape (n,).
            spread: Ratio of the errors of physics to their prior deviation, shape (n,).
        """
        one = [self.scale[f"{target}/{name}"] for name in NEAREST]
        more = [
            self.scale.get(f"{target}/{name}{SEVERAL_RANKS}", plain) for name, plain in zip(NEAREST, one, strict=True)
        ]
        return np.asarray(np.array([*one, *more])[classes] * np.sqrt(spread**2 * variance + noise))

    def deviation(self, target: str, classes: IntArray, variance: FloatArray, spread: FloatArray) -> FloatArray:
        """Return the standard deviation of the model's error of the logarithm, shape (n,), without measurement noise.

        The arguments are those of :meth:`half_width`.
        """
        return self.half_width(target, classes, variance, np.zeros_like(variance), spread) / UPPER_END


def around(value: FloatArray, half_width: FloatArray) -> Interval:
    """Return the interval of a positive quantity, symmetric in its logarithm."""
    return Interval(value * np.exp(-half_width), value * np.exp(half_width))
