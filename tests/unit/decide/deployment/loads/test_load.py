"""The load that is followed: up at once, down after a cooldown, and never to and fro under noise."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energylens.decide.deployment.loads.load import (
    LOWEST_STEP,
    RAISE,
    STEP,
    FollowedLoad,
    MeasuredLoad,
    follow,
    rate_of,
    step_above,
    step_of,
)

START = datetime(2026, 3, 1, tzinfo=UTC)
WINDOW, HOLD = timedelta(minutes=10), timedelta(hours=1)
DAY = 144
"""Windows of a day."""


def run(
    rates: list[float], declared: float = 4.0, load: FollowedLoad | None = None, saturated: bool = False
) -> list[FollowedLoad]:
    """Return the load after each window."""
    found, before = [], load or FollowedLoad(declared)
    for number, rate in enumerate(rates):
        start = START + number * WINDOW
        before = follow(before, MeasuredLoad(start, start + WINDOW, rate, saturated), HOLD)
        found.append(before)
    return found


def test_the_declared_rate_is_planned_for_until_something_else_is_measured() -> None:
    assert FollowedLoad(4.0).requests_per_second == 4.0
    assert {load.step for load in run([4.0, 4.3, 3.3, 4.39])} == {0}


def test_a_rise_is_followed_at_once_and_covers_what_was_measured() -> None:
    (load,) = run([9.0])
    assert load.requests_per_second >= 9.0
    assert rate_of(4.0, load.step - 1) < 9.0
    assert load.changed == START + WINDOW


def test_a_fall_is_followed_after_the_hold_to_the_highest_rate_of_it() -> None:
    loads = run([1.0, 1.1, 2.0, 1.0, 1.0, 1.0])
    assert [load.step for load in loads[:5]] == [0] * 5
    assert rate_of(4.0, loads[5].step - 1) < 2.0 <= loads[5].requests_per_second


def test_one_busy_window_begins_the_hold_anew() -> None:
    assert [load.step for load in run([1.0, 1.0, 4.0, 1.0, 1.0, 1.0, 1.0, 1.0])] == [0] * 8
    assert run([1.0, 1.0, 4.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])[-1].step < 0


def test_saturated_engines_hide_the_load_so_that_a_step_is_added() -> None:
    assert run([4.0], saturated=True)[-1].step == 1
    assert run([4.0, 4.0, 4.0], saturated=True)[-1].step == 3
    # 60 x 1.25^2 is 93.8 to three digits, and 93.8 x 1.25 is more than 60 x 1.25^3.
    assert [load.step for load in run([60.0] * 8, 60.0, saturated=True)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert rate_of(4.0, run([30.0], saturated=True)[-1].step) >= 30.0


def test_without_requests_a_tenth_of_the_declared_load_stays() -> None:
    loads = run([0.0] * 30)
    assert loads[-1].step == LOWEST_STEP
    assert loads[-1].requests_per_second == pytest.approx(0.43, abs=0.01)


@given(rates=st.lists(st.floats(0, 40), max_size=30))
def test_the_same_window_twice_changes_nothing(rates: list[float]) -> None:
    load = FollowedLoad(4.0)
    saturated = len(rates) % 2 == 0
    for number, rate in enumerate(rates):
        window = MeasuredLoad(START + number * WINDOW, START + (number + 1) * WINDOW, rate, saturated)
        load = follow(load, window, HOLD)
        assert follow(load, window, HOLD) == load


@settings(max_examples=200)
@given(
    mean=st.floats(0.3, 40),
    noise=st.lists(st.floats(0.91, 1.09), min_size=40, max_size=80),
)
def test_noise_around_a_constant_load_ends_in_one_step(mean: float, noise: list[float]) -> None:
    """From the declared rate it goes to the load's step, and from there nowhere."""
    steps = [load.step for load in run([mean * factor for factor in noise])]
    changes = [after for before, after in zip([0, *steps], steps, strict=False) if after != before]
    assert len(changes) <= 2
    assert len(set(changes)) == len(changes)


@settings(max_examples=100)
@given(
    night=st.floats(0.5, 8),
    growth=st.floats(1, 20),
    noise=st.lists(st.floats(0.91, 1.09), min_size=DAY, max_size=DAY),
)
def test_a_noisy_day_is_followed_up_once_and_down_once(night: float, growth: float, noise: list[float]) -> None:
    """A day rises and falls once: noise adds no rise and no fall, and every window keeps within the safety margin."""
    day = [night * growth ** math.sin(math.pi * number / DAY) for number in range(DAY)]
    rates = [rate * factor for rate, factor in zip(day, noise, strict=True)]
    # A day before brings the load from the declared rate to that of the night.
    loads = run([night] * 12 + rates)[12:]
    steps = [load.step for load in loads]
    changes = [after - before for before, after in itertools.pairwise(steps) if after != before]
    turns = sum((earlier > 0) != (later > 0) for earlier, later in itertools.pairwise(changes))
    assert turns <= 1
    assert all(rate <= load.requests_per_second * RAISE for rate, load in zip(rates, loads, strict=True))


@settings(max_examples=200)
@given(rates=st.lists(st.floats(0.01, 40), min_size=1, max_size=80))
def test_whatever_comes_the_load_falls_at_most_once_per_hold_and_is_never_far_too_low(rates: list[float]) -> None:
    loads = run(rates)
    for rate, load in zip(rates, loads, strict=True):
        assert rate <= load.requests_per_second * 1.11
    falls = [
        number
        for number, (before, after) in enumerate(zip([FollowedLoad(4.0), *loads], loads, strict=False))
        if after.step < before.step
    ]
    assert all((later - earlier) * WINDOW >= HOLD for earlier, later in itertools.pairwise(falls))


def test_a_rate_at_the_edge_of_the_hysteresis_keeps_the_step() -> None:
    declared = 4.0
    edges = [declared * RAISE, *[declared / (STEP * RAISE)] * 10]
    assert run(edges, declared)[-1] == FollowedLoad(declared, counted=START + 11 * WINDOW)
    assert run([edges[0] * 1.001], declared)[-1].step == 1
    assert run([edges[1] * 0.999] * 10, declared)[-1].step == -1


def test_at_the_lowest_step_no_load_changes_anything() -> None:
    lowest = FollowedLoad(4.0, LOWEST_STEP, START)
    assert run([0.0] * 10, load=lowest)[-1] == FollowedLoad(4.0, LOWEST_STEP, START, counted=START + 10 * WINDOW)


def test_a_change_forgets_the_low_rates_before_it() -> None:
    fallen = run([0.2] * 6, 0.5)[-1]
    assert (fallen.below_since, fallen.highest_below, fallen.changed) == (None, 0.0, START + 6 * WINDOW)
    busy = run([0.2, 0.2, 0.5], 0.5)[-1]
    assert (busy.below_since, busy.highest_below) == (None, 0.0)


@pytest.mark.parametrize("step", range(-9, 10))
def test_a_step_is_found_from_its_rate(step: int) -> None:
    assert step_of(4.0, 4.0 * STEP**step) == step
    assert step_above(4.0, rate_of(4.0, step)) == step + 1


def test_no_step_is_below_the_lowest() -> None:
    assert step_of(4.0, 1e-6) == step_of(4.0, 0.0) == LOWEST_STEP
    assert step_above(4.0, 1e-6) == LOWEST_STEP + 1
