"""How far apart two measurements of the same configuration are."""

from __future__ import annotations

import numpy as np

from energylens.predictor.residual import RunFeatures
from energylens.predictor.types import FloatArray

WITHIN = {"step": 0.028, "itl": 0.028, "power": 0.022}
"""Standard deviation of the logarithm around a smooth curve over the batch, at small batches."""
GROWTH = {"step": (400.0, 0.6), "itl": (150.0, 0.75), "power": (600.0, 0.5)}
"""Batch at which it has doubled, and the power of the batch with which it grows: large batches start and drain in ways
that differ from run to run."""
LARGEST_LOG_BATCH = np.log(8192.0)
"""Twice the largest batch of a run: beyond it nothing says how spread grows."""
SINGLE_B200 = {"step": 0.10, "itl": 0.10, "power": 0.05}
"""Added for one B200: its runs are partly limited by the host, from one run to the next."""
SEVERAL_B200 = {"step": 0.03, "itl": 0.03, "power": 0.02}


def noise_variance(target: str, features: RunFeatures) -> FloatArray:
    """Return the variance of the logarithm of each run, shape (n,)."""
    batch = np.exp(np.minimum(features.log_batch, LARGEST_LOG_BATCH))
    double, power = GROWTH[target]
    base = WITHIN[target] * (1.0 + (batch / double) ** power)
    product = features.keys["product"]
    single = np.char.startswith(product, "B200/one")
    several = np.char.startswith(product, "B200/several")
    total = base**2 + single * SINGLE_B200[target] ** 2 + several * SEVERAL_B200[target] ** 2
    return np.asarray(total, dtype=np.float64)
