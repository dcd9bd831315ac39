"""Which of several candidates to take when their predictions may be wrong.

The lowest of thousands of predictions is seldom the lowest in truth: of candidates alike it is the one with the
luckiest error, and it comes from where errors are large ("the optimizer's curse", Smith and Winkler, Management Science
2006).
So energies are compared with the risk that candidates do not share. Errors that all layouts of a model have in common
on a product raise or lower all of them and cannot mislead; they cancel. What is left of a candidate's uncertainty, one
standard deviation of it, is added to the energy it is ranked by. Candidates that are then closer than the predictor can
tell apart are ties, and the simpler one is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energylens.predictor.types import BoolArray, FloatArray, IntArray

RISK = 1.0
"""Standard deviations that are added to the energy that candidates are ranked by."""
SAME = 1e-5
"""Relative difference that no prediction tells apart, however certain."""
TIE = 0.43
"""Standard deviations of the difference of two candidates below which they are a tie: the odds that the lower one is
the lower in truth are less than 2 to 1 (normal distribution)."""
LARGEST_RISK, LARGEST_TIE = 1.4, 1.1
"""Factors on energy or power beyond which risk and noise do not grow: what draws
`OUT_OF_REACH` times the power of a plan need not be looked at."""
OUT_OF_REACH = LARGEST_RISK * LARGEST_TIE


@dataclass(frozen=True)
class Risk:
    """How the errors of log(energy) of candidates lie apart, as standard deviations; arrays of shape (n,)."""

    unshared: FloatArray
    """What the candidates of one model and engine do not share."""
    layout: FloatArray
    """The part of it by which two layouts err apart although as much was measured near both."""

    @classmethod
    def none(cls, n: int) -> Risk:
        """Return the risk of n predictions that count as certain."""
        return cls(np.zeros(n), np.zeros(n))

    def take(self, index: npt.NDArray[np.int64]) -> Risk:
        """Return the risk of the candidates of an index array of shape (m,)."""
        return Risk(self.unshared[index], self.layout[index])

    @property
    def factor(self) -> FloatArray:
        """On energy or power, to rank by."""
        return np.minimum(np.exp(RISK * self.unshared), LARGEST_RISK)

    def of_difference(self, other: int) -> FloatArray:
        """Return the standard deviation of each candidate's difference to one of them, shape (n,)."""
        apart = np.abs(self.unshared**2 - self.unshared[other] ** 2)
        return np.asarray(np.sqrt(apart + self.layout**2 + self.layout[other] ** 2))


def ties(values: FloatArray, risk: Risk) -> BoolArray:
    """Return which candidates cannot be told from the lowest, shape (n,).

    Args:
        values: Energy or power with its risk, positive, shape (n,).
        risk: Of the same candidates.
    """
    lowest = int(np.nanargmin(values))
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.log(values / values[lowest])
    noise = np.clip(TIE * risk.of_difference(lowest), SAME, np.log(LARGEST_TIE))
    return np.asarray(apart <= noise)


def simplest(values: FloatArray, risk: Risk, complexity: Sequence[IntArray]) -> IntArray:
    """Return the candidates among which only the values decide: of the ties the simplest, shape (m,).

    Args:
        values: Energy or power with its risk, positive, shape (n,); at least one is no NaN.
        risk: Of the same candidates.
        complexity: What counts against a candidate, the most important first, shape (n,) each.
    """
    index = np.flatnonzero(ties(values, risk))
    for costs in complexity:
        index = index[costs[index] == costs[index].min()]
    return index


def choose(values: FloatArray, risk: Risk, complexity: Sequence[IntArray]) -> int:
    """Return the candidate to take: of the :func:`simplest` the first that has the lowest value."""
    index = simplest(values, risk, complexity)
    return int(index[np.argmin(values[index])])
