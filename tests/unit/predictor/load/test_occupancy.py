"""Points that represent a distribution of running sequences."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.predictor.load.occupancy import WEIGHTS, Occupancy


def test_points_and_weights_are_those_of_the_normal_distribution() -> None:
    points, weights = np.polynomial.hermite_e.hermegauss(5)
    assert pytest.approx(weights / weights.sum()) == WEIGHTS
    # For many sequences the gamma distribution is nearly normal.
    mean, variance = 1e8, 1e8
    states = Occupancy(np.array([mean]), np.array([variance]), np.array([mean])).states(np.array([np.inf]))[:, 0]
    assert (states - mean) / variance**0.5 == pytest.approx(points, abs=1e-3)


def test_states_keep_the_mean() -> None:
    states = Occupancy(np.array([3.0]), np.array([5.0]), np.array([10.0])).states(np.array([np.inf]))
    assert WEIGHTS @ states == pytest.approx(3.0)
