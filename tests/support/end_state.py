"""What a scenario leaves in its namespace, without what no two runs have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.spaces import Space

from energylens.cluster.resources import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENERGY_BUDGET,
    LLM_DEPLOYMENT,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
)
from energylens.decide.reasons import Reason
from energylens.serving.metadata import APPLIED_HASH, REVISION_LABEL

Object = dict[str, Any]
State = dict[str, Any]

KINDS = (LLM_DEPLOYMENT, ENERGY_BUDGET, DEPLOYMENT, SERVICE, CONFIG_MAP, POD_DISRUPTION_BUDGET)
MASKED = frozenset(
    (
        # Of the identity and the history of one object.
        *("uid", "resourceVersion", "generation", "managedFields", "creationTimestamp"),
        # Hashes of what has the name of the namespace or the uid of the owner in it.
        *(APPLIED_HASH, REVISION_LABEL, "inputsHash", "pod-template-hash"),
        # What else could be done, which depends on the GPUs that were free at the moment.
        *("alternatives", "candidates.csv", "plan.json", "maxSurge", "maxUnavailable"),
        # The plan before, which says which way the object came.
        "previousRevision",
        # What the API server hands out.
        *("clusterIP", "clusterIPs", "nodeName", "hostIP", "hostIPs", "podIP", "podIPs"),
    )
)
OF_THE_CLUSTER = "kube-root-ca.crt"
"""A ConfigMap that every namespace has."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:\d\d| UTC)?")
_HASHES = re.compile(r'(?<="inputsHash": ")\w+|(?<=ReplicaSet ")[^"]+')
"""The same hashes within texts: of a plan in a ConfigMap, and in the name of a ReplicaSet in a condition."""
_STILL = "the inputs changed, the best plan is still"
"""Said by a pass that planned again and found the same: whether one did since the last change is a matter of time."""
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def end_state(place: Space) -> State:
    """Return the objects of a namespace by kind and name, masked; pods as a sorted list, since their names are random.

    ``observedGeneration`` becomes whether it is that of the object, so that a status that is behind is seen.
    """
    found: State = {}
    for kind in KINDS:
        for body in place.api.list(kind, place.namespace):
            name = body["metadata"]["name"]
            if name != OF_THE_CLUSTER:
                found[f"{kind.kind} {name}"] = masked(body, place.namespace)
    pods = [masked(_of_pod(body), place.namespace) for body in place.api.list(POD, place.namespace)]
    found["Pods"] = sorted(pods, key=lambda pod: json.dumps(pod, sort_keys=True))
    return found


def masked(body: Object, namespace: str) -> Object:
    """Return an object without uid, times, versions and generations, its namespace named alike in every run."""
    result: Object = _masked(body, namespace, body["metadata"].get("generation"))
    return result


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Give a line for each place where two states differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            yield from differences(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{path}[{number}]")
    elif one != other:
        yield f"{path}: {_short(one)} != {_short(other)}"


def _masked(value: Any, namespace: str, generation: int | None) -> Any:
    if isinstance(value, Mapping):
        if str(value.get("message", "")).startswith(_STILL) or value.get("reason") == Reason.PLANNED:
            value = {**value, "reason": Reason.PLANNED.value, "message": "<planned>"}
        return {
            str(_masked(key, namespace, generation)): _of_key(key, entry, namespace, generation)
            for key, entry in value.items()
        }
    if isinstance(value, list):
        return [_masked(entry, namespace, generation) for entry in value]
    if isinstance(value, str):
        text = _HASHES.sub("<hash>", _UID.sub("<uid>", _TIME.sub("<time>", value)))
        return text.replace(namespace, "<namespace>")
    return value


def _of_key(key: str, entry: Any, namespace: str, generation: int | None) -> Any:
    if key in MASKED:
        return "<masked>"
    if key == "observedGeneration" and generation is not None:
        return entry == generation
    return _masked(entry, namespace, generation)


def _of_pod(body: Object) -> Object:
    """Return what the operator and the controllers decide about a pod."""
    metadata = body["metadata"]
    spec = {name: part for name, part in body["spec"].items() if name != "volumes"}
    ready = [entry["status"] for entry in body["status"].get("conditions", ()) if entry["type"] == "Ready"]
    ending = "deletionTimestamp" in metadata
    return {
        "metadata": {"labels": metadata.get("labels", {}), "ending": ending},
        "spec": spec,
        "status": {"phase": body["status"].get("phase"), "ready": ready},
    }


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= 160 else f"{text[:160]}..."
