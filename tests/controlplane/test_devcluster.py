"""The control plane behaves as a cluster with GPU nodes does."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.direct_kubectl import DirectKubectl

from energylens_dev.devcluster import Kubectl, KubectlError, RunningCluster, eventually
from energylens_dev.devcluster.audit import AuditLog


def deployment(name: str, product: str, replicas: int, gpus: int) -> dict[str, Any]:
    labels = {"app": name}
    limits = {"nvidia.com/gpu": str(gpus)}
    container = {"name": "engine", "image": "example.org/engine", "resources": {"limits": limits}}
    pod = {
        "nodeSelector": {"nvidia.com/gpu.product": product},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


@pytest.mark.parametrize(
    ("product", "gpus"),
    [("NVIDIA-H100-80GB-HBM3", 8), ("NVIDIA-H200", 8), ("NVIDIA-B200", 8), ("NVIDIA-L40S", 4)],
)
def test_pods_that_ask_for_gpus_run_on_two_nodes_of_the_wanted_product(
    admin: Kubectl, kubectl: Kubectl, product: str, gpus: int
) -> None:
    kubectl.apply(deployment("engine", product, replicas=2, gpus=gpus))

    def all_run() -> list[dict[str, Any]]:
        pods = kubectl.list("pods")
        assert [pod["status"]["phase"] for pod in pods] == ["Running", "Running"]
        return pods

    nodes = {pod["spec"]["nodeName"] for pod in eventually(all_run)}
    assert len(nodes) == 2
    for name in nodes:
        node = admin.get("node", name)
        assert node is not None
        assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == product


def test_a_pod_that_fits_no_node_stays_pending_and_says_why(kubectl: Kubectl) -> None:
    kubectl.apply(deployment("engine", "NVIDIA-H200", replicas=1, gpus=9))

    def unschedulable() -> str:
        pod = kubectl.list("pods")[0]
        messages: list[str] = [c["message"] for c in pod["status"]["conditions"] if c["reason"] == "Unschedulable"]
        return messages[0]

    assert "Insufficient nvidia.com/gpu" in eventually(unschedulable)


def test_children_are_collected_when_their_owner_goes(kubectl: Kubectl) -> None:
    kubectl.apply(deployment("engine", "NVIDIA-L40S", replicas=1, gpus=1))
    eventually(lambda: kubectl.list("pods"))
    kubectl.run("delete", "deployment", "engine", "--wait=false")
    eventually(lambda: not kubectl.list("pods") and not kubectl.list("replicasets"))


def test_a_volume_claim_of_the_default_class_is_bound(kubectl: Kubectl) -> None:
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models"},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "500Gi"}}},
        }
    )
    eventually(lambda: (kubectl.get("pvc", "models") or {}).get("status", {}).get("phase") == "Bound")


def test_the_audit_log_counts_the_writes_of_a_user(cluster: RunningCluster, kubectl: Kubectl, namespace: str) -> None:
    log = AuditLog(cluster.audit_log)
    kubectl.run("create", "configmap", "one")
    kubectl.run("label", "configmap", "one", "a=b")
    kubectl.run("get", "configmap", "one")
    with pytest.raises(KubectlError, match="already exists"):
        kubectl.run("create", "configmap", "one")

    writes = log.writes("kubernetes-admin", namespace=namespace)
    assert [(event.verb, event.resource, event.name) for event in writes] == [
        ("create", "configmaps", "one"),
        ("patch", "configmaps", "one"),
    ]
    assert log.writes("somebody-else") == []


def test_a_user_without_a_role_may_do_nothing(kubectl: Kubectl) -> None:
    with pytest.raises(KubectlError, match='User "someone" cannot list resource "pods"'):
        kubectl.run("get", "pods", "--as=someone")


def test_requests_without_the_program_are_answered_as_by_the_program(
    cluster: RunningCluster, kubectl: DirectKubectl, namespace: str
) -> None:
    program = cluster.client().within(namespace)
    labelled = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "labels": {"a": "b"}}}
    kubectl.apply([labelled, deployment("one", "NVIDIA-H200", replicas=0, gpus=1)])
    assert kubectl.get("cm", "one") == program.get("cm", "one")
    (written,) = program.json("get", "cm", "one", "--show-managed-fields")["metadata"]["managedFields"]
    assert (written["manager"], written["operation"]) == ("kubectl", "Apply")
    assert kubectl.get("secret", "none") is None
    asked: list[list[str]] = [
        ["ConfigMaps", "-l", "a in (b)"],
        ["cm,service"],
        ["clusterroles"],
        ["cm", "-A", "-l", "a=b"],
    ]
    assert [kubectl.list(*each) for each in asked] == [program.list(*each) for each in asked]
    unknown = {**labelled, "dat": {}}
    for each in (kubectl, program):
        with pytest.raises(KubectlError, match="doesn't have a resource type"):
            each.list("nothings")
        with pytest.raises(KubectlError, match="field not declared in schema"):
            each.apply(unknown)
    kubectl.delete("cm", "one")
    kubectl.delete("cm", "one")
    assert program.get("cm", "one") is None
