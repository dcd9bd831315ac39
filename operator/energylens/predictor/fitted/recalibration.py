"""Correct predictions by a site's measurements: bounded factors on latency, power and energy.

Prefill and decode have one factor each, by the latency that each determines: TTFT and ITL. The energy counters of GPUs
that run both phases cannot be split, so power and energy have one factor for the whole.

A factor is not a single number. One part of a prediction's error is shared by all ways to run a model on a product, one
part by similar loads, and one part belongs to a layout. The sizes of these parts come from the errors of left-out
models. A Gaussian process over the parts (as in :mod:`energylens.predictor.fitted.residual`) transfers a window's
result to other candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from energylens.predictor.types import FloatArray

FIGURES = ("itl", "ttft", "power", "energy")
PRIOR_DEVIATION = {"itl": 0.12, "ttft": 0.5, "power": 0.12, "energy": 0.12}
"""Prior standard deviation of the logarithm of the part that all candidates of a model on a product share. A wider
prior would apply one window's error to all loads and make latencies worse than without correction."""
POINT_DEVIATION = {"itl": 0.10, "ttft": 0.25, "power": 0.06, "energy": 0.08}
"""Standard deviation of one measured window around its factor, due to load, temperature and the errors of physics."""
BOUND = {"itl": 5.0, "ttft": 5.0, "power": 2.0, "energy": 5.0}
"""Largest factor, and the reciprocal of the smallest."""
LIKE_LOADS, LOADS_REACH = 0.11, 1.5
"""Standard deviation of the part that all layouts share at similar loads, and its length scale in the logarithm of the
sequences per replica."""
OWN, OWN_REACH = 0.11, 2.3
"""The same for a layout's own part. Both come from the errors of the shipped runs with each model left out: 51 pairs of
a model and a GPU type, by maximum likelihood, with one size for all figures."""
MEMORY_POINTS = 20.0
"""Number of points after which the weight of a point has fallen to 1/e: three hours for windows of ten minutes."""
LARGEST_LOG = 7.0
"""Largest logarithm of measured / predicted that counts, far beyond any factor."""
OUTLIER = 3.0
"""Standard deviations at which an outlying point is clipped, once some points are known."""


class MeasuredPointError(ValueError):
    """A measured point cannot be used; the message names the field and the value."""


@dataclass(frozen=True)
class MeasuredPoint:
    """Ratios of measured to predicted figures of one window; None for a figure that the window did not measure."""

    itl_ratio: float | None = None
    ttft_ratio: float | None = None
    power_ratio: float | None = None
    energy_ratio: float | None = None


@dataclass(frozen=True)
class Factors:
    """Factors on predictions."""

    itl: float = 1.0
    ttft: float = 1.0
    power: float = 1.0
    energy: float = 1.0
    """Factor on joules per output token."""


@dataclass(frozen=True)
class Learned:
    """Results of a stream of points by figure; older points are forgotten exponentially."""

    means: Mapping[str, float] = field(default_factory=dict)
    """Weighted mean of the logarithm of the ratio."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Sum of the points' weights; at most `MEMORY_POINTS` and a half."""

    @property
    def points(self) -> float:
        """Number of points behind the best known figure; forgotten ones count by their remaining weight."""
        return max(self.weights.values(), default=0.0)


def learn(known: Learned, point: MeasuredPoint) -> Learned:
    """Return the results after one more point.

    Raises:
        MeasuredPointError: A ratio is not finite and positive.
    """
    means, weights = dict(known.means), dict(known.weights)
    for name in FIGURES:
        ratio = getattr(point, f"{name}_ratio")
        if ratio is None:
            continue
        value, weight = _log(f"{name}_ratio", ratio), weights.get(name, 0.0)
        value = float(np.clip(value, -LARGEST_LOG, LARGEST_LOG))
        if weight >= OUTLIER:
            reach = OUTLIER * POINT_DEVIATION[name]
            value = float(np.clip(value, means[name] - reach, means[name] + reach))
        weight *= float(np.exp(-1.0 / MEMORY_POINTS))
        means[name] = (weight * means.get(name, 0.0) + value) / (weight + 1.0)
        weights[name] = weight + 1.0
    return Learned(means, weights)


@dataclass(frozen=True)
class Lesson:
    """Factors learned from the windows of one layout at about the same load."""

    layout: str
    """Layout, such as TP4-PP2."""
    sequences: float
    """Running sequences of one replica."""
    learned: Learned


def factors_at(
    lessons: Sequence[Lesson], layouts: npt.NDArray[np.str_], sequences: FloatArray
) -> dict[str, FloatArray]:
    """Return the factors of maximum posterior by figure, shape (n,), log-normal around 1 and bounded.

    Args:
        lessons: Lessons of one model under one engine on one product.
        layouts: Layout of each candidate, shape (n,).
        sequences: Running sequences in one replica of each candidate, shape (n,); values below 1 count as 1.
    """
    found = {}
    where = np.log(np.maximum(sequences, 1.0))
    for name in FIGURES:
        told = [one for one in lessons if one.learned.weights.get(name, 0.0) > 0.0]
        if not told:
            found[name] = np.ones(where.shape)
            continue
        own = np.array([one.layout for one in told], dtype=np.str_)
        loads = np.log(np.maximum([one.sequences for one in told], 1.0))
        means = np.array([one.learned.means[name] for one in told])
        weights = np.array([one.learned.weights[name] for one in told])
        matrix = _covariance(name, own, loads, own, loads) + np.diag(POINT_DEVIATION[name] ** 2 / weights)
        mean = _covariance(name, layouts, where, own, loads) @ np.linalg.solve(matrix, means)
        limit = float(np.log(BOUND[name]))
        found[name] = np.exp(np.clip(mean, -limit, limit))
    return found


def factors_of(lessons: Sequence[Lesson], layout: str, sequences: float) -> Factors:
    """Return the factors of one candidate; see :func:`factors_at`."""
    found = factors_at(lessons, np.array([layout]), np.array([sequences]))
    return Factors(**{name: float(values[0]) for name, values in found.items()})


def _covariance(
    name: str, layouts: npt.NDArray[np.str_], loads: FloatArray, others: npt.NDArray[np.str_], their_loads: FloatArray
) -> FloatArray:
    """Return the prior covariance of logarithms between n and m candidates, shape (n, m)."""
    squared = (loads[:, None] - their_loads[None, :]) ** 2
    shared = PRIOR_DEVIATION[name] ** 2 + LIKE_LOADS**2 * np.exp(-0.5 * squared / LOADS_REACH**2)
    same = layouts[:, None] == others[None, :]
    return np.asarray(shared + same * OWN**2 * np.exp(-0.5 * squared / OWN_REACH**2))


def _log(name: str, ratio: float) -> float:
    if not np.isfinite(ratio) or ratio <= 0:
        raise MeasuredPointError(f"{name} must be finite and positive, not {ratio}")
    return float(np.log(ratio))
