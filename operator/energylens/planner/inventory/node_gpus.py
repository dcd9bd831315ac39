"""Which GPUs a node offers to pods as whole GPUs, and why some nodes offer none that can be planned.

Predictions are made for whole GPUs of a known product. A node may be labelled with GPUs but offer none of them, or
offer shares of GPUs under the name of whole GPUs. GPUs come from a device plugin, which counts them in the node's
status, or from the ResourceSlices of dynamic resource allocation. If a node has both, the device plugin's count holds,
as it does for the scheduler.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from energylens.api.quantity import parse_quantity
from energylens.planner.inventory.devices import (
    DEVICE_CLASS,
    DRIVER,
    MIG,
    NO_CLASSES,
    NO_DEVICES,
    WHOLE,
    Classes,
    Device,
    DeviceKey,
    NodeDevices,
    summary,
)
from energylens.planner.inventory.products import GKE_LABEL, PRODUCT_LABEL, NodeLabels
from energylens.planner.types import BY_RESOURCE, GpuAccess
from energylens.predictor.gpu_names import nearest_first
from energylens.records import dataclass

GPU_RESOURCE = "nvidia.com/gpu"
MOST_GPUS = 1024
"""Highest GPU count of one node; a higher count is a mistake."""
_RESOURCE_PREFIX = "nvidia.com/"
_MIG_PREFIX = "nvidia.com/mig-"
_SHARED_SUFFIX = ".shared"
"""Suffix of the resource name that time slicing uses (``renameByDefault`` of the NVIDIA device plugin)."""

SHARING_LABEL = "nvidia.com/gpu.sharing-strategy"
REPLICAS_LABEL = "nvidia.com/gpu.replicas"
GKE_SHARING_LABEL = "cloud.google.com/gke-gpu-sharing-strategy"
GKE_CLIENTS_LABEL = "cloud.google.com/gke-max-shared-clients-per-gpu"
GKE_PARTITION_LABEL = "cloud.google.com/gke-gpu-partition-size"
VGPU_PREFIX = "nvidia.com/vgpu."
MEMORY_LABEL = "nvidia.com/gpu.memory"
"""MiB of one GPU, from GPU feature discovery."""
OS_LABEL = "kubernetes.io/os"
OTHER_OS = "windows"
"""The only operating system besides Linux that the kubelet supports; engine images are built for Linux."""
_WINDOWS = f"it runs Windows ({OS_LABEL}), but engines need Linux"
COUNT_LABELS = (
    "nvidia.com/gpu.count",
    "cloud.google.com/gke-accelerator-count",
    "karpenter.k8s.aws/instance-gpu-count",
    "eks.amazonaws.com/instance-gpu-count",
)
"""Physical GPUs of a node: feature discovery's own count first, otherwise the count of the machine type."""

_PRESENCE = {
    "nvidia.com/gpu.present": "true",
    "feature.node.kubernetes.io/pci-10de.present": "true",
    "feature.node.kubernetes.io/pci-0302_10de.present": "true",
    "cloud.google.com/gke-gpu": "true",
    "karpenter.k8s.aws/instance-gpu-manufacturer": "nvidia",
    "eks.amazonaws.com/instance-gpu-manufacturer": "nvidia",
    "kubernetes.azure.com/accelerator": "nvidia",
}
"""Labels that say that a node has an NVIDIA GPU, but not which one."""
_CLOUD_NAMES = (
    "k8s.amazonaws.com/accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "eks.amazonaws.com/instance-gpu-name",
    "karpenter.azure.com/sku-gpu-name",
)
"""Cloud labels whose value names no single product: EKS and Karpenter use one name for cards and modules."""

_VGPU_PRODUCT = re.compile(r"(^|-)GRID-|-[0-9]+[ABCQ]$")
"""Names of virtual GPUs end in their frame buffer and series: ``GRID-A100D-40C``, ``NVIDIA-L40S-48Q`` (NVIDIA vGPU
software documentation, virtual GPU types)."""
_LEAST_MEMORY = 0.9
"""Least share of the product's memory that a whole GPU shows: error correction takes a sixteenth of GDDR memory."""


@dataclass(frozen=True)
class NodeGpus:
    """The GPUs that one node offers."""

    product: str
    """The product, otherwise the label's value as it stands, otherwise empty."""
    gpus: int
    """Whole GPUs that pods may request."""
    reason: str | None
    """Why the GPUs cannot be planned; None if they can."""
    access: frozenset[GpuAccess] = BY_RESOURCE
    """How pods may get the GPUs; empty if they cannot be planned."""
    devices: frozenset[DeviceKey] = frozenset()
    """The GPUs by their names in ResourceSlices, if these are what pods get."""


def node_gpus(
    node: Mapping[str, Any],
    names: NodeLabels,
    listed: NodeDevices = NO_DEVICES,
    classes: Classes = NO_CLASSES,
    held: frozenset[DeviceKey] = frozenset(),
) -> NodeGpus | None:
    """Return what GPUs a node offers; None if neither labels, resources nor ResourceSlices show a GPU.

    Args:
        node: A Node object.
        names: The table of products by label.
        listed: The devices of the node's ResourceSlices.
        classes: How pods may ask for these devices.
        held: Devices that claims hold: a GPU that was tainted after its allocation is still held.
    """
    labels = labels_of(node)
    status = node.get("status") or {}
    allocatable, capacity = status.get("allocatable") or {}, status.get("capacity") or {}
    known = names.product(labels)
    product = known or labels.get(PRODUCT_LABEL) or labels.get(GKE_LABEL) or ""
    try:
        gpus, most = gpu_count(allocatable), gpu_count(capacity)
    except ValueError as error:
        return NodeGpus(product, 0, f"its status is malformed: {error}")
    if gpus == 0 and listed:
        return _of_slices(labels, names, listed, classes, held)
    if not (product or gpus or most or _present(labels) or any(map(_is_part, _others(allocatable)))):
        return None
    reason = (
        (_WINDOWS if labels.get(OS_LABEL) == OTHER_OS else None)
        or _parts(labels, product)
        or _shared(labels, allocatable, gpus, most)
        or (_nothing(allocatable, most) if gpus == 0 else None)
        or _unnamed(labels, known, names)
        or _too_small(labels, known, names)
    )
    return NodeGpus(product, gpus, reason)


def _of_slices(
    labels: Mapping[str, str], names: NodeLabels, listed: NodeDevices, classes: Classes, held: frozenset[DeviceKey]
) -> NodeGpus:
    """Return the whole GPUs of a node's ResourceSlices: those of one product, where a node has several.

    Labels about shared or partitioned GPUs describe the device plugin and are ignored.
    """
    whole = {key: device for key, device in listed.devices.items() if device.kind == WHOLE and not device.is_shared}
    usable = {key: device for key, device in whole.items() if not device.taint or key in held}
    by_product: dict[str, set[DeviceKey]] = {}
    for key, device in usable.items():
        if not _is_share(device, names):
            by_product.setdefault(names.of_value(device.product) or device.product, set()).add(key)
    product = max(
        sorted(by_product), key=lambda name: (name in names.gpus, len(by_product[name])), default=_first_product(listed)
    )
    found = frozenset(by_product.get(product, ()))
    reason = None if found else _no_whole_gpu(listed, whole, usable, names)
    if reason is None and not classes.by_claim:
        reason = f"its GPUs are in ResourceSlices, but the cluster has no DeviceClass {DEVICE_CLASS} for claims"
    if labels.get(OS_LABEL) == OTHER_OS:
        reason = _WINDOWS
    # Requests of the extended resource name no product, so the pods of a plan select nodes by the product label.
    labelled = len(by_product) == 1 and names.product(labels) == product
    ways: set[GpuAccess] = {"Claim"} if classes.by_claim else set()
    if classes.by_resource and labelled:
        ways.add("Resource")
    # Claims select by product only, so they could also get the devices that are left out here.
    return NodeGpus(product, len(found) or len(usable), reason, frozenset(ways), found)


def _first_product(listed: NodeDevices) -> str:
    return next((device.product for device in listed.devices.values() if device.product), "")


def _is_share(device: Device, names: NodeLabels) -> bool:
    """Return whether a device has too little memory for a whole GPU of its product, as virtual GPUs have."""
    known = names.gpus.get(names.of_value(device.product) or "")
    if known is None:
        return bool(_VGPU_PRODUCT.search(device.product))
    return device.memory_bytes is not None and device.memory_bytes < _LEAST_MEMORY * known.memory_bytes


def _no_whole_gpu(
    listed: NodeDevices,
    whole: Mapping[DeviceKey, Device],
    usable: Mapping[DeviceKey, Device],
    names: NodeLabels,
) -> str:
    """Return why the ResourceSlices of a node list no whole GPU that pods can get."""
    if listed.incomplete:
        return f"its ResourceSlices are incomplete: {listed.incomplete}"
    if not whole:
        if any(device.is_shared for device in listed.devices.values()):
            return "its GPUs are shared between pods (allowMultipleAllocations in their ResourceSlices)"
        kinds = summary(listed.devices.values())
        if any(device.kind == MIG for device in listed.devices.values()):
            return f"its GPUs are partitioned (MIG): its ResourceSlices list {kinds}"
        return f"its ResourceSlices list no whole GPU: {kinds or 'no device'}"
    if not usable:
        taints = sorted({device.taint for device in whole.values()})
        return f"every GPU in its ResourceSlices has a taint: {', '.join(taints)}"
    products = sorted({device.product for device in usable.values() if _is_share(device, names)})
    return f"its GPUs are shares of {', '.join(products)}: their memory is less than that of a whole GPU"


def labels_of(node: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a node as text; files may contain numbers as values."""
    return {str(key): str(value) for key, value in ((node.get("metadata") or {}).get("labels") or {}).items()}


def gpu_count(resources: Mapping[str, Any]) -> int:
    """Return the whole GPUs in a list of resources; 0 if it has none.

    Raises:
        ValueError: The quantity is not a whole number of GPUs; the message names the resource and the value.
    """
    return _whole(GPU_RESOURCE, resources.get(GPU_RESOURCE, 0))


def _whole(resource: str, value: object) -> int:
    try:
        number = parse_quantity(str(value)) if not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or number != int(number) or not 0 <= number <= MOST_GPUS:
        raise ValueError(f"{resource}={value!r} must be a whole number from 0 to {MOST_GPUS}")
    return int(number)


def _parts(labels: Mapping[str, str], product: str) -> str | None:
    """Return why labels show that the node offers shares of GPUs."""
    strategies = (labels.get(SHARING_LABEL), labels.get(GKE_SHARING_LABEL))
    name = product.lower()
    if name.endswith("-shared") or any(strategy not in (None, "", "none") for strategy in strategies):
        return "its GPUs are shared between pods (time slicing or MPS)"
    for label in (REPLICAS_LABEL, GKE_CLIENTS_LABEL):
        if (_number(labels.get(label)) or 1) > 1:
            return f"its GPUs are shared between pods ({label}={labels[label]})"
    if "-mig-" in name or labels.get(GKE_PARTITION_LABEL):
        return "its GPUs are partitioned (MIG)"
    virtual = any(key.startswith(VGPU_PREFIX) and value not in ("", "false") for key, value in labels.items())
    if virtual or _VGPU_PRODUCT.search(product):
        return "its GPUs are virtual (vGPU): shares of GPUs that other machines also use"
    return None


def _shared(labels: Mapping[str, str], allocatable: Mapping[str, Any], gpus: int, capacity: int) -> str | None:
    """Return why counts show that a GPU is offered several times.

    Labels may not show the sharing: if only the device plugin is configured to share, feature discovery writes
    ``gpu.replicas=1`` (k8s-device-plugin issue 732). Fewer physical GPUs than allocatable GPUs prove sharing. Fewer
    than the capacity do not: the count excludes a lost GPU at once, the capacity only after the kubelet restarts;
    sharing, however, multiplies the capacity.
    """
    physical = next((number for label in COUNT_LABELS if (number := _number(labels.get(label)))), None)
    of = "" if physical is None else f", {physical} physical"
    if physical is not None and gpus > physical:
        return f"its GPUs are shared: {gpus} allocatable{of}"
    if physical is not None and capacity >= 2 * physical:
        return f"its GPUs are shared: capacity {capacity}, {gpus} allocatable{of}"
    renamed = [name for name in _others(allocatable) if name.endswith(_SHARED_SUFFIX)]
    if renamed and gpus == 0:
        return f"its GPUs are shared: {allocatable[renamed[0]]} {renamed[0]}{of}"
    return None


def _nothing(allocatable: Mapping[str, Any], capacity: int) -> str:
    """Return why a node with GPUs offers none."""
    others = _others(allocatable)
    listed = ", ".join(f"{allocatable[name]} {name}" for name in others)
    if any(name.startswith(_MIG_PREFIX) for name in others):
        return f"its GPUs are partitioned (MIG): {listed}"
    if capacity:
        return (
            f"{GPU_RESOURCE}: capacity {capacity}, allocatable 0: its GPUs are unhealthy, or the device plugin has "
            "stopped"
        )
    if others:
        return f"it offers {listed} instead of {GPU_RESOURCE}"
    return (
        f"it is labelled as a GPU node but offers no {GPU_RESOURCE}: the device plugin is not running on it, and "
        f"ResourceSlices of {DRIVER} are not known for it either"
    )


def _unnamed(labels: Mapping[str, str], known: str | None, names: NodeLabels) -> str | None:
    """Return why the product of a node is unknown; None for a product label with an unknown value."""
    value = labels.get(PRODUCT_LABEL)
    if known is not None:
        return None
    if value == "":
        return f"its label {PRODUCT_LABEL} is empty"
    if value is not None:
        meant = names.meant(value)
        # An unknown product is kept, so that messages can say that the cluster has it.
        if meant is None:
            return None
        return (
            f"{PRODUCT_LABEL}={value} is not a name that feature discovery writes; if the node has that product, "
            f"label it {meant}"
        )
    if labels.get(GKE_LABEL):
        nearest = nearest_first([labels[GKE_LABEL]], names.gpus)[:3]
        return (
            f"it has no label {PRODUCT_LABEL}, and {GKE_LABEL}={labels[GKE_LABEL]} names no known GPU product; "
            f"nearest: {', '.join(nearest)}"
        )
    found = next((label for label in _CLOUD_NAMES if labels.get(label)), None)
    meant = None if found is None else names.meant(labels[found])
    beside = "" if found is None else f"; {found}={labels[found]} is ignored, since it does not name a single product"
    advice = (
        ""
        if meant is None
        else f": run GPU feature discovery, or label the node {PRODUCT_LABEL}={meant} if that is its product"
    )
    return f"no label {PRODUCT_LABEL} or {GKE_LABEL} names its GPUs{beside}{advice}"


def _too_small(labels: Mapping[str, str], known: str | None, names: NodeLabels) -> str | None:
    memory = _number(labels.get(MEMORY_LABEL))
    if known is None or not memory:
        return None
    whole = round(names.gpus[known].memory_bytes / 2**20)
    if memory >= _LEAST_MEMORY * whole:
        return None
    return f"its GPUs are shares of {known}: {MEMORY_LABEL}={memory}, but a whole GPU has {whole} MiB"


def _others(allocatable: Mapping[str, Any]) -> list[str]:
    """Return the other resources under which a node offers GPUs, sorted."""
    return sorted(
        name
        for name, value in allocatable.items()
        if name.startswith(_RESOURCE_PREFIX) and name != GPU_RESOURCE and str(value) != "0"
    )


def _is_part(resource: str) -> bool:
    """Return whether a resource is a share of GPUs; network cards also have names under ``nvidia.com/``."""
    return resource.startswith((_MIG_PREFIX, f"{GPU_RESOURCE}.")) or resource.endswith(_SHARED_SUFFIX)


def _present(labels: Mapping[str, str]) -> bool:
    return any(labels.get(label) == value for label, value in _PRESENCE.items()) or any(
        labels.get(label) for label in _CLOUD_NAMES
    )


def _number(value: str | None) -> int | None:
    """Return the whole number in a label; None if it has none, as labels may be missing or stale."""
    return int(value) if value is not None and value.isdecimal() else None
