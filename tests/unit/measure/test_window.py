"""Each known way that energy per token goes wrong, as an example."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.unit.measure.builders import engine, gpu, grid, options

from energylens.measure.counters import energy_track
from energylens.measure.types import Histogram, HistogramSample, Sample, TokenSeries
from energylens.measure.window import measure_window


def test_a_steady_deployment():
    gpus = [gpu(f"GPU-{index}", 500.0) for index in range(4)]
    result = measure_window(gpus, [engine(rate=1000.0)], 4, options())
    assert result.reason == "Measured"
    assert (result.window_start, result.window_end, result.coverage_percent) == (0.0, 600.0, 100.0)
    assert result.energy_joules == pytest.approx(4 * 500 * 600)
    assert result.power_watts == pytest.approx(2000)
    assert result.output_tokens == pytest.approx(600_000)
    assert result.output_tokens_per_second == pytest.approx(1000)
    assert result.joules_per_output_token == pytest.approx(2.0)
    assert result.error_bound_joules == pytest.approx(0, abs=1e-3)
    assert result.mean_running == 8
    assert result.idle_power_watts is None
    assert result.prompt_tokens is None


def test_replicas_add_up():
    tokens = [engine("a", 300.0), engine("b", 200.0)]
    result = measure_window([gpu("A"), gpu("B")], tokens, 2, options(engines_expected=2))
    assert result.joules_per_output_token == pytest.approx(1000 / 500)
    assert result.mean_running == 16


@pytest.mark.parametrize("gpus_owned", [0, -1])
def test_gpus_owned_is_checked(gpus_owned):
    with pytest.raises(ValueError, match="gpus_owned"):
        measure_window([gpu()], [engine()], gpus_owned, options())


def test_window_seconds_is_checked():
    with pytest.raises(ValueError, match="window_seconds"):
        measure_window([gpu()], [engine()], 1, options(window_seconds=0))


class TestSampling:
    def test_a_collect_interval_longer_than_the_scrapes_repeats_values(self):
        held = gpu(energy=lambda time: 1e6 + 500 * 30 * math.floor(time / 30))
        result = measure_window([held], [engine()], 1, options())
        assert result.power_watts == pytest.approx(500)

    def test_one_sample_says_nothing(self):
        result = measure_window([gpu(times=[590])], [engine()], 1, options())
        assert (result.reason, result.energy_joules, result.joules_per_output_token) == ("Collecting", None, None)

    def test_a_new_series_counts_from_its_first_sample_and_is_not_extrapolated(self):
        late = gpu(times=grid(60, 600, 15))
        result = measure_window([late], [engine()], 1, options())
        assert (result.window_start, result.energy_joules) == (60, pytest.approx(500 * 540))
        assert result.joules_per_output_token == pytest.approx(0.5)

    def test_a_window_of_less_than_four_intervals_is_refused(self):
        result = measure_window([gpu(times=grid(0, 600, 30))], [engine()], 1, options(window_seconds=110))
        assert result.reason == "Collecting"
        assert "every 30 s" in result.message
        assert "120 s or longer" in result.message

    def test_four_intervals_are_enough_wherever_they_fall(self):
        for shift in range(0, 30, 5):
            times = grid(-30 + shift, 600, 30)
            result = measure_window([gpu(times=times)], [engine()], 1, options(window_seconds=120))
            assert result.reason == "Measured", shift

    def test_energy_and_tokens_of_different_instants_meet_on_what_they_share(self):
        result = measure_window([gpu(times=grid(3, 590, 15))], [engine(times=grid(11, 596, 15))], 1, options())
        assert (result.window_start, result.window_end) == (11, 588)
        assert result.joules_per_output_token == pytest.approx(0.5)
        assert result.energy_joules == pytest.approx(500 * 577)

    def test_a_gap_in_the_middle_loses_nothing(self):
        result = measure_window([gpu(times=grid(0, 150, 15) + grid(405, 600, 15))], [engine()], 1, options())
        assert result.energy_joules == pytest.approx(300_000)

    def test_counters_that_stopped_are_stale(self):
        result = measure_window([gpu(times=grid(0, 450, 15))], [engine()], 1, options())
        assert (result.reason, result.energy_joules) == ("NoSeries", None)
        assert "150 s ago" in result.message

    def test_a_frozen_counter_is_stale_although_it_is_served(self):
        frozen = gpu(energy=lambda time: 1e6 + 500 * min(time, 300))
        assert measure_window([frozen], [engine()], 1, options()).reason == "NoSeries"


class TestErrorBound:
    def test_it_covers_values_as_old_as_one_collect_interval(self):
        """Power falls from 700 to 50 W as the window begins, and every value shown is 15 s old."""
        energy = gpu(energy=lambda time: 1e6 + 700 * min(time - 15, 100) + 50 * max(0.0, time - 15 - 100))
        result = measure_window([energy], [engine()], 1, options(not_before=100, min_overlap=0.5))
        error = result.energy_joules - 50 * 500
        assert error == pytest.approx(650 * 15)
        assert error <= result.error_bound_joules <= 3 * error


class TestResets:
    def test_a_driver_reload_counts_from_zero(self):
        reloaded = gpu(energy=lambda time: 1e6 + 500 * time if time < 300 else 500 * (time - 290))
        result = measure_window([reloaded], [engine()], 1, options())
        assert result.reason == "Measured"
        assert result.energy_joules == pytest.approx(300_000 - 500 * 5)
        assert result.error_bound_joules >= 500 * 5

    def test_a_second_exporter_that_lags_is_no_reset(self):
        lagging = gpu(energy=lambda time: 1e6 + 500 * time - (7000 if time % 90 == 45 else 0))
        result = measure_window([lagging], [engine()], 1, options())
        assert result.energy_joules == pytest.approx(300_000)

    def test_a_counter_that_falls_for_good_goes_on_from_there(self):
        shifted = gpu(energy=lambda time: 1e6 + 500 * time - (400_000 if time >= 300 else 0))
        result = measure_window([shifted], [engine()], 1, options())
        assert result.energy_joules == pytest.approx(300_000 - 500 * 15)
        track = energy_track(shifted.samples, ceiling_watts=700)
        assert track.lost_between(0, 600) == 700 * 15
        assert result.error_bound_joules >= 700 * 15 + 2 * 15 * 500

    def test_an_engine_that_restarted_on_the_same_gpu_counts_its_tokens_from_zero(self):
        tokens = engine(tokens=lambda time: 1000 * time if time < 300 else 1000 * (time - 300))
        result = measure_window([gpu()], [tokens], 1, options())
        assert result.output_tokens == pytest.approx(600_000, rel=0.03)
        assert result.energy_joules == pytest.approx(300_000)


class TestPlausibility:
    @pytest.mark.parametrize("limit", [700.0, None])
    def test_millijoules_read_as_joules(self, limit):
        result = measure_window([gpu(watts=500_000, limit=limit)], [engine()], 1, options())
        assert (result.reason, result.energy_joules, result.joules_per_output_token) == ("Implausible", None, None)
        assert "GPU-0" in result.message
        assert "unit" in result.message

    def test_joules_read_as_millijoules(self):
        result = measure_window([gpu(watts=0.7)], [engine()], 1, options())
        assert (result.reason, result.power_watts) == ("Implausible", None)

    def test_the_gauge_contradicts_the_counter(self):
        power = [Sample(time, 60.0) for time in grid(0, 600, 15)]
        result = measure_window([gpu(watts=600, power=power)], [engine()], 1, options())
        assert result.reason == "Implausible"
        assert "power gauge" in result.message

    def test_a_gauge_that_misses_bursts_does_not(self):
        power = [Sample(time, 350.0) for time in grid(0, 600, 15)]
        assert measure_window([gpu(watts=600, power=power)], [engine()], 1, options()).reason == "Measured"

    def test_few_gauge_samples_prove_nothing(self):
        power = [Sample(time, 60.0) for time in (0, 300, 600)]
        assert measure_window([gpu(watts=600, power=power)], [engine()], 1, options()).reason == "Measured"

    def test_the_limit_of_the_option_holds_where_the_exporter_has_none(self):
        result = measure_window([gpu(watts=800, limit=None)], [engine()], 1, options(power_limit_watts=350.0))
        assert result.reason == "Implausible"

    def test_one_bad_gpu_spoils_the_sum(self):
        result = measure_window([gpu("A"), gpu("B", 500_000)], [engine()], 2, options())
        assert result.reason == "Implausible"
        assert "GPU A" not in result.message


class TestCoverage:
    def test_a_missing_gpu_is_never_zero(self):
        result = measure_window([gpu("A"), gpu("B"), gpu("C")], [engine()], 4, options())
        assert (result.reason, result.coverage_percent) == ("PartialCoverage", 75.0)
        assert (result.energy_joules, result.power_watts, result.joules_per_output_token) == (None, None, None)
        assert "3 of 4" in result.message

    def test_a_gpu_with_half_a_window_is_missing(self):
        result = measure_window([gpu("A"), gpu("B", times=grid(300, 600, 15))], [engine()], 2, options())
        assert (result.reason, result.coverage_percent) == ("PartialCoverage", 50.0)

    def test_no_gpu(self):
        result = measure_window([], [engine()], 2, options())
        assert (result.reason, result.coverage_percent) == ("NoSeries", 0.0)

    def test_more_gpus_than_owned(self):
        result = measure_window([gpu("A"), gpu("B")], [engine()], 1, options())
        assert (result.reason, result.energy_joules) == ("NotAttributable", None)

    def test_a_uuid_counts_once(self):
        result = measure_window([gpu("A"), gpu("A")], [engine()], 1, options())
        assert result.energy_joules == pytest.approx(300_000)


class TestTokens:
    def test_an_engine_without_counters(self):
        result = measure_window([gpu()], [engine("a")], 1, options(engines_expected=2))
        assert (result.reason, result.joules_per_output_token) == ("TokensMissing", None)
        assert result.power_watts == pytest.approx(500)

    def test_an_engine_that_stopped_answering(self):
        result = measure_window([gpu()], [engine(times=grid(0, 400, 15))], 1, options())
        assert (result.reason, result.output_tokens) == ("TokensMissing", None)

    def test_an_engine_that_just_appeared(self):
        result = measure_window([gpu()], [engine(times=grid(400, 600, 15))], 1, options())
        assert (result.reason, result.joules_per_output_token) == ("Collecting", None)
        assert result.power_watts == pytest.approx(500)

    def test_an_idle_deployment_has_watts_but_no_ratio(self):
        idle = engine(tokens=lambda time: 5.0, running=lambda time: 0.0)
        result = measure_window([gpu(watts=120)], [idle], 1, options())
        assert (result.reason, result.joules_per_output_token) == ("TooFewTokens", None)
        assert (result.output_tokens, result.output_tokens_per_second) == (0, 0)
        assert result.power_watts == pytest.approx(120)
        assert result.idle_power_watts == pytest.approx(120)

    def test_the_floor_is_a_choice(self):
        few = engine(tokens=lambda time: 0.05 * time)
        assert measure_window([gpu()], [few], 1, options()).reason == "TooFewTokens"
        assert measure_window([gpu()], [few], 1, options(min_output_tokens=30)).reason == "Measured"


class TestIdlePower:
    @staticmethod
    def busy_until(moment: float):
        return gpu(energy=lambda time: 1e6 + 600 * min(time, moment) + 110 * max(0.0, time - moment))

    def test_only_idle_moments_count(self):
        tokens = engine(tokens=lambda time: 1000 * min(time, 300), running=lambda time: 8.0 if time < 300 else 0.0)
        result = measure_window([self.busy_until(300)], [tokens], 1, options())
        assert result.idle_power_watts == pytest.approx(110)
        assert result.power_watts == pytest.approx((600 + 110) / 2)

    def test_no_joule_of_a_busy_moment_enters_where_energy_and_tokens_are_out_of_step(self):
        tokens = engine(
            times=grid(0, 600, 5),
            tokens=lambda time: 1000 * min(time, 300),
            running=lambda time: 8.0 if time < 300 else 0.0,
        )
        energy = gpu(
            times=grid(-8, 592, 15), energy=lambda time: 1e6 + 600 * min(time, 300) + 110 * max(0.0, time - 300)
        )
        result = measure_window([energy], [tokens], 1, options())
        assert result.idle_power_watts == pytest.approx(110)

    def test_a_span_too_short_to_separate_is_none(self):
        tokens = engine(running=lambda time: 0.0 if 300 <= time <= 315 else 8.0)
        assert measure_window([gpu()], [tokens], 1, options()).idle_power_watts is None

    def test_one_busy_replica_is_not_idle(self):
        idle = engine("a", tokens=lambda time: 0.0, running=lambda time: 0.0)
        result = measure_window([gpu()], [idle, engine("b")], 1, options(engines_expected=2))
        assert result.idle_power_watts is None

    def test_an_engine_without_a_running_gauge_says_nothing(self):
        result = measure_window([gpu()], [replace(engine(rate=1000), running=())], 1, options())
        assert (result.idle_power_watts, result.mean_running) == (None, None)


class TestWarmUp:
    def test_the_window_begins_after_it(self):
        result = measure_window([gpu()], [engine()], 1, options(not_before=90))
        assert (result.reason, result.window_start) == ("Measured", 90)

    def test_it_is_waited_for(self):
        assert measure_window([gpu()], [engine()], 1, options(not_before=400)).reason == "Collecting"
        assert measure_window([gpu()], [engine()], 1, options(not_before=700)).reason == "Collecting"


def test_latencies_come_from_the_window_alone():
    bounds = (0.02, 0.03, math.inf)
    series = replace(
        engine(),
        itl=(
            HistogramSample(-600, Histogram(bounds, (0, 0, 0))),
            HistogramSample(0, Histogram(bounds, (0, 0, 1000))),
            HistogramSample(600, Histogram(bounds, (0, 1000, 2000))),
        ),
        tpot=(
            HistogramSample(0, Histogram(bounds, (50, 50, 50))),
            HistogramSample(600, Histogram(bounds, (50, 54, 54))),
        ),
    )
    result = measure_window([gpu()], [series], 1, options(percentile="P50"))
    assert (result.latency.tpot_ms, result.latency.tpot_bucket_ms) == (pytest.approx(25), pytest.approx((20, 30)))
    assert result.latency.itl_ms == pytest.approx(25)
    assert result.latency.ttft_ms is None
    assert result.latency == result.latency_by_percentile["P50"]
    assert result.latency_by_percentile["P99"].itl_ms == pytest.approx(29.9)
    assert result.latency.itl_bucket_ms == pytest.approx((20, 30))


def counter(rate, times=(-600, 0, 600)):
    return tuple(Sample(time, rate * (time + 600)) for time in times)


def test_drafts_are_measured_by_counters_or_by_gauges():
    counted = replace(
        engine(),
        draft_rounds=counter(10.0),
        drafted_tokens=counter(30.0),
        accepted_tokens=counter(18.0),
        prompt_tokens=counter(100.0),
        cached_prompt_tokens=counter(25.0),
    )
    result = measure_window([gpu()], [counted], 1, options())
    assert (result.draft_tokens, result.acceptance) == (pytest.approx(3), pytest.approx(0.6))
    assert result.prefix_cache_hits == pytest.approx(0.25)
    gauges = replace(
        engine(),
        accept_length=(Sample(0, 2.0), Sample(300, 3.0), Sample(600, 9.0)),
        accept_rate=(Sample(0, 0.4), Sample(300, 0.6), Sample(600, 0.9)),
    )
    result = measure_window([gpu()], [gauges], 1, options())
    assert (result.draft_tokens, result.acceptance) == (pytest.approx(1.5 / 0.5), pytest.approx(0.5))
    assert result.prefix_cache_hits is None


def test_the_mean_of_a_median_itl_is_that_of_steps_where_tokens_come_together():
    """So vLLM observes them: 30 sequences at 1,000 tokens/s are 30 ms a token, and 60 ms a step of two tokens."""
    bounds = (0.025, 0.05, 0.075, math.inf)
    itl = tuple(HistogramSample(time, Histogram(bounds, (0.0, 0.0, time, time))) for time in (0.0, 300.0, 600.0))
    series = replace(engine(rate=1000, running=lambda time: 30.0), itl=itl)
    drafts = {"draft_rounds": counter(10.0), "drafted_tokens": counter(20.0), "accepted_tokens": counter(10.0)}
    plain = measure_window([gpu()], [series], 1, options(percentile="P50"))
    drafted = measure_window([gpu()], [replace(series, **drafts)], 1, options(percentile="P50"))
    assert plain.latency.itl_ms == pytest.approx(62.5)
    assert drafted.latency.itl_ms == pytest.approx(60.0)


@pytest.mark.parametrize("second", [engine(), replace(engine(), draft_rounds=counter(10.0))])
def test_drafts_that_not_every_engine_counts_are_not_measured(second):
    first = replace(engine(), draft_rounds=counter(10.0), drafted_tokens=counter(30.0), accepted_tokens=counter(18.0))
    for tokens in ([first, replace(second, pod="other")], [engine()]):
        result = measure_window([gpu()], tokens, 1, options(engines_expected=len(tokens)))
        assert (result.draft_tokens, result.acceptance) == (None, None)
        assert result.reason == "Measured"


def test_prompt_tokens_are_kept_beside():
    series = replace(engine(), prompt_tokens=tuple(Sample(time, 300 * time) for time in grid(0, 600, 15)))
    assert measure_window([gpu()], [series], 1, options()).prompt_tokens == pytest.approx(180_000)


def load(pod: str, *, first: float = 0.0) -> TokenSeries:
    """An engine with 2 requests a second of 300 prompt and 100 output tokens, from ``first`` on."""
    times = grid(first, 600, 15)

    def counter(rate: float) -> tuple[Sample, ...]:
        return tuple(Sample(time, 7 + rate * time) for time in times)

    waiting = tuple(Sample(time, 2.0 if time < 300 else 4.0) for time in times)
    usage = tuple(Sample(time, 0.5 if time == 150 else 0.25) for time in times)
    return replace(
        engine(pod, rate=200),
        requests=counter(2),
        prompt_tokens=counter(600),
        cached_prompt_tokens=counter(150),
        waiting=waiting,
        kv_cache_usage=usage,
    )


def test_the_load_is_measured_beside_the_energy():
    result = measure_window([gpu()], [load("a"), load("b")], 1, options(engines_expected=2))
    assert result.requests == pytest.approx(2400)
    assert result.requests_per_second == pytest.approx(4)
    assert (result.prompt_tokens, result.cached_prompt_tokens) == (pytest.approx(720_000), pytest.approx(180_000))
    assert (result.mean_running, result.mean_waiting) == (16, pytest.approx(6))
    assert result.kv_cache_usage == 0.5


def test_a_load_that_one_engine_does_not_report_is_absent():
    without = replace(load("b"), requests=(), prompt_tokens=(), waiting=())
    result = measure_window([gpu()], [load("a"), without], 1, options(engines_expected=2))
    assert result.reason == "Measured"
    assert (result.requests, result.requests_per_second, result.prompt_tokens, result.mean_waiting) == (None,) * 4


def test_a_load_counter_that_began_within_the_window_is_absent():
    result = measure_window([gpu()], [load("a", first=300)], 1, options())
    assert result.reason == "Measured"
    assert (result.requests, result.prompt_tokens) == (None, None)


@pytest.mark.parametrize(("running", "median"), [(6.0, 30.0), (9.6, 48.0), (2.0, 37.5), (20.0, 37.5)])
def test_the_median_itl_is_the_mean_where_the_bucket_allows_it(running, median):
    """All latencies lie in the bucket from 25 to 50 ms; 200 tokens a second are made."""
    bounds, times = (0.025, 0.05, math.inf), grid(0, 600, 15)
    itl = tuple(HistogramSample(time, Histogram(bounds, (0.0, 200 * time, 200 * time))) for time in times)
    series = replace(engine(rate=200, running=lambda time: running), itl=itl)
    result = measure_window([gpu()], [series], 1, options(percentile="P50"))
    expected = median if median < 47.5 else 37.5
    assert result.latency.itl_ms == pytest.approx(expected)
    assert result.latency.itl_bucket_ms == (25.0, 50.0)
