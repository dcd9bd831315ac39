"""Learning from a stream of windows: bounded, forgetting, and not moved by one bad window."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.predictor.fitted.recalibration import (
    BOUND,
    FIGURES,
    Factors,
    Learned,
    MeasuredPoint,
    MeasuredPointError,
    correct_factors,
    factors_of,
    learn,
)

ratios = st.floats(1e-3, 1e3)


def taught(*values: float, **others: float) -> Learned:
    known = Learned()
    for value in values:
        known = learn(known, MeasuredPoint(energy_ratio=value, **others))
    return known


@given(st.lists(ratios, max_size=60), st.sampled_from(FIGURES))
def test_no_stream_moves_a_factor_beyond_its_bound(values, name) -> None:
    known = Learned()
    for value in values:
        known = learn(known, MeasuredPoint(**{f"{name}_ratio": value}))
    factors = factors_of(known)
    assert 1 / BOUND[name] <= getattr(factors, name) <= BOUND[name]
    assert all(getattr(factors, other) == 1.0 for other in FIGURES if other != name)


@given(st.floats(0.3, 3.0), st.integers(20, 60))
def test_a_steady_ratio_is_found(ratio, count) -> None:
    assert factors_of(taught(*[ratio] * count)).energy == pytest.approx(ratio, rel=0.02)


def test_nothing_learned_leaves_predictions_as_they_are() -> None:
    assert factors_of(Learned()) == Factors()
    assert Learned().points == 0


def test_the_first_point_counts_as_in_a_batch_of_one() -> None:
    point = MeasuredPoint(1.3, 1.4, 1.2, 1.25)
    stream, batch = factors_of(learn(Learned(), point)), correct_factors([point])
    assert [getattr(stream, name) for name in FIGURES] == pytest.approx([getattr(batch, name) for name in FIGURES])


def test_prefill_and_decode_are_learned_apart() -> None:
    factors = factors_of(taught(1.0, itl_ratio=0.8, ttft_ratio=2.0, power_ratio=1.1))
    assert factors.itl < 1 < factors.power < factors.ttft


def test_what_is_old_is_forgotten() -> None:
    changed = [1.5] * 40 + [0.8] * 60
    assert factors_of(taught(*changed)).energy == pytest.approx(0.8, rel=0.06)
    assert taught(*[1.0] * 1000).points == pytest.approx(1 / (1 - math.exp(-1 / 20)))


def test_one_bad_window_moves_little() -> None:
    steady = taught(*[1.2] * 10)
    assert factors_of(learn(steady, MeasuredPoint(energy_ratio=9.0))).energy == pytest.approx(1.2, rel=0.04)


def test_a_layout_begins_with_what_its_product_taught() -> None:
    product = factors_of(taught(*[1.4] * 30))
    assert factors_of(Learned(), product).energy == pytest.approx(product.energy)
    assert factors_of(taught(1.4), product).energy == pytest.approx(1.4, rel=0.01)


@pytest.mark.parametrize("ratio", [0.0, -1.0, np.inf, np.nan])
def test_a_ratio_that_cannot_be_is_refused(ratio) -> None:
    with pytest.raises(MeasuredPointError, match="energy_ratio must be finite and positive"):
        taught(ratio)
