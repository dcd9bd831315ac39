from __future__ import annotations

import numpy as np
import pytest
from tests.unit.replay.objects import H100, cluster, deployment, node, pod
from tests.unit.replay.test_runs import PLAN

from energylens.measure.types import PodRef
from energylens_dev.replay.fleet import ITL_BOUNDS, Fleet, itl_shares
from energylens_dev.replay.runs import Load, operating_point

POD = PodRef("team", "llama-0")


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(time=0.0)


def holders(fleet: Fleet) -> list[str]:
    return [gpu.pod.name if gpu.pod else "" for gpu in sorted(fleet.gpus.values(), key=lambda gpu: gpu.index)]


def test_counters_advance_as_the_run_was_measured(fleet):
    point = operating_point(PLAN, Load(concurrency=128))
    fleet.update(cluster(pod()), 10)
    before = {gpu.uuid: gpu.joules for gpu in fleet.gpus.values()}
    fleet.advance(110)
    drawn = [gpu.joules - before[gpu.uuid] for gpu in fleet.gpus.values()]
    assert drawn[:4] == pytest.approx([100 * point.power_watts / 4] * 4)
    assert drawn[4:] == pytest.approx([100 * fleet.gpus[("h100-0", 4)].idle_watts] * 4)
    engine = fleet.engines[POD]
    assert engine.tokens == pytest.approx(100 * point.output_tokens_per_second)
    assert engine.itl_counts[-1] == pytest.approx(engine.tokens)
    assert engine.tpot_counts[-1] == pytest.approx(engine.requests)


def test_time_does_not_go_back(fleet):
    fleet.update(cluster(pod()), 10)
    fleet.advance(20)
    joules = fleet.gpus[("h100-0", 0)].joules
    fleet.advance(15)
    assert (fleet.time, fleet.gpus[("h100-0", 0)].joules) == (20, joules)


def test_a_gpu_keeps_its_uuid_and_others_have_others(fleet):
    fleet.update(cluster(nodes=[node("a"), node("b")]), 0)
    again = Fleet(time=0.0)
    again.update(cluster(nodes=[node("b"), node("a")]), 0)
    assert {key: gpu.uuid for key, gpu in fleet.gpus.items()} == {key: gpu.uuid for key, gpu in again.gpus.items()}
    assert len({gpu.uuid for gpu in fleet.gpus.values()}) == 16


def test_pods_stay_where_they_are(fleet):
    fleet.update(cluster(pod("a", gpus=2), pod("b", gpus=2)), 0)
    assert holders(fleet) == ["a", "a", "b", "b", "", "", "", ""]
    fleet.update(cluster(pod("b", gpus=2), pod("c", gpus=4, created="2027")), 1)
    assert holders(fleet) == ["c", "c", "b", "b", "c", "c", "", ""]


def test_foreign_pods_hold_gpus_and_serve_nothing(fleet):
    fleet.update(cluster(pod("train", deployment=None)), 0)
    assert holders(fleet)[:5] == ["train"] * 4 + [""]
    assert (fleet.engines, fleet.missing) == ({}, {})
    assert {gpu.watts for gpu in fleet.gpus.values()} == {fleet.gpus[("h100-0", 0)].idle_watts}


def test_a_pod_that_is_not_ready_is_idle(fleet):
    fleet.update(cluster(pod(ready=False)), 0)
    assert fleet.engines == {}
    assert fleet.gpus[("h100-0", 0)].watts == fleet.gpus[("h100-0", 7)].watts


def test_replicas_share_the_load(fleet):
    fleet.update(cluster(pod("a"), pod("b")), 0)
    alone = operating_point(PLAN, Load(concurrency=64))
    assert [engine.point.concurrency for engine in fleet.engines.values()] == pytest.approx([alone.concurrency] * 2)


def test_a_new_pod_of_the_same_name_counts_from_zero(fleet):
    fleet.update(cluster(pod()), 0)
    fleet.advance(100)
    fleet.update(cluster(pod()), 100)
    assert fleet.engines[POD].tokens > 0
    fleet.update(cluster(pod(uid="another")), 100)
    assert fleet.engines[POD].tokens == 0


def test_a_changed_load_keeps_the_counters(fleet):
    fleet.update(cluster(pod()), 0)
    fleet.update(cluster(pod(), deployments=[deployment(concurrency=16)]), 100)
    counted = fleet.engines[POD].tokens
    assert counted > 0
    fleet.advance(200)
    slow = operating_point(PLAN, Load(concurrency=16)).output_tokens_per_second
    assert fleet.engines[POD].tokens - counted == pytest.approx(100 * slow)


def test_without_a_measured_run_its_gpus_are_silent(fleet):
    nodes = [node("h200-0", "NVIDIA-H200")]
    fleet.update(cluster(pod(node="h200-0"), nodes=nodes), 0)
    assert fleet.engines == {}
    assert "no measured run" in fleet.missing[POD]
    assert [gpu.silent for gpu in fleet.gpus.values()] == [True] * 4 + [False] * 4


def test_nodes_that_leave_take_their_gpus(fleet):
    fleet.update(cluster(nodes=[node("a"), {"metadata": {"name": "cpu"}}]), 0)
    assert len(fleet.gpus) == 8
    fleet.update(cluster(nodes=[]), 1)
    assert fleet.gpus == {}


@pytest.mark.parametrize(
    "percentiles", [(20.0, 21.0, 22.0, 50.0), (30.0, 30.0, 30.0, 30.0), (5.0, 500.0, 900.0, 990.0)]
)
def test_the_histogram_has_the_runs_percentiles(percentiles):
    shares = itl_shares(percentiles)
    assert len(shares) == len(ITL_BOUNDS) + 1
    assert np.all(np.diff(shares) >= 0)
    assert shares[-1] == 1
    for value, share in zip(percentiles, (0.5, 0.9, 0.95, 0.99), strict=True):
        above = next(index for index, bound in enumerate(ITL_BOUNDS) if bound >= value / 1000)
        assert shares[above] >= share - 1e-6
        assert above == 0 or shares[above - 1] <= share


def test_an_idle_h100_draws_what_is_known_of_it(fleet):
    fleet.update(cluster(nodes=[node(product=H100)]), 0)
    assert 65 <= fleet.gpus[("h100-0", 0)].watts <= 80


def test_power_follows_the_hours_of_a_profile(fleet):
    hours = [{"fromHour": 8, "toHour": 18, "requestsPerSecond": "4"}]
    week = deployment(requestsPerSecond="1", profile={"hours": hours})
    watts = []
    for hour in (7, 8, 17, 18):
        fleet.update(cluster(pod(), deployments=[week]), hour * 3600)
        watts.append(fleet.gpus[("h100-0", 0)].watts)
    assert watts[0] == watts[3] < watts[1] == watts[2]
