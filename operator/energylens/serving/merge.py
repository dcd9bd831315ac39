"""The user's pod template merged into ours, the way kubectl patches strategically."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energylens.planner.inventory.snapshot import CLAIMED_GPUS_LABEL
from energylens.serving.errors import ServingError
from energylens.serving.gpus import CLAIM, CLAIMED_PRODUCT_LABEL
from energylens.serving.metadata import KV_CACHE_LABEL, PLAN_LABEL, REVISION_LABEL, ROLE_LABEL
from energylens.serving.reserved import ENVIRONMENT

ENGINE_CONTAINER = "engine"

_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "resourceClaims": "name",
    "claims": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
"""Lists of Kubernetes' PodSpec that merge by a key (the patchMergeKey of its API types); others are replaced."""

_OWN_LABELS = (PLAN_LABEL, REVISION_LABEL, ROLE_LABEL, KV_CACHE_LABEL, CLAIMED_GPUS_LABEL, CLAIMED_PRODUCT_LABEL)
_APPENDED = ("tolerations", "envFrom")


def merge_pod_template(ours: dict[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return our pod template with the user's merged into it; neither is changed.

    Raises:
        ServingError: The user's template sets what the plan decides.
    """
    _check(theirs)
    merged: dict[str, Any] = _merge(ours, theirs)
    reserved = ours.get("metadata", {}).get("labels", {})
    for label, value in ((theirs.get("metadata") or {}).get("labels") or {}).items():
        if label in _OWN_LABELS or (label in reserved and reserved[label] != value):
            raise ServingError("spec.podTemplate.metadata.labels", f"{label} is set by the operator; use another label")
    return merged


def _check(theirs: Mapping[str, Any]) -> None:
    spec = theirs.get("spec") or {}
    for field, instead in (("nodeSelector", "nodeSelector"), ("nodeName", "nodeSelector")):
        if field in spec:
            raise ServingError(
                f"spec.podTemplate.spec.{field}",
                f"the plan must know the nodes that it may use; set spec.hardware.{instead} instead",
            )
    if "nodeAffinity" in (spec.get("affinity") or {}):
        raise ServingError(
            "spec.podTemplate.spec.affinity.nodeAffinity",
            "the plan must know the nodes that it may use; set spec.hardware.nodeSelector instead",
        )
    if any(claim.get("name") == CLAIM for claim in spec.get("resourceClaims") or ()):
        raise ServingError(
            "spec.podTemplate.spec.resourceClaims", f"the operator names its own claim {CLAIM}; use another name"
        )
    for container in spec.get("containers") or ():
        if container.get("name") == ENGINE_CONTAINER:
            _check_engine(container)


def _check_engine(container: Mapping[str, Any]) -> None:
    where = f"spec.podTemplate.spec.containers[{ENGINE_CONTAINER}]"
    for field, instead in (
        ("args", "add arguments with spec.engine.extraArgs"),
        ("command", "choose another image with spec.engine.image"),
        ("image", "set spec.engine.image instead"),
    ):
        if field in container:
            raise ServingError(f"{where}.{field}", f"the plan sets the engine's {field}; {instead}")
    resources = container.get("resources") or {}
    for kind in ("limits", "requests"):
        if "nvidia.com/gpu" in (resources.get(kind) or {}):
            raise ServingError(
                f"{where}.resources.{kind}",
                "the plan sets nvidia.com/gpu; set spec.planning.overrides.tensorParallel instead",
            )
    for variable in container.get("env") or ():
        if variable.get("name") in ENVIRONMENT:
            raise ServingError(f"{where}.env", f"{variable['name']} is decided by the plan; leave it out")


def _merge(ours: Any, theirs: Any, key: str = "") -> Any:
    if isinstance(ours, dict) and isinstance(theirs, Mapping):
        result = dict(ours)
        for name, value in theirs.items():
            result[name] = _merge(ours[name], value, name) if name in ours else value
        return result
    if isinstance(ours, list) and isinstance(theirs, list | tuple):
        if key in _APPENDED:
            return [*ours, *(item for item in theirs if item not in ours)]
        if key in _MERGE_KEYS:
            return _merge_lists(ours, list(theirs), _MERGE_KEYS[key])
    return theirs


def _merge_lists(ours: list[Any], theirs: list[Any], key: str) -> list[Any]:
    by_key = {item.get(key): item for item in theirs}
    merged = [_merge(item, by_key.pop(item.get(key))) if item.get(key) in by_key else item for item in ours]
    return [*merged, *by_key.values()]
