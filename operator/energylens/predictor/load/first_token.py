"""From arrival to first token, where the engine computes the prompt as soon as it can: a distribution.

A request that arrives while a step runs waits for the rest of it; an engine that composes the next step meanwhile lets
it wait for that one, too. Its prompt then shares a step with the sequences that decode and with the prompts that
arrived beside it. Arrivals are Poisson, so that they find long steps more often than there are such steps, and an idle
replica as often as it is idle.
"""

from __future__ import annotations

import numpy as np

from energylens.predictor.load.mixture import StepMixture, normal_quantile
from energylens.predictor.types import FloatArray


def first_token_quantile(
    level: float, steps: StepMixture, busy: FloatArray, ahead: float, together: float | FloatArray = 1.0
) -> FloatArray:
    """Return a quantile of the time to first token in seconds, shape (n,), without waiting for a place in the batch.

    Args:
        level: Quantile, between 0 and 1.
        steps: Steps of the replica while anything runs.
        busy: Share of time in which anything runs, shape (n,).
        ahead: Steps that are composed before the one that a request joins.
        together: Requests in one start of ``steps``, shape (n,).
    """
    mean, square, cube = steps.moments()
    # What is left of the step that an arrival falls into, by its length (inspection paradox).
    rest, rest_square = square / (2.0 * mean), cube / (3.0 * mean)
    wait = busy * (rest + ahead * mean)
    wait_square = busy * (rest_square + 2.0 * ahead * rest * mean + ahead * square)
    # Others arrive in the same step, which is as long as the one that this request fell into.
    beside = busy * steps.starts * together * square / mean**2
    own = steps.with_starts(np.ones_like(mean) / together)
    slope = steps.with_starts(2.0 * np.ones_like(mean) / together) - own
    spread = slope**2 * (steps.prompt_variance + beside * (1.0 + steps.prompt_variance))
    total = wait + own + slope * beside
    width = np.log1p((np.maximum(wait_square - wait**2, 0.0) + spread) / total**2)
    return np.asarray(total * np.exp(normal_quantile(level) * np.sqrt(width) - width / 2.0))
