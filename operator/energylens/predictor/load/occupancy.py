"""The distribution of running sequences over time, around their mean.

The number running at a step is the number that started in the last S steps, S being the output tokens. Steps grow with
that number, and prompts halt decoding, so that it varies more than a Poisson number. The linear delay equation of its
deviations gives the variance below. Without prompts it is the number in a processor-sharing queue, whose distribution
does not depend on the service distribution (Cohen, Acta Informatica 12, 1979).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from energylens.predictor.types import FloatArray

_NEAR, _FAR = (5.0 - 10.0**0.5) ** 0.5, (5.0 + 10.0**0.5) ** 0.5
_POINTS: FloatArray = np.array([-_FAR, -_NEAR, 0.0, _NEAR, _FAR])
"""Zeros of the Hermite polynomial of degree 5, for the normal distribution (Abramowitz and Stegun, 25.4.46).

Closed forms, because NumPy's module of polynomials takes some 8 ms of the predictor's import.
"""
_OUTER, _INNER = (7.0 - 2.0 * 10.0**0.5) / 60.0, (7.0 + 2.0 * 10.0**0.5) / 60.0
WEIGHTS: FloatArray = np.array([_OUTER, _INNER, 8.0 / 15.0, _INNER, _OUTER])
"""Weights of the states that represent a distribution of running sequences, shape (k,)."""
MOST_GROWTH = 0.98
MOST_HALTED = 0.97
LEAST_ARRIVALS = 0.05
"""Lower bound, relative to the mean, of the arrival rate between two bursts; the regression is a straight line."""


@dataclass(frozen=True)
class Occupancy:
    """Running sequences of a scheduler over time, as a gamma distribution; arrays of shape (n,)."""

    mean: FloatArray
    variance: FloatArray

    def states(self, most: FloatArray) -> FloatArray:
        """Return the numbers, shape (k, n), that represent the distribution with :data:`WEIGHTS`.

        They are Gauss-Hermite points through the Wilson-Hilferty transformation of the gamma distribution, scaled to
        its mean because the transformation is inaccurate for shapes below 1.

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


def occupancy(
    mean: FloatArray,
    growth: FloatArray,
    halted: FloatArray,
    prompt_variance: FloatArray,
    arrival_variation: FloatArray,
    output_variation: float,
) -> Occupancy:
    """Return the distribution of running sequences if there are places for all.

    Args:
        mean: Running sequences by Little's law with the mean step, shape (n,), positive.
        growth: Relative growth of the mean step with the logarithm of the sequences, shape (n,).
        halted: Share of the time in which prompts halt decoding, shape (n,).
        prompt_variance: Variance of a prompt's length over the square of the mean.
        arrival_variation: Squared coefficient of variation of the times between requests, shape (n,).
        output_variation: Squared coefficient of variation of the output lengths.
    """
    halted = np.minimum(halted, MOST_HALTED)
    noise = (arrival_variation + halted**2 * prompt_variance) / (1.0 - halted) ** 2
    # Requests with varied outputs leave at random times, with equal outputs in the order of arrival.
    mixed = 0.5 * min(output_variation, 1.0)
    growth = np.clip(growth, 0.0, MOST_GROWTH)
    variance = mean * (noise * (1.0 - mixed) + mixed) / (1.0 - growth)
    # Steps with many sequences are longer, so the mean over time exceeds the mean over steps.
    return Occupancy(mean + growth * variance / mean, variance)
