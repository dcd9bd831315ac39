"""Raw samples out of a range query: put together by GPU and scrape, whatever their labels do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.unit.measure.builders import POD, FakeClock, engine_seen, grid

from energylens.measure.collector import Collector
from energylens.measure.engines import EngineTarget
from energylens.measure.history import History
from energylens.measure.prometheus import LabelMap, PrometheusSource, Series, clock_offset, observations
from energylens.measure.prometheus_http import PrometheusError, QueryData
from energylens.measure.scrape import TargetFailure
from energylens.measure.types import OwnedPods, PodRef

ENERGY, OLD_ENERGY = "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
OWN = {"pod": "dcgm-exporter-x", "namespace": "monitoring", "container": "exporter"}
EXPORTED = {"exported_pod": POD.pod, "exported_namespace": POD.namespace}
PLAIN = {"pod": POD.pod, "namespace": POD.namespace}


def series(times, labels, *, name=ENERGY, watts=500.0, factor=1.0, uuid="A", job="dcgm") -> Series:
    values = [(time, (1e6 + watts * time) * factor) for time in times]
    return Series(name, {"__name__": name, "UUID": uuid, "job": job, "instance": "n:9400", **labels}, values)


def observed(*given: Series, labels: LabelMap | None = None):
    return observations(given, labels or LabelMap(), 0.0, "prometheus").observations


class FakePrometheus:
    """Holds series by their own clock, which may be wrong, and answers range selectors."""

    url = "http://prometheus"

    def __init__(self, clock: FakeClock, ahead: float = 0.0) -> None:
        self.clock = clock
        self.ahead = ahead
        self.held: list[Series] = []
        self.asked: list[str] = []
        self.error: str = ""
        self.warnings: tuple[str, ...] = ()
        self.round_trip = 0.0

    async def query(self, expression: str, time: float | None = None) -> QueryData:
        if self.error:
            raise PrometheusError(self.error)
        if expression == "time()":
            self.clock.time += self.round_trip
            return QueryData({"resultType": "scalar", "result": [0, str(self.clock.time + self.ahead)]})
        self.asked.append(expression)
        seconds = float(expression.rsplit("[", 1)[1].removesuffix("s]"))
        result = [
            {
                "metric": dict(each.labels),
                "values": [[t, f"{v:.3f}"] for t, v in each.values if time - seconds < t <= time],
            }
            for each in self.held
        ]
        return QueryData({"resultType": "matrix", "result": [each for each in result if each["values"]]}, self.warnings)


class Engines:
    """An engine of 100 tokens a second by the operator's clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock

    async def read(self, targets):
        return (engine_seen(self.clock.time, rate=100.0),), ()


@pytest.mark.parametrize("labels", [OWN | EXPORTED, PLAIN, {"pod_name": POD.pod, "pod_namespace": POD.namespace}])
def test_both_ways_to_name_a_pod(labels) -> None:
    (seen,) = observed(series([15.0], labels))
    assert (seen.uuid, seen.time, seen.owners, seen.energy_joules) == ("A", 15.0, {POD}, 1e6 + 7500)


def test_the_exporters_own_pod_is_no_owner_where_its_job_renames() -> None:
    held, free = observed(series([15.0], OWN | EXPORTED), series([15.0], OWN, uuid="B"))
    assert (held.owners, free.owners) == ({POD}, frozenset())


def test_a_job_that_does_not_rename_is_read_beside_one_that_does() -> None:
    both = observed(series([15.0], OWN | EXPORTED), series([15.0], PLAIN, uuid="B", job="agent"))
    assert [seen.owners for seen in both] == [{POD}, {POD}]


def test_labels_that_a_site_renamed() -> None:
    site = {"__name__": ENERGY, "job": "x", "gpu_uuid": "A", "k8s_pod": POD.pod, "k8s_ns": POD.namespace, **OWN}
    names = LabelMap(uuid="gpu_uuid", pod="k8s_pod", namespace="k8s_ns")
    (seen,) = observed(Series(ENERGY, site, [(15.0, 5.0)]), labels=names)
    assert (seen.uuid, seen.owners) == ("A", {POD})
    lost = observations([Series(ENERGY, site, [(15.0, 5.0)])], LabelMap(), 0.0, "prometheus")
    assert lost.observations == ()
    assert "without a UUID label" in lost.rejected[0]


def test_the_quantities_of_one_scrape_are_one_observation() -> None:
    power = series([15.0], PLAIN, name="DCGM_FI_DEV_BOARD_POWER_WATTS")
    limit = series([15.0], PLAIN, name="DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS")
    (seen,) = observed(
        series([15.0], PLAIN), replace(power, values=[(15.0, 480.0)]), replace(limit, values=[(15.0, 700.0)])
    )
    assert (seen.energy_joules, seen.power_watts, seen.power_limit_watts) == (1e6 + 7500, 480, 700)


def test_the_unit_follows_from_the_name() -> None:
    (seen,) = observed(series([15.0], PLAIN, name=OLD_ENERGY, factor=1000.0))
    assert seen.energy_joules == pytest.approx(1e6 + 7500)


def test_a_scrape_without_pod_labels_is_a_series_of_its_own_and_still_the_same_gpu() -> None:
    seen = observed(series([0.0, 30.0], OWN | EXPORTED), series([15.0], OWN))
    assert [(each.time, bool(each.owners)) for each in seen] == [(0.0, True), (15.0, False), (30.0, True)]


def test_the_copies_of_two_prometheus_servers_are_one_gpu() -> None:
    copies = [
        series(grid(start, 600, 30), PLAIN | {"prometheus_replica": name}) for start, name in ((0, "a"), (7, "b"))
    ]
    history = History()
    history.record_gpus(observed(*copies))
    (gpu,) = history.gpus_of([POD], since=0).series
    assert [sample.time for sample in gpu.samples] == sorted({*grid(0, 600, 30), *grid(7, 600, 30)})


def test_time_slicing_names_all_owners() -> None:
    (seen,) = observed(series([15.0], PLAIN), series([15.0], PLAIN | {"pod": "stranger"}))
    assert seen.owners == {POD, PodRef(POD.namespace, "stranger")}


def test_blanks_and_stale_marks_are_no_values() -> None:
    broken = replace(series([], PLAIN), values=[(15.0, math.nan), (30.0, 2.0**63), (45.0, 5.0)])
    reading = observations([broken], LabelMap(), 0.0, "prometheus")
    assert [seen.time for seen in reading.observations] == [45.0]
    assert "blank or impossible" in reading.rejected[0]


@pytest.mark.parametrize(
    ("before", "server", "after", "offset"), [(10, 10.2, 10.4, 0), (10, 40, 10.2, 29.9), (10, 4, 12, -7)]
)
def test_the_difference_of_two_clocks(before, server, after, offset) -> None:
    assert clock_offset(before, server, after) == pytest.approx(offset)


class Rig:
    def __init__(self, ahead: float = 0.0, **settings) -> None:
        self.clock = FakeClock(10_000.0)
        self.prometheus = FakePrometheus(self.clock, ahead)
        self.source = PrometheusSource(self.prometheus, self.clock, **settings)
        self.collector = Collector([self.source], Engines(self.clock), self.clock)  # type: ignore[arg-type]
        # By the server's clock; power doubles at 10 600 s of ours.
        self.prometheus.held = [
            replace(
                series([], OWN | EXPORTED),
                values=[(t + ahead, 1e6 + 500 * t + 500 * max(0.0, t - 10_600)) for t in grid(8_000, 12_000, 15)],
            )
        ]

    async def run(self, seconds: float, every: float = 15.0) -> None:
        for _ in range(int(seconds / every)):
            self.clock.time += every
            await self.collector.collect([EngineTarget(POD, "engine")])

    def measure(self, window: float = 300.0, **changes):
        return self.collector.measurement(OwnedPods(POD.namespace, (POD.pod,), 1), window, **changes)


async def test_the_whole_way() -> None:
    rig = Rig()
    await rig.run(330)
    result = rig.measure()
    assert (result.reason, result.source) == ("Measured", "prometheus")
    assert result.joules_per_output_token == pytest.approx(5.0)


@pytest.mark.parametrize("ahead", [-45.0, 45.0, 3600.0])
async def test_a_prometheus_by_another_clock_gives_the_same(ahead) -> None:
    rig = Rig(ahead)
    await rig.run(900)
    result = rig.measure(270.0)
    assert result.reason == "Measured"
    # Power stepped from 500 to 1000 W at 10 600, 300 s ago: a window at a wrong time would mix the two.
    assert result.joules_per_output_token == pytest.approx(10.0)
    assert rig.measure(600.0).joules_per_output_token == pytest.approx(7.5, rel=0.02)


async def test_a_clock_that_jitters_gives_each_sample_one_time() -> None:
    rig = Rig()
    await rig.run(300)
    rig.prometheus.ahead = 0.3
    await rig.run(30)
    (gpu,) = rig.collector._gpus["prometheus"].gpus_of([POD], since=0).series
    times = [sample.time for sample in gpu.samples]
    assert len(times) == len(set(times)) == len({round(time) for time in times})


async def test_a_restart_asks_for_the_past_and_later_reads_only_for_what_is_new() -> None:
    rig = Rig()
    await rig.run(60)
    ranges = [float(asked.rsplit("[", 1)[1].removesuffix("s]")) for asked in rig.prometheus.asked]
    assert ranges == [1800, 75, 75, 75]
    rig.prometheus.error = "away"
    await rig.run(300)
    rig.prometheus.error = ""
    await rig.run(15)
    assert rig.prometheus.asked[-1].endswith("[375s]")
    (gpu,) = rig.collector._gpus["prometheus"].gpus_of([POD], since=0).series
    assert gpu.samples[0].time <= 8_600
    assert max(b.time - a.time for a, b in zip(gpu.samples, gpu.samples[1:], strict=False)) == 15


async def test_the_selector_names_the_metrics_and_the_sites_matchers() -> None:
    rig = Rig(matchers='cluster="a"')
    await rig.run(15)
    assert rig.prometheus.asked[0].startswith('{__name__=~"DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL|')
    assert ',cluster="a"}[' in rig.prometheus.asked[0]


async def test_its_errors_and_warnings_are_told() -> None:
    rig = Rig()
    rig.prometheus.error = "answered with status 401"
    await rig.run(330)
    result = rig.measure()
    assert (result.reason, result.joules_per_output_token) == ("SourceUnreachable", None)
    assert "http://prometheus: answered with status 401" in result.message
    rig.prometheus.error, rig.prometheus.held, rig.prometheus.warnings = "", [], ("store c is away",)
    await rig.run(15)
    message = rig.measure().message
    assert "store c is away" in message
    assert f"no {ENERGY}" in message


async def test_an_exporter_that_died_has_one_reason_however_long_ago() -> None:
    rig = Rig()
    await rig.run(330)
    rig.prometheus.held = []
    reasons = set()
    for _ in range(10):
        await rig.run(300)
        reasons.add(rig.measure().reason)
    assert reasons == {"NoSeries"}
    fresh = Rig()
    fresh.prometheus.held = []
    await fresh.run(330)
    assert fresh.measure().reason == "NoSeries"
    assert f"no {ENERGY}" in fresh.measure().message


@pytest.mark.parametrize("data", [{}, {"resultType": "vector", "result": []}, {"resultType": "matrix", "result": [{}]}])
async def test_an_answer_of_another_shape_is_a_failure(data) -> None:
    class Odd(FakePrometheus):
        async def query(self, expression, time=None):
            return await super().query(expression, time) if expression == "time()" else QueryData(data)

    clock = FakeClock(100.0)
    reading = await PrometheusSource(Odd(clock), clock).read()
    (failure,) = reading.failures
    assert isinstance(failure, TargetFailure)
    assert failure.message.startswith("answered with")


async def test_the_second_source_answers_when_the_first_cannot() -> None:
    rig = Rig()
    dead = FakePrometheus(rig.clock)
    dead.error = "away"

    class Dead(PrometheusSource):
        name = "first"

    rig.collector = Collector([Dead(dead, rig.clock), rig.source], Engines(rig.clock), rig.clock)  # type: ignore[arg-type]
    await rig.run(330)
    assert rig.measure().source == "prometheus"
    only = rig.measure(source="first")
    assert (only.reason, only.source) == ("SourceUnreachable", "first")
    none = rig.measure(source="dcgm-exporter")
    assert (none.reason, none.message) == ("NoSource", "no energy source dcgm-exporter is configured")
