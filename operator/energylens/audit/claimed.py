"""Pods that hold GPUs by ResourceClaims, read like pods that request them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from energylens.planner.inventory.devices import (
    WHOLE,
    NodeDevices,
    PodKey,
    allocated_by,
    devices_of,
    node_of_slice,
)
from energylens.planner.inventory.node_gpus import GPU_RESOURCE
from energylens.planner.inventory.snapshot import DeviceObjects, container_gpus

Object = dict[str, Any]


def with_claimed_gpus(pods: Sequence[Object], devices: DeviceObjects) -> list[Object]:
    """Return the pods; a pod without a request for GPUs gets a request for the GPUs of its claims.

    The request is added to the container that names a claim, otherwise to the first container. Partitions of GPUs are
    not counted.

    Raises:
        ValueError: A ResourceSlice is malformed.
    """
    held = _whole_gpus(devices)
    return [_with(pod, held.get(_key(pod), 0)) for pod in pods] if held else list(pods)


def listed_gpus(devices: DeviceObjects) -> dict[str, int]:
    """Return the GPUs of each node whose ResourceSlices list all GPUs as whole ones.

    A node with partitions of an unlisted GPU is absent, since its number of boards is unknown.

    Raises:
        ValueError: A ResourceSlice is malformed.
    """
    return {
        node: sum(device.kind == WHOLE for device in found.devices.values())
        for node, found in _by_node(devices).items()
        if not found.incomplete and all(found.gpu_of(key) is not None for key in found.devices)
    }


def _by_node(devices: DeviceObjects) -> dict[str, NodeDevices]:
    by_node: dict[str, list[Mapping[str, Any]]] = {}
    for body in devices.slices:
        by_node.setdefault(node_of_slice(body), []).append(body)
    return {node: devices_of(slices) for node, slices in by_node.items() if node}


def _whole_gpus(devices: DeviceObjects) -> Mapping[PodKey, int]:
    whole = {
        key for found in _by_node(devices).values() for key, device in found.devices.items() if device.kind == WHOLE
    }
    held: Counter[PodKey] = Counter()
    for claim in devices.claims:
        allocated = allocated_by(claim)
        if allocated is not None and allocated.pods:
            held[allocated.pods[0]] += sum(device in whole for device in allocated.devices)
    return held


def _with(pod: Object, gpus: int) -> Object:
    spec = pod.get("spec") or {}
    containers: Sequence[Object] = spec.get("containers") or ()
    if not gpus or not containers or any(map(container_gpus, containers)):
        return pod
    index = _claiming(containers)
    resources = containers[index].get("resources") or {}
    asking = {**containers[index], "resources": {**resources, "requests": {**(resources.get("requests") or {})}}}
    asking["resources"]["requests"][GPU_RESOURCE] = str(gpus)
    return {**pod, "spec": {**spec, "containers": [*containers[:index], asking, *containers[index + 1 :]]}}


def _claiming(containers: Iterable[Object]) -> int:
    return next((i for i, c in enumerate(containers) if (c.get("resources") or {}).get("claims")), 0)


def _key(pod: Object) -> PodKey:
    metadata = pod.get("metadata") or {}
    return str(metadata.get("namespace") or "default"), str(metadata.get("name", ""))
