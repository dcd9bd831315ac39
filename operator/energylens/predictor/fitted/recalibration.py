"""Correct predictions by a site's measurements: bounded factors on latency, power and energy.

Prefill and decode have one factor each, by the latency that each determines: TTFT and ITL. The energy counters of GPUs
that run both phases cannot be split, so power and energy have one factor for the whole.

A factor is not a single number. One part of a prediction's error is shared by all ways to run a model on a product, one
part by similar loads, one by similar loads of one kind (chats, long prompts, long outputs), and one part belongs to a
layout. The sizes of these parts come from the errors of left-out models. A Gaussian process over the parts (as in
:mod:`energylens.predictor.fitted.residual`) transfers a window's result to other candidates, but for the part by which
a window differs from the others too far to be of a common cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

import numpy as np
import numpy.typing as npt

from energylens.predictor.types import BoolArray, FloatArray
from energylens.records import dataclass

FIGURES = ("itl", "ttft", "power", "energy")


@dataclass(frozen=True)
class Parts:
    """Standard deviations of the parts of a figure's error, of the logarithm of measured over predicted."""

    shared: float
    """Part that all candidates of a model on a product share."""
    loads: float
    """Part that all layouts share at similar numbers of running sequences."""
    kind: float
    """Part that all layouts share at similar numbers of running sequences under one kind of load
    (`features.load_kind`)."""
    layout: float
    """A layout's own part at similar numbers of running sequences."""
    everywhere: float
    """A layout's own part at any load."""
    reach: float
    """Length over which numbers of running sequences are similar, in their logarithm."""
    noise: float
    """Deviation between one window and the factor it is evidence for: load, temperature, and model error."""
    apart: float = np.inf
    """Distance in the logarithm from the middle of all lessons beyond which a lesson describes its own place alone."""


PARTS = {
    "itl": Parts(shared=0.005, loads=0.08, kind=0.065, layout=0.08, everywhere=0.0, reach=1.25, noise=0.07, apart=0.3),
    "ttft": Parts(shared=0.5, loads=0.07, kind=0.065, layout=0.075, everywhere=0.0, reach=1.5, noise=0.25),
    "power": Parts(shared=0.02, loads=0.06, kind=0.075, layout=0.01, everywhere=0.065, reach=1.0, noise=0.042),
    "energy": Parts(shared=0.035, loads=0.065, kind=0.066, layout=0.075, everywhere=0.0, reach=1.6, noise=0.045),
}
"""Values of maximum likelihood, rounded, for the errors of the shipped runs with each model, GPU type and number of
GPUs left out: 46 combinations of a model, number format, GPU type and engine. An error of ITL hardly reaches distant
loads; an error of a layout's power reaches all of its loads. Errors of ITL have heavy tails: a median twice as long as
predicted has a cause such as a slow host, which other layouts and loads do not share. No run of a site measured TTFT;
its values are estimates."""
SAME_LOAD = 0.35
"""Length, in the logarithm of running sequences, within which loads count as a lesson's own place."""
OWN_POINTS = 0.2
"""Points from which half of what a lesson says beyond `Parts.apart` is believed of its own place."""
OUTLIER_REACH = {"itl": 0.30, "ttft": 0.75, "power": 0.18, "energy": 0.24}
"""Distance from the known mean, in the logarithm, beyond which a point counts as this far away, once some points are
known."""
BOUND = {"itl": 5.0, "ttft": 5.0, "power": 2.0, "energy": 5.0}
"""Largest factor, and the reciprocal of the smallest."""
MEMORY_POINTS = 20.0
"""Number of points after which the weight of a point has fallen to 1/e: three hours for windows of ten minutes."""
LARGEST_LOG = 7.0
"""Largest logarithm of measured / predicted that counts, far beyond any factor."""
SURE_POINTS = 3.0
"""Points of a lesson from which a point beyond `OUTLIER_REACH` counts as that far away."""
DOUBTED = 0.1
"""Weight that fewer points keep after one beyond `OUTLIER_REACH` that is nearer to the prediction, so that the windows
of an engine that has just started do not last."""


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
        reach, mean = OUTLIER_REACH[name], means.get(name, 0.0)
        if weight >= SURE_POINTS:
            value = float(np.clip(value, mean - reach, mean + reach))
        elif abs(value - mean) > reach and abs(value) < abs(mean):
            # Of few points that contradict each other, one as predicted is the likelier.
            weight *= DOUBTED
        weight *= float(np.exp(-1.0 / MEMORY_POINTS))
        means[name] = (weight * means.get(name, 0.0) + value) / (weight + 1.0)
        weights[name] = weight + 1.0
    return Learned(means, weights)


@dataclass(frozen=True)
class Lesson:
    """Factors learned from the windows of one layout under one kind of load, at about the same load."""

    layout: str
    """Layout, such as TP4-PP2."""
    kind: str
    """Kind of the load, see `features.load_kind`."""
    sequences: float
    """Running sequences of one replica."""
    learned: Learned


@dataclass(frozen=True)
class Places:
    """Where factors apply, arrays of shape (n,)."""

    layouts: npt.NDArray[np.str_]
    kinds: npt.NDArray[np.str_]
    """Kinds of load."""
    sequences: FloatArray
    """Running sequences in one replica; values below 1 count as 1."""

    @classmethod
    def of(cls, lessons: Sequence[Lesson]) -> Places:
        """Return the places of lessons."""
        layouts, kinds = (
            np.array([getattr(one, name) for one in lessons], dtype=np.str_) for name in ("layout", "kind")
        )
        return cls(layouts, kinds, np.array([one.sequences for one in lessons], dtype=np.float64))


def factors_at(lessons: Sequence[Lesson], places: Places) -> dict[str, FloatArray]:
    """Return the factors of maximum posterior by figure, shape (n,), log-normal around 1 and bounded.

    Args:
        lessons: Lessons of one model under one engine on one product.
        places: Where the factors apply, n of them.
    """
    found = {}
    for name in FIGURES:
        told = [one for one in lessons if one.learned.weights.get(name, 0.0) > 0.0]
        if not told:
            found[name] = np.ones(places.sequences.shape)
            continue
        known = Places.of(told)
        means = np.array([one.learned.means[name] for one in told])
        weights = np.array([one.learned.weights[name] for one in told])
        parts, middle = PARTS[name], _middle(means)
        common = np.clip(means, middle - parts.apart, middle + parts.apart)
        matrix = _covariance(parts, known, known) + np.diag(parts.noise**2 / weights)
        mean = _covariance(parts, places, known) @ np.linalg.solve(matrix, common)
        if (common != means).any():
            mean = mean + _own(places, known) @ ((means - common) * weights / (weights + OWN_POINTS))
        limit = float(np.log(BOUND[name]))
        found[name] = np.exp(np.clip(mean, -limit, limit))
    return found


def factors_of(lessons: Sequence[Lesson], layout: str, kind: str, sequences: float) -> Factors:
    """Return the factors of one candidate; see :func:`factors_at`."""
    found = factors_at(lessons, Places(np.array([layout]), np.array([kind]), np.array([sequences])))
    return Factors(**{name: float(values[0]) for name, values in found.items()})


def _middle(means: FloatArray) -> float:
    """Return the median of what lessons say and of the prediction itself, the value nearer to it of two in the middle.

    Alone, no lesson is known to be common; two that agree are.
    """
    ordered = np.sort(np.append(means, 0.0))
    two = ordered[(ordered.size - 1) // 2], ordered[ordered.size // 2]
    return float(min(two, key=abs))


def _covariance(parts: Parts, one: Places, other: Places) -> FloatArray:
    """Return the prior covariance of logarithms between n and m places, shape (n, m)."""
    layout, kind, squared = _alike(one, other)
    similar = np.exp(-0.5 * squared / parts.reach**2)
    near = parts.loads**2 + kind * parts.kind**2 + layout * parts.layout**2
    return np.asarray(parts.shared**2 + layout * parts.everywhere**2 + similar * near)


def _own(one: Places, other: Places) -> FloatArray:
    """Return the shares, shape (n, m), by which n places are those of m lessons; at most 1 in all for a place."""
    layout, kind, squared = _alike(one, other)
    shares = layout * kind * np.exp(-0.5 * squared / SAME_LOAD**2)
    return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1.0))


def _alike(one: Places, other: Places) -> tuple[BoolArray, BoolArray, FloatArray]:
    """Return where layouts and kinds of load are equal, and the squared distance of loads, shape (n, m) each."""
    mine, theirs = (np.log(np.maximum(each.sequences, 1.0)) for each in (one, other))
    layout, kind = one.layouts[:, None] == other.layouts[None, :], one.kinds[:, None] == other.kinds[None, :]
    return layout, kind, np.asarray((mine[:, None] - theirs[None, :]) ** 2)


def _log(name: str, ratio: float) -> float:
    if not np.isfinite(ratio) or ratio <= 0:
        raise MeasuredPointError(f"{name} must be finite and positive, not {ratio}")
    return float(np.log(ratio))
