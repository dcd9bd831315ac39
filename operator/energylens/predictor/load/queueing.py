"""Waiting for a place in the batch, and for the prompts ahead.

Places in the batch are the servers of a queue whose service slows down as more requests run. A fixed number of requests
in flight is a closed network of one queue and one delay, solved by mean value analysis with Schweitzer's approximation
(1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from energylens.predictor.load.occupancy import Occupancy
from energylens.predictor.load.step_law import normal_share
from energylens.predictor.types import FloatArray, IntArray

SQRT_2PI = 2.5066282746310002
MOST_HALVINGS = 40


@dataclass(frozen=True)
class PlaceWait:
    """The wait for a place in the batch; arrays of shape (n,)."""

    probability: FloatArray
    """Probability that a request finds no place."""
    pace: FloatArray
    """Places that become free per second while all are taken."""
    slope: FloatArray
    """Slope of the log survival over the requests ahead, for few of them."""
    bend: FloatArray
    """Growth of that slope with the requests ahead."""
    steepest: FloatArray
    """Largest slope, relative to ``slope``."""

    def take(self, index: IntArray) -> PlaceWait:
        """Return the rows of an index array of shape (m,)."""
        return replace(
            self,
            probability=self.probability[index],
            pace=self.pace[index],
            slope=self.slope[index],
            bend=self.bend[index],
            steepest=self.steepest[index],
        )

    def survival(self, seconds: FloatArray) -> FloatArray:
        """Return the probability that a wait, given that there is one, exceeds ``seconds`` of shape (..., n)."""
        ahead = np.maximum(seconds, 0.0) * self.pace
        bent = np.minimum(ahead, (self.steepest - 1.0) * self.slope / np.maximum(self.bend, 1e-30))
        straight = np.where(self.bend > 0.0, ahead - bent, 0.0)
        bent = np.where(self.bend > 0.0, bent, ahead)
        return np.asarray(np.exp(-self.slope * (bent + self.steepest * straight) - self.bend * bent**2 / 2.0))


def place_wait(
    offered: Occupancy,
    places: FloatArray,
    load: FloatArray,
    pace: FloatArray,
    arrival_variation: FloatArray,
    output_variation: float,
) -> PlaceWait:
    """Return the wait for a place if requests are served in the order of arrival.

    The probability follows Halfin and Whitt (Operations Research 29, 1981) from the distribution of running sequences
    with places for all: its density at the number of places over its slope there, interpolated between a normal and a
    gamma distribution. Given a wait, requests with equal outputs leave in the order of arrival, as in the queue M/D/c,
    whose waits are maxima of a Gaussian random walk (Jelenkovic, Mandelbaum and Momcilovic, Queueing Systems 47, 2004):
    the tail starts like that of M/M/c and becomes twice as steep.

    Args:
        offered: Distribution of the requests in a scheduler with places for all.
        places: Places of the scheduler, shape (n,).
        load: Arrival rate over the capacity, shape (n,).
        pace: Requests per second that the scheduler serves with all places taken, shape (n,).
        arrival_variation: Squared coefficient of variation of the times between requests, shape (n,).
        output_variation: Squared coefficient of variation of the output lengths.
    """
    mean, variance = offered.mean, offered.variance
    distance = np.maximum((places - mean) / np.sqrt(variance), 1e-6)
    normal = distance * normal_share(distance) / (np.exp(-(np.minimum(distance, 25.0) ** 2) / 2.0) / SQRT_2PI)
    shape = mean**2 / variance
    slope = np.maximum(shape / mean - (shape - 1.0) / places, 1e-6)
    root = ((places / mean) ** (1.0 / 3.0) - 1.0 + 1.0 / (9.0 * shape)) * 3.0 * np.sqrt(shape)
    # Stirling's formula for the gamma function.
    log_density = (shape - 1.0) * np.log(places / mean) - shape * (places / mean - 1.0)
    log_density = log_density + 0.5 * np.log(shape) - np.log(mean * SQRT_2PI) - 1.0 / (12.0 * shape)
    gamma = slope * normal_share(root) / np.exp(np.clip(log_density, -200.0, 50.0))
    probability = 1.0 / np.sqrt((1.0 + normal) * (1.0 + gamma))
    spare = np.maximum(1.0 - load, 1e-6)
    outputs = np.minimum(output_variation, arrival_variation)
    return PlaceWait(
        np.asarray(probability),
        pace,
        spare / arrival_variation,
        np.asarray((1.0 - outputs / arrival_variation) / (places * arrival_variation)),
        2.0 * arrival_variation / (arrival_variation + outputs),
    )


def closed_loop_wait(requests: FloatArray, prefill: FloatArray, decoding: FloatArray) -> FloatArray:
    """Return the mean wait behind other prompts, s, shape (n,), if each request follows the end of another.

    A prompt finds the queue of the other ``requests - 1`` prompts, of which one is being computed and half done.

    Args:
        requests: Requests in flight on one rank, shape (n,), at least 1.
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
    """Return a quantile of a wait with a known mean, exponential if there is a wait; never below the mean.

    Args:
        level: Quantile, between 0 and 1.
        mean: Mean wait in seconds, shape (n,).
        busy: Probability that there is a wait, shape (n,).
        most: Longest wait, shape (n,).
    """
    likely = np.clip(busy, 1e-9, 1.0)
    tail = mean / likely * np.maximum(np.log(likely / (1.0 - level)), 0.0)
    return np.asarray(np.minimum(np.maximum(tail, mean), np.maximum(most, mean)))


def mixed_wait_tail(
    level: float,
    classes: Sequence[tuple[float, FloatArray]],
    mean: FloatArray,
    busy: FloatArray,
    most: FloatArray,
) -> FloatArray:
    """Return a quantile of the sum of a time per class of requests and the wait of :func:`wait_tail`.

    Args:
        level: Quantile, between 0 and 1.
        classes: Share of each class, and its seconds without the wait, shape (n,).
        mean: Mean wait in seconds, shape (n,).
        busy: Probability that there is a wait, shape (n,).
        most: Longest wait, shape (n,).
    """
    likely, most = np.clip(busy, 1e-9, 1.0), np.maximum(most, mean)
    low = np.minimum.reduce([begins for _, begins in classes])
    high = np.maximum.reduce([begins for _, begins in classes]) + most
    for _ in range(MOST_HALVINGS):
        middle = 0.5 * (low + high)
        below = np.zeros_like(middle)
        for share, begins in classes:
            waited = middle - begins
            part = 1.0 - likely * np.exp(-likely * np.maximum(waited, 0.0) / np.maximum(mean, 1e-12))
            below = below + share * np.where(waited >= most, 1.0, np.where(waited >= mean, part, 0.0))
        low, high = np.where(below < level, middle, low), np.where(below < level, high, middle)
    return np.asarray(high)
