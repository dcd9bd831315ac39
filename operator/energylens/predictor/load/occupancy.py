"""The distribution of running sequences over time, around their mean.

The number running at a step is the number that started in the last S steps, S being the output tokens. Steps grow with
that number, and prompts halt decoding, so that it varies more than a Poisson number. The linear delay equation of its
deviations gives the variance below. Without prompts it is the number in a processor-sharing queue, whose distribution
does not depend on the service distribution (Cohen, Acta Informatica 12, 1979).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from energylens.predictor.load.mixture import normal_quantiles
from energylens.predictor.requests import RequestClass
from energylens.predictor.types import FloatArray
from energylens.records import dataclass

_NEAR, _FAR = (5.0 - 10.0**0.5) ** 0.5, (5.0 + 10.0**0.5) ** 0.5
_POINTS: FloatArray = np.array([-_FAR, -_NEAR, 0.0, _NEAR, _FAR])
"""Zeros of the Hermite polynomial of degree 5, for the normal distribution (Abramowitz and Stegun, 25.4.46).

Closed forms, because NumPy's module of polynomials takes some 8 ms of the predictor's import.
"""
_OUTER, _INNER = (7.0 - 2.0 * 10.0**0.5) / 60.0, (7.0 + 2.0 * 10.0**0.5) / 60.0
WEIGHTS: FloatArray = np.array([_OUTER, _INNER, 8.0 / 15.0, _INNER, _OUTER])
"""Weights of the states that represent a distribution of running sequences, shape (k,)."""
OUTPUTS = 32
"""Outputs, equally likely, that represent the distribution of the outputs of a class."""
MOST_GROWTH = 0.98
MOST_HALTED = 0.97
LEAST_ARRIVALS = 0.05
"""Lower bound, relative to the mean, of the arrival rate between two bursts; the regression is a straight line."""


@dataclass(frozen=True)
class Occupancy:
    """Running sequences of a scheduler over time, by their cumulants; arrays of shape (n,)."""

    mean: FloatArray
    variance: FloatArray
    third: FloatArray
    """Third cumulant."""

    def states(self, most: FloatArray) -> FloatArray:
        """Return the numbers, shape (k, n), that represent the distribution with :data:`WEIGHTS`.

        They are Gauss-Hermite points through the Wilson-Hilferty transformation of a gamma distribution of the same
        mean and variance, scaled to its mean because the transformation is inaccurate for shapes below 1.

        Args:
            most: Most sequences that run at once, shape (n,).
        """
        shape = self.mean**2 / self.variance
        root = 1.0 - 1.0 / (9.0 * shape) + _POINTS[:, None] / (3.0 * np.sqrt(shape))
        points = np.maximum(root, 0.05) ** 3
        return np.asarray(np.minimum(self.mean * points / (WEIGHTS @ points), most))

    def arrivals_at(self, states: FloatArray, arrival_variation: FloatArray) -> FloatArray:
        """Return the arrival rate relative to the mean rate given the running sequences, shape of ``states``.

        Many running sequences indicate a burst, in which more arrive. The result is the regression of the rate on the
        number of customers of an infinite-server queue with renewal arrivals, which exceed a Poisson process by
        (variation - 1) / 2 arrivals after an arrival.

        Args:
            states: Running sequences, shape (k, n).
            arrival_variation: Squared coefficient of variation of the times between requests, shape (n,).
        """
        slope = (arrival_variation - 1.0) / 2.0 / self.variance
        return np.asarray(np.maximum(1.0 + slope * (states - self.mean), LEAST_ARRIVALS))


@dataclass(frozen=True)
class Clusters:
    """Requests that start because one arrived, itself included: cumulants per request, relative to a Poisson number.

    While a prompt is computed, decoding stands still and more requests arrive, whose prompts do the same. The requests
    that start in the steps of one output are the progeny of those that would have arrived without prompts (the
    total progeny of a Galton-Watson process, Harris, The Theory of Branching Processes, 1963, section I.13).
    """

    second: FloatArray
    third: FloatArray


def clusters(halted: FloatArray, prompt_variance: float, prompt_third: float, variation: FloatArray) -> Clusters:
    """Return the clusters in which requests start.

    Args:
        halted: Share of the time in which prompts halt decoding, shape (n,), below 1.
        prompt_variance: Variance of a prompt's length over the square of the mean.
        prompt_third: Third central moment of a prompt's length over the cube of the mean.
        variation: Squared coefficient of variation of the gamma distributed times between requests, shape (n,).
    """
    whole = 1.0 / (1.0 - halted)
    # Cumulants of the requests that arrive during one prompt.
    during = variation * halted + halted**2 * prompt_variance
    third = variation**2 * halted + 3.0 * variation * halted**2 * prompt_variance + halted**3 * prompt_third
    # Those of the progeny of one request, and of the progeny of a varied number of requests.
    own = during * whole**3
    own_third = 3.0 * during**2 * whole**5 + third * whole**4
    second = (own + variation * whole**2) / whole
    return Clusters(second, (own_third + 3.0 * variation * whole * own + variation**2 * whole**3) / whole)


@dataclass(frozen=True)
class Overlap:
    """How long requests that start together run together, over the mean time that one runs."""

    two: float = 1.0
    """Mean of the shorter of two outputs over the mean output: 1 for equal outputs, 1/2 for exponential ones."""
    three: float = 1.0
    """Mean of the shortest of three outputs over the mean output."""


@lru_cache(maxsize=256)
def overlap(parts: tuple[RequestClass, ...]) -> Overlap:
    """Return the overlap of the outputs of classes, log-normal within each of them."""
    outputs, shares = [], []
    for part in parts:
        spread = np.sqrt(np.log1p(part.output_variation))
        lengths = np.exp(spread * normal_quantiles((np.arange(OUTPUTS) + 0.5) / OUTPUTS))
        outputs.append(part.output_tokens * lengths / lengths.mean())
        shares.append(np.full(OUTPUTS, part.share / OUTPUTS))
    order = np.argsort(np.concatenate(outputs), kind="stable")
    lengths, share = np.concatenate(outputs)[order], np.concatenate(shares)[order]
    # Share of the requests that are at least as long as each.
    left = np.cumsum(share[::-1])[::-1] / share.sum()
    means = [float(np.diff(lengths, prepend=0.0) @ left**count) for count in (1, 2, 3)]
    return Overlap(means[1] / means[0], means[2] / means[0])


def occupancy(mean: FloatArray, growth: FloatArray, starts: Clusters, together: Overlap) -> Occupancy:
    """Return the distribution of running sequences if there are places for all.

    Args:
        mean: Running sequences by Little's law with the mean step, shape (n,), positive.
        growth: Relative growth of the mean step with the logarithm of the sequences, shape (n,).
        starts: Clusters in which requests start.
        together: How long requests of a cluster run together.
    """
    growth = np.clip(growth, 0.0, MOST_GROWTH)
    # Of a cluster's pairs and triples only those count that still run (a queue of infinitely many servers with arrivals
    # in batches, Holman, Chaudhry and Kashyap, European Journal of Operational Research 13, 1983).
    pairs, triples = starts.second - 1.0, starts.third - 3.0 * starts.second + 2.0
    second = 1.0 + pairs * together.two
    third = 1.0 + 3.0 * pairs * together.two + triples * together.three
    variance = mean * second / (1.0 - growth)
    third = mean * (third / (1.0 - growth) + 2.0 * growth * second**2 / (1.0 - growth) ** 2)
    # Steps with many sequences are longer, so the cumulants over time exceed those over steps: without prompts the
    # number over time is negative binomial, with these three.
    longer = 1.0 + growth * variance / mean**2
    return Occupancy(mean * longer, variance * longer, third * longer)
