"""Points that represent a distribution of running sequences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from energylens.predictor.load.occupancy import WEIGHTS, Clusters, Occupancy, Overlap, occupancy, overlap
from energylens.predictor.requests import RequestClass


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


def test_equal_outputs_run_together_for_all_of_their_time() -> None:
    assert overlap((RequestClass(1.0, 100, 70),)) == Overlap(1.0, 1.0)


@pytest.mark.parametrize("variation", [0.2, 0.5, 1.0])
def test_log_normal_outputs_run_together_for_the_mean_of_the_shorter(variation: float) -> None:
    found = overlap((RequestClass(1.0, 100, 70, output_variation=variation),))
    # The mean of the smaller of two log-normal numbers is erfc(spread / 2) of their mean.
    assert found.two == pytest.approx(math.erfc(math.sqrt(math.log1p(variation)) / 2.0), abs=0.02)
    assert found.two**2 < found.three < found.two


def test_outputs_of_two_classes_run_together_for_the_shorter_ones() -> None:
    found = overlap((RequestClass(0.75, 100, 20), RequestClass(0.25, 900, 100)))
    mean = 0.75 * 20 + 0.25 * 100
    assert found.two == pytest.approx((20 + 80 * 0.25**2) / mean)
    assert found.three == pytest.approx((20 + 80 * 0.25**3) / mean)


def test_pairs_and_triples_of_a_cluster_count_while_both_run() -> None:
    # Three requests that start together, of which a half, at random, is short and ends at once.
    rng = np.random.default_rng(6)
    starts = rng.poisson(4.0, 400_000)
    running = rng.binomial(3 * starts, 0.5).astype(np.float64)
    # Cumulants of a cluster of three relative to a Poisson number: mean square and mean cube over the mean.
    three = Clusters(np.array([3.0]), np.array([9.0]))
    found = occupancy(np.array([6.0]), np.zeros(1), three, Overlap(0.5, 0.25))
    assert found.variance[0] == pytest.approx(running.var(), rel=0.02)
    assert found.third[0] == pytest.approx(((running - running.mean()) ** 3).mean(), rel=0.05)
