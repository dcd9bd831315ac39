"""The canary replica of a new plan: its figures, the state of its pods, and the plan of the pods beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.observations import HASH, MODEL, OTHER, deployment, measured, plan, pod, workload

from energylens.decide.deployment.observed.observation import PodState
from energylens.decide.deployment.plans.replica import SeenPods, beside, is_asked, one_replica, whole_load
from energylens.decide.deployment.pods.workloads import workload_revision
from energylens.serving.claims import Claims

WANTED = plan(OTHER, max_batch_size=64)
CANARY = {**workload(WANTED), "status": {}}
REVISION = workload_revision(CANARY)


def canary(name: str = "c0", **changes: Any) -> PodState:
    """Return a pod of the canary."""
    return pod(name, REVISION, canary=True, **changes)


def test_only_the_measured_rollout_asks_for_verification() -> None:
    assert is_asked(deployment(rollout={"verify": "Measured"}))
    assert not is_asked(deployment())


def test_one_replica_has_its_part_of_gpus_and_power_and_the_hash_of_the_plan() -> None:
    whole = plan(replicas=3, gpus=12, tensor_parallel=4)
    figures = whole.predicted.model_copy(update={"power_watts": 1000})
    found = one_replica(whole.model_copy(update={"predicted": figures}))
    assert (found.replicas, found.gpus, found.predicted.power_watts, found.hash) == (1, 4, 334, HASH)
    assert (found.alternatives, found.fewer_replicas) == ((), ())


def test_pods_of_the_canary_are_not_those_of_the_running_plan() -> None:
    seen = SeenPods((pod("p0"), canary()))
    assert [each.name for each in seen.running_pods] == ["p0"]
    assert [each.name for each in seen.canary_pods] == ["c0"]


def look(live: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **seen: Any) -> Any:
    fields: dict[str, Any] = {"pods": (pod("p0"), canary()), "canary": CANARY, **seen}
    return beside(deployment(status), workload() if live is None else live, None, SeenPods(**fields), None)


def stated(plan_hash: str) -> dict[str, Any]:
    return {"plan": plan(plan_hash).model_dump(mode="json", by_alias=True, exclude_none=True)}


def test_the_running_plan_is_the_one_that_the_workload_was_made_from() -> None:
    assert look(status=stated(HASH)).running.hash == HASH
    assert look(status=stated(OTHER)).running is None
    assert look().running is None
    assert look({"kind": "Deployment", "metadata": {}, "spec": {}}, stated(HASH)).running is None


@pytest.mark.parametrize(
    ("pods", "serving"),
    [
        ((pod("p0"), pod("p1", ready=False)), True),
        ((pod("p0", ready=False), canary()), False),
        ((), False),
    ],
)
def test_a_ready_pod_of_the_running_plan_serves(pods: tuple[PodState, ...], serving: bool) -> None:
    assert look(pods=pods).serving is serving


def test_a_claim_for_one_pod_is_exclusive() -> None:
    assert look().exclusive == ""
    assert "models" in look(claims=Claims({"models": ("ReadWriteOncePod",)})).exclusive


def test_the_model_of_the_running_pods_is_read_from_their_arguments() -> None:
    assert look().same_model
    assert not beside(deployment(model={"name": "Qwen/Qwen3-8B"}), workload(), None, SeenPods(), None).same_model
    assert not beside(deployment(), None, None, SeenPods(), None).same_model
    for arguments, same in (
        ([f"--model-path={MODEL}"], True),
        (["--model-path=/models", f"--served-model-name={MODEL}"], True),
        (["--model-path=/models"], False),
    ):
        live = workload()
        live["spec"]["template"]["spec"]["containers"][0]["args"] = arguments
        assert look(live).same_model is same
    live = workload()
    live["spec"]["template"]["spec"]["containers"][0]["name"] = "sidecar"
    assert not look(live).same_model


def replica(*pods: PodState, canary_body: dict[str, Any] | None = None, **seen: Any) -> Any:
    return look(pods=pods, **{"canary": canary_body or CANARY, **seen}).replica


def test_a_replica_is_ready_with_all_of_its_pods_and_then_measured() -> None:
    window = measured()
    found = replica(canary(), window=window)
    assert (found.ready, found.trouble, found.window, found.plan_hash) == (True, "", window, OTHER)
    down = replica(canary(ready=False), window=window)
    assert (down.ready, down.window) == (False, None)
    assert not replica(canary("c0"), canary("c1", ready=False)).ready
    assert not replica().ready
    assert not look(canary=None).replica.ready
    assert look(canary=None).replica.plan_hash == ""


@pytest.mark.parametrize("changes", [{"revision": "0" * 16}, {"ends_by": "2026-03-01T12:00:00Z"}, {"finished": True}])
def test_other_and_ending_pods_are_not_the_replica(changes: dict[str, Any]) -> None:
    assert not replica(replace(canary(), **changes)).ready
    assert replica(canary("c0"), replace(canary("c1"), ready=False, **changes)).ready


@pytest.mark.parametrize(
    ("changes", "trouble", "unschedulable", "queued"),
    [
        ({"queued": "admission by Kueue"}, "c0 waits for admission by Kueue", False, True),
        ({"unschedulable": "no GPU"}, "c0 waits for a node: no GPU", True, False),
        ({"waiting": "ImagePullBackOff"}, "c0: ImagePullBackOff", False, False),
        ({"failed": "OOM", "waiting": "CrashLoopBackOff"}, "c0: OOM", False, False),
        ({"queued": "a gate", "waiting": "ImagePullBackOff"}, "c0: ImagePullBackOff", False, True),
        ({}, "", False, False),
    ],
)
def test_what_keeps_the_replica_from_being_ready_is_told(
    changes: dict[str, Any], trouble: str, unschedulable: bool, queued: bool
) -> None:
    found = replica(canary(ready=False, **changes))
    assert (found.trouble, found.unschedulable, found.queued) == (trouble, unschedulable, queued)


def test_a_pod_that_failed_is_told_while_the_next_one_starts() -> None:
    failed = canary("c0", ready=False, failed="OOM", finished=True)
    assert replica(failed, canary("c1", ready=False)).trouble == "c0: OOM"
    assert replica(failed, canary("c1")).trouble == ""


def test_the_last_pod_that_left_a_queue_counts() -> None:
    early, late = "2026-03-01T11:00:00Z", "2026-03-01T11:30:00Z"
    assert replica(canary("c0", admitted_since=early), canary("c1", admitted_since=late)).admitted_since == late
    assert replica().admitted_since == ""


def refusal(**changes: str) -> dict[str, Any]:
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "over quota",
        **changes,
    }
    return {**CANARY, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("changes", "trouble"),
    [
        ({}, "pods cannot be created: over quota"),
        ({"message": ""}, "pods cannot be created: FailedCreate"),
        ({"status": "False"}, ""),
        ({"type": "Progressing"}, ""),
    ],
)
def test_pods_that_cannot_be_created_are_told(changes: dict[str, str], trouble: str) -> None:
    assert replica(canary_body=refusal(**changes)).trouble == trouble


LOAD: dict[str, Any] = {"requests_per_second": 3.0, "mean_running": 4.0, "mean_waiting": 0.0}
PART: dict[str, Any] = {"requests_per_second": 1.0, "mean_running": 2.0, "mean_waiting": 1.0}


def test_the_load_is_that_of_all_pods() -> None:
    window, part = measured(**LOAD), measured(**PART)
    seen = SeenPods((canary("c0", ready=False), canary("c1")), CANARY, part)
    found = whole_load(window, seen)
    assert found is not None
    assert (found.requests_per_second, found.mean_running, found.mean_waiting) == (4.0, 6.0, 1.0)
    assert whole_load(None, seen) is None
    assert whole_load(window, SeenPods((canary(ready=False),), CANARY, part)) is window
    assert whole_load(window, SeenPods((pod("p0"),))) is window
    assert whole_load(window, replace(seen, window=None)) is None
    for name in LOAD:
        missing: dict[str, Any] = {name: None}
        assert whole_load(replace(window, **missing), seen) is None
        assert whole_load(window, replace(seen, window=replace(part, **missing))) is None
