from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.measure.quantiles import quantile, window_histogram
from energylens.measure.types import Histogram, HistogramSample

BOUNDS = (0.01, 0.1, 1.0, math.inf)


def at(time: float, *counts: float, bounds: tuple[float, ...] = BOUNDS) -> HistogramSample:
    return HistogramSample(time, Histogram(bounds, counts))


def test_only_the_window_counts():
    series = [at(0, 100, 100, 100, 100), at(10, 100, 110, 110, 110), at(20, 100, 110, 140, 140)]
    assert window_histogram([series], 0, 10) == Histogram(BOUNDS, (0, 10, 10, 10))
    assert window_histogram([series], 10, 20) == Histogram(BOUNDS, (0, 0, 30, 30))
    assert window_histogram([series], 5, 20) == Histogram(BOUNDS, (0, 5, 35, 35))


def test_a_restart_counts_from_zero():
    series = [at(0, 0, 50, 50, 50), at(10, 1, 4, 4, 4)]
    assert window_histogram([series], 0, 10) == Histogram(BOUNDS, (1, 4, 4, 4))


def test_other_buckets_after_a_restart_meet_on_the_shared_bounds():
    series = [at(0, 0, 0, 0, 0), at(10, 0, 10, 10, 10), at(20, 5, 20, 20, bounds=(0.05, 0.1, math.inf))]
    assert window_histogram([series], 0, 20) == Histogram((0.1, math.inf), (30, 30))


def test_pods_add_up():
    one, two = [at(0, 0, 0, 0, 0), at(10, 1, 2, 3, 3)], [at(0, 5, 5, 5, 5), at(10, 5, 5, 6, 7)]
    assert window_histogram([one, two], 0, 10) == Histogram(BOUNDS, (1, 2, 4, 5))


def test_nothing_observed_is_none():
    assert window_histogram([[at(0, 1, 1, 1, 1), at(10, 1, 1, 1, 1)]], 0, 10) is None
    assert window_histogram([[at(0, 1, 1, 1, 1)], []], 0, 10) is None


def test_linear_within_the_bucket():
    assert quantile(Histogram(BOUNDS, (0, 10, 10, 10)), 0.5) == (pytest.approx(0.055), 0.01, 0.1)
    assert quantile(Histogram(BOUNDS, (10, 10, 10, 10)), 0.5) == (pytest.approx(0.005), 0.0, 0.01)


def test_beyond_the_last_bound_is_a_lower_bound():
    assert quantile(Histogram(BOUNDS, (0, 0, 1, 100)), 0.99) == (1.0, 1.0, math.inf)


@pytest.mark.parametrize("q", [0.0, -1.0, 1.5])
def test_q_is_checked(q):
    with pytest.raises(ValueError, match="must be above 0"):
        quantile(Histogram(BOUNDS, (1, 1, 1, 1)), q)


def test_an_empty_histogram_has_no_quantile():
    with pytest.raises(ValueError, match="no observation"):
        quantile(Histogram(BOUNDS, (0, 0, 0, 0)), 0.5)


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any), st.floats(0.01, 1), st.floats(0.01, 1))
def test_quantiles_rise_with_q(counts, a, b):
    cumulative = tuple(float(sum(counts[: index + 1])) for index in range(4))
    low, high = sorted((a, b))
    histogram = Histogram(BOUNDS, cumulative)
    assert quantile(histogram, low)[0] <= quantile(histogram, high)[0] + 1e-12
