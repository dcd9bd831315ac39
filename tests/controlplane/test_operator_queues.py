"""Pods that a queue holds back on a real scheduler, with Kueue's own definitions; the test plays its controller."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.go_modules import KUEUE
from tests.support.operator_cluster import Object, OperatorCluster, Team, layout, llmdeployment

from energylens_dev.devcluster import KubectlError, eventually

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


@pytest.fixture
def kueues_rules(operator: OperatorCluster, team: Team) -> Iterator[None]:
    """Let the API server reject what Kueue's webhook for Deployments rejects, in the words of its 0.17."""
    group = {"apiVersion": "admissionregistration.k8s.io/v1"}
    label = "?metadata.?labels[?'kueue.x-k8s.io/queue-name'].orValue('')"
    changed = f"object.{label} == oldObject.{label}"
    allowed = f"(oldObject.?status.?readyReplicas.orValue(0) == 0 && object.{label} != '')"
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]}
    message = "metadata.labels[kueue.x-k8s.io/queue-name]: Invalid value: field is immutable"
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": f"{changed} || {allowed}", "message": message}],
    }
    name = {"name": f"queues-{team.namespace}"}
    inside = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}}}
    binding = {"policyName": name["name"], "validationActions": ["Deny"], "matchResources": inside}
    operator.api.apply({**group, "kind": "ValidatingAdmissionPolicy", "metadata": name, "spec": spec})
    operator.api.apply({**group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": name, "spec": binding})
    yield
    operator.api.delete("validatingadmissionpolicybinding", name["name"])
    operator.api.delete("validatingadmissionpolicy", name["name"])


def may_leave_its_queue(team: Team) -> bool:
    try:
        team.kubectl.run("label", "deployment", "first", "kueue.x-k8s.io/queue-name-", "--dry-run=server")
    except KubectlError as error:
        return "field is immutable" not in str(error)
    return True


def test_a_queue_that_may_not_change_changes_once_the_pods_are_gone(team: Team, kueues_rules: None) -> None:
    def apply(queue: str, *, suspend: bool) -> None:
        body = llmdeployment("first", suspend=suspend)
        body["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": queue} if queue else {"team": "a"}
        team.kubectl.apply(body)

    apply("serving", suspend=False)
    first = team.ready("first")["plan"]["hash"]
    # The policy takes effect a moment after it is made.
    eventually(lambda: not may_leave_its_queue(team))
    for queue in ("other", ""):
        apply(queue, suspend=False)
        refused = team.wait("Degraded", "True", "ApplyRefused", name="first")["message"]
        assert (
            "field is immutable; the operator replaces the object once no replica is ready: set spec.suspend" in refused
        )
        assert len([pod for pod in team.pods("first") if not pod["metadata"].get("deletionTimestamp")]) == 2
        apply(queue, suspend=True)
        eventually(lambda: not team.pods("first"))
        apply(queue, suspend=False)
        assert team.ready("first")["plan"]["hash"] == first
        team.wait("Degraded", "False", name="first")
        deployment = team.kubectl.get("deployment", "first")
        assert deployment is not None
        assert deployment["metadata"]["labels"].get("kueue.x-k8s.io/queue-name", "") == queue
