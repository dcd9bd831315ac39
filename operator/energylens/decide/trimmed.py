"""The part of watched objects that decisions read, kept small because a large cluster has many objects."""

from __future__ import annotations

import hashlib
import pickle
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from energylens.planner.inventory.devices import DRIVER, PRODUCT_ATTRIBUTE
from energylens.planner.inventory.node_gpus import GPU_RESOURCE
from energylens.planner.inventory.snapshot import OWNER_LABEL
from energylens.serving.support import PLAN_KEY

Body = dict[str, Any]
_LONG = 1024
"""Characters of a text in a ConfigMap beyond which only its digest is kept."""
_UNPACKED = 128
"""Most recently read mappings that stay unpacked: a reconcile reads the same few mappings many times."""
_OFTEN = 128
"""Length up to which other objects are likely to have the same text, characters."""


class Digest:
    """Digest of a text that is only compared; equal to that text."""

    __slots__ = ("_sha256",)

    def __init__(self, text: str) -> None:
        """Keep the digest of ``text``."""
        self._sha256 = hashlib.sha256(text.encode()).digest()

    def __eq__(self, other: object) -> bool:
        """Return whether ``other`` is the text, or the digest of an equal text."""
        if isinstance(other, str):
            other = Digest(other)
        return isinstance(other, Digest) and other._sha256 == self._sha256

    def __hash__(self) -> int:
        """Return a hash, which differs from the hash of the text."""
        return hash(self._sha256)


_MOST_BASES = 64
_BASE_BYTES = 2**15
"""How far back deflate refers (RFC 1951)."""
_BASES: dict[tuple[str, ...], bytes] = {}
"""By the kind and the names of a mapping: the first one that was packed, as the dictionary for all others. The objects
of a fleet are alike, so that each takes a quarter of what it takes alone."""


class Packed(Mapping[str, Any]):
    """A compressed mapping, unpacked when it is read: most children are read once in many minutes."""

    __slots__ = ("_base", "_data")

    def __init__(self, value: Mapping[str, Any], kind: str = "") -> None:
        """Keep a copy of ``value``; those of one ``kind`` with the same names are likely to be alike."""
        plain, names = pickle.dumps(dict(value)), (kind, *value)
        if names not in _BASES and len(_BASES) < _MOST_BASES:
            _BASES[names] = plain[-_BASE_BYTES:]
        self._base = _BASES.get(names, b"")
        packer = zlib.compressobj(level=1, zdict=self._base)
        self._data = packer.compress(plain) + packer.flush()

    def unpacked(self) -> dict[str, Any]:
        """Return a copy, and keep none."""
        return _unpack(self._data, self._base)

    def __getitem__(self, name: str) -> Any:
        """Return an entry, which must not be changed."""
        return _unpacked(self._data, self._base)[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(_unpacked(self._data, self._base))

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(_unpacked(self._data, self._base))

    def __eq__(self, other: object) -> bool:
        """Return whether another mapping has equal entries."""
        if isinstance(other, Packed) and other._data == self._data and other._base is self._base:
            return True
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]


class PackedObject(Packed):
    """A watched object, packed whole; its identity is read without unpacking it."""

    __slots__ = ("uid", "version")

    def __init__(self, value: Mapping[str, Any], kind: str, uid: str, version: str) -> None:
        """Keep a copy of the trimmed object of a kind; ``uid`` and ``version`` are "" where it has none."""
        super().__init__(shared(value), kind)
        self.uid = uid
        self.version = version


def packed(value: Mapping[str, Any]) -> Packed:
    """Return a mapping packed, the same one if it is packed already."""
    return value if isinstance(value, Packed) else Packed(value)


def _unpack(data: bytes, base: bytes) -> dict[str, Any]:
    found: dict[str, Any] = pickle.loads(zlib.decompressobj(zdict=base).decompress(data))
    return found


_unpacked = lru_cache(maxsize=_UNPACKED)(_unpack)


def shared(value: Any) -> Any:
    """Return a copy of a JSON value whose names and short texts are the same objects in all copies.

    Each object from an API server has its own copies of names, which would take most of the memory.
    """
    if isinstance(value, str):
        return sys.intern(str(value)) if len(value) <= _OFTEN else value
    if isinstance(value, dict):
        return {sys.intern(str(name)): shared(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [shared(entry) for entry in value]
    return value


def trim_child(body: Mapping[str, Any]) -> Body:
    """Return a child without its managed fields.

    Of long texts in a ConfigMap, other than its plan, only digests are kept.
    """
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    trimmed = {**body, "metadata": metadata}
    if isinstance(body.get("data"), Mapping):
        trimmed["data"] = {
            name: Digest(text) if name != PLAN_KEY and isinstance(text, str) and len(text) > _LONG else text
            for name, text in body["data"].items()
        }
    return trimmed


def trim_node(body: Mapping[str, Any]) -> Body:
    """Return the part of a node that inventory reads."""
    metadata, status = body["metadata"], body.get("status") or {}
    return {
        "metadata": {
            "name": metadata["name"],
            "labels": dict(metadata.get("labels") or {}),
            **{name: metadata[name] for name in ("deletionTimestamp",) if name in metadata},
        },
        "spec": {
            name: value for name, value in (body.get("spec") or {}).items() if name in ("taints", "unschedulable")
        },
        "status": {
            **{
                part: {
                    name: value for name, value in (status.get(part) or {}).items() if name.startswith("nvidia.com/")
                }
                for part in ("allocatable", "capacity")
            },
            "conditions": [
                {"type": c["type"], "status": c["status"]}
                for c in status.get("conditions") or ()
                if c["type"] == "Ready"
            ],
        },
    }


def trim_pod(body: Mapping[str, Any]) -> Body:
    """Return the part of a pod that inventory, readiness and measurement read."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    # Clusters have many foreign pods, of which only the GPUs matter.
    own = OWNER_LABEL in (metadata.get("labels") or {})
    gates = (spec.get("schedulingGates") or ()) if own else ()
    return {
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata.get("uid", ""),
            "labels": dict(metadata.get("labels") or {}),
            "deleting": "deletionTimestamp" in metadata,
            **{
                name: metadata[name]
                for name in ("creationTimestamp", "deletionTimestamp")
                if own and metadata.get(name)
            },
        },
        "spec": {
            "nodeName": spec.get("nodeName") or "",
            **{
                group: [_container(c) for c in spec.get(group) or ()]
                for group in ("containers", "initContainers")
                if spec.get(group)
            },
            **({"resourceClaims": _claims(spec["resourceClaims"])} if spec.get("resourceClaims") else {}),
            **({"schedulingGates": [gate["name"] for gate in gates]} if gates else {}),
        },
        "status": {
            "phase": status.get("phase", ""),
            "podIP": status.get("podIP", ""),
            **{name: status[name] for name in ("reason", "message") if own and status.get(name)},
            "conditions": [
                {name: c.get(name, "") for name in ("type", "status", "reason", "message", "lastTransitionTime")}
                for c in status.get("conditions") or ()
                if c["type"] in ("Ready", "PodScheduled")
            ],
            "containers": [
                _container_status(c)
                for group in ("initContainerStatuses", "containerStatuses")
                for c in (status.get(group) or () if own else ())
            ],
        },
    }


def _claims(claims: Iterable[Mapping[str, Any]]) -> list[Body]:
    return [{name: c[name] for name in ("name", "resourceClaimTemplateName") if name in c} for c in claims]


def trim_slice(body: Mapping[str, Any]) -> Body:
    """Return the part of a ResourceSlice that inventory reads; of slices of other drivers only the driver."""
    metadata, spec = body["metadata"], body.get("spec") or {}
    kept = {"metadata": _identity(metadata), "spec": {"driver": spec.get("driver")}}
    if spec.get("driver") != DRIVER:
        return kept
    kept["spec"] |= {name: spec[name] for name in ("nodeName", "pool") if name in spec}
    kept["spec"]["devices"] = [_device(device) for device in spec.get("devices") or ()]
    return kept


def _device(device: Mapping[str, Any]) -> Body:
    return {
        "name": device["name"],
        "attributes": _only(device.get("attributes") or {}, "type", PRODUCT_ATTRIBUTE),
        "capacity": _only(device.get("capacity") or {}, "memory"),
        "consumesCounters": [{"counterSet": c["counterSet"]} for c in device.get("consumesCounters") or ()],
        **{name: device[name] for name in ("taints", "allowMultipleAllocations") if device.get(name)},
    }


def _only(values: Mapping[str, Any], *names: str) -> Body:
    return {name: value for name, value in values.items() if name.removeprefix(f"{DRIVER}/") in names}


def trim_claim(body: Mapping[str, Any]) -> Body:
    """Return the part of a ResourceClaim that inventory reads: its GPUs and the pods that use the claim."""
    metadata, status = body["metadata"], body.get("status") or {}
    results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
    own = [
        {name: result[name] for name in ("driver", "pool", "device", "adminAccess") if name in result}
        for result in results
        if result.get("driver") == DRIVER
    ]
    kept: Body = {"metadata": _identity(metadata)}
    if own:
        owners = [{"kind": o["kind"], "name": o["name"]} for o in metadata.get("ownerReferences") or ()]
        users = [{name: use.get(name) for name in ("resource", "name")} for use in status.get("reservedFor") or ()]
        kept["metadata"]["ownerReferences"] = owners
        if owner := (metadata.get("labels") or {}).get(OWNER_LABEL):
            kept["metadata"]["labels"] = {OWNER_LABEL: owner}
        kept["status"] = {"allocation": {"devices": {"results": own}}, "reservedFor": users}
    return kept


def trim_class(body: Mapping[str, Any]) -> Body:
    """Return the part of a DeviceClass that inventory reads."""
    metadata, spec = body["metadata"], body.get("spec") or {}
    kept = {name: spec[name] for name in ("extendedResourceName",) if name in spec}
    return {"metadata": _identity(metadata, "creationTimestamp"), "spec": kept}


def trim_taint_rule(body: Mapping[str, Any]) -> Body:
    """Return the part of a DeviceTaintRule that inventory reads: which devices have which taint."""
    spec = body.get("spec") or {}
    taint = {name: value for name, value in (spec.get("taint") or {}).items() if name in ("key", "value", "effect")}
    selector = {name: spec[name] for name in ("deviceSelector",) if name in spec}
    return {"metadata": _identity(body["metadata"]), "spec": {**selector, "taint": taint}}


def _identity(metadata: Mapping[str, Any], *more: str) -> Body:
    names = ("name", "namespace", *more)
    return {"uid": metadata.get("uid", ""), **{name: metadata[name] for name in names if name in metadata}}


def _container(container: Mapping[str, Any]) -> Body:
    resources = container.get("resources") or {}
    kept = {
        kind: {GPU_RESOURCE: resources[kind][GPU_RESOURCE]}
        for kind in ("requests", "limits")
        if GPU_RESOURCE in (resources.get(kind) or {})
    }
    return {"resources": kept, **({"restartPolicy": p} if (p := container.get("restartPolicy")) else {})}


def _container_status(status: Mapping[str, Any]) -> Body:
    """Return why a container waits and how it last terminated, without times, which alone decide nothing."""
    state, last = status.get("state") or {}, status.get("lastState") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or last.get("terminated") or {}
    return {
        "name": status.get("name", ""),
        "ready": bool(status.get("ready")),
        "restarts": int(status.get("restartCount") or 0),
        "waiting": {name: waiting[name] for name in ("reason", "message") if waiting.get(name)},
        "ended": {name: ended[name] for name in ("reason", "message", "exitCode", "signal") if ended.get(name)},
    }
