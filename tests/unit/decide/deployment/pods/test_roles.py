"""Which pods of a plan with separate prefill and decode may run beside which."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide.observations import OLD, deployment, observation, plan, pod, workload

from energylens.api.llmdeployment import PrefillReplicas
from energylens.decide.deployment.observed.observation import PodState
from energylens.decide.deployment.pods.roles import decode_waits, only_decode_serves, prefill_goes, prefill_runs
from energylens.decide.deployment.pods.rollouts import main_rollout
from energylens.serving.roles import kv_cache, prefill_plan

PREFILL = PrefillReplicas(
    replicas=1, tensor_parallel=2, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=4
)
BOTH = plan(prefill=PREFILL, serving_hash="s" * 16)
ENGINE = deployment().spec.engine
FED = kv_cache(BOTH, ENGINE)
FEEDS = kv_cache(prefill_plan(BOTH), ENGINE)
FOREIGN = kv_cache(plan(serving_hash="t" * 16), ENGINE)
GONE: list[dict[str, Any]] = [{"finished": True}, {"ends_by": "2026-03-01T12:01:00Z"}]


def test_prefill_pods_run_beside_decode_pods_that_can_read_from_them() -> None:
    assert prefill_runs(observation(pods=(pod("p0", kv_cache=FED), pod("p1", kv_cache=FED))), BOTH)
    assert not prefill_runs(observation(pods=(pod("p0", kv_cache=FED), pod("p1", kv_cache=FOREIGN))), BOTH)
    # A pod without a role exchanges nothing.
    assert prefill_runs(observation(pods=(pod("p0"),)), BOTH)


def test_decode_pods_wait_for_the_end_of_prefill_pods_that_cannot_feed_them() -> None:
    assert not decode_waits(observation(prefill_pods=(pod("f0", kv_cache=FEEDS),)), BOTH)
    assert decode_waits(observation(prefill_pods=(pod("f0", kv_cache=FEEDS), pod("f1", kv_cache=FOREIGN))), BOTH)
    assert not decode_waits(observation(), BOTH)


@pytest.mark.parametrize("gone", GONE)
def test_pods_that_no_router_chooses_hinder_nobody(gone: dict[str, Any]) -> None:
    ends = pod("f0", kv_cache=FOREIGN, **gone)
    assert prefill_runs(observation(pods=(ends,)), BOTH)
    assert not decode_waits(observation(prefill_pods=(ends,)), BOTH)


@pytest.mark.parametrize("wider", [4, 3])
def test_the_smaller_tensor_parallel_size_must_divide_the_larger(wider: int) -> None:
    other = plan(serving_hash=BOTH.serving_hash, tensor_parallel=wider)
    found = observation(pods=(pod("p0", kv_cache=kv_cache(other, ENGINE)),))
    assert prefill_runs(found, BOTH) == (wider == 4)


def test_only_decode_serves_once_every_pod_without_a_role_has_ended() -> None:
    assert only_decode_serves(observation(pods=(pod("p0", kv_cache=FED), pod("p1", finished=True))))
    assert not only_decode_serves(observation(pods=(pod("p0", kv_cache=FED), pod("p1"))))
    # A pod that is being stopped still answers.
    assert not only_decode_serves(observation(pods=(pod("p1", ends_by="2026-03-01T12:01:00Z"),)))


def goes(pods: tuple[PodState, ...] = (), ready: int = 2, updated: int = 2, **changes: Any) -> bool:
    """Return whether the prefill pods of an earlier plan go; the next plan wants two replicas without a role."""
    live = workload(ready=ready, updated=updated, conditions=changes.pop("conditions", ()))
    found = observation(workload=live, pods=pods, **changes)
    return prefill_goes(found, main_rollout(found))


def test_prefill_pods_go_when_all_pods_without_a_role_are_ready() -> None:
    assert goes((pod("p0"), pod("p1")))
    assert not goes((pod("p0"), pod("p1", ready=False)), ready=1)
    assert not goes((pod("p0"), pod("old", OLD)), updated=1)


def test_prefill_pods_go_with_a_deployment_that_stops() -> None:
    assert goes((pod("p0", ready=False),), ready=0, deployment=deployment(suspend=True))


@pytest.mark.parametrize("why", [{"unschedulable": "no GPU"}, {"queued": "Kueue, queue batch"}])
def test_prefill_pods_go_at_once_if_new_pods_wait_for_their_gpus(why: dict[str, Any]) -> None:
    assert goes((pod("p0"), pod("p1", ready=False, **why)), ready=1)
    assert not goes((pod("p0"), pod("old", OLD, ready=False, **why)), ready=1, updated=1)
    assert not goes((pod("p0"), pod("p1", ready=False, finished=True, **why)), ready=1)


def test_prefill_pods_go_at_once_if_the_quota_refuses_new_pods() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    assert goes((pod("p0"),), ready=1, updated=1, conditions=(refused,))
