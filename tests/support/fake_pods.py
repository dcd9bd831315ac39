"""What happens to a Deployment in a cluster: pods come, are bound where GPUs are free, and are ready at once."""

from __future__ import annotations

import copy
from typing import Any

from tests.support.fake_cluster import FakeCluster

H100 = "NVIDIA-H100-80GB-HBM3"
GPU = "nvidia.com/gpu"
PRODUCT = "nvidia.com/gpu.product"


def node(name: str, product: str = H100, gpus: int = 8) -> dict[str, Any]:
    """Return a GPU node."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {PRODUCT: product, "kubernetes.io/hostname": name}},
        "spec": {"taints": [{"key": GPU, "value": "present", "effect": "NoSchedule"}]},
        "status": {"allocatable": {GPU: str(gpus)}, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def run_pods(cluster: FakeCluster) -> None:
    """Bring the pods of every Deployment to what its spec says, old pods first out; then write its status."""
    for (kind, namespace, name), body in list(cluster.objects.items()):
        if kind == "Deployment":
            _run(cluster, namespace, name, body)


def _run(cluster: FakeCluster, namespace: str, name: str, body: dict[str, Any]) -> None:
    spec, uid = body["spec"], body["metadata"]["uid"]
    template = spec["template"]
    wanted = [f"{name}-{index}" for index in range(spec["replicas"])]
    for (kind, space, pod), old in list(cluster.objects.items()):
        owned = any(owner.get("uid") == uid for owner in old["metadata"].get("ownerReferences") or ())
        same = {k: v for k, v in old.get("spec", {}).items() if k != "nodeName"} == template["spec"]
        if kind == "Pod" and owned and not (pod in wanted and same and old["metadata"]["labels"] == _labels(template)):
            cluster.remove("Pod", space, pod)
    ready = 0
    for pod in wanted:
        known = cluster.objects.get(("Pod", namespace, pod))
        if known is None or not known["spec"].get("nodeName"):
            known = cluster.put(_pod(cluster, namespace, pod, uid, name, template))
        ready += bool(known["spec"].get("nodeName"))
    cluster.edit("Deployment", namespace, name, lambda live: live.update(status=_status(live, len(wanted), ready)))


def _status(live: dict[str, Any], replicas: int, ready: int) -> dict[str, Any]:
    return {
        "observedGeneration": live["metadata"]["generation"],
        "replicas": replicas,
        "updatedReplicas": replicas,
        "readyReplicas": ready,
        "availableReplicas": ready,
    }


def _labels(template: dict[str, Any]) -> dict[str, Any]:
    labels: dict[str, Any] = template["metadata"]["labels"]
    return labels


def _pod(
    cluster: FakeCluster, namespace: str, pod: str, uid: str, owner: str, template: dict[str, Any]
) -> dict[str, Any]:
    spec = copy.deepcopy(template["spec"])
    host = _place(cluster, spec)
    scheduled: dict[str, Any] = {"type": "PodScheduled", "status": "True"}
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-03-01T00:00:00Z"}
    if host:
        spec["nodeName"] = host
    else:
        scheduled = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": f"0/1 nodes are available: Insufficient {GPU}.",
        }
        ready = {"type": "Ready", "status": "False"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod,
            "namespace": namespace,
            "labels": dict(_labels(template)),
            "ownerReferences": [{"kind": "ReplicaSet", "name": owner, "uid": uid}],
        },
        "spec": spec,
        "status": {"phase": "Running" if host else "Pending", "conditions": [scheduled, ready]},
    }


def _gpus(spec: dict[str, Any]) -> int:
    return sum(int(c.get("resources", {}).get("requests", {}).get(GPU, 0)) for c in spec["containers"])


def _place(cluster: FakeCluster, spec: dict[str, Any]) -> str:
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    products = {
        value
        for term in terms
        for e in term["matchExpressions"]
        if e["key"] == PRODUCT
        for value in e.get("values", ())
    }
    selector = (spec.get("nodeSelector") or {}).items()
    for (kind, _, name), body in sorted(cluster.objects.items()):
        if kind != "Node" or body["metadata"]["labels"].get(PRODUCT) not in products:
            continue
        held = sum(
            _gpus(pod["spec"])
            for (k, _, _), pod in cluster.objects.items()
            if k == "Pod" and pod["spec"].get("nodeName") == name
        )
        if selector <= body["metadata"]["labels"].items() and int(body["status"]["allocatable"][GPU]) - held >= _gpus(
            spec
        ):
            return name
    return ""
