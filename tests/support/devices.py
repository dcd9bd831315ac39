"""Objects of dynamic resource allocation, as NVIDIA's driver and the scheduler write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Object = dict[str, Any]
DRIVER = CLASS = "gpu.nvidia.com"
NVML_H100 = "NVIDIA H100 80GB HBM3"
WHOLE_GPU = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'gpu'"
"""Selector of the driver's own DeviceClass."""


def gpu(index: int, product: str = NVML_H100, memory: str | None = "81559Mi", **more: Any) -> Object:
    """Return a whole GPU."""
    return {
        "name": f"gpu-{index}",
        "attributes": {
            "type": {"string": "gpu"},
            "uuid": {"string": f"GPU-{index}"},
            "productName": {"string": product},
            "cudaComputeCapability": {"version": "9.0.0"},
        },
        "capacity": {} if memory is None else {"memory": {"value": memory}},
        **more,
    }


def mig(index: int, product: str = NVML_H100, **more: Any) -> Object:
    """Return a partition of a GPU."""
    found = gpu(index, product, "9984Mi")
    found["attributes"] |= {"type": {"string": "mig"}, "profile": {"string": "1g.10gb"}}
    return {**found, "name": f"gpu-{index}-mig-1g10gb-19-0", **more}


def counted_by(device: Object, index: int) -> Object:
    """Return a device that consumes from the counter set of a GPU, as with dynamic MIG."""
    return {**device, "consumesCounters": [{"counterSet": f"gpu-{index}-counter-set", "counters": {}}]}


def resource_slice(
    node: str, devices: Sequence[Object], *, name: str = "", generation: int = 1, of: int = 1, driver: str = DRIVER
) -> Object:
    """Return a ResourceSlice of a node's pool, one ``of`` so many slices."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": name or node},
        "spec": {
            "driver": driver,
            "nodeName": node,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": of},
            "devices": list(devices),
        },
    }


def taint_rule(name: str, effect: str = "NoSchedule", **selector: str) -> Object:
    """Return a DeviceTaintRule of Kubernetes 1.36 for the devices of a selector."""
    return {
        "apiVersion": "resource.k8s.io/v1beta2",
        "kind": "DeviceTaintRule",
        "metadata": {"name": name},
        "spec": {"deviceSelector": selector, "taint": {"key": "example.com/broken", "value": "xid", "effect": effect}},
    }


def device_class(name: str = CLASS, created: str = "2026-01-01T00:00:00Z", **spec: Any) -> Object:
    """Return a DeviceClass; by default the driver's own for whole GPUs."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {"selectors": [{"cel": {"expression": WHOLE_GPU}}], **spec},
    }


def claim(name: str, node: str, *devices: str, pod: str = "", namespace: str = "team", **result: Any) -> Object:
    """Return a ResourceClaim that holds devices of a node for a pod."""
    results = [{"request": "gpus", "driver": DRIVER, "pool": node, "device": device, **result} for device in devices]
    users = [{"resource": "pods", "name": pod, "uid": pod}] if pod else []
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": namespace},
        "status": {"allocation": {"devices": {"results": results}}, "reservedFor": users},
    }
