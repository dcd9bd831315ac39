"""From scrapes to a measurement, and the reason whenever there is none."""

from __future__ import annotations

import pytest
from tests.unit.measure.builders import POD, FakeClock

from energylens.measure.collector import Collector
from energylens.measure.engines import EngineScraper, EngineTarget
from energylens.measure.scrape import Page, TargetFailure
from energylens.measure.source import DcgmExporterSource, SourceReading
from energylens.measure.types import OwnedPods, PodRef

DCGM = "http://exporter/metrics"
ENGINE = "http://llama-0/metrics"
LABELS = f',pod="{POD.pod}",namespace="{POD.namespace}"'


class FakePages:
    """Two GPUs at 500 W and one engine at 100 tokens per second; tests break it where they want."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.labels = LABELS
        self.unit = 1.0
        self.dead: set[str] = set()
        self.unlabelled = False

    async def fetch(self, url: str) -> Page | TargetFailure:
        if url in self.dead:
            return TargetFailure(url, "Timeout", "no answer within 5 s")
        now = self.clock.time
        if url == ENGINE:
            return Page(url, f"vllm:generation_tokens_total {100 * now}\nvllm:num_requests_running 4\n", now)
        labels = "" if self.unlabelled else self.labels
        lines = [
            f'DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL{{UUID="{uuid}"{labels}}} {(1e6 + 500 * now) * self.unit}\n'
            for uuid in ("A", "B")
        ]
        return Page(url, "".join(lines), now)


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock(10_000.0)
        self.pages = FakePages(self.clock)
        source = DcgmExporterSource(self.pages, lambda: [DCGM])
        self.collector = Collector([source], EngineScraper(self.pages), self.clock)

    async def run(self, seconds: float, every: float = 15.0):
        report = None
        for _ in range(int(seconds / every)):
            self.clock.time += every
            report = await self.collector.collect([EngineTarget(POD, ENGINE)])
        return report

    def measure(self, gpus_owned: int = 2, limit: float | None = None, **changes):
        owned = OwnedPods("team", ("llama-0",), gpus_owned, power_limit_watts=limit)
        return self.collector.measurement(owned, 300.0, **changes)


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_the_whole_way(rig):
    report = await rig.run(330)
    assert (report.gpus, report.engines, report.failures, report.rejected) == (2, 1, (), ())
    result = rig.measure()
    assert result.reason == "Measured"
    assert result.power_watts == pytest.approx(1000)
    assert result.joules_per_output_token == pytest.approx(10)
    assert result.window_end == rig.clock.time


async def test_before_enough_was_collected(rig):
    await rig.run(150)
    assert rig.measure().reason == "Collecting"


async def test_warm_up_begins_with_readiness(rig):
    await rig.run(330)
    ready = rig.clock.time - 400
    assert rig.measure(ready_since=ready, warmup_seconds=100).reason == "Measured"
    assert rig.measure(ready_since=ready, warmup_seconds=200).reason == "Collecting"


async def test_no_source():
    clock = FakeClock()
    collector = Collector([], EngineScraper(FakePages(clock)), clock)
    await collector.collect()
    assert collector.measurement(OwnedPods("team", ("llama-0",), 1), 300).reason == "NoSource"


async def test_an_exporter_that_never_answered(rig):
    rig.pages.dead = {DCGM}
    report = await rig.run(30)
    assert [failure.target for failure in report.failures] == [DCGM]
    result = rig.measure()
    assert result.reason == "SourceUnreachable"
    assert DCGM in result.message


async def test_an_exporter_that_died(rig):
    await rig.run(330)
    rig.pages.dead = {DCGM}
    await rig.run(60)
    assert rig.measure().reason == "Measured"
    await rig.run(120)
    result = rig.measure()
    assert (result.reason, result.energy_joules) == ("SourceUnreachable", None)
    assert "no answer within 5 s" in result.message


class PowerOnly(FakePages):
    """An exporter whose counters file lacks the energy."""

    async def fetch(self, url: str) -> Page | TargetFailure:
        page = await super().fetch(url)
        if url != DCGM or isinstance(page, TargetFailure):
            return page
        return Page(url, page.text.replace("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", "DCGM_FI_DEV_POWER_USAGE"), page.time)


@pytest.mark.parametrize("unlabelled", [False, True])
async def test_an_exporter_without_the_counter_is_named_with_what_it_lacks(rig, unlabelled):
    rig.pages = PowerOnly(rig.clock)
    rig.pages.unlabelled = unlabelled
    rig.collector = Collector([DcgmExporterSource(rig.pages, lambda: [DCGM])], EngineScraper(rig.pages), rig.clock)
    await rig.run(330)
    result = rig.measure()
    assert (result.reason, result.energy_joules) == ("NoSeries", None)
    assert f"{DCGM}: no energy counter" in result.message
    assert "counters file must list" in result.message


async def test_labels_missing_for_one_scrape(rig):
    await rig.run(150)
    rig.pages.unlabelled = True
    await rig.run(15)
    rig.pages.unlabelled = False
    await rig.run(150)
    assert rig.measure().joules_per_output_token == pytest.approx(10)


async def test_labels_missing_for_good(rig):
    await rig.run(330)
    rig.pages.unlabelled = True
    await rig.run(180)
    result = rig.measure()
    assert (result.reason, result.energy_joules) == ("PodLabelsMissing", None)


async def test_an_exporter_without_kubernetes_labels(rig):
    rig.pages.unlabelled = True
    await rig.run(330)
    result = rig.measure()
    assert result.reason == "PodLabelsMissing"
    assert "DCGM_EXPORTER_KUBERNETES" in result.message


async def test_gpus_of_others_only(rig):
    rig.pages.labels = ',pod="other",namespace="team"'
    await rig.run(330)
    assert rig.measure().reason == "NoSeries"


async def test_a_shared_gpu(rig):
    rig.pages.labels = LABELS
    await rig.run(330)
    rig.pages.labels = ',pod="other",namespace="team"'
    await rig.run(15)
    assert rig.measure().reason == "NoSeries"

    class Sharing(FakePages):
        async def fetch(self, url: str) -> Page | TargetFailure:
            page = await super().fetch(url)
            return page if url == ENGINE else Page(url, page.text + page.text.replace("llama-0", "other"), page.time)

    shared = Rig()
    pages = Sharing(shared.clock)
    shared.collector = Collector([DcgmExporterSource(pages, lambda: [DCGM])], EngineScraper(pages), shared.clock)
    await shared.run(330)
    result = shared.measure()
    assert (result.reason, result.energy_joules) == ("NotAttributable", None)
    assert "team/other" in result.message


async def test_a_thousandfold_unit_error(rig):
    rig.pages.unit = 1000.0
    await rig.run(330)
    assert rig.measure(limit=700.0).reason == "Implausible"


async def test_a_gpu_too_few(rig):
    await rig.run(330)
    result = rig.measure(gpus_owned=4)
    assert (result.reason, result.coverage_percent) == ("PartialCoverage", 50)


async def test_an_engine_that_does_not_answer(rig):
    rig.pages.dead = {ENGINE}
    await rig.run(330)
    result = rig.measure()
    assert (result.reason, result.power_watts) == ("TokensMissing", pytest.approx(1000))
    assert ENGINE in result.message


async def test_only_leaders_serve_metrics(rig):
    await rig.run(330)
    both = rig.collector.measurement(OwnedPods("team", ("llama-0", "llama-0-1"), 2, engines=("llama-0",)), 300)
    assert both.reason == "Measured"


async def test_many_failures_are_counted(rig):
    failures = tuple(TargetFailure(f"http://node-{index}/", "Timeout", "no answer") for index in range(5))

    class Broken:
        name = "broken"

        async def read(self) -> SourceReading:
            return SourceReading((), failures)

    collector = Collector([Broken()], EngineScraper(rig.pages), rig.clock)
    await collector.collect()
    result = collector.measurement(OwnedPods("team", ("llama-0",), 1), 300)
    assert "node-2" in result.message
    assert "node-3" not in result.message
    assert result.message.endswith("and 2 more")


def test_a_pod_reads_well():
    assert str(PodRef("team", "llama-0")) == "team/llama-0"
