"""A cluster snapshot from plain Kubernetes objects: what GPU nodes there are and who holds their GPUs.

Counting follows the scheduler: a pod counts on the node it is bound to until it has succeeded or failed, with the
larger of the sum of its containers and its largest init container (restartable init containers run on beside the
containers, so that they add up with them).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from energylens.planner.products import GKE_ACCELERATORS, GKE_LABEL, PRODUCT_LABEL
from energylens.planner.types import ClusterSnapshot, ExcludedNode, GpuAllocation, GpuNode, Taint

GPU_RESOURCE = "nvidia.com/gpu"
OWNER_LABEL = "energylens.dev/llmdeployment"
SHARING_LABEL = "nvidia.com/gpu.sharing-strategy"
GKE_SHARING_LABEL = "cloud.google.com/gke-gpu-sharing-strategy"
GKE_PARTITION_LABEL = "cloud.google.com/gke-gpu-partition-size"

_PASSING_TAINT_PREFIX = "node.kubernetes.io/"
"""Taints that the node controller puts on and takes off; they say that a node cannot be used now, not whose it is."""


def snapshot_from_objects(nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]]) -> ClusterSnapshot:
    """Return the GPUs of a cluster from its Node and Pod objects, as ``kubectl get -o json`` prints them.

    Nodes whose GPUs are shared or partitioned, or whose product no label names, are kept apart with the reason: pods
    there do not get whole GPUs, which is what predictions are made for.
    """
    held: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for pod in pods:
        host, owner, gpus = _pod_gpus(pod)
        if host and gpus:
            held[host][owner] += gpus
    usable: list[GpuNode] = []
    excluded: list[ExcludedNode] = []
    for node in nodes:
        labels = node["metadata"].get("labels") or {}
        product = labels.get(PRODUCT_LABEL) or GKE_ACCELERATORS.get(labels.get(GKE_LABEL, ""), "")
        name = node["metadata"]["name"]
        reason = _exclusion(labels, product)
        gpus = _allocatable(node)
        if reason is not None and (product or gpus):
            excluded.append(ExcludedNode(name, product, reason))
        elif gpus:
            usable.append(_gpu_node(node, name, product, gpus, held[name]))
    by_name = sorted(usable, key=lambda node: node.name)
    return ClusterSnapshot(tuple(by_name), tuple(sorted(excluded, key=lambda node: node.name)))


def _gpu_node(node: Mapping[str, Any], name: str, product: str, gpus: int, held: Mapping[str, int]) -> GpuNode:
    spec = node.get("spec") or {}
    taints = [
        Taint(taint["key"], taint.get("value") or "", taint.get("effect") or "") for taint in spec.get("taints") or ()
    ]
    passing = [taint for taint in taints if taint.key.startswith(_PASSING_TAINT_PREFIX)]
    blocked = any(taint.effect in ("NoSchedule", "NoExecute") for taint in passing)
    return GpuNode(
        name=name,
        product=product,
        allocatable=gpus,
        allocations=tuple(GpuAllocation(owner, count) for owner, count in sorted(held.items())),
        labels=dict(node["metadata"].get("labels") or {}),
        taints=tuple(taint for taint in taints if taint not in passing),
        schedulable=_ready(node) and not spec.get("unschedulable", False) and not blocked,
    )


def _exclusion(labels: Mapping[str, str], product: str) -> str | None:
    if not product:
        return f"no label {PRODUCT_LABEL} or {GKE_LABEL} names its GPUs"
    if product.endswith("-SHARED") or labels.get(SHARING_LABEL, "none") != "none" or GKE_SHARING_LABEL in labels:
        return "its GPUs are shared between pods (time slicing or MPS)"
    if "-MIG-" in product or GKE_PARTITION_LABEL in labels:
        return "its GPUs are partitioned (MIG)"
    return None


def _allocatable(node: Mapping[str, Any]) -> int:
    return _count((node.get("status") or {}).get("allocatable") or {})


def _ready(node: Mapping[str, Any]) -> bool:
    conditions: Sequence[Mapping[str, Any]] = (node.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def gpus_of_pod(pod: Mapping[str, Any]) -> int:
    """Return the GPUs that a pod asks for; 0 once it has succeeded or failed."""
    spec = pod.get("spec") or {}
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    containers = sum(_container_gpus(c) for c in spec.get("containers") or ())
    sidecars = largest_init = 0
    for container in spec.get("initContainers") or ():
        gpus = _container_gpus(container)
        if container.get("restartPolicy") == "Always":
            sidecars += gpus
            largest_init = max(largest_init, sidecars)
        else:
            largest_init = max(largest_init, sidecars + gpus)
    return max(containers + sidecars, largest_init)


def _pod_gpus(pod: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return the node, the owner (``namespace/name`` of an LLMDeployment or "") and the GPUs that a pod holds."""
    metadata = pod["metadata"]
    name = (metadata.get("labels") or {}).get(OWNER_LABEL, "")
    owner = f"{metadata.get('namespace', 'default')}/{name}" if name else ""
    return (pod.get("spec") or {}).get("nodeName") or "", owner, gpus_of_pod(pod)


def _container_gpus(container: Mapping[str, Any]) -> int:
    resources = container.get("resources") or {}
    # The API server copies limits to requests; objects from a file may have limits only.
    return _count(resources.get("requests") or {}) or _count(resources.get("limits") or {})


def _count(resources: Mapping[str, Any]) -> int:
    value = resources.get(GPU_RESOURCE, 0)
    return int(value)
