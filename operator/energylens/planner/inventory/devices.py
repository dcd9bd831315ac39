"""GPUs of dynamic resource allocation: ResourceSlices list them, ResourceClaims allocate them (``resource.k8s.io/v1``).

Files may hold the objects of earlier versions, as ``kubectl`` prints them in Kubernetes 1.31 to 1.33.

Devices, attributes and capacities are those of NVIDIA's driver (``cmd/gpu-kubelet-plugin`` of
https://github.com/kubernetes-sigs/dra-driver-nvidia-gpu); pools, taints and counters are read as the Kubernetes
scheduler's allocator reads them (``k8s.io/dynamic-resource-allocation/structured``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

from energylens.api.quantity import parse_quantity
from energylens.records import dataclass

DRIVER = "gpu.nvidia.com"
DEVICE_CLASS = "gpu.nvidia.com"
"""The class that NVIDIA's driver installs for whole GPUs."""
PRODUCT_ATTRIBUTE = "productName"
"""Attribute with the name of the GPU as NVML reports it, blanks included."""
WHOLE, MIG = "gpu", "mig"
"""Values of the attribute ``type``."""
ALLOCATION_EFFECTS = ("NoSchedule", "NoExecute")
"""Effects of device taints that keep devices from being allocated."""

PodKey = tuple[str, str]
"""Namespace and name of a pod."""
DeviceKey = tuple[str, str]
"""Pool and name of a device."""


@dataclass(frozen=True)
class Device:
    """A device of a ResourceSlice."""

    kind: str
    """``gpu``, ``mig`` or another type of the driver."""
    product: str
    """The NVML name in the form of the label ``nvidia.com/gpu.product``."""
    memory_bytes: int | None = None
    counters: frozenset[str] = frozenset()
    """Counter sets that the device consumes from; a GPU shares its set with its MIG partitions."""
    taint: str = ""
    """A taint that keeps the device from being allocated to claims without tolerations; "" for none."""
    is_shared: bool = False
    """Whether several claims may hold the device at the same time."""


@dataclass(frozen=True)
class NodeDevices:
    """The devices of NVIDIA's driver on one node."""

    devices: Mapping[DeviceKey, Device] = field(default_factory=dict)
    incomplete: str = ""
    """Why devices of a pool are missing, from which the scheduler then allocates none; "" if all are listed."""

    def __bool__(self) -> bool:
        """Return whether the node has ResourceSlices of the driver."""
        return bool(self.devices or self.incomplete)

    def gpu_of(self, key: DeviceKey) -> DeviceKey | None:
        """Return the whole GPU that a device is, or is a partition of; None if no whole GPU is listed for it."""
        found = self.devices.get(key)
        if found is None:
            return None
        if found.kind == WHOLE:
            return key
        return next(
            (
                other
                for other, device in self.devices.items()
                if device.kind == WHOLE and other[0] == key[0] and device.counters & found.counters
            ),
            None,
        )


NO_DEVICES = NodeDevices()


@dataclass(frozen=True)
class Classes:
    """How pods may ask for whole GPUs that ResourceSlices list."""

    by_claim: bool = False
    """The DeviceClass exists, so that a ResourceClaim may name it."""
    by_resource: bool = False
    """The scheduler allocates GPUs of the DeviceClass for requests of ``nvidia.com/gpu``."""


NO_CLASSES = Classes()


@dataclass(frozen=True)
class Allocated:
    """Devices of NVIDIA's driver that one ResourceClaim holds."""

    pods: tuple[PodKey, ...]
    """Pods that use the claim; empty if the claim is allocated to none."""
    devices: tuple[DeviceKey, ...]


def label_form(name: str) -> str:
    """Return an NVML name in the form that GPU feature discovery gives the label ``nvidia.com/gpu.product``.

    Characters that a label cannot have are dropped, and each run of blanks becomes a dash (``internal/lm`` of
    https://github.com/NVIDIA/k8s-device-plugin).
    """
    return "-".join(re.sub(r"[^A-Za-z0-9\-_. ]", "", name).split())


def node_of_slice(body: Mapping[str, Any]) -> str:
    """Return the node whose GPUs a ResourceSlice lists; "" for slices of other drivers and of several nodes."""
    spec = body.get("spec") or {}
    return str(spec.get("nodeName") or "") if spec.get("driver") == DRIVER else ""


def pool_of_slice(body: Mapping[str, Any]) -> str:
    """Return the name of the pool of a ResourceSlice."""
    return str(((body.get("spec") or {}).get("pool") or {}).get("name") or "")


def devices_of(slices: Iterable[Mapping[str, Any]], taint_rules: Sequence[Mapping[str, Any]] = ()) -> NodeDevices:
    """Return the devices that the ResourceSlices of one node list, with the taints that DeviceTaintRules add to them.

    Of each pool only the newest generation counts, and the scheduler allocates from a pool only if all of its slices
    are there (``GatherPools`` in ``structured/internal/stable/pools_stable.go``).

    Raises:
        ValueError: A slice is malformed; the message names the slice.
    """
    pools: dict[str, dict[int, list[Mapping[str, Any]]]] = {}
    for body in slices:
        pool = (body.get("spec") or {}).get("pool") or {}
        generations = pools.setdefault(pool_of_slice(body), {})
        generations.setdefault(int(pool.get("generation") or 0), []).append(body)
    devices: dict[DeviceKey, Device] = {}
    incomplete = ""
    for name, generations in sorted(pools.items()):
        newest = generations[max(generations)]
        expected = int(newest[0]["spec"]["pool"].get("resourceSliceCount") or 1)
        if len(newest) != expected:
            incomplete = f"pool {name} has {len(newest)} of {expected} ResourceSlices"
            continue
        for body in newest:
            for entry in body["spec"].get("devices") or ():
                added = [rule["spec"]["taint"] for rule in taint_rules if _is_selected(rule, name, str(entry["name"]))]
                devices[name, str(entry["name"])] = _device(entry, str(body["metadata"].get("name", "")), added)
    return NodeDevices(devices, incomplete)


def _is_selected(rule: Mapping[str, Any], pool: str, device: str) -> bool:
    """Return whether a DeviceTaintRule selects a device of NVIDIA's driver.

    Without a selector a rule selects no device, with an empty one every device (``resource/v1/types.go``).
    """
    selector = (rule.get("spec") or {}).get("deviceSelector")
    if selector is None:
        return False
    wanted = {"driver": DRIVER, "pool": pool, "device": device}
    return all(selector.get(name) in (None, value) for name, value in wanted.items())


def _device(entry: Mapping[str, Any], where: str, added_taints: Sequence[Mapping[str, Any]]) -> Device:
    # In v1beta1 and v1alpha3, all but the name is below "basic", and a capacity of v1alpha3 is the bare quantity.
    entry = {**entry, **(entry.get("basic") or {})}
    attributes = entry.get("attributes") or {}
    capacity = _named(entry.get("capacity") or {}, "memory")
    memory = capacity.get("value") if isinstance(capacity, Mapping) else capacity
    try:
        size = None if memory is None else int(parse_quantity(str(memory)))
    except ValueError as error:
        raise ValueError(f"ResourceSlice {where}, device {entry['name']}: memory {error}") from error
    every = (*(entry.get("taints") or ()), *added_taints)
    taints = [taint for taint in every if taint.get("effect") in ALLOCATION_EFFECTS]
    first = taints[0] if taints else {}
    value = f"={first['value']}" if first.get("value") else ""
    return Device(
        kind=_text(attributes, "type"),
        product=label_form(_text(attributes, PRODUCT_ATTRIBUTE)),
        memory_bytes=size,
        counters=frozenset(str(used.get("counterSet")) for used in entry.get("consumesCounters") or ()),
        taint=f"{first.get('key')}{value}:{first['effect']}" if first else "",
        is_shared=bool(entry.get("allowMultipleAllocations")),
    )


def _named(values: Mapping[str, Any], name: str) -> Any:
    """Return an attribute or a capacity, whose name may be written with the driver's domain."""
    return values.get(name, values.get(f"{DRIVER}/{name}"))


def _text(attributes: Mapping[str, Any], name: str) -> str:
    return str((_named(attributes, name) or {}).get("string") or "")


def classes_of(bodies: Sequence[Mapping[str, Any]], resource: str) -> Classes:
    """Return how pods may ask for the GPUs of ResourceSlices, from the DeviceClasses of the cluster.

    If several classes serve one extended resource, the scheduler uses the youngest, and the first by name of equally
    old ones (``ExtendedResourceName`` in ``resource/v1/types.go``). A class other than the driver's own may select
    some of the GPUs only, so that its requests are not counted on.

    Args:
        bodies: The DeviceClasses.
        resource: Name of the extended resource, ``nvidia.com/gpu``.
    """
    by_claim = any(body["metadata"]["name"] == DEVICE_CLASS for body in bodies)
    serving = sorted(
        (body for body in bodies if (body.get("spec") or {}).get("extendedResourceName") == resource),
        key=lambda body: body["metadata"]["name"],
    )
    youngest = max(serving, key=lambda body: body["metadata"].get("creationTimestamp") or "", default=None)
    return Classes(by_claim, youngest is not None and youngest["metadata"]["name"] == DEVICE_CLASS)


def allocated_by(claim: Mapping[str, Any]) -> Allocated | None:
    """Return the devices of NVIDIA's driver that a ResourceClaim holds; None if it holds none.

    Administrative access shares devices with the claims that hold them, and is not counted.
    """
    status = claim.get("status") or {}
    results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
    devices = tuple(
        (str(result.get("pool")), str(result.get("device")))
        for result in results
        if result.get("driver") == DRIVER and not result.get("adminAccess")
    )
    if not devices:
        return None
    metadata = claim["metadata"]
    namespace = str(metadata.get("namespace") or "default")
    users = [use for use in status.get("reservedFor") or () if use.get("resource") == "pods"]
    # A claim that the scheduler allocated and did not reserve yet belongs to the pod that it was made for.
    owners = [owner for owner in metadata.get("ownerReferences") or () if owner.get("kind") == "Pod"]
    return Allocated(tuple((namespace, str(pod.get("name"))) for pod in users or owners), devices)


def summary(devices: Iterable[Device]) -> str:
    """Return devices in words, counted by type: ``7 mig, 1 gpu``."""
    counts = Counter(device.kind or "untyped" for device in devices)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
