"""How much two measurements of the same configuration differ, and how the errors of physics depend on the batch."""

from __future__ import annotations

import numpy as np

from energylens.predictor.fitted.residual import RunFeatures
from energylens.predictor.types import FloatArray

WITHIN = {"step": 0.028, "itl": 0.028, "power": 0.022}
"""Standard deviation of the logarithm around a smooth curve over the batch, at small batches."""
GROWTH = {"step": (400.0, 0.6), "itl": (150.0, 0.75), "power": (600.0, 0.5)}
"""Batch at which the deviation has doubled, and the power of the batch with which it grows: large batches start and
drain differently from run to run."""
LARGEST_LOG_BATCH = np.log(8192.0)
"""Twice the largest batch of a run; nothing is known about the spread beyond it."""
SINGLE_B200 = {"step": 0.10, "itl": 0.10, "power": 0.05}
"""Deviation added for one B200, whose runs are partly host-bound, differently from run to run."""
HOST_BATCH = 64.0
"""Batch from which the latency deviation of one B200 grows as the square root of the batch, as the host's work per
sequence comes to decide the step: errors of left-out runs are twice as wide above 100 sequences as below."""
SEVERAL_B200 = {"step": 0.03, "itl": 0.03, "power": 0.02}
MIXED = {"step": 0.045, "itl": 0.045, "power": 0.035}
"""Deviation added for engines whose runs name no version: each of their figures is a median over images and
repetitions."""
SURE_BATCH, UNSURE_BATCH = 8.0, 128.0
SURE = 0.65
"""Ratio of the errors at the first batch to those at the second, for left-out models: a few sequences mostly read
weights."""


def physics_spread(features: RunFeatures) -> FloatArray:
    """Return the error of physics at each run's batch relative to its largest, shape (n,), from ``SURE`` to 1."""
    steps = (features.log_batch - np.log(SURE_BATCH)) / np.log(UNSURE_BATCH / SURE_BATCH)
    return np.asarray(SURE + (1.0 - SURE) * np.clip(steps, 0.0, 1.0))


def noise_variance(target: str, features: RunFeatures) -> FloatArray:
    """Return the variance of the logarithm of each run, shape (n,)."""
    batch = np.exp(np.minimum(features.log_batch, LARGEST_LOG_BATCH))
    double, power = GROWTH[target]
    base = WITHIN[target] * (1.0 + (batch / double) ** power)
    product = features.keys["product"]
    single = features.each(np.char.startswith(product, "B200/one"))
    several = features.each(np.char.startswith(product, "B200/several"))
    mixed = features.each(np.char.find(product, "@") >= 0)
    host = 1.0 if target == "power" else np.maximum(batch / HOST_BATCH, 1.0)
    total = base**2 + mixed * MIXED[target] ** 2 + several * SEVERAL_B200[target] ** 2
    total = total + single * host * SINGLE_B200[target] ** 2
    return np.asarray(total, dtype=np.float64)
