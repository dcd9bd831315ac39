"""Headroom and spare replicas: what a plan keeps free, and how large a burst is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from tests.unit.planner.conftest import H100

from energylens.api.llmdeployment import LLMDeployment
from energylens.data import load_gpus, load_model
from energylens.data.predictor import load_predictor
from energylens.planner.planning import plan
from energylens.planner.search.load import burst
from energylens.planner.types import ClusterSnapshot, Feasible, Infeasible

Make = Callable[..., LLMDeployment]
Snapshot = Callable[..., ClusterSnapshot]


def test_a_burst_is_rarer_than_its_odds() -> None:
    for mean in (0.01, 0.3, 4.0, 50.0, 800.0):
        most = math.floor(float(burst(np.array([mean]))[0]))
        below = sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(most + 1))
        assert 1 - below < 1e-4
        assert most < mean + 5 * math.sqrt(mean) + 4


def planned(make: Make, snapshot: Snapshot, rate: str, **planning: object) -> Feasible | Infeasible:
    """Return the plan of an 8B model on two H100s with the shipped figures, without objectives."""
    asked = make(
        "Qwen/Qwen3-8B",
        workload={"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": rate},
        slo={},
        planning=planning,
    )
    gpus = load_gpus()
    model, predictor = load_model("Qwen/Qwen3-8B"), load_predictor("vllm")
    return plan(asked, model, snapshot((H100, 2, 1)), gpus, predictor)


@pytest.mark.parametrize(("headroom", "busy"), [(None, 90), (0, 100), (30, 70), (60, 40)])
def test_no_replica_is_busier_than_the_headroom_leaves(
    make_deployment: Make, make_snapshot: Snapshot, headroom: int | None, busy: int
) -> None:
    asked = {} if headroom is None else {"headroomPercent": headroom}
    carried = [
        r for r in range(2, 90, 4) if isinstance(planned(make_deployment, make_snapshot, str(r), **asked), Feasible)
    ]
    found = planned(make_deployment, make_snapshot, str(carried[-1]), **asked)
    assert isinstance(found, Feasible)
    used = found.plan.predicted.utilization_percent
    assert used is not None
    assert busy - 20 < used <= busy


def test_a_refusal_names_the_headroom(make_deployment: Make, make_snapshot: Snapshot) -> None:
    found = planned(make_deployment, make_snapshot, "60", headroomPercent=80)
    assert isinstance(found, Infeasible)
    assert found.reason == "LoadTooHigh"
    assert found.rejections[-1].message == (
        "cannot keep up with 60 requests per second with spec.planning.headroomPercent=80"
    )


def test_the_others_carry_the_load_when_spare_replicas_fail(make_deployment: Make, make_snapshot: Snapshot) -> None:
    without = planned(make_deployment, make_snapshot, "20", headroomPercent=20)
    spare = planned(make_deployment, make_snapshot, "20", headroomPercent=20, spareReplicas=1)
    assert isinstance(without, Feasible)
    assert isinstance(spare, Feasible)
    assert (without.plan.replicas, spare.plan.replicas) == (1, 2)
    assert spare.plan.gpus == 2
    assert spare.plan.predicted.power_watts > without.plan.predicted.power_watts
    used = spare.plan.predicted.utilization_percent
    assert used is not None
    assert used <= 40
    refused = planned(make_deployment, make_snapshot, "20", spareReplicas=2)
    assert isinstance(refused, Infeasible)
    assert refused.rejections[-1].message.endswith("requests per second with spec.planning.spareReplicas=2")


@pytest.mark.parametrize(("concurrency", "replicas"), [(100, [2, 3]), (1, [1, 2])])
def test_spare_replicas_hold_for_requests_in_flight(
    make_deployment: Make, make_snapshot: Snapshot, concurrency: int, replicas: list[int]
) -> None:
    parts = {"workload": {"inputTokens": 300, "outputTokens": 400, "concurrency": concurrency}, "slo": {}}
    overrides = {"maxBatchSize": 64, "tensorParallel": 1, "pipelineParallel": 1}
    model, gpus, predictor = load_model("Qwen/Qwen3-8B"), load_gpus(), load_predictor("vllm")
    found = [
        plan(
            make_deployment("Qwen/Qwen3-8B", **parts, planning={"overrides": overrides, "spareReplicas": spare}),
            model, make_snapshot((H100, 8, 1)), gpus, predictor,
        )
        for spare in (0, 1)
    ]  # fmt: skip
    assert [one.plan.replicas for one in found if isinstance(one, Feasible)] == replicas


def test_the_room_of_the_kv_cache_is_shown(make_deployment: Make, make_snapshot: Snapshot) -> None:
    found = planned(make_deployment, make_snapshot, "20")
    assert isinstance(found, Feasible)
    # 80 GB at 90 % less 16.4 GB of weights and what the engine keeps, at 147,456 bytes for a token.
    assert found.plan.kv_cache_tokens is not None
    assert 330_000 < found.plan.kv_cache_tokens < 400_000
    assert found.plan.longest_request_tokens == 40_960
