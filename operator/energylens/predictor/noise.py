"""How far apart two measurements of the same configuration are."""

from __future__ import annotations

import numpy as np

from energylens.predictor.residual import RunFeatures
from energylens.predictor.types import FloatArray

WITHIN = {"step": 0.045, "itl": 0.055, "power": 0.027}
"""Standard deviation of the logarithm around a smooth curve over the batch."""
SINGLE_B200 = {"step": 0.10, "itl": 0.10, "power": 0.05}
"""Added for one B200: its runs are partly limited by the host, from one run to the next."""
LARGE_BATCH = {"step": 0.10, "itl": 0.25, "power": 0.05}
"""Added above 900 sequences, where steps with and without prefill no longer separate."""


def noise_variance(target: str, features: RunFeatures) -> FloatArray:
    """Return the variance of the logarithm of each run, shape (n,)."""
    single = np.char.startswith(features.keys["product"], "B200/one")
    large = features.log_batch > np.log(900.0)
    total = WITHIN[target] ** 2 + single * SINGLE_B200[target] ** 2 + large * LARGE_BATCH[target] ** 2
    return np.asarray(total, dtype=np.float64)
