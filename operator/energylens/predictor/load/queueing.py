"""Waiting for a place in the batch, and for the prompts ahead.

Sequences that run at once are the servers of an M/G/c queue. Its probability of waiting follows Sakasegawa (Annals of
the Institute of Statistical Mathematics 1977), the wait given waiting is exponential (Allen and Cunneen's
approximation).
A fixed number of requests in flight is a closed network of one queue and one delay, solved by mean value analysis with
Schweitzer's approximation (1979).
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


def closed_loop_wait(requests: FloatArray, prefill: FloatArray, decoding: FloatArray) -> FloatArray:
    """Return the mean wait behind other prompts in seconds, shape (n,), when each request follows the end of another.

    A prompt finds the queue that the other ``requests - 1`` leave, of which one is being computed and half done.

    Args:
        requests: In flight on one rank, shape (n,), at least 1.
        prefill: Seconds that one more prompt costs, shape (n,).
        decoding: Seconds from a request's first token to its last, shape (n,).
    """
    others = np.maximum(requests - 1.0, 0.0)
    # R (R + Z) = S (R + Z) + S (N - 1) (R - S / 2), where R is the time from arrival to the first token.
    linear = decoding - prefill * (1.0 + others)
    constant = prefill * (prefill * others / 2.0 - decoding)
    root = np.sqrt(np.maximum(linear**2 - 4.0 * constant, 0.0))
    return np.asarray(np.maximum((root - linear) / 2.0 - prefill, 0.0))


def wait_tail(level: float, mean: FloatArray, busy: FloatArray, most: FloatArray) -> FloatArray:
    """Return a quantile of a wait of which the mean is known, exponential where there is one; never below the mean.

    Args:
        level: Quantile, between 0 and 1.
        mean: Mean wait in seconds, shape (n,).
        busy: Probability that there is a wait, shape (n,).
        most: Longest wait, shape (n,).
    """
    likely = np.clip(busy, 1e-9, 1.0)
    tail = mean / likely * np.maximum(np.log(likely / (1.0 - level)), 0.0)
    return np.asarray(np.minimum(np.maximum(tail, mean), np.maximum(most, mean)))
