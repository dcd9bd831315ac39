"""A cluster snapshot from plain Kubernetes objects: which GPU nodes exist and who holds their GPUs.

GPUs are counted as the scheduler counts them: until a pod has succeeded or failed, it counts on the node to which it is
bound, with the larger of the sum of its containers and its largest init container. Restartable init containers keep
running beside the containers, so they are added to the sum.

On nodes whose GPUs are in ResourceSlices, the devices that ResourceClaims hold count, each once. There a pod that
requests ``nvidia.com/gpu`` has a claim too, which the scheduler made for it, and is counted by one of the two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from energylens.planner.inventory.devices import (
    Classes,
    DeviceKey,
    NodeDevices,
    PodKey,
    allocated_by,
    classes_of,
    devices_of,
    node_of_slice,
)
from energylens.planner.inventory.node_gpus import GPU_RESOURCE, NodeGpus, gpu_count, labels_of, node_gpus
from energylens.planner.inventory.products import NodeLabels
from energylens.planner.types import ClusterSnapshot, ExcludedNode, GpuAccess, GpuAllocation, GpuNode, Taint
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass

OWNER_LABEL = "energylens.dev/llmdeployment"
CLAIMED_GPUS_LABEL = "energylens.dev/claimed-gpus"
"""Label of the operator's pods that get their GPUs by a ResourceClaim: how many. The pod's own spec does not say it."""

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


@dataclass(frozen=True)
class DeviceObjects:
    """The objects of dynamic resource allocation, in the form of ``kubectl get -o json``."""

    slices: Sequence[Mapping[str, Any]] = ()
    """ResourceSlices."""
    claims: Sequence[Mapping[str, Any]] = ()
    """ResourceClaims of all namespaces."""
    classes: Sequence[Mapping[str, Any]] = ()
    """DeviceClasses."""
    taint_rules: Sequence[Mapping[str, Any]] = ()
    """DeviceTaintRules."""


NO_DEVICE_OBJECTS = DeviceObjects()


def snapshot_from_objects(
    nodes: Iterable[Mapping[str, Any]],
    pods: Iterable[Mapping[str, Any]],
    gpus: Mapping[str, GpuSpec],
    devices: DeviceObjects = NO_DEVICE_OBJECTS,
    names: NodeLabels | None = None,
) -> ClusterSnapshot:
    """Return the GPUs of a cluster from its Node and Pod objects, in the form of ``kubectl get -o json``.

    Nodes whose GPUs cannot be planned (shared, partitioned, virtual or unhealthy GPUs, or a product that no label
    names) are listed separately with the reason.

    Args:
        nodes: The Node objects.
        pods: The Pod objects of all namespaces.
        gpus: The known GPU products.
        devices: The objects of dynamic resource allocation, if the cluster has it.
        names: The table of products by label, if it is available.
    """
    names = names or NodeLabels(gpus)
    by_host: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for pod in pods:
        host = (pod.get("spec") or {}).get("nodeName") or ""
        if host:
            by_host[host].append(pod)
    slices: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for body in devices.slices:
        slices[node_of_slice(body)].append(body)
    claims = [held for claim in devices.claims if (held := _held_by(claim)) is not None]
    classes = classes_of(devices.classes, GPU_RESOURCE)
    usable: list[GpuNode] = []
    excluded: list[ExcludedNode] = []
    for node in nodes:
        name = str(node["metadata"]["name"])
        own = _Devices.of(slices.get(name, ()), claims, classes, devices.taint_rules)
        found = _counted_node(node, names, by_host.get(name, ()), own)
        if isinstance(found, GpuNode):
            usable.append(found)
        elif found is not None:
            excluded.append(found)
    by_name = sorted(usable, key=lambda node: node.name)
    return ClusterSnapshot(tuple(by_name), tuple(sorted(excluded, key=lambda node: node.name)))


_Holder = tuple[str, GpuAccess]
"""An owner, and how its pods got their GPUs."""


class _User(NamedTuple):
    """Who uses a device that a claim holds."""

    pod: PodKey | None
    """None for a claim that is allocated to no pod."""
    owner: str
    """The LLMDeployment that the claim was made for, as ``namespace/name``; "" for any other claim."""


class _Claim(NamedTuple):
    devices: tuple[DeviceKey, ...]
    users: tuple[_User, ...]


def _held_by(claim: Mapping[str, Any]) -> _Claim | None:
    found = allocated_by(claim)
    if found is None:
        return None
    pods: tuple[PodKey | None, ...] = found.pods or (None,)
    return _Claim(found.devices, tuple(_User(pod, _owner_of(claim)) for pod in pods))


@dataclass(frozen=True)
class _Devices:
    """The GPUs of one node by dynamic resource allocation."""

    listed: NodeDevices
    classes: Classes
    held: Mapping[DeviceKey, tuple[_User, ...]]
    """Who holds each whole GPU, or a partition of it; at least one user each."""
    malformed: str = ""

    @classmethod
    def of(
        cls,
        slices: Sequence[Mapping[str, Any]],
        claims: Iterable[_Claim],
        classes: Classes,
        taint_rules: Sequence[Mapping[str, Any]],
    ) -> _Devices:
        if not slices:
            return _Devices(NodeDevices(), classes, {})
        try:
            listed = devices_of(slices, taint_rules)
        except ValueError as error:
            return _Devices(NodeDevices(), classes, {}, f"a ResourceSlice of it is malformed: {error}")
        held: dict[DeviceKey, tuple[_User, ...]] = {}
        for claim in claims:
            for device in claim.devices:
                gpu = listed.gpu_of(device)
                if gpu is not None:
                    held[gpu] = held.get(gpu, ()) + claim.users
        return _Devices(listed, classes, held)


def _counted_node(
    node: Mapping[str, Any], names: NodeLabels, pods: Iterable[Mapping[str, Any]], devices: _Devices
) -> GpuNode | ExcludedNode | None:
    name = str(node["metadata"]["name"])
    found = node_gpus(node, names, devices.listed, devices.classes, frozenset(devices.held))
    malformed = devices.malformed
    if found is None:
        return ExcludedNode(name, "", malformed) if malformed else None
    held: Mapping[_Holder, int] = {}
    try:
        held = _held(found, pods, devices)
    except ValueError as error:
        malformed = str(error)
    reason = found.reason or malformed
    if reason:
        # Claims are placed by product only, so GPUs of an excluded node are avoided by its name.
        return ExcludedNode(name, found.product, reason, found.gpus if found.reason else 0)
    return _gpu_node(node, name, found, held)


def _held(found: NodeGpus, pods: Iterable[Mapping[str, Any]], devices: _Devices) -> dict[_Holder, int]:
    """Return the GPUs that each owner holds on a node, by the way in which its pods got them.

    Raises:
        ValueError: A pod is malformed; the message names it.
    """
    by_pod: dict[PodKey, int] = defaultdict(int)
    owners: dict[PodKey, str] = {}
    held: dict[_Holder, int] = defaultdict(int)
    # Where the device plugin counts the GPUs, every GPU in a claim is one that it can no longer give.
    claimed = found.devices or frozenset(devices.held)
    for device in sorted(claimed & devices.held.keys()):
        user = devices.held[device][0]
        if user.pod is None:
            held[user.owner, "Claim"] += 1
        else:
            by_pod[user.pod] += 1
            owners[user.pod] = user.owner
    for pod in pods:
        key = _key_of(pod)
        try:
            count = gpus_of_pod(pod)
        except ValueError as error:
            raise ValueError(f"its pod {'/'.join(key)} is malformed: {error}") from error
        by_claim = by_pod.pop(key, 0)
        # A claim may become known after its pod.
        count = max(count, by_claim) if found.devices or _claims(pod) else count + by_claim
        if count:
            held[_owner_of(pod), "Claim" if _claims(pod) else "Resource"] += count
    # A claim is allocated before its pod is bound, and is held for some seconds after the pod is gone.
    for key, count in by_pod.items():
        held[owners[key], "Claim"] += count
    return {holder: count for holder, count in held.items() if count}


def _gpu_node(node: Mapping[str, Any], name: str, found: NodeGpus, held: Mapping[_Holder, int]) -> GpuNode:
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
        product=found.product,
        allocatable=found.gpus,
        allocations=tuple(GpuAllocation(owner, count, access) for (owner, access), count in sorted(held.items())),
        labels=labels_of(node),
        taints=tuple(taint for taint in taints if taint not in passing),
        schedulable=_ready(node) and not spec.get("unschedulable", False) and not blocked and not going,
        access=found.access,
    )


def _ready(node: Mapping[str, Any]) -> bool:
    conditions: Sequence[Mapping[str, Any]] = (node.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def gpus_of_pod(pod: Mapping[str, Any]) -> int:
    """Return the GPUs that a pod requests, or that the claim of an operator's pod asks for; 0 after the pod has ended.

    Raises:
        ValueError: A quantity is not a whole number of GPUs.
    """
    spec = pod.get("spec") or {}
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if _claims(pod):
        return gpu_count({GPU_RESOURCE: _labels(pod)[CLAIMED_GPUS_LABEL]})
    containers = sum(container_gpus(c) for c in spec.get("containers") or ())
    sidecars = largest_init = 0
    for container in spec.get("initContainers") or ():
        gpus = container_gpus(container)
        if container.get("restartPolicy") == "Always":
            sidecars += gpus
        else:
            largest_init = max(largest_init, sidecars + gpus)
    return max(containers + sidecars, largest_init)


def _owner_of(body: Mapping[str, Any]) -> str:
    """Return the LLMDeployment that a pod or claim belongs to, as ``namespace/name``; "" for any other one."""
    name = _labels(body).get(OWNER_LABEL, "")
    return f"{_key_of(body)[0]}/{name}" if name else ""


def _key_of(pod: Mapping[str, Any]) -> PodKey:
    metadata = pod.get("metadata") or {}
    return str(metadata.get("namespace", "default")), str(metadata.get("name", ""))


def _labels(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (pod.get("metadata") or {}).get("labels") or {}
    return found


def _claims(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod is one of the operator's that gets its GPUs by a ResourceClaim."""
    labels = _labels(pod)
    return OWNER_LABEL in labels and CLAIMED_GPUS_LABEL in labels


def container_gpus(container: Mapping[str, Any]) -> int:
    """Return the GPUs that a container requests.

    Raises:
        ValueError: The quantity is not a whole number of GPUs.
    """
    resources = container.get("resources") or {}
    # The API server copies limits to requests; objects from a file may have only limits.
    return gpu_count(resources.get("requests") or {}) or gpu_count(resources.get("limits") or {})
