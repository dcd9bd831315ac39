"""What must hold for any series."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.unit.measure.builders import engine, gpu, grid, options

from energylens.measure.counters import energy_track, token_track
from energylens.measure.types import GpuEnergySeries, Sample, TokenSeries
from energylens.measure.window import measure_window

LIMIT = 700.0
powers = st.lists(st.floats(50.0, LIMIT), min_size=40, max_size=40)
intervals = st.lists(st.floats(1.0, 30.0), min_size=40, max_size=40)


def truth(watts: list[float], seconds: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Times and joules of a GPU that draws ``watts[i]`` for ``seconds[i]``; both of shape (n + 1,)."""
    times = np.concatenate([[0.0], np.cumsum(seconds)])
    return times, np.concatenate([[0.0], np.cumsum(np.multiply(watts, seconds))])


def samples(times, values) -> tuple[Sample, ...]:
    return tuple(Sample(float(time), float(value)) for time, value in zip(times, values, strict=True))


@given(powers, intervals, st.floats(0, 1e9))
def test_the_total_is_the_energy_whatever_the_counter_stood_at(watts, seconds, base):
    times, joules = truth(watts, seconds)
    track = energy_track(samples(times, joules + base), ceiling_watts=LIMIT)
    assert track.between(times[0], times[-1]) == pytest.approx(joules[-1], rel=1e-6, abs=1e-3)
    assert track.lost_between(times[0], times[-1]) == 0


@given(powers, intervals, st.sets(st.integers(1, 39), max_size=5), st.floats(0, 1), st.floats(1e7, 1e9))
def test_resets_anywhere_cost_at_most_their_own_interval(watts, seconds, resets, share, base):
    """The counter restarts from 0 within interval i, at ``share`` of it, for each i in ``resets``.

    A second reset soon after a first may leave the counter higher than before: nobody can see that one.
    """
    times, joules = truth(watts, seconds)
    offset, counter = -base, []
    for index, total in enumerate(joules):
        if index in resets:
            offset = joules[index - 1] + watts[index - 1] * seconds[index - 1] * share
        counter.append(total - offset)
    # A GPU at exactly its ceiling would be above it by the rounding of a counter of 1e9 J.
    track = energy_track(samples(times, counter), ceiling_watts=LIMIT + 1)
    measured = track.between(times[0], times[-1])
    touched = sum(watts[index - 1] * seconds[index - 1] for index in resets)
    assert joules[-1] - touched - 0.01 <= measured <= joules[-1] + 0.01
    if len(resets) <= 1:
        assert joules[-1] - measured == pytest.approx(touched * share, abs=0.01)
        assert joules[-1] - measured <= track.lost_between(times[0], times[-1]) + 0.01


@given(powers, intervals, st.data())
def test_duplicates_repeats_and_order_change_nothing(watts, seconds, data):
    times, joules = truth(watts, seconds)
    plain = samples(times, joules + 1e6)
    copied = data.draw(st.lists(st.sampled_from(plain)))
    # A repeat: the exporter still shows the value of before, half-way to its next collection.
    repeated = [
        Sample((plain[index].time + plain[index + 1].time) / 2, plain[index].value)
        for index in data.draw(st.sets(st.integers(0, len(plain) - 2)))
    ]
    messy = [*plain, *copied, *repeated]
    random.Random(0).shuffle(messy)
    expected, actual = (energy_track(each, ceiling_watts=LIMIT) for each in (plain, messy))
    np.testing.assert_allclose(actual.times, expected.times)
    np.testing.assert_allclose(actual.total, expected.total)


@given(powers, intervals, st.sets(st.integers(1, 38), max_size=8), st.floats(1.0, 5e4))
def test_a_lagging_second_exporter_changes_no_more_than_its_samples(watts, seconds, lagging, lag):
    """Samples of an exporter that is ``lag`` joules behind are dropped; both neighbours are right, so the sum is."""
    times, joules = truth(watts, seconds)
    counter = joules + 1e8 - np.array([lag if index in lagging else 0.0 for index in range(len(joules))])
    track = energy_track(samples(times, counter), ceiling_watts=LIMIT)
    assert track.between(times[0], times[-1]) == pytest.approx(joules[-1], rel=1e-6)


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=40))
def test_tokens_never_fall(values):
    track = token_track(Sample(float(index), float(value)) for index, value in enumerate(values))
    assert np.all(np.diff(track.total) >= 0)
    rises = sum(after - before if after >= before else after for before, after in itertools.pairwise(values))
    assert track.total[-1] == rises


@given(powers, st.floats(0.1, 5000.0), st.integers(1, 8))
@settings(max_examples=50)
def test_scaling_tokens_or_gpus_scales_the_ratio(watts, rate, gpus):
    times, joules = truth(watts, [15.0] * 40)
    series = [
        GpuEnergySeries(f"GPU-{index}", samples(times, joules + 1e6), power_limit_watts=LIMIT) for index in range(gpus)
    ]
    result = measure_window(series, [engine(rate=rate)], gpus, options(min_output_tokens=1.0))
    assert result.reason == "Measured"
    assert result.joules_per_output_token == pytest.approx(gpus * joules[-1] / (600 * rate), rel=1e-6)
    assert result.power_watts == pytest.approx(gpus * joules[-1] / 600, rel=1e-9)


@given(st.floats(0, 60), st.floats(0, 60), st.floats(0, 60), st.floats(0, 60))
def test_the_window_is_the_overlap(gpu_start, gpu_end, token_start, token_end):
    energy = gpu(times=[gpu_start, *grid(75, 525, 15), 600 - gpu_end])
    tokens = engine(times=[token_start, *grid(75, 525, 15), 600 - token_end])
    result = measure_window([energy], [tokens], 1, options())
    assume(result.reason == "Measured")
    assert result.window_start == pytest.approx(max(gpu_start, token_start))
    assert result.window_end == pytest.approx(600 - max(gpu_end, token_end))
    assert result.joules_per_output_token == pytest.approx(0.5)


@given(powers, st.floats(0, 15), st.floats(0, 1))
def test_the_error_bound_holds_for_power_that_changes_between_samples(watts, shift, age):
    """Power changes every 15 s, samples fall ``shift`` s later and show values up to ``age`` of an interval old."""
    edges, joules = truth(watts, [15.0] * 40)
    extremes = [Sample(float(time), value) for time, value in ((100.0, min(watts)), (101.0, max(watts)))]
    times = np.array(grid(15 + shift, 570 + shift, 15))
    served = np.interp(times - 15 * age, edges, joules) + 1e6
    series = GpuEnergySeries("GPU-0", samples(times, served), power_samples=tuple(extremes), power_limit_watts=LIMIT)
    result = measure_window([series], [engine()], 1, options(end=580.0, window_seconds=500.0))
    true = float(np.interp(result.window_end, edges, joules) - np.interp(result.window_start, edges, joules))  # type: ignore[arg-type]
    assert abs(result.energy_joules - true) <= result.error_bound_joules + 1e-3


@given(powers, st.sampled_from([1e-3, 1e3]))
def test_a_thousandfold_unit_error_is_never_a_number(watts, factor):
    times, joules = truth(watts, [15.0] * 40)
    for limit in (LIMIT, None):
        series = GpuEnergySeries("GPU-0", samples(times, (joules + 1e6) * factor), power_limit_watts=limit)
        result = measure_window([series], [engine()], 1, options())
        assert result.reason == "Implausible"
        assert (result.energy_joules, result.power_watts, result.joules_per_output_token) == (None, None, None)


finite = st.floats(-1e4, 1e4)
any_samples = st.lists(st.builds(Sample, finite, st.floats(0, 1e12)), max_size=12).map(tuple)


@given(
    st.lists(st.builds(GpuEnergySeries, st.sampled_from("ab"), any_samples, power_samples=any_samples), max_size=3),
    st.lists(st.builds(TokenSeries, st.just("p"), st.just("n"), any_samples, any_samples, any_samples), max_size=2),
    st.integers(1, 3),
    finite,
    finite,
)
def test_any_series_give_a_reason_and_never_a_ratio_without_one(energy, tokens, gpus_owned, end, not_before):
    result = measure_window(energy, tokens, gpus_owned, options(end=end, not_before=not_before))
    assert result.message
    assert (result.joules_per_output_token is not None) == (result.reason == "Measured")
    if result.energy_joules is not None:
        assert result.energy_joules >= 0
        assert result.window_end > result.window_start
