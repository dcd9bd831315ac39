"""Pods that a queue holds back on a real scheduler, with Kueue's own definitions; the test plays its controller."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.go_modules import KUEUE
from tests.support.operator_cluster import Object, OperatorCluster, Team, layout, llmdeployment

from energylens_dev.devcluster import eventually

CRD = "workloads.kueue.x-k8s.io"
GATE = "kueue.x-k8s.io/admission"
QUEUE = {"kueue.x-k8s.io/queue-name": "serving"}
NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor l40s"
HELD_BACK = {
    # As Kueue's webhooks leave pods: with a gate, the queue and its mark.
    "metadata": {"labels": {**QUEUE, "kueue.x-k8s.io/managed": "true"}},
    "spec": {"schedulingGates": [{"name": GATE}]},
}


@pytest.fixture
def workloads(operator: OperatorCluster, tmp_path: Path) -> Iterator[None]:
    """Serve Kueue's Workloads."""
    file = KUEUE.file("config/components/crd/bases/kueue.x-k8s.io_workloads.yaml", tmp_path)
    # Its schema has the whole PodSpec twice: too long for the annotation of a client-side apply.
    operator.api.run("apply", "--server-side", "-f", str(file))
    eventually(lambda: operator.api.run("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=60s"))
    yield
    operator.api.run("delete", "crd", CRD, "--timeout=60s")


def workload(pod: Object) -> Object:
    template = {"spec": {"containers": [{"name": "engine", "image": "vllm"}]}}
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "Workload",
        "metadata": {"name": pod["metadata"]["name"], "labels": {"kueue.x-k8s.io/job-uid": pod["metadata"]["uid"]}},
        "spec": {"queueName": "serving", "podSets": [{"name": "main", "count": 1, "template": template}]},
    }


def refuse(team: Team, pod: Object) -> None:
    """Say what Kueue says while a queue lacks quota."""
    body = workload(pod)
    team.kubectl.apply(body)
    condition = {
        "type": "QuotaReserved",
        "status": "False",
        "reason": "Pending",
        "message": NO_QUOTA,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    patch = json.dumps({"status": {"conditions": [condition]}})
    name = body["metadata"]["name"]
    team.kubectl.run("patch", "workload", name, "--subresource=status", "--type=merge", "-p", patch)


def admit(team: Team, name: str) -> None:
    for pod in team.pods(name):
        if pod["spec"].get("schedulingGates"):
            patch = json.dumps([{"op": "remove", "path": "/spec/schedulingGates"}])
            team.kubectl.run("patch", "pod", pod["metadata"]["name"], "--type=json", "-p", patch)


def test_queued_pods_are_a_reason_and_hold_their_gpus(operator: OperatorCluster, team: Team, workloads: None) -> None:
    body = llmdeployment("first", planning=layout(replicas=2, tensorParallel=4), podTemplate=HELD_BACK)
    body["metadata"]["labels"] = QUEUE
    team.kubectl.apply(body)
    message = team.wait("Ready", "False", "Queued", name="first")["message"]
    assert "waits for admission by Kueue, queue serving" in message
    assert team.condition("Progressing", "first")["reason"] == "Queued"
    assert team.condition("Degraded", "first")["status"] == "False"
    deployment = team.kubectl.get("deployment", "first")
    assert deployment is not None
    assert deployment["metadata"]["labels"].items() >= QUEUE.items()
    for pod in team.pods("first"):
        refuse(team, pod)

    eventually(lambda: NO_QUOTA in team.condition("Ready", "first")["message"])
    # No pod is bound, and yet the eight L40S are not free.
    team.apply("second", planning=layout(replicas=1))
    assert "L40S" in team.wait("PlanReady", "False", "InsufficientGPUs", name="second")["message"]
    admit(team, "first")
    team.ready("first")
    assert team.condition("Progressing", "first")["reason"] == "Complete"


def test_a_right_to_read_workloads_that_is_missing_only_costs_the_words(team: Team) -> None:
    # Without Kueue's definitions nobody can be asked; gates are told all the same.
    body = llmdeployment("first", podTemplate=HELD_BACK)
    team.kubectl.apply(body)
    assert "admission by Kueue" in team.wait("Ready", "False", "Queued", name="first")["message"]
    admit(team, "first")
    team.ready("first")
