"""The plan of a batch job: the least energy that ends in time, counted by plain loops beside the planner."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.quantity import parse_quantity
from energylens.planner import plan
from energylens.planner.search.starts import start_of
from energylens.planner.types import ClusterSnapshot, Feasible, Infeasible, PlanningResult
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.parameters import weight_bytes
from energylens.predictor.types import GpuSpec, Layouts, Workload

H100 = "NVIDIA-H100-80GB-HBM3"
Deploy = Callable[..., LLMDeployment]
Snapshot = Callable[..., ClusterSnapshot]
ONE = np.ones(1, dtype=np.int64)


@pytest.fixture
def planned(
    models: dict[str, ModelSpec],
    gpus: dict[str, GpuSpec],
    predictor: Any,
    make_deployment: Deploy,
    make_snapshot: Snapshot,
) -> Callable[..., PlanningResult]:
    def run(job: dict[str, Any], **parts: Any) -> PlanningResult:
        load = {"inputTokens": 300, "outputTokens": 400, "job": job}
        asked = make_deployment("meta-llama/Llama-3.1-8B-Instruct", workload=load, **parts)
        return plan(asked, models["8b"], make_snapshot((H100, 4, 1)), gpus, predictor)

    return run


def feasible(result: PlanningResult) -> Feasible:
    assert isinstance(result, Feasible), result
    return result


def brute_force(
    model: ModelSpec, gpu: GpuSpec, predictor: Any, requests: int, deadline: float, idles: bool, start: float | None
) -> float:
    """Return the least joules per output token of 4 GPUs; infinity where nothing ends in time."""
    lowest, load = math.inf, Workload(300, 400)
    begin = start_of(1, gpu, weight_bytes(model), None)
    seconds = begin.seconds if start is None else start
    for tp in (1, 2, 4):
        for pp in range(1, 5):
            for batch in (2**i for i in range(11)):
                for replicas in range(1, 4 // (tp * pp) + 1):
                    layout = Layouts(ONE * tp, ONE * pp, ONE, ONE, ONE * batch, np.full(1, np.nan))
                    p = predictor.at_concurrency(model, gpu, layout, load, np.array([requests / replicas]))
                    if not p.supported[0] or not p.memory.fits[0]:
                        continue
                    running = float(p.concurrency[0])
                    answer = 400 * running / float(p.output_tokens_per_second[0])
                    rounds = math.ceil(round(math.ceil(requests / replicas) / running, 9))
                    serving = answer * max(rounds, 1)
                    if serving > deadline - seconds:
                        continue
                    watts, idle = float(p.power_watts[0]) * replicas, float(p.idle_power_watts[0]) * replicas
                    after = (deadline - seconds - serving) * idle if idles else 0.0
                    starts = begin.joules / begin.seconds * seconds * tp * pp * replicas
                    lowest = min(lowest, (watts * serving + after + starts) / (requests * 400))
    return lowest


@pytest.mark.parametrize("after", ["Idle", "Release"])
@pytest.mark.parametrize(
    ("requests", "deadline", "start"),
    [(1, 3600, None), (300, 3600, None), (20_000, 3600, None), (20_000, 900, None), (300, 150, None), (300, 600, 60),
     (60_000, 3600, None), (600_000, 3600, None), (20_000, 110, None)],
)  # fmt: skip
def test_the_plan_of_a_job_is_the_best_of_all(
    requests: int,
    deadline: int,
    start: int | None,
    after: str,
    planned: Callable[..., PlanningResult],
    models: dict[str, ModelSpec],
    gpus: dict[str, GpuSpec],
    predictor: Any,
) -> None:
    job: dict[str, Any] = {"requests": requests, "completeWithinSeconds": deadline, "afterCompletion": after}
    if start is not None:
        job["startSeconds"] = start
    expected = brute_force(models["8b"], gpus[H100], predictor, requests, deadline, after == "Idle", start)
    result = planned(job, planning={"headroomPercent": 0})
    if expected == math.inf:
        assert isinstance(result, Infeasible)
        return
    found = feasible(result).plan
    assert float(parse_quantity(found.predicted.joules_per_output_token)) == pytest.approx(expected, rel=1e-3, abs=6e-4)
    assert found.job is not None
    assert found.job.completion_seconds <= deadline
    assert found.job.longest_seconds == found.job.completion_seconds
    assert found.job.energy_watt_hours == pytest.approx(expected * requests * 400 / 3600, abs=1.01, rel=1e-3)


def test_a_job_that_cannot_end_in_time_says_how_many_requests_can(planned: Callable[..., PlanningResult]) -> None:
    job = {"requests": 6_000_000, "completeWithinSeconds": 3600}
    refused = planned(job)
    assert isinstance(refused, Infeasible)
    assert refused.reason == "LoadTooHigh"
    nearest = next(r for r in refused.relaxations if r.field == "spec.workload.job.requests")
    assert isinstance(planned({**job, "requests": int(nearest.allowed)}), Feasible)
    more = int(int(nearest.allowed) * 1.02)
    assert isinstance(planned({**job, "requests": more}), Infeasible)
    later = next(r for r in refused.relaxations if r.field == "spec.workload.job.completeWithinSeconds")
    assert isinstance(planned({**job, "completeWithinSeconds": int(later.allowed)}), Feasible)
    assert isinstance(planned({**job, "completeWithinSeconds": int(later.allowed) - 2}), Infeasible)


def test_no_time_to_load_the_model_is_no_time(planned: Callable[..., PlanningResult]) -> None:
    refused = planned({"requests": 1, "completeWithinSeconds": 60})
    assert isinstance(refused, Infeasible)
    assert "completeWithinSeconds=60, of which the start of the pods takes 127 s" in refused.message
    feasible(planned({"requests": 1, "completeWithinSeconds": 60, "startSeconds": 30}))


def test_headroom_and_spare_replicas_keep_time_free(planned: Callable[..., PlanningResult]) -> None:
    job = {"requests": 1_000_000, "completeWithinSeconds": 14_400}
    tight = feasible(planned(job, planning={"headroomPercent": 0})).plan
    busy = tight.predicted.utilization_percent or 0
    roomy = feasible(planned(job, planning={"headroomPercent": 101 - busy})).plan
    assert roomy.job is not None
    assert tight.job is not None
    assert roomy.job.completion_seconds < tight.job.completion_seconds
    assert roomy.job.longest_seconds is not None
    assert roomy.job.start_seconds == 127
    serving = roomy.job.completion_seconds - 127
    assert roomy.job.longest_seconds == pytest.approx(127 + serving / (1 - (101 - busy) / 100), abs=2)
    assert roomy.job.longest_seconds <= 14_400
    assert feasible(planned(job, planning={"spareReplicas": 1})).plan.replicas >= 2


def test_idle_gpus_after_the_end_speak_for_fewer_of_them(planned: Callable[..., PlanningResult]) -> None:
    job = {"requests": 20_000, "completeWithinSeconds": 7200}
    idle = feasible(planned({**job, "afterCompletion": "Idle"})).plan
    free = feasible(planned({**job, "afterCompletion": "Release"})).plan
    assert idle.gpus <= free.gpus
    assert idle.job is not None
    assert free.job is not None
    assert idle.job.energy_watt_hours > free.job.energy_watt_hours
