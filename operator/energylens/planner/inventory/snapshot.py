"""A cluster snapshot from plain Kubernetes objects: which GPU nodes exist and who holds their GPUs.

GPUs are counted as the scheduler counts them: until a pod has succeeded or failed, it counts on the node to which it is
bound, with the larger of the sum of its containers and its largest init container. Restartable init containers keep
running beside the containers, so they are added to the sum.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from energylens.planner.inventory.node_gpus import gpu_count, labels_of, node_gpus
from energylens.planner.inventory.products import NodeLabels
from energylens.planner.types import ClusterSnapshot, ExcludedNode, GpuAllocation, GpuNode, Taint
from energylens.predictor.types import GpuSpec

OWNER_LABEL = "energylens.dev/llmdeployment"

_PASSING_TAINTS = (
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "node.cilium.io/agent-not-ready",
    "startup-taint.cluster-autoscaler.kubernetes.io/",
    "status-taint.cluster-autoscaler.kubernetes.io/",
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/unregistered",
)
"""Prefixes of taints for temporary states of a node: starting, unhealthy, being removed."""


def snapshot_from_objects(
    nodes: Iterable[Mapping[str, Any]],
    pods: Iterable[Mapping[str, Any]],
    gpus: Mapping[str, GpuSpec],
    names: NodeLabels | None = None,
) -> ClusterSnapshot:
    """Return the GPUs of a cluster from its Node and Pod objects, in the form of ``kubectl get -o json``.

    Nodes whose GPUs cannot be planned (shared, partitioned, virtual or unhealthy GPUs, or a product that no label
    names) are listed separately with the reason.

    Args:
        nodes: The Node objects.
        pods: The Pod objects of all namespaces.
        gpus: The known GPU products.
        names: The table of products by label, if it is available.
    """
    held: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    malformed: dict[str, str] = {}
    for pod in pods:
        host = (pod.get("spec") or {}).get("nodeName") or ""
        if not host:
            continue
        try:
            count = gpus_of_pod(pod)
        except ValueError as error:
            malformed[host] = f"its pod {_name_of(pod)} is malformed: {error}"
            continue
        if count:
            held[host][_owner_of(pod)] += count
    names = names or NodeLabels(gpus)
    usable: list[GpuNode] = []
    excluded: list[ExcludedNode] = []
    for node in nodes:
        found, name = node_gpus(node, names), str(node["metadata"]["name"])
        if found is None:
            continue
        reason = found.reason or malformed.get(name)
        if reason is not None:
            excluded.append(ExcludedNode(name, found.product, reason, found.gpus if found.reason else 0))
        else:
            usable.append(_gpu_node(node, name, found.product, found.gpus, held[name]))
    by_name = sorted(usable, key=lambda node: node.name)
    return ClusterSnapshot(tuple(by_name), tuple(sorted(excluded, key=lambda node: node.name)))


def _gpu_node(node: Mapping[str, Any], name: str, product: str, gpus: int, held: Mapping[str, int]) -> GpuNode:
    spec = node.get("spec") or {}
    taints = [
        Taint(taint.get("key") or "", taint.get("value") or "", taint.get("effect") or "")
        for taint in spec.get("taints") or ()
    ]
    passing = [taint for taint in taints if taint.key.startswith(_PASSING_TAINTS)]
    blocked = any(taint.effect in ("NoSchedule", "NoExecute") for taint in passing)
    going = bool(node["metadata"].get("deletionTimestamp"))
    return GpuNode(
        name=name,
        product=product,
        allocatable=gpus,
        allocations=tuple(GpuAllocation(owner, count) for owner, count in sorted(held.items())),
        labels=labels_of(node),
        taints=tuple(taint for taint in taints if taint not in passing),
        schedulable=_ready(node) and not spec.get("unschedulable", False) and not blocked and not going,
    )


def _ready(node: Mapping[str, Any]) -> bool:
    conditions: Sequence[Mapping[str, Any]] = (node.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def gpus_of_pod(pod: Mapping[str, Any]) -> int:
    """Return the GPUs that a pod requests; 0 after it has succeeded or failed.

    Raises:
        ValueError: A quantity is not a whole number of GPUs.
    """
    spec = pod.get("spec") or {}
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    containers = sum(container_gpus(c) for c in spec.get("containers") or ())
    sidecars = largest_init = 0
    for container in spec.get("initContainers") or ():
        gpus = container_gpus(container)
        if container.get("restartPolicy") == "Always":
            sidecars += gpus
            largest_init = max(largest_init, sidecars)
        else:
            largest_init = max(largest_init, sidecars + gpus)
    return max(containers + sidecars, largest_init)


def _owner_of(pod: Mapping[str, Any]) -> str:
    """Return the LLMDeployment that a pod belongs to, as ``namespace/name``; "" for any other pod."""
    metadata = pod.get("metadata") or {}
    name = (metadata.get("labels") or {}).get(OWNER_LABEL, "")
    return f"{metadata.get('namespace', 'default')}/{name}" if name else ""


def _name_of(pod: Mapping[str, Any]) -> str:
    metadata = pod.get("metadata") or {}
    return f"{metadata.get('namespace', 'default')}/{metadata.get('name', '')}"


def container_gpus(container: Mapping[str, Any]) -> int:
    """Return the GPUs that a container requests.

    Raises:
        ValueError: The quantity is not a whole number of GPUs.
    """
    resources = container.get("resources") or {}
    # The API server copies limits to requests; objects from a file may have only limits.
    return gpu_count(resources.get("requests") or {}) or gpu_count(resources.get("limits") or {})
