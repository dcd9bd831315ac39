"""Correct a profile with what a site measured: bounded factors on latency, power and energy.

Prefill and decode have a factor each, by the latency that each of them sets: TTFT and ITL. The energy counters of GPUs
that do both cannot be split, so power and energy have one factor for the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

FIGURES = ("itl", "ttft", "power", "energy")
PRIOR_DEVIATION = {"itl": 0.35, "ttft": 0.5, "power": 0.2, "energy": 0.25}
"""How far the logarithm of a factor is believed to lie from 0 before any measurement, under an extrapolated profile."""
POINT_DEVIATION = {"itl": 0.10, "ttft": 0.25, "power": 0.06, "energy": 0.08}
"""How far one measured window lies from the factor it stands for: load, temperature, and what physics leaves."""
BOUND = {"itl": 5.0, "ttft": 5.0, "power": 2.0, "energy": 5.0}
"""Largest factor, and one over the smallest."""
MEMORY_POINTS = 20.0
"""Points after which one point's weight has fallen to 1/e: with windows of ten minutes three hours."""
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
    """What to multiply predictions with, and how sure that is."""

    itl: float = 1.0
    ttft: float = 1.0
    power: float = 1.0
    energy: float = 1.0
    """On joules per output token."""
    deviation_itl: float = PRIOR_DEVIATION["itl"]
    """Standard deviation of the logarithm of ``itl`` after the points."""
    deviation_power: float = PRIOR_DEVIATION["power"]


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
        if weight >= OUTLIER:
            reach = OUTLIER * POINT_DEVIATION[name]
            value = float(np.clip(value, means[name] - reach, means[name] + reach))
        weight *= float(np.exp(-1.0 / MEMORY_POINTS))
        means[name] = (weight * means.get(name, 0.0) + value) / (weight + 1.0)
        weights[name] = weight + 1.0
    return Learned(means, weights)


def factors_of(known: Learned, prior: Factors | None = None) -> Factors:
    """Return the factors of maximum posterior, log-normal around ``prior`` (1 when None) and within their bounds."""
    centre = prior or Factors()
    return _factors({name: (known.weights.get(name, 0.0), known.means.get(name, 0.0)) for name in FIGURES}, centre, 1.0)


def correct_factors(points: Sequence[MeasuredPoint], prior_scale: float = 1.0) -> Factors:
    """Return the factors of maximum posterior, log-normal prior around 1 and log-normal points.

    With one point the factor moves most of the way to it, with none it stays 1, and no number of points moves it beyond
    its bound.

    Args:
        points: Windows measured at a site, all under one engine and GPU product.
        prior_scale: Factor on the prior's width; below 1 for a profile that was itself fitted on runs.

    Raises:
        MeasuredPointError: A ratio is not finite and positive.
    """
    evidence = {}
    for name in FIGURES:
        ratios = [getattr(p, f"{name}_ratio") for p in points]
        logs = [_log(f"{name}_ratio", ratio) for ratio in ratios if ratio is not None]
        # The median of many windows resists one bad window; with few it is the mean.
        centre = float(np.median(logs)) if len(logs) >= 5 else (sum(logs) / len(logs) if logs else 0.0)
        evidence[name] = (float(len(logs)), centre)
    return _factors(evidence, Factors(), prior_scale)


def _factors(evidence: Mapping[str, tuple[float, float]], prior: Factors, prior_scale: float) -> Factors:
    values, deviations = {}, {}
    for name, (points, mean) in evidence.items():
        precision = 1.0 / (PRIOR_DEVIATION[name] * prior_scale) ** 2
        weight = points / POINT_DEVIATION[name] ** 2
        limit = float(np.log(BOUND[name]))
        centre = float(np.log(getattr(prior, name)))
        values[name] = float(
            np.exp(np.clip((precision * centre + weight * mean) / (precision + weight), -limit, limit))
        )
        deviations[name] = float((precision + weight) ** -0.5)
    return Factors(**values, deviation_itl=deviations["itl"], deviation_power=deviations["power"])


def _log(name: str, ratio: float) -> float:
    if not np.isfinite(ratio) or ratio <= 0:
        raise MeasuredPointError(f"{name} must be finite and positive, not {ratio}")
    return float(np.log(ratio))
