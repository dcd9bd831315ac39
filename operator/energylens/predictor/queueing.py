"""Waiting for a place in the batch, and for the prompts ahead.

Sequences that run at once are the servers of an M/G/c queue. Its probability of waiting follows Sakasegawa (Annals of
the Institute of Statistical Mathematics 1977), the wait given waiting is exponential (Allen and Cunneen's
approximation). Prompts queue for the next step as in M/G/1 (Pollaczek and Khinchine).
"""

from __future__ import annotations

import numpy as np

from energylens.predictor.types import FloatArray


def wait_probability(load: FloatArray, servers: FloatArray) -> FloatArray:
    """Return the probability that a request finds every place taken, at ``load`` = mean running / places."""
    load = np.clip(load, 0.0, 1.0)
    return np.asarray(load ** np.maximum(np.sqrt(2.0 * (servers + 1.0)) - 1.0, 0.0))


def wait_quantile(level: float, load: FloatArray, servers: FloatArray, service: FloatArray) -> FloatArray:
    """Return a quantile of the wait in seconds; infinite where the load is not sustainable.

    Args:
        level: Quantile, between 0 and 1.
        load: Mean running sequences over places, shape (n,).
        servers: Places, shape (n,).
        service: Mean time that a request holds its place, seconds, shape (n,).
    """
    spare = servers * (1.0 - np.minimum(load, 1.0))
    tail = np.log(np.maximum(wait_probability(load, servers), 1e-300) / (1.0 - level))
    with np.errstate(divide="ignore"):
        pace = service / np.where(spare > 0, spare, np.nan)
    wait = np.where(tail > 0, tail * np.nan_to_num(pace, nan=np.inf), 0.0)
    return np.where(load >= 1.0, np.inf, wait)


def prompt_wait(requests_per_second: FloatArray, prefill: FloatArray) -> FloatArray:
    """Return the mean wait behind other prompts in seconds, shape (n,)."""
    busy = np.minimum(requests_per_second * prefill, 0.95)
    return np.asarray(busy / (1.0 - busy) * prefill / 2.0)
