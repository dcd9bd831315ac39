"""Correct predictions with what a site measured: bounded factors on latency, power and energy.

Prefill and decode have a factor each, by the latency that each of them sets: TTFT and ITL. The energy counters of GPUs
that do both cannot be split, so power and energy have one factor for the whole.

A factor is not one number: of what a prediction errs some is shared by every way to run a model on a product, some by
loads that are alike, and some is a layout's own. How much of each is what left-out models err by; a Gaussian process
over these parts (as in :mod:`energylens.predictor.fitted.residual`) says what a window tells of other candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from energylens.predictor.types import FloatArray

FIGURES = ("itl", "ttft", "power", "energy")
PRIOR_DEVIATION = {"itl": 0.12, "ttft": 0.5, "power": 0.12, "energy": 0.12}
"""Of the part that all candidates of a model on a product share: how far its logarithm is believed to lie from 0
before any measurement. A wider one makes of one window's error that of all loads, and latencies worse than before."""
POINT_DEVIATION = {"itl": 0.10, "ttft": 0.25, "power": 0.06, "energy": 0.08}
"""How far one measured window lies from the factor it stands for: load, temperature, and what physics leaves."""
BOUND = {"itl": 5.0, "ttft": 5.0, "power": 2.0, "energy": 5.0}
"""Largest factor, and one over the smallest."""
LIKE_LOADS, LOADS_REACH = 0.11, 1.5
"""Standard deviation of the part that all layouts share at alike loads, and the length over which loads are alike, in
the logarithm of the sequences per replica."""
OWN, OWN_REACH = 0.11, 2.3
"""The same of a layout's own part. Both from the errors of the shipped runs with each model left out: 51 pairs of a
model and a GPU type, by maximum likelihood; one size does for all figures."""
MEMORY_POINTS = 20.0
"""Points after which one point's weight has fallen to 1/e: with windows of ten minutes three hours."""
LARGEST_LOG = 7.0
"""Logarithm of a measured over a predicted figure that counts as no larger; far beyond any factor."""
OUTLIER = 3.0
"""Deviations of one point beyond which it counts as this far away, once some points are known."""


class MeasuredPointError(ValueError):
    """A measured point cannot be used; the message names the field and the value."""


@dataclass(frozen=True)
class MeasuredPoint:
    """What one window measured over what was predicted for it; a ratio is None when the window did not measure it."""

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
    """What a stream of points taught so far, older ones forgotten exponentially; by figure."""

    means: Mapping[str, float] = field(default_factory=dict)
    """Weighted mean of the logarithm of the ratio."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Sum of the points' weights; at most `MEMORY_POINTS` and a half."""

    @property
    def points(self) -> float:
        """Points that the best known figure rests on, forgotten ones by what is left of them."""
        return max(self.weights.values(), default=0.0)


def learn(known: Learned, point: MeasuredPoint) -> Learned:
    """Return what is known after one more point.

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
    """Factors learned from the windows of one layout at about one load."""

    layout: str
    """Such as TP4-PP2."""
    sequences: float
    """At a time in one replica."""
    learned: Learned


def factors_at(
    lessons: Sequence[Lesson], layouts: npt.NDArray[np.str_], sequences: FloatArray
) -> dict[str, FloatArray]:
    """Return the factors of maximum posterior of candidates by figure, shape (n,), log-normal around 1 and bounded.

    Args:
        lessons: Of one model under one engine on one product.
        layouts: Of each candidate, shape (n,).
        sequences: At a time in one replica of each candidate, shape (n,); below 1 counts as 1.
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
