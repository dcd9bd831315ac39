"""Which candidate to choose when predictions may be wrong.

The lowest of thousands of predictions is seldom the lowest in truth: among similar candidates it is the one with the
most favourable error, and it tends to come from where errors are large ("the optimizer's curse", Smith and Winkler,
Management Science 2006). Energies are therefore compared together with the risk that candidates do not share. Errors
that all layouts of a model share on a product shift all of them alike and cancel. One standard deviation of the
remaining uncertainty is added to the energy by which a candidate is ranked. Candidates that are then closer than the
predictor can distinguish are ties, and the simpler one is chosen.

A plan may also break a latency objective. A larger batch may save half of the energy, or nothing, for the same rise of
that chance, so the chance counts as energy (expected loss; Berger, Statistical Decision Theory and Bayesian Analysis,
1985), and only up to a limit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass

RISK = 1.0
"""Standard deviations that are added to the energy by which candidates are ranked."""
SAME = 1e-5
"""Relative difference that no prediction can distinguish, however certain."""
TIE = 0.43
"""Standard deviations of the difference between two candidates below which they are a tie: the odds that the lower one
is truly lower are then less than 2 to 1 (normal distribution)."""
LARGEST_RISK, LARGEST_TIE = 1.4, 1.1
"""Largest factor on energy or power that risk and noise can contribute."""
BREACH_COST = 3.0
"""Rise of log(energy) that counts as much as a certainly broken latency objective: a chance of one percent counts as
3 % of energy. With models, layouts, GPU types, numbers of GPUs or tasks left out, less than 3 % of the picks of
`energylens accuracy` then break their bound."""
LARGEST_BREACH = 0.25
"""Largest chance of breaking a latency objective with which a candidate can be chosen."""
OUT_OF_REACH = LARGEST_RISK * LARGEST_TIE
"""A candidate that draws more than this many times the power of a plan need not be evaluated, if the plan breaks no
latency objective; otherwise `breach_factor` times as much."""
_TAIL = 1.63774 / 3.0**0.5
"""Quantile of 90 % of Student's t distribution with three degrees of freedom, over the square root of these."""


@dataclass(frozen=True)
class Risk:
    """Spread of candidates' errors of log(energy) relative to each other, as standard deviations.

    Arrays of shape (n,).
    """

    unshared: FloatArray
    """Standard deviation of the error that candidates of one model and engine do not share."""
    layout: FloatArray
    """Part of ``unshared`` by which two layouts differ even if equally much was measured near both."""

    @classmethod
    def none(cls, n: int) -> Risk:
        """Return the risk of n predictions that count as certain."""
        return cls(np.zeros(n), np.zeros(n))

    def take(self, index: npt.NDArray[np.int64]) -> Risk:
        """Return the risk of the candidates of an index array of shape (m,)."""
        return Risk(self.unshared[index], self.layout[index])

    @property
    def factor(self) -> FloatArray:
        """Return the factor on energy or power for ranking, shape (n,)."""
        return np.minimum(np.exp(RISK * self.unshared), LARGEST_RISK)

    def of_difference(self, other: int) -> FloatArray:
        """Return the standard deviation of each candidate's difference from one of them, shape (n,)."""
        apart = np.abs(self.unshared**2 - self.unshared[other] ** 2)
        return np.asarray(np.sqrt(apart + self.layout**2 + self.layout[other] ** 2))


def breach_chance(limit: float, predicted: FloatArray, upper: FloatArray) -> FloatArray:
    """Return the chance that a latency exceeds its limit, shape (n,); 1 without a prediction.

    Student's t distribution with three degrees of freedom describes the errors of left-out runs. Of 2,010 latencies
    with models, numbers of GPUs and tasks left out, 25.3 % are above `LATENCY_SHARE` of the distance to the upper end
    of the interval, 10.0 % above the end, 2.2 % beyond twice and 0.9 % beyond three times the distance; the
    distribution has 25.0, 10.0, 2.3 and 0.8 %.

    Args:
        limit: Bound of the latency.
        predicted: Predicted latencies, shape (n,).
        upper: Upper ends of their 80 % intervals, shape (n,); if equal to the prediction, the prediction is certain.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        x = _TAIL * (limit - predicted) / (upper - predicted)
        chance = 0.5 - (x / (1.0 + x**2) + np.arctan(x)) / np.pi
    certain = np.where(predicted <= limit, 0.0, 1.0)
    return np.where(upper > predicted, chance, certain)


def breach_factor(chance: FloatArray | float) -> FloatArray:
    """Return the factor on energy or power for ranking, for a chance of breaking a latency objective."""
    return np.asarray(np.exp(BREACH_COST * chance))


LATENCY_SHARE = 0.46704
"""Share of the distance to the upper end of the 80 % interval at which a bound is broken with `LARGEST_BREACH`."""


def ties(values: FloatArray, risk: Risk) -> BoolArray:
    """Return which candidates cannot be distinguished from the lowest, shape (n,).

    Args:
        values: Energy or power including its risk, positive, shape (n,).
        risk: Risk of the same candidates.
    """
    lowest = int(np.nanargmin(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.log(values / values[lowest])
    noise = np.clip(TIE * risk.of_difference(lowest), SAME, np.log(LARGEST_TIE))
    return np.asarray(apart <= noise)


def clearly_lower(value: float, other: float, risk: Risk) -> bool:
    """Return whether a value is lower than another one by more than predictions may be wrong, so that it is no tie.

    Args:
        value: Energy or power including its risk.
        other: The value that it is compared with.
        risk: Risk of both, shape (2,).
    """
    noise = np.clip(TIE * risk.of_difference(0)[1], SAME, np.log(LARGEST_TIE))
    return bool(np.log(other / value) > noise)


def simplest(values: FloatArray, risk: Risk, complexity: Sequence[IntArray]) -> IntArray:
    """Return the candidates among which only the values decide: the simplest of the ties, shape (m,).

    Args:
        values: Energy or power including its risk, positive, shape (n,); at least one is no NaN.
        risk: Risk of the same candidates.
        complexity: Criteria that count against a candidate, the most important first, shape (n,) each.
    """
    index = np.flatnonzero(ties(values, risk))
    for costs in complexity:
        index = index[costs[index] == costs[index].min()]
    return index


def choose(values: FloatArray, risk: Risk, complexity: Sequence[IntArray]) -> int:
    """Return the chosen candidate: the first of the :func:`simplest` with the lowest value."""
    index = simplest(values, risk, complexity)
    return int(index[np.argmin(values[index])])
