"""The watched pods: trimmed and packed, because a large cluster has many, and found by what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from energylens.controller.state.same import identity_of, is_same_object
from energylens.decide.trimmed import PackedObject, trim_pod
from energylens.planner.inventory.snapshot import OWNER_LABEL
from energylens.records import dataclass

Key = tuple[str, str]
"""Namespace and name."""
_EXPORTER_LABELS = (("app", "nvidia-dcgm-exporter"), ("app.kubernetes.io/name", "dcgm-exporter"))


@dataclass(frozen=True)
class PodChange:
    """What a changed pod concerns."""

    owner: Key | None
    """Its LLMDeployment; None without one."""
    holds_other_gpus: bool
    """Whether it holds other GPUs than before, or none any more."""


@dataclass
class Pods:
    """The pods by namespace and name."""

    bodies: dict[Key, PackedObject] = field(default_factory=dict)
    exporters: set[Key] = field(default_factory=set)
    """Pods that are labelled as dcgm-exporter."""
    _of: dict[Key, tuple[Key, ...]] = field(default_factory=dict)
    """Pods of each LLMDeployment, by name."""

    def put(self, key: Key, body: Mapping[str, Any], deleted: bool) -> PodChange | None:
        """Take a pod as the API server has it; return None where nothing that is kept of it changed."""
        old, heard = self.bodies.get(key), identity_of(body)
        if deleted and not is_same_object(body, old):
            return None
        if old is not None and old.uid == heard.uid and identity_of(old).is_newer_than(heard):
            return None
        now = None if deleted else PackedObject(trim_pod(body), "Pod", *heard)
        if old == now:
            if old is not None:
                old.version = heard.version
            return None
        before, after = _owner(old), _owner(now)
        if before is not None and before != after:
            self._disown(before, key)
        if now is None:
            self.bodies.pop(key, None)
            self.exporters.discard(key)
        else:
            self.bodies[key] = now
            (self.exporters.add if _is_exporter(now) else self.exporters.discard)(key)
            if after is not None:
                self._of[after] = tuple(sorted({*self._of.get(after, ()), key}))
        return PodChange(after or before, _holding(old) != _holding(now))

    def owned(self, key: Key) -> list[PackedObject]:
        """Return the pods of an LLMDeployment, by name."""
        return [self.bodies[pod] for pod in self._of.get(key, ())]

    def _disown(self, owner: Key, pod: Key) -> None:
        left = tuple(other for other in self._of.get(owner, ()) if other != pod)
        if left:
            self._of[owner] = left
        else:
            self._of.pop(owner, None)


def _owner(pod: Mapping[str, Any] | None) -> Key | None:
    if pod is None:
        return None
    name = pod["metadata"]["labels"].get(OWNER_LABEL)
    return (pod["metadata"]["namespace"], name) if name else None


def _is_exporter(pod: Mapping[str, Any]) -> bool:
    labels = pod["metadata"]["labels"]
    return any(labels.get(name) == value for name, value in _EXPORTER_LABELS)


def _holding(pod: Mapping[str, Any] | None) -> tuple[Any, ...]:
    if pod is None or pod["status"]["phase"] in ("Succeeded", "Failed"):
        return ()
    gpus = [c["resources"] for group in ("containers", "initContainers") for c in pod["spec"].get(group, ())]
    claims = pod["spec"].get("resourceClaims", ())
    return (pod["spec"]["nodeName"], str(gpus), _owner(pod)) if any(gpus) or claims else ()
