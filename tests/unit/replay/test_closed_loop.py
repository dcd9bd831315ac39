"""The operator's own measuring on replayed pods: it must find the measured run, and under faults a reason."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import TestClient, TestServer
from tests.unit.measure.builders import FakeClock
from tests.unit.replay.objects import cluster, pod
from tests.unit.replay.test_runs import PLAN

from energylens.measure.collector import Collector
from energylens.measure.engines import EngineScraper, EngineTarget
from energylens.measure.scrape import HttpScraper, Page, TargetFailure
from energylens.measure.source import DcgmExporterSource
from energylens.measure.types import OwnedPods, PodRef
from energylens_dev.replay.faults import ExporterDeadError
from energylens_dev.replay.runs import Load, operating_point
from energylens_dev.replay.server import Options, Replay, application

POD = PodRef("team", "llama-0")
POINT = operating_point(PLAN, Load(concurrency=128))


class Loop:
    """The operator's collector on the exporter's text, without a network, on one fake clock."""

    def __init__(self, options: Options) -> None:
        self.clock = FakeClock(1000.0)
        self.replay = Replay(self.clock, options)
        self.replay.update(cluster(pod()))
        source = DcgmExporterSource(self, lambda: ["dcgm"])
        self.collector = Collector([source], EngineScraper(self), self.clock)

    async def fetch(self, url: str) -> Page | TargetFailure:
        try:
            text = self.replay.dcgm_text() if url == "dcgm" else self.replay.engine_text(POD)
        except ExporterDeadError:
            return TargetFailure(url, "HTTPStatus", "answered with status 503")
        return Page(url, text, self.clock.time)

    async def run(self, seconds: float, every: float = 15.0) -> None:
        for _ in range(int(seconds / every)):
            self.clock.time += every
            await self.collector.collect([EngineTarget(POD, "engine")])

    def measure(self):
        return self.collector.measurement(OwnedPods("team", ("llama-0",), 4), 600, percentile="P50")


@pytest.mark.parametrize("collect_seconds", [1.0, 30.0])
@pytest.mark.parametrize("generation", ["old", "new"])
@pytest.mark.parametrize("labels", ["plain", "exported", "pod-name"])
async def test_the_measured_run_is_found(generation, labels, collect_seconds):
    loop = Loop(Options(generation, labels, collect_seconds))
    await loop.run(700)
    result = loop.measure()
    assert result.reason == "Measured", result.message
    assert result.joules_per_output_token == pytest.approx(POINT.power_watts / POINT.output_tokens_per_second, rel=1e-3)
    assert result.power_watts == pytest.approx(POINT.power_watts, rel=1e-3)
    assert result.mean_running == pytest.approx(POINT.concurrency, rel=1e-3)
    rate = POINT.output_tokens_per_second / POINT.output_tokens
    assert result.requests_per_second == pytest.approx(rate, rel=1e-3)
    assert result.coverage_percent == 100
    assert result.latency.ttft_ms is None
    low, high = result.latency.itl_bucket_ms
    assert low <= POINT.itl_ms[0] <= high
    assert low <= result.latency.itl_ms <= high
    low, high = result.latency.tpot_bucket_ms
    assert low <= 1000 * POINT.concurrency / POINT.output_tokens_per_second <= high
    assert low <= result.latency.tpot_ms <= high
    assert result.prompt_tokens / result.requests == pytest.approx(POINT.input_tokens, rel=1e-3)
    for lengths, mean in ((result.prompt_lengths, POINT.input_tokens), (result.output_lengths, POINT.output_tokens)):
        low, high = lengths["P95"].bucket
        assert low <= mean <= high
        assert low <= lengths["P95"].tokens <= high


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("millijoules-as-joules", "Implausible"),
        ("joules-as-millijoules", "Implausible"),
        ("drop-labels", "PodLabelsMissing"),
        ("dead", "SourceUnreachable"),
        ("time-slicing", "NotAttributable"),
    ],
)
async def test_a_fault_from_the_start_ends_in_its_reason(fault, reason):
    loop = Loop(Options())
    loop.replay.set_faults([fault])
    await loop.run(700)
    result = loop.measure()
    assert (result.reason, result.energy_joules, result.joules_per_output_token) == (reason, None, None)


async def test_a_driver_reload_is_bridged():
    loop = Loop(Options())
    await loop.run(400)
    loop.replay.set_faults(["driver-reload"])
    await loop.run(300)
    result = loop.measure()
    assert result.reason == "Measured"
    true = POINT.power_watts / POINT.output_tokens_per_second
    assert true * (1 - 20 / 600) < result.joules_per_output_token < true
    assert result.energy_joules + result.error_bound_joules > 590 * POINT.power_watts


async def test_labels_lost_for_a_moment_cost_nothing():
    loop = Loop(Options())
    await loop.run(400)
    loop.replay.set_faults(["drop-labels"])
    await loop.run(45)
    loop.replay.set_faults([])
    await loop.run(300)
    result = loop.measure()
    assert result.joules_per_output_token == pytest.approx(POINT.power_watts / POINT.output_tokens_per_second, rel=1e-3)


async def test_an_exporter_that_dies_and_comes_back_costs_nothing():
    loop = Loop(Options())
    await loop.run(300)
    loop.replay.set_faults(["dead"])
    await loop.run(180)
    assert loop.measure().reason == "SourceUnreachable"
    loop.replay.set_faults([])
    await loop.run(300)
    result = loop.measure()
    assert result.joules_per_output_token == pytest.approx(POINT.power_watts / POINT.output_tokens_per_second, rel=1e-3)


async def test_faster_time_keeps_the_ratio_and_watts_are_refused():
    loop = Loop(Options(speed=60.0))
    await loop.run(700)
    assert loop.measure().reason == "Implausible"


async def test_over_http():
    clock = FakeClock(1000.0)
    replay = Replay(clock)
    async with TestClient(TestServer(application(replay, lambda: cluster(pod())))) as client:
        clock.time += 5
        async with HttpScraper(clock) as http:
            source = DcgmExporterSource(http, lambda: [str(client.make_url("/dcgm/metrics"))])
            reading = await source.read()
            assert (len(reading.observations), reading.failures) == (8, ())
            targets = [
                EngineTarget(POD, str(client.make_url(f"/pods/team/{name}/metrics"))) for name in ("llama-0", "x")
            ]
            observed, failures = await EngineScraper(http).read(targets)
            assert observed[0].generation_tokens == pytest.approx(5 * POINT.output_tokens_per_second, rel=1e-4)
            assert [failure.message for failure in failures] == ["answered with status 404"]
        assignments = await (await client.get("/assignments")).json()
        assert assignments["pods"]["team/llama-0"]["run_ids"] == list(POINT.run_ids)
        assert (await client.put("/faults", json=["dead"])).status == 200
        assert (await client.get("/dcgm/metrics")).status == 503
        refused = await client.put("/faults", json=["flood"])
        assert refused.status == 400
        assert "drop-labels" in await refused.text()
        assert (await client.put("/faults", data=b"not json")).status == 400
        assert (await client.put("/faults", json=[])).status == 200
        assert (await client.get("/dcgm/metrics")).status == 200
