"""Where two predictions become distinguishable, to the last digit of the thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from energylens.planner.search.ranking import (
    LARGEST_BREACH,
    LARGEST_RISK,
    LARGEST_TIE,
    LATENCY_SHARE,
    RISK,
    SAME,
    TIE,
    Risk,
    breach_chance,
    breach_factor,
    choose,
    clearly_lower,
    simplest,
    ties,
)


def risk(*pairs: tuple[float, float]) -> Risk:
    """Return the risk of candidates with an unshared and a layout's own deviation each."""
    return Risk(np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs]))


@pytest.mark.parametrize(
    ("first", "second", "deviation"),
    [
        ((0.0, 0.03), (0.0, 0.04), 0.05),
        ((0.13, 0.0), (0.12, 0.0), 0.05),
        ((0.12, 0.0), (0.13, 0.0), 0.05),
        ((0.13, 0.0), (0.05, 0.09), 0.15),
        ((0.1, 0.0), (0.1, 0.0), SAME / TIE),
        ((0.0, 3.0), (0.0, 4.0), math.log(LARGEST_TIE) / TIE),
    ],
)
def test_a_tie_ends_at_a_part_of_the_deviation_of_the_difference(
    first: tuple[float, float], second: tuple[float, float], deviation: float
) -> None:
    for factor, tied in ((0.99, True), (1.01, False)):
        values = np.array([5.0, 5.0 * math.exp(factor * TIE * deviation)])
        assert ties(values, risk(first, second)).tolist() == [True, tied]
        assert ties(values[::-1], risk(second, first)).tolist() == [tied, True]
        assert clearly_lower(float(values[0]), float(values[1]), risk(first, second)) is not tied
        assert not clearly_lower(float(values[1]), float(values[0]), risk(second, first))


def test_a_candidate_without_a_figure_ties_with_none() -> None:
    assert ties(np.array([np.nan, 2.0, 1.0]), Risk.none(3)).tolist() == [False, False, True]


def test_the_risk_raises_values_up_to_a_limit() -> None:
    shown = risk((0.0, 9.0), (0.2, 0.0), (0.5, 0.0)).factor
    assert shown.tolist() == [1.0, pytest.approx(math.exp(0.2 * RISK)), LARGEST_RISK]
    assert Risk.none(2).factor.tolist() == [1.0, 1.0]


def test_criteria_count_in_their_order_among_ties_only() -> None:
    near, far = 1.0 + 0.5 * SAME, 2.0
    values = np.array([near, 1.0, near, near, far])
    first, second = np.array([2, 2, 1, 1, 0]), np.array([0, 0, 3, 2, 0])
    assert simplest(values, Risk.none(5), [first, second]).tolist() == [3]
    assert simplest(values, Risk.none(5), [first]).tolist() == [2, 3]
    assert simplest(values, Risk.none(5), []).tolist() == [0, 1, 2, 3]
    assert choose(values, Risk.none(5), [first, second]) == 3
    assert choose(values, Risk.none(5), []) == 1


def test_the_risk_of_some_candidates_keeps_both_parts() -> None:
    some = risk((0.1, 0.2), (0.3, 0.4), (0.5, 0.6)).take(np.array([2, 0]))
    assert (some.unshared.tolist(), some.layout.tolist()) == ([0.5, 0.1], [0.6, 0.2])


def t_tail(x: float) -> float:
    """Return the chance of more than ``x`` under Student's t distribution with three degrees of freedom, by sums."""
    grid = np.linspace(x, x + 400.0, 800_001)
    density = 2 / (math.pi * math.sqrt(3)) * (1 + grid**2 / 3) ** -2
    return float(((density[1:] + density[:-1]) / 2).sum() * (grid[1] - grid[0]))


@pytest.mark.parametrize("distance", [-1.0, 0.0, 0.5, 1.0, 2.0, 5.0])
def test_the_chance_to_break_a_latency_is_that_of_the_t_distribution(distance: float) -> None:
    predicted, upper = np.array([30.0]), np.array([34.0])
    (found,) = breach_chance(30.0 + 4.0 * distance, predicted, upper).tolist()
    assert found == pytest.approx(t_tail(1.63774 * distance), abs=1e-5)


def test_the_end_of_the_interval_is_exceeded_once_in_ten_and_the_share_as_often_as_may_be() -> None:
    ends = breach_chance(34.0, np.array([30.0]), np.array([34.0]))
    assert float(ends[0]) == pytest.approx(0.1, abs=1e-5)
    most = breach_chance(30.0 + 4.0 * LATENCY_SHARE, np.array([30.0]), np.array([34.0]))
    assert float(most[0]) == pytest.approx(LARGEST_BREACH, abs=1e-5)


def test_certain_and_missing_predictions_break_a_latency_surely_or_never() -> None:
    predicted, upper = np.array([30.0, 30.1, np.nan, 5.0, np.inf]), np.array([30.0, 30.1, np.nan, np.inf, np.inf])
    assert breach_chance(30.0, predicted, upper).tolist() == [0.0, 1.0, 1.0, 0.5, 1.0]


def test_a_chance_of_a_hundredth_counts_as_three_percent_of_energy() -> None:
    assert breach_factor(0.01) == pytest.approx(math.exp(0.03))
    assert breach_factor(np.array([0.0, 1.0])).tolist() == [1.0, pytest.approx(math.exp(3.0))]
