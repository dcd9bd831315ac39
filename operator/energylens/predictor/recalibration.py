"""Correct a profile with the first measured points of a site: a bounded update of three factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PRIOR_DEVIATION = {"itl": 0.35, "ttft": 0.5, "power": 0.2}
"""How far the logarithm of a factor is believed to lie from 0 before any measurement, under an extrapolated profile."""
POINT_DEVIATION = {"itl": 0.10, "ttft": 0.25, "power": 0.06}
"""How far one measured window lies from the factor it stands for: load, temperature, and what physics leaves."""
BOUND = {"itl": 5.0, "ttft": 5.0, "power": 2.0}
"""Largest factor, and one over the smallest."""


class MeasuredPointError(ValueError):
    """A measured point cannot be used; the message names the field and the value."""


@dataclass(frozen=True)
class MeasuredPoint:
    """What one window measured over what was predicted for it; a ratio is None when the window did not measure it."""

    itl_ratio: float | None = None
    ttft_ratio: float | None = None
    power_ratio: float | None = None


@dataclass(frozen=True)
class Factors:
    """What to multiply predictions with, and how sure that is."""

    itl: float = 1.0
    ttft: float = 1.0
    power: float = 1.0
    deviation_itl: float = PRIOR_DEVIATION["itl"]
    """Standard deviation of the logarithm of ``itl`` after the points."""
    deviation_power: float = PRIOR_DEVIATION["power"]


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
    values = {}
    deviations = {}
    for name in PRIOR_DEVIATION:
        ratios = [getattr(p, f"{name}_ratio") for p in points]
        logs = [_log(f"{name}_ratio", ratio) for ratio in ratios if ratio is not None]
        precision = 1.0 / (PRIOR_DEVIATION[name] * prior_scale) ** 2
        weight = 1.0 / POINT_DEVIATION[name] ** 2
        total = precision + weight * len(logs)
        # The median of many windows resists one bad window; with few it is the mean.
        centre = float(np.median(logs)) if len(logs) >= 5 else (sum(logs) / len(logs) if logs else 0.0)
        limit = float(np.log(BOUND[name]))
        values[name] = float(np.exp(np.clip(weight * len(logs) * centre / total, -limit, limit)))
        deviations[name] = float(total**-0.5)
    return Factors(values["itl"], values["ttft"], values["power"], deviations["itl"], deviations["power"])


def _log(name: str, ratio: float) -> float:
    if not np.isfinite(ratio) or ratio <= 0:
        raise MeasuredPointError(f"{name} must be finite and positive, not {ratio}")
    return float(np.log(ratio))
