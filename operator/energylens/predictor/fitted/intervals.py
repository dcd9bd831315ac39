"""80 % prediction intervals, scaled so that they cover left-out runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from energylens.predictor.fitted.features import NEAREST
from energylens.predictor.types import BoolArray, FloatArray, IntArray, Interval

TARGETS = ("step", "tpot", "itl", "power", "energy")
"""Mean step, which throughput follows, time per output token, median ITL, power and energy per token."""
UPPER_END = 1.2816
"""Standard deviations of a normal distribution from its mean to the upper end of its 80 % interval."""
DEFAULT_SCALE = {f"{target}/{name}": 1.3 for target in TARGETS for name in NEAREST}
SEVERAL_RANKS = "/ranks"


def interval_class(nearest: IntArray, several: BoolArray) -> IntArray:
    """Return the class that the width of an interval is set for, shape (n,).

    Args:
        nearest: The nearest that was measured, indices into ``NEAREST``, shape (n,).
        several: Where a replica has data-parallel ranks that wait for each other, shape (n,): physics errs most there.
    """
    return np.asarray(nearest + len(NEAREST) * several)


@dataclass(frozen=True)
class IntervalModel:
    """Half-widths on a logarithmic scale: scale x standard deviation of the residual model, noise included.

    There is one scale for each nearest thing that was measured, for replicas of one rank and of several, set so that
    80 % of runs fall inside of which nothing nearer was fitted to (split conformal prediction, Lei et al., JASA 2018,
    in groups as in Vovk, 2012). Within a group widths follow what the residual model knows.
    """

    scale: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_SCALE))
    """``<target>/<one of NEAREST>`` -> factor; with ``/ranks`` that of several ranks, where absent that of one."""
    extrapolation: float = 1.5
    """Factor on half-widths of what no left-out run can stand for: splits, links and kinds of model never measured."""

    def half_width(
        self, target: str, classes: IntArray, variance: FloatArray, noise: FloatArray, spread: FloatArray
    ) -> FloatArray:
        """Return the half-width of the logarithm, shape (n,).

        Args:
            target: One of ``TARGETS``.
            classes: Of :func:`interval_class`, shape (n,).
            variance: Posterior variance of the residual model, shape (n,).
            noise: Variance of a single measurement, shape (n,).
            spread: How the errors of physics compare with their prior deviation, shape (n,).
        """
        one = [self.scale[f"{target}/{name}"] for name in NEAREST]
        more = [
            self.scale.get(f"{target}/{name}{SEVERAL_RANKS}", plain) for name, plain in zip(NEAREST, one, strict=True)
        ]
        return np.asarray(np.array([*one, *more])[classes] * np.sqrt(spread**2 * variance + noise))

    def deviation(self, target: str, classes: IntArray, variance: FloatArray, spread: FloatArray) -> FloatArray:
        """Return the standard deviation of the model's error of the logarithm, shape (n,): no noise of a measurement.

        The arguments are those of :meth:`half_width`.
        """
        return self.half_width(target, classes, variance, np.zeros_like(variance), spread) / UPPER_END


def around(value: FloatArray, half_width: FloatArray) -> Interval:
    """Return the interval of a positive quantity, symmetric in its logarithm."""
    return Interval(value * np.exp(-half_width), value * np.exp(half_width))
