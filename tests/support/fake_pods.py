"""What happens to a workload in a cluster: pods come, are bound where GPUs are free, and are ready at once."""

from __future__ import annotations

from typing import Any

from tests.support.fake_cluster import FakeCluster, clone

H100 = "NVIDIA-H100-80GB-HBM3"
GPU = "nvidia.com/gpu"
PRODUCT = "nvidia.com/gpu.product"
LWS = "leaderworkerset.sigs.k8s.io"


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
    """Bring the pods of every workload to what its spec says, old pods first out; then write its status."""
    for (kind, namespace, name), body in list(cluster.objects.items()):
        if kind in ("Deployment", "LeaderWorkerSet"):
            _run(cluster, kind, namespace, name, body)


def _run(cluster: FakeCluster, kind: str, namespace: str, name: str, body: dict[str, Any]) -> None:
    uid = body["metadata"]["uid"]
    wanted = {pod: template for group in _groups(kind, name, body["spec"]) for pod, template in group.items()}
    for (is_a, space, pod), old in list(cluster.objects.items()):
        owned = any(owner.get("uid") == uid for owner in old["metadata"].get("ownerReferences") or ())
        if is_a == "Pod" and owned and not (pod in wanted and _made_from(old, wanted[pod])):
            cluster.remove("Pod", space, pod)
    ready = 0
    for group in _groups(kind, name, body["spec"]):
        bound = 0
        for pod, template in group.items():
            known = cluster.objects.get(("Pod", namespace, pod))
            if known is None or not known["spec"].get("nodeName"):
                known = cluster.put(_pod(cluster, namespace, pod, uid, name, template))
            bound += bool(known["spec"].get("nodeName"))
        ready += bound == len(group)
    replicas = body["spec"]["replicas"]
    cluster.edit(kind, namespace, name, lambda live: live.update(status=_status(live, replicas, ready)))


def _groups(kind: str, name: str, spec: dict[str, Any]) -> list[dict[str, dict[str, Any]]]:
    """Return the template of each pod by its name, group by group; a pod of a Deployment is a group."""
    if kind == "Deployment":
        return [{f"{name}-{index}": spec["template"]} for index in range(spec["replicas"])]
    group = spec["leaderWorkerTemplate"]
    found = []
    for index in range(spec["replicas"]):
        kinds = ["leaderTemplate"] + ["workerTemplate"] * (group["size"] - 1)
        names = [f"{name}-{index}"] + [f"{name}-{index}-{worker}" for worker in range(1, group["size"])]
        found.append(
            {
                pod: _labelled(group[of], {f"{LWS}/group-index": str(index), f"{LWS}/worker-index": str(worker)})
                for worker, (pod, of) in enumerate(zip(names, kinds, strict=True))
            }
        )
    return found


def _labelled(template: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    metadata = template["metadata"]
    return {**template, "metadata": {**metadata, "labels": {**metadata["labels"], **labels}}}


def _made_from(pod: dict[str, Any], template: dict[str, Any]) -> bool:
    spec = {k: v for k, v in pod.get("spec", {}).items() if k != "nodeName"}
    return bool(spec == template["spec"] and pod["metadata"]["labels"] == _labels(template))


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
    spec = clone(template["spec"])
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
