"""How many sequences run: not the mean alone, but the spread around it over time.

The number that runs at a step is what started in the last S steps, S being the output tokens. Steps grow with that
number, and prompts halt it, so that it varies more than a Poisson number. The linear delay equation of its deviations
gives the variance below; without prompts it is the number in a processor-sharing queue, which no law of the service
changes (Cohen, Acta Informatica 12, 1979).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from energylens.predictor.types import FloatArray

_POINTS, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
WEIGHTS: FloatArray = _WEIGHTS / _WEIGHTS.sum()
"""Of the states by which a distribution over running sequences stands, shape (k,)."""
MOST_GROWTH = 0.98
MOST_HALTED = 0.97
LEAST_ARRIVALS = 0.05
"""Rate between two bursts, relative to the mean: a lower bound of the regression, which is a straight line."""


@dataclass(frozen=True)
class Occupancy:
    """Running sequences of a scheduler over time, as a gamma distribution; arrays of shape (n,)."""

    mean: FloatArray
    variance: FloatArray

    def states(self, most: FloatArray) -> FloatArray:
        """Return the numbers, shape (k, n), that stand for the distribution with :data:`WEIGHTS`.

        Gauss-Hermite points through the Wilson-Hilferty transformation of the gamma distribution, scaled to its mean:
        the transformation is poor at shapes below 1.

        Args:
            most: That run at once, shape (n,).
        """
        shape = self.mean**2 / self.variance
        root = 1.0 - 1.0 / (9.0 * shape) + _POINTS[:, None] / (3.0 * np.sqrt(shape))
        points = np.maximum(root, 0.05) ** 3
        return np.asarray(np.minimum(self.mean * points / (WEIGHTS @ points), most))

    def arrivals_at(self, states: FloatArray, arrival_variation: FloatArray) -> FloatArray:
        """Return the arrival rate while so many sequences run, relative to the mean rate, shape of ``states``.

        Many run because many have come, and in a burst more come: the regression of the rate on the number of
        customers of an infinite-server queue with renewal arrivals, which have (variation - 1) / 2 more after an
        arrival than a Poisson process has.

        Args:
            states: Sequences that run, shape (k, n).
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
    """Return the distribution of running sequences where there are places for all.

    Args:
        mean: Running sequences of a step, shape (n,), positive: what Little's law with the mean step gives.
        growth: Relative growth of the mean step with the logarithm of the sequences, shape (n,).
        halted: Share of the time in which one more prompt per arrival halts the others, shape (n,).
        prompt_variance: Of a prompt's length over the square of the mean.
        arrival_variation: Squared coefficient of variation of the times between requests, shape (n,).
        output_variation: Squared coefficient of variation of the output lengths.
    """
    halted = np.minimum(halted, MOST_HALTED)
    noise = (arrival_variation + halted**2 * prompt_variance) / (1.0 - halted) ** 2
    # Outputs of all lengths leave at random; of one length as they came.
    mixed = 0.5 * min(output_variation, 1.0)
    growth = np.clip(growth, 0.0, MOST_GROWTH)
    variance = mean * (noise * (1.0 - mixed) + mixed) / (1.0 - growth)
    # Steps with many sequences are longer: over time there are more than over steps.
    return Occupancy(mean + growth * variance / mean, variance)
