"""Waiting for a place in the batch, and for the prompts ahead.

Places in the batch are the servers of a queue whose service slows down as more requests run. A fixed number of requests
in flight is a closed network of one queue and one delay, solved by mean value analysis with Schweitzer's approximation
(1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from energylens.predictor.load.occupancy import Occupancy
from energylens.predictor.load.step_law import normal_share
from energylens.predictor.types import FloatArray, IntArray
from energylens.records import dataclass

SQRT_2PI = 2.5066282746310002
LEAST_SKEW, MOST_SKEW = 0.01, 1.9
"""Bounds of the skewness of the running sequences: that of a normal distribution, and that of an exponential one, whose
density no longer falls towards its mean."""
ZETA = (-1.4603545088095868, -0.2078862249773545, -0.0254852018898330, 0.0085169287778503)
"""Riemann's zeta function at 1/2, -1/2, -3/2 and -5/2."""
MOST_HALVINGS = 40
LEAST_LATE = 0.05
"""Least late variation relative to the early one: long prompts with short outputs vary less than either."""
LEAST_BEND = 1e-12
"""Bend relative to the slope below which a tail is straight."""


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
        bends = np.abs(self.bend) > LEAST_BEND * self.slope
        bent = np.where(bends, (self.steepest - 1.0) * self.slope / np.where(bends, self.bend, 1.0), np.inf)
        bent = np.minimum(ahead, bent)
        straight = ahead - bent
        return np.asarray(np.exp(-self.slope * (bent + self.steepest * straight) - self.bend * bent**2 / 2.0))


@dataclass(frozen=True)
class QueueVariation:
    """Variance of the queue for places per request that arrives, relative to a queue of Poisson arrivals, shape (n,).

    A queue grows by the requests that arrive and shrinks by the work that the replica completes.
    """

    early: FloatArray
    """Within a time that is short beside the life of a request: requests end at random."""
    late: FloatArray
    """Over many lives: the sum of outputs and prompts that were served."""
    decoding: FloatArray
    """Share of the time in which prompts do not halt decoding. A request that waits has not halted others yet, so that
    a queue is by this factor shorter than the number of sequences that would run with places for all."""


def queue_variation(
    arrival_variation: FloatArray,
    prompts_share: FloatArray,
    prompt_variance: float,
    output_variation: float,
    covariance: float,
) -> QueueVariation:
    """Return the variation of the queue while all places are taken.

    A request's work is the share of a decode step that its place takes for each output token, and its prompt, which
    halts all places. Over many lives the variance is that of arrivals and of the work of a request (Whitt,
    Production and Operations Management 2, 1993). Within a life, requests with equal outputs end in the clusters in
    which they started, and requests with varied outputs at random, each followed by a prompt that halts the others.

    Args:
        arrival_variation: Squared coefficient of variation of the times between requests, shape (n,).
        prompts_share: Share of the time in which prompts halt decoding, shape (n,).
        prompt_variance: Variance of a prompt's length over the square of the mean.
        output_variation: Squared coefficient of variation of the output lengths.
        covariance: Covariance of prompt and output lengths over the product of their means.
    """
    decoding = 1.0 - prompts_share
    arrivals = arrival_variation + prompts_share**2 * prompt_variance
    mixed = min(output_variation, 1.0)
    early = arrivals * (2.0 - mixed) + decoding**2 * mixed
    late = arrivals + decoding**2 * output_variation + 2.0 * prompts_share * decoding * covariance
    return QueueVariation(early, np.maximum(late, LEAST_LATE * early), decoding)


def in_order(distance: FloatArray) -> FloatArray:
    """Return the probability of a wait in M/D/c over that in M/M/c, with many servers, same shape.

    Equal requests leave in the order of arrival. The wait is then the maximum of a Gaussian random walk of drift
    ``-distance``, which is 0 with the probability of Chang and Peres (Annals of Probability 25, 1997, theorem 1.1), of
    whose series four terms suffice up to a distance of 2.

    Args:
        distance: From the mean number of requests to the places, in standard deviations, positive.
    """
    near = np.minimum(distance, 2.0)
    square = near**2 / 2.0
    series = ZETA[0] - ZETA[1] / 3.0 * square + ZETA[2] / 10.0 * square**2 - ZETA[3] / 42.0 * square**3
    walk = 1.0 - np.sqrt(2.0) * near * np.exp(near / SQRT_2PI * series)
    spread = 1.0 / (1.0 + near * normal_share(near) / (np.exp(-square) / SQRT_2PI))
    return np.asarray(walk / spread)


def place_wait(
    offered: Occupancy, places: FloatArray, load: FloatArray, pace: FloatArray, variation: QueueVariation
) -> PlaceWait:
    """Return the wait for a place if requests are served in the order of arrival.

    The probability follows Halfin and Whitt (Operations Research 29, 1981) from the distribution of running sequences
    with places for all: its density at the number of places over the slope with which the density of the queue begins.
    The probability is smaller where requests leave in the order of arrival. Given a wait, the tail begins with the
    slope of the early variation and ends with that of the late variation. With equal outputs the second is twice the
    first: requests leave in the order of arrival, as in the queue M/D/c, whose waits are maxima of a Gaussian random
    walk (Jelenkovic, Mandelbaum and Momcilovic, Queueing Systems 47, 2004).

    Args:
        offered: Distribution of the requests in a scheduler with places for all.
        places: Places of the scheduler, shape (n,).
        load: Arrival rate over the capacity, shape (n,).
        pace: Requests per second that the scheduler serves with all places taken, shape (n,).
        variation: Variation of the queue while all places are taken.
    """
    deviation = np.sqrt(offered.variance)
    distance = np.maximum((places - offered.mean) / deviation, 1e-6)
    # A gamma distribution with the three cumulants (Pearson's type III), in units in which its mean is its shape.
    skew = np.clip(offered.third / deviation**3, LEAST_SKEW, MOST_SKEW)
    shape = 4.0 / skew**2
    at = shape + distance * np.sqrt(shape)
    root = ((at / shape) ** (1.0 / 3.0) - 1.0 + 1.0 / (9.0 * shape)) * 3.0 * np.sqrt(shape)
    # Stirling's formula for the gamma function.
    log_density = (shape - 1.0) * np.log(at / shape) - (at - shape)
    log_density = log_density - 0.5 * np.log(shape) - np.log(SQRT_2PI) - 1.0 / (12.0 * shape)
    spare = np.maximum(1.0 - load, 1e-6)
    first = 2.0 * spare / variation.early
    # Sequences and their queue are one diffusion, so that its density and its slope are those of the queue, too.
    begins = first * variation.decoding * deviation / np.sqrt(shape)
    probability = 1.0 / (1.0 + begins * normal_share(root) / np.exp(np.clip(log_density, -200.0, 50.0)))
    steepest = variation.early / variation.late
    probability = probability * (1.0 - (1.0 - in_order(distance)) * np.clip(steepest - 1.0, -1.0, 1.0))
    return PlaceWait(
        # With outputs that vary more than arrivals, the last factor exceeds 1.
        np.asarray(np.minimum(probability, 1.0)),
        pace,
        first,
        # The density of a normal number of sequences bends like this beyond the places.
        np.asarray(4.0 * (1.0 - 1.0 / steepest) / (places * variation.early)),
        steepest,
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
