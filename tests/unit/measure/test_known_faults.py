"""What is known to go wrong with GPU energy in clusters, one test each, from the exporter's page to the measurement.

Sources: NVIDIA/dcgm-exporter (default-counters.csv, issues 138, 150, 188, 342, 411, 417, 477, 529, 572), DCGM 4.6 field
identifiers, NVML's manual, arXiv 2312.02741. What concerns one parser alone is in its own test file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.unit.measure.builders import POD, FakeClock, engine, gpu, grid, options

from energylens.measure.collector import Collector
from energylens.measure.dcgm import METRICS, parse_dcgm
from energylens.measure.engine_metrics import parse_engine
from energylens.measure.engines import EngineScraper, EngineTarget
from energylens.measure.scrape import Page, TargetFailure
from energylens.measure.source import DcgmExporterSource
from energylens.measure.types import OwnedPods, PodRef, Sample, WindowMeasurement
from energylens.measure.window import measure_window

OURS = f'pod="{POD.pod}",namespace="{POD.namespace}"'
JOULES, MILLIJOULES = "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
Write = Callable[[float], str]
"""From the time to an exporter's page."""


def joules(time: float) -> float:
    """A counter at 500 W."""
    return 1e6 + 500 * time


def page(labels: str = OURS, *, name: str = JOULES, factor: float = 1.0, uuid: str = "A") -> Write:
    return lambda time: f'{name}{{UUID="{uuid}",{labels}}} {joules(time) * factor:.3f}\n'


class Cluster:
    """Exporters by URL and one engine of 100 tokens a second."""

    def __init__(self, *pages: Write) -> None:
        self.clock = FakeClock(10_000.0)
        self.pages = list(pages)
        self.collector = Collector(
            [DcgmExporterSource(self, lambda: [str(number) for number in range(len(self.pages))])],
            EngineScraper(self),
            self.clock,
        )

    async def fetch(self, url: str) -> Page | TargetFailure:
        now = self.clock.time
        if url == "engine":
            return Page(url, f"vllm:generation_tokens_total {100 * now}\nvllm:num_requests_running 4\n", now)
        return Page(url, self.pages[int(url)](now), now)

    async def run(self, seconds: float, every: float = 15.0) -> None:
        for _ in range(int(seconds / every)):
            self.clock.time += every
            await self.collector.collect([EngineTarget(POD, "engine")])

    def measure(self, gpus: int = 1, window: float = 300.0) -> WindowMeasurement:
        return self.collector.measurement(OwnedPods(POD.namespace, (POD.pod,), gpus), window)


@pytest.mark.parametrize(("name", "factor"), [(JOULES, 1.0), (MILLIJOULES, 1000.0)])
async def test_both_generations_of_names_give_the_same(name, factor):
    cluster = Cluster(page(name=name, factor=factor))
    await cluster.run(330)
    assert cluster.measure().joules_per_output_token == pytest.approx(5.0)


async def test_an_exporter_that_is_upgraded_within_the_window_goes_on_counting():
    """4.9 renames the counter and changes its unit; the value in joules does not jump."""
    cluster = Cluster(page(name=MILLIJOULES, factor=1000.0))
    await cluster.run(165)
    cluster.pages = [page()]
    await cluster.run(165)
    assert cluster.measure().joules_per_output_token == pytest.approx(5.0)


def test_the_unit_of_every_energy_name_is_in_the_name():
    factors = {name: factor for name, (quantity, factor) in METRICS.items() if quantity == "energy_joules"}
    assert factors == {JOULES: 1.0, MILLIJOULES: 1e-3}
    others = {factor for quantity, factor in METRICS.values() if quantity != "energy_joules"}
    assert others == {1.0}


@pytest.mark.parametrize(
    "name",
    ["DCGM_FI_DEV_ENERGY_CONSUMPTION", "DCGM_FI_DEV_MODULE_POWER_WATTS", "DCGM_FI_DEV_SYSIO_POWER_WATTS"],
)
def test_names_that_do_not_exist_or_hold_more_than_the_gpu_are_not_read(name):
    assert parse_dcgm(f'{name}{{UUID="A"}} 5\n', time=0, source="s").gpus == ()


async def test_a_wrong_unit_under_a_right_name_is_no_number():
    cluster = Cluster(page(factor=1000.0))
    await cluster.run(330)
    result = cluster.measure()
    assert (result.reason, result.joules_per_output_token, result.power_watts) == ("Implausible", None, None)


async def test_hostname_changes_case_and_becomes_localhost_and_no_gpu_changes():
    cluster = Cluster(page(OURS + ',Hostname="n1"'))
    await cluster.run(165)
    cluster.pages = [page(OURS + ',hostname="localhost"')]
    await cluster.run(165)
    assert cluster.measure().joules_per_output_token == pytest.approx(5.0)


async def test_a_scrape_without_pod_labels_changes_nothing():
    """The exporter serves it whenever it cannot reach the kubelet's socket."""
    cluster = Cluster(page())
    await cluster.run(150)
    cluster.pages = [page('gpu="0"')]
    await cluster.run(15)
    cluster.pages = [page()]
    await cluster.run(165)
    assert cluster.measure().joules_per_output_token == pytest.approx(5.0)


async def test_pod_labels_that_never_come_are_named():
    cluster = Cluster(page('gpu="0"'))
    await cluster.run(330)
    result = cluster.measure()
    assert (result.reason, result.energy_joules) == ("PodLabelsMissing", None)
    assert "DCGM_EXPORTER_KUBERNETES" in result.message


async def test_a_target_whose_clock_is_ahead_is_read_by_ours():
    """An exporter behind a proxy may stamp its lines; a time that has not come yet cannot be one of ours."""

    def write(time: float) -> str:
        # Power doubles where the window begins, so that a window of another clock would mix the two.
        value = joules(time) + 500 * max(0.0, time - 10_030)
        return f'{JOULES}{{UUID="A",{OURS}}} {value:.3f} {int((time + 40) * 1000)}\n'

    cluster = Cluster(write)
    await cluster.run(330)
    result = cluster.measure()
    assert (result.reason, result.window_end) == ("Measured", cluster.clock.time)
    assert result.joules_per_output_token == pytest.approx(10.0)


async def test_a_page_that_is_served_from_a_cache_is_stale():
    write = page()
    cluster = Cluster(lambda time: write(10_015.0).rstrip("\n") + " 10015000\n")
    await cluster.run(330)
    result = cluster.measure()
    assert (result.reason, result.energy_joules) == ("NoSeries", None)


async def test_a_counter_that_goes_down_and_comes_back_is_a_late_sample():
    write, late = page(), page()
    cluster = Cluster(write)
    await cluster.run(150)
    cluster.pages = [lambda time: late(time - 40)]
    await cluster.run(15)
    cluster.pages = [write]
    await cluster.run(165)
    assert cluster.measure().joules_per_output_token == pytest.approx(5.0)


async def test_a_counter_that_starts_again_is_a_driver_reload():
    cluster = Cluster(page())
    await cluster.run(150)
    start = cluster.clock.time
    cluster.pages = [lambda time: f'{JOULES}{{UUID="A",{OURS}}} {500 * (time - start - 5):.3f}\n']
    await cluster.run(180)
    result = cluster.measure()
    assert result.reason == "Measured"
    assert 5.0 * (1 - 15 / 300) < result.joules_per_output_token < 5.0
    assert result.energy_joules + result.error_bound_joules >= 300 * 500


@pytest.mark.parametrize("value", ["9223372036854775794", "9223372036854775792", "1.40737488355328e+14", "NaN", "-1"])
async def test_blanks_are_no_energy(value):
    cluster = Cluster(lambda time: f'{JOULES}{{UUID="A",{OURS}}} {value}\n')
    await cluster.run(330)
    result = cluster.measure()
    assert (result.reason, result.energy_joules) == ("NoSeries", None)
    assert "its counters file must list DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL" in result.message


async def test_a_blank_between_readings_costs_nothing():
    write = page()
    cluster = Cluster(lambda time: f'{JOULES}{{UUID="A",{OURS}}} 9.2e18\n' if int(time) % 60 == 0 else write(time))
    await cluster.run(330)
    assert cluster.measure().joules_per_output_token == pytest.approx(5.0, rel=0.01)


async def test_two_exporters_on_one_node_count_a_gpu_once():
    cluster = Cluster(page(), page())
    await cluster.run(330)
    result = cluster.measure()
    assert (result.reason, result.coverage_percent) == ("Measured", 100)
    assert result.joules_per_output_token == pytest.approx(5.0)


async def test_time_slicing_is_not_attributable():
    both = [page(), page(f'pod="stranger",namespace="{POD.namespace}"')]
    cluster = Cluster(lambda time: "".join(write(time) for write in both))
    await cluster.run(330)
    result = cluster.measure()
    assert (result.reason, result.energy_joules) == ("NotAttributable", None)
    assert "team/stranger" in result.message


async def test_a_mig_slice_is_not_attributable_while_others_hold_the_board():
    def write(time: float) -> str:
        slices = (OURS, f'pod="other",namespace="{POD.namespace}"')
        return "".join(
            f'{JOULES}{{UUID="A",GPU_I_ID="{number}",GPU_I_PROFILE="3g.40gb",{labels}}} {joules(time)}\n'
            for number, labels in enumerate(slices)
        )

    cluster = Cluster(write)
    await cluster.run(330)
    assert cluster.measure().reason == "NotAttributable"


async def test_a_pod_that_restarts_on_its_gpu_is_measured_from_its_readiness():
    """A group keeps pod names: the series goes on over the gap, in which no token was made."""
    cluster = Cluster(page())
    await cluster.run(330)
    ready = cluster.clock.time - 100
    result = cluster.collector.measurement(OwnedPods(POD.namespace, (POD.pod,), 1), 100.0, ready_since=ready)
    assert result.window_start >= ready


def test_the_window_begins_with_the_first_sample_of_a_new_series():
    """What was drawn between the allocation of the GPU and its first scrape is lost, not guessed."""
    late = gpu(times=grid(100, 600, 15))
    result = measure_window([late], [engine()], 1, options())
    assert result.window_start == 100
    assert result.energy_joules == pytest.approx(500 * 495)


@pytest.mark.parametrize("collect", [15.0, 30.0, 60.0])
def test_the_window_must_be_four_paces_of_the_counter_long(collect):
    series = gpu(times=grid(0, 600, collect))
    enough, short = (measure_window([series], [engine()], 1, options(window_seconds=n * collect)) for n in (4, 3))
    assert enough.reason == "Measured"
    assert short.reason == "Collecting"
    assert f"it must be {4 * collect:.0f} s or longer" in short.message


def test_an_idle_deployment_has_watts_and_no_ratio():
    idle = replace(engine(rate=0.0, running=lambda time: 0.0))
    result = measure_window([gpu(watts=120.0)], [idle], 1, options())
    assert (result.reason, result.joules_per_output_token) == ("TooFewTokens", None)
    assert (result.power_watts, result.idle_power_watts) == (pytest.approx(120), pytest.approx(120))


def test_the_gauge_and_the_counter_are_held_against_each_other():
    power = [Sample(time, 100.0) for time in grid(0, 600, 30)]
    result = measure_window([gpu(power=power)], [engine()], 1, options())
    assert (result.reason, result.energy_joules) == ("Implausible", None)
    assert "by the energy counter, but 100 W by the power gauge" in result.message


def test_power_between_samples_is_the_counters_and_never_the_gauges():
    """The sensor of A100 and H100 sees a quarter of the time: a gauge that missed a burst changes no joule."""
    power = [Sample(time, 250.0) for time in grid(0, 600, 30)]
    result = measure_window([gpu(power=power)], [engine()], 1, options())
    assert result.energy_joules == pytest.approx(300_000)


@pytest.mark.parametrize(
    ("text", "engine_name"),
    [
        ("vllm:iteration_tokens_total_sum 5\nvllm:generation_tokens_total 7\n", "vllm"),
        ('sglang:generation_tokens_total{is_streaming="true"} 3\n'
         'sglang:generation_tokens_total{is_streaming="false"} 4\n', "sglang"),
    ],
)  # fmt: skip
def test_output_tokens_are_generated_ones_alone(text, engine_name):
    seen = parse_engine(text, pod=PodRef("n", "p"), time=0)
    assert (seen.engine, seen.generation_tokens) == (engine_name, 7)
