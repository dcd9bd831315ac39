from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.replay.objects import H100, MODEL, deployment, pod

from energylens_dev.replay.plans import gpu_pods, load_of, plan_of
from energylens_dev.replay.runs import Load, NoRunError

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def only(**changes):
    (found,) = gpu_pods([pod(**changes)])
    return found


def test_the_plan_is_in_the_arguments():
    arguments = ("--tensor-parallel-size", "2", "--data-parallel-size=2", "--enable-expert-parallel", "-q", "fp8")
    (found,) = gpu_pods([pod("llama-0", *arguments, "--max-num-seqs=64", gpus=4)])
    plan = plan_of(found, H100, deployment())
    assert (plan.model, plan.tensor_parallel, plan.data_parallel, plan.pipeline_parallel) == (MODEL, 2, 2, 1)
    assert (plan.expert_parallel, plan.precision, plan.max_num_seqs) == (True, "fp8", 64)
    assert (plan.input_tokens, plan.output_tokens, plan.gpus) == (300, 800, 4)


def test_sglang_spells_them_otherwise():
    command = ("python", "-m", "sglang.launch_server")
    found = gpu_pods([pod("x", "--model-path", "Qwen/Qwen3-8B", "--tp-size", "4", command=command)])[0]
    plan = plan_of(found, H100, None)
    assert (plan.model, plan.tensor_parallel, plan.max_num_seqs, plan.output_tokens) == ("Qwen/Qwen3-8B", 4, None, None)


def test_a_path_is_no_model_name():
    found = gpu_pods([pod("x", "--model=/models/llama", "-tp", "4", command=("vllm", "serve"))])[0]
    assert plan_of(found, H100, deployment()).model == MODEL
    with pytest.raises(NoRunError, match="name no model"):
        plan_of(found, H100, None)


def test_a_replica_over_several_pods_was_not_measured():
    found = gpu_pods([pod("x", "--tensor-parallel-size=8", gpus=4)])[0]
    with pytest.raises(NoRunError, match="4 GPUs of a replica of 8"):
        plan_of(found, H100, deployment())


def test_only_pods_that_hold_gpus_now():
    waiting = pod("waiting")
    del waiting["spec"]["nodeName"]
    pods = [waiting, pod("done", phase="Succeeded"), pod("none", gpus=0), pod("b", created="2"), pod("a", created="1")]
    assert [each.name for each in gpu_pods(pods)] == ["a", "b"]


def test_a_pod_that_is_ending_is_not_ready():
    ending = pod()
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not gpu_pods([ending])[0].ready
    assert only().ready
    assert not only(ready=False).ready


def test_replicas_share_the_load():
    assert load_of(deployment(concurrency=100), 4, MONDAY) == Load(concurrency=25)
    assert load_of(deployment(requestsPerSecond="2500m"), 2, MONDAY) == Load(output_tokens_per_second=1000)
    assert load_of(None, 1, MONDAY) == Load()


def test_a_load_with_a_profile_follows_the_local_clock():
    hours = [
        {"days": ["Mon"], "fromHour": 7, "toHour": 20, "requestsPerSecond": "8"},
        {"fromHour": 9, "toHour": 10, "requestsPerSecond": "16"},
    ]
    week = deployment(requestsPerSecond="2", profile={"timeZone": "Europe/Berlin", "hours": hours})

    def requests(hour):
        return load_of(week, 2, MONDAY + timedelta(hours=hour)).output_tokens_per_second * 2 / 800

    # Berlin is an hour ahead of UTC in January.
    assert [requests(hour) for hour in (5.99, 6, 8, 8.99, 9, 18.99, 19)] == [2, 8, 16, 16, 8, 8, 2]
    assert [requests(24 + hour) for hour in (7, 8, 9)] == [2, 16, 2]
