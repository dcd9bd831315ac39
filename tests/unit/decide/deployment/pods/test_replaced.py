"""Workloads that Kueue does not let change: deleted once nothing serves, and made again."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide.observations import deployment, model, observation, plan, workload

from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.pods.children import children
from energylens.decide.deployment.pods.replaced import rejected, replaced
from energylens.decide.reasons import Reason
from energylens.serving.metadata import APPLIED_HASH

QUEUE, PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"


def body(kind: str = "Deployment", ready: int = 0, revision: str = "r1", **labels: str) -> dict[str, Any]:
    named = {{"queue": QUEUE, "priority": PRIORITY}[name]: value for name, value in labels.items()}
    template = {"metadata": {"labels": {"energylens.dev/revision": revision}}, "spec": {}}
    part = {"template": template} if kind == "Deployment" else {"leaderWorkerTemplate": {"leaderTemplate": template}}
    return {
        "kind": kind,
        "metadata": {"name": "chat", "labels": named},
        "spec": part,
        "status": {"readyReplicas": ready},
    }


# What the webhooks of Kueue 0.17 answered, run by hand on a real API server.
@pytest.mark.parametrize(
    ("kind", "before", "after", "ready", "expected"),
    [
        ("Deployment", {}, {}, 2, False),
        ("Deployment", {"queue": "a"}, {"queue": "a"}, 2, False),
        ("Deployment", {"queue": "a"}, {"queue": "b"}, 1, True),
        ("Deployment", {"queue": "a"}, {"queue": "b"}, 0, False),
        ("Deployment", {}, {"queue": "a"}, 1, True),
        ("Deployment", {}, {"queue": "a"}, 0, False),
        ("Deployment", {"queue": "a"}, {}, 0, True),
        ("Deployment", {"priority": "low"}, {"priority": "high"}, 1, False),
        ("Deployment", {}, {"priority": "high"}, 1, True),
        ("Deployment", {}, {"priority": "high"}, 0, False),
        ("Deployment", {"priority": "low"}, {}, 0, True),
        ("LeaderWorkerSet", {"queue": "a"}, {"queue": "b"}, 0, True),
        ("LeaderWorkerSet", {}, {"queue": "b"}, 0, True),
        ("LeaderWorkerSet", {"queue": "a"}, {"queue": "a", "revision": "r2"}, 0, True),
        ("LeaderWorkerSet", {}, {"revision": "r2"}, 0, False),
        ("Deployment", {"queue": "a"}, {"queue": "a", "revision": "r2"}, 2, False),
        # Kueue names its queue "default" again where a namespace has one.
        ("Deployment", {"queue": "default"}, {}, 0, False),
        ("Deployment", {"queue": "default"}, {}, 1, False),
        ("LeaderWorkerSet", {"queue": "default"}, {}, 0, False),
        ("LeaderWorkerSet", {"queue": "default"}, {"revision": "r2"}, 0, True),
    ],
)
def test_changes_that_kueue_rejects(
    kind: str, before: dict[str, Any], after: dict[str, Any], ready: int, expected: bool
) -> None:
    assert rejected(body(kind, ready, **before), body(kind, **after)) is expected


@pytest.mark.parametrize(("ready", "stopped", "count"), [(1, False, 0), (1, True, 1), (0, False, 1), (0, True, 1)])
def test_a_workload_is_replaced_once_nothing_serves_or_is_to_serve(ready: int, stopped: bool, count: int) -> None:
    live, wanted = body(ready=ready, queue="a"), body()
    assert len(replaced((live, None), (wanted,), stopped=stopped)) == count
    assert replaced((live,), ({**wanted, "metadata": {"name": "other"}},), stopped=stopped) == ()


def test_a_suspended_deployment_whose_queue_changes_is_deleted_and_then_made_again() -> None:
    live = workload()
    live["metadata"]["labels"] = {**live["metadata"]["labels"], QUEUE: "a"}
    stopped = deployment(suspend=True)
    found = children(observation(deployment=stopped, workload=live))
    assert found.replaced == (live,)
    assert "Deployment" not in [manifest["kind"] for manifest in found.manifests]
    again = children(observation(deployment=stopped, workload=None, pods=()))
    assert again.replaced == ()
    assert again.manifests[0]["kind"] == "Deployment"
    assert again.manifests[0]["spec"]["replicas"] == 0


def test_a_ready_deployment_is_never_deleted_for_its_queue() -> None:
    live = workload(plan())
    live["metadata"]["labels"] = {**live["metadata"]["labels"], QUEUE: "a"}
    found = children(observation(workload=live))
    assert found.replaced == ()
    assert found.manifests[0]["kind"] == "Deployment"


@pytest.mark.parametrize("queue", ["default", "of-the-site"])
def test_a_queue_that_a_webhook_names_deletes_no_starting_workload(queue: str) -> None:
    live = workload(plan(), ready=0)
    live["metadata"]["labels"] = {**live["metadata"]["labels"], QUEUE: queue, PRIORITY: "low"}
    found = children(observation(workload=live))
    assert found.replaced == ()
    assert found.manifests[0]["kind"] == "Deployment"


@pytest.mark.parametrize(("suspend", "count"), [(False, 0), (True, 1)])
def test_a_workload_that_would_not_be_made_again_is_deleted_only_to_stop_it(suspend: bool, count: int) -> None:
    live = workload(plan(), ready=0)
    live["metadata"]["labels"] = {**live["metadata"]["labels"], QUEUE: "a"}
    live["metadata"]["annotations"] = {**live["metadata"]["annotations"], APPLIED_HASH: "before"}
    planning = PlanChoice(plan(), model(), False, Reason.INSUFFICIENT_GPUS, "4 GPUs are missing")
    found = children(observation(workload=live, planning=planning, deployment=deployment(suspend=suspend)))
    assert found.acting
    assert len(found.replaced) == count
