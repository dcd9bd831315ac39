"""What must hold of a whole measurement, for recorded counters and for generated ones that are broken on the way."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.unit.measure.builders import engine, grid, options

from energylens.measure.history import History
from energylens.measure.prometheus import LabelMap, observations, series_of
from energylens.measure.types import GpuEnergySeries, PodRef, Sample, TokenSeries, WindowMeasurement
from energylens.measure.window import CEILING_MARGIN, measure_window

LIMIT = 700.0
STEP = 15.0
TIMES = np.array(grid(0, 600, STEP))
watts = st.lists(st.floats(50.0, LIMIT), min_size=len(TIMES) - 1, max_size=len(TIMES) - 1)
rates = st.lists(st.floats(10.0, 3000.0), min_size=len(TIMES) - 1, max_size=len(TIMES) - 1)


def counter(per_second: list[float], base: float = 1e6) -> np.ndarray:
    return base + np.concatenate([[0.0], np.cumsum(np.array(per_second) * STEP)])


def samples(times: np.ndarray, values: np.ndarray) -> tuple[Sample, ...]:
    return tuple(Sample(float(time), float(value)) for time, value in zip(times, values, strict=True))


def gpu(power: list[float], uuid: str = "GPU-0", **changes: Any) -> GpuEnergySeries:
    return GpuEnergySeries(uuid, samples(TIMES, counter(power)), power_limit_watts=LIMIT, **changes)


def tokens(rate: list[float]) -> TokenSeries:
    return replace(engine(), generation_tokens=samples(TIMES, counter(rate, 500.0)))


def numbers(found: WindowMeasurement) -> tuple[float | None, ...]:
    return found.energy_joules, found.power_watts, found.joules_per_output_token


@settings(max_examples=30)
@given(watts, rates)
def test_the_ratio_is_energy_over_tokens_of_the_same_span(power, rate):
    found = measure_window([gpu(power)], [tokens(rate)], 1, options())
    assert found.reason == "Measured"
    assert found.joules_per_output_token == pytest.approx(sum(power) / sum(rate), rel=1e-6)
    assert found.power_watts == pytest.approx(np.mean(power), rel=1e-6)
    assert found.output_tokens_per_second == pytest.approx(np.mean(rate), rel=1e-6)


@settings(max_examples=30)
@given(watts, rates, st.integers(1, 39), st.floats(0, 1))
def test_a_driver_reload_and_an_engine_restart_cost_at_most_their_interval(power, rate, at, share):
    """Both counters restart from zero within one interval; what is lost is in the error bound."""
    joules, made = counter(power, 1e9), counter(rate, 1e7)
    lost_joules, lost_tokens = power[at - 1] * STEP * share, rate[at - 1] * STEP * share
    joules[at:] -= joules[at - 1] + lost_joules
    made[at:] -= made[at - 1] + lost_tokens
    series = replace(gpu(power), samples=samples(TIMES, joules))
    serving = replace(engine(), generation_tokens=samples(TIMES, made))
    found = measure_window([series], [serving], 1, options(min_output_tokens=1.0))
    assert found.reason == "Measured"
    assert found.energy_joules == pytest.approx(sum(power) * STEP - lost_joules, rel=1e-6, abs=1e-3)
    assert sum(power) * STEP - found.energy_joules <= found.error_bound_joules + 1e-3
    assert found.output_tokens == pytest.approx(sum(rate) * STEP - lost_tokens, rel=1e-6)


@settings(max_examples=30)
@given(st.floats(50.0, LIMIT), st.floats(10.0, 3000.0), st.floats(-60.0, 60.0))
def test_targets_that_are_read_at_other_instants_meet_on_what_they_share(power, rate, skew):
    serving = replace(
        engine(), generation_tokens=samples(TIMES + skew, 500 + rate * (TIMES + skew)), running=(), waiting=()
    )
    found = measure_window([gpu([power] * 40)], [serving], 1, options())
    assert found.reason == "Measured"
    assert found.joules_per_output_token == pytest.approx(power / rate, rel=1e-6)
    assert found.window_end - found.window_start == pytest.approx(600 - abs(skew), abs=STEP)


@settings(max_examples=30)
@given(watts, rates, st.integers(2, 4), st.floats(0.1, 14.0))
def test_copies_of_an_exporter_or_a_prometheus_change_nothing(power, rate, copies, shift):
    """Every copy is scraped at instants of its own and sees the same counter."""

    def copy(number: int) -> GpuEnergySeries:
        times = TIMES[:-1] + shift * number / copies
        return replace(gpu(power), samples=samples(times, np.interp(times, TIMES, counter(power))))

    one = measure_window([gpu(power)], [tokens(rate)], 1, options())
    many = measure_window([gpu(power), *map(copy, range(copies))], [tokens(rate)], 1, options())
    assert numbers(many) == pytest.approx(numbers(one), rel=1e-6)
    assert many.coverage_percent == 100


@settings(max_examples=30)
@given(watts, rates, st.integers(1, 36))
def test_counters_that_stop_are_never_stretched(power, rate, last):
    """After its last sample a GPU's energy is unknown: nothing is extrapolated, and soon nothing is given."""
    series = replace(gpu(power), samples=gpu(power).samples[: last + 1])
    found = measure_window([series], [tokens(rate)], 1, options())
    if found.energy_joules is not None:
        assert found.window_end <= TIMES[last]
        assert found.energy_joules <= sum(power[:last]) * STEP + 1e-3
    if TIMES[last] < 600 - 120:
        assert (found.reason, *numbers(found)) == ("NoSeries", None, None, None)


@settings(max_examples=30)
@given(watts, rates, st.floats(CEILING_MARGIN * 1.2, 50.0))
def test_energy_above_the_limit_is_refused(power, rate, factor):
    hot = [factor * LIMIT] * 40
    found = measure_window([gpu(power), gpu(hot, "GPU-1")], [tokens(rate)], 2, options())
    assert (found.reason, *numbers(found)) == ("Implausible", None, None, None)
    assert "GPU-1" in found.message
    assert "power limit" in found.message


@settings(max_examples=30)
@given(watts, st.integers(0, 300), st.floats(1.0, 300.0))
def test_the_ratio_is_withheld_below_the_floor_and_only_there(power, made, floor):
    rate = [made / 600] * 40
    found = measure_window([gpu(power)], [tokens(rate)], 1, options(min_output_tokens=floor))
    assume(abs(made - floor) > 1e-3)
    assert found.energy_joules == pytest.approx(sum(power) * STEP, rel=1e-6)
    assert (found.joules_per_output_token is None) == (made < floor)
    assert found.reason == ("TooFewTokens" if made < floor else "Measured")


@settings(max_examples=30)
@given(watts, rates, st.integers(2, 8), st.data())
def test_a_gpu_without_samples_withholds_all_energy(power, rate, owned, data):
    seen = data.draw(st.integers(1, owned))
    series = [gpu(power, f"GPU-{index}") for index in range(seen)]
    found = measure_window(series, [tokens(rate)], owned, options())
    assert found.coverage_percent == pytest.approx(100 * seen / owned)
    assert (found.joules_per_output_token is None) == (seen < owned)
    assert found.reason == ("PartialCoverage" if seen < owned else "Measured")


@settings(max_examples=30)
def known(figure: float | None) -> float:
    assert figure is not None
    return figure


@given(watts, rates)
def test_any_partition_of_a_window_adds_up(power, rate):
    whole = measure_window([gpu(power)], [tokens(rate)], 1, options())
    ends = (150.0, 300.0, 450.0, 600.0)
    parts = [
        measure_window([gpu(power)], [tokens(rate)], 1, options(end=end, window_seconds=150.0, min_output_tokens=1.0))
        for end in ends
    ]
    assert all(before.window_end == after.window_start for before, after in itertools.pairwise(parts))
    assert sum(known(part.energy_joules) for part in parts) == pytest.approx(whole.energy_joules, rel=1e-6)
    assert sum(known(part.output_tokens) for part in parts) == pytest.approx(whole.output_tokens, rel=1e-6)


RECORDED = Path(__file__).parent / "recorded" / "prometheus-range.json"
"""What Prometheus 3.13 answered to the source's selector: five GPUs that the replay exporter served for two pods, each
third second of 200 s, in which the exporter was dead for 41 s."""


def recorded() -> tuple[dict[str, list[GpuEnergySeries]], float, float]:
    """Return the series by pod, and the first and the last time."""
    series = series_of(json.loads(RECORDED.read_text()))
    history = History()
    history.record_gpus(observations(series, LabelMap(), 0.0, "prometheus").observations)
    pods = {PodRef("chat", each.labels["exported_pod"]) for each in series}
    found = {pod.pod: list(history.gpus_of([pod], since=0).series) for pod in pods}
    times = [sample.time for each in found.values() for one in each for sample in one.samples]
    return found, min(times), max(times)


def fed(start: float, end: float, rate: float) -> TokenSeries:
    times = np.array([start, end])
    return replace(engine(), generation_tokens=samples(times, rate * (times - start)), running=(), waiting=())


@settings(max_examples=50)
@given(st.floats(30.0, 190.0), st.floats(0.0, 1.0), st.floats(10.0, 3000.0))
def test_any_window_of_the_recording_gives_its_watts_or_a_reason(length, place, rate):
    """The 70B ran on four H100, the 8B on one: before, within and after the outage."""
    by_pod, first, last = recorded()
    end = first + length + place * (last - first - length)
    for pod, watts in (("llama-70b", 2002.3), ("llama-8b", 610.5)):
        (series,) = (found for name, found in by_pod.items() if name.startswith(pod))
        found = measure_window(
            series,
            [fed(first, last, rate)],
            len(series),
            options(end=end, window_seconds=length, min_output_tokens=1.0),
        )
        if found.energy_joules is None:
            assert found.reason in ("Collecting", "NoSeries", "PartialCoverage")
            continue
        assert found.power_watts == pytest.approx(watts, rel=0.01)
        if found.reason == "Measured":
            assert found.joules_per_output_token == pytest.approx(watts / rate, rel=0.01)
