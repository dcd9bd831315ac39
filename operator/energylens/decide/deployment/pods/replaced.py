"""Workloads that are deleted and made again, because Kueue rejects their change. Pure.

Kueue's webhooks (0.17, ``pkg/controller/jobs/deployment`` and ``leaderworkerset``) reject

- another queue name of a Deployment while a replica is ready, and a removed queue name always;
- another queue name of a LeaderWorkerSet;
- another pod template of a LeaderWorkerSet in a queue;
- a priority class that is removed, or added while a replica is ready.

An object without ready replicas serves nothing, so that it is deleted, and the next reconcile makes it with the change.
So is an object whose pods are to stop: as one write, ``replicas: 0`` would be rejected with the rest of the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from energylens.decide.deployment.pods.workloads import workload_revision
from energylens.serving.metadata import APPLIED_HASH
from energylens.serving.queues import KUEUE_PRIORITY, KUEUE_QUEUE

DEFAULT_QUEUE = "default"
"""If a namespace has a LocalQueue of this name, Kueue names the queue on every object that names none
(LocalQueueDefaulting, ``pkg/controller/jobframework/defaults.go``)."""


def replaced(
    live: Iterable[Mapping[str, Any] | None], wanted: Iterable[Mapping[str, Any]], *, stopped: bool
) -> tuple[Mapping[str, Any], ...]:
    """Return the live workloads to delete first.

    Args:
        live: The workloads that run the pods; None for one that does not exist.
        wanted: The manifests of this reconcile.
        stopped: Whether no pods are to run.
    """
    manifests = {(each["kind"], each["metadata"]["name"]): each for each in wanted}
    found = []
    for body in live:
        manifest = manifests.get((body["kind"], body["metadata"]["name"])) if body is not None else None
        if body is not None and manifest is not None and (stopped or not _ready(body)) and rejected(body, manifest):
            found.append(body)
    return tuple(found)


def rejected(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether Kueue rejects the operator's next write of a workload because of its queue or priority class.

    A label that the operator did not write, as of a webhook, stays when the operator writes, so that it is no change.
    """
    written = _written(live)
    if written and written == _written(wanted):
        return False
    queue = _label(live, KUEUE_QUEUE)
    new_queue = _label(wanted, KUEUE_QUEUE) or (queue if queue == DEFAULT_QUEUE else "")
    priority, new_priority = _label(live, KUEUE_PRIORITY), _label(wanted, KUEUE_PRIORITY)
    if priority != new_priority and (not new_priority or (not priority and _ready(live))):
        return True
    if live["kind"] == "LeaderWorkerSet":
        # By the operator's own label: a webhook that changes the template would otherwise cause endless replacements.
        return queue != new_queue or (bool(queue) and workload_revision(live) != workload_revision(wanted))
    return queue != new_queue and (not new_queue or _ready(live))


def _written(body: Mapping[str, Any]) -> str:
    return str((body["metadata"].get("annotations") or {}).get(APPLIED_HASH, ""))


def _label(body: Mapping[str, Any], name: str) -> str:
    return str((body["metadata"].get("labels") or {}).get(name, ""))


def _ready(body: Mapping[str, Any]) -> bool:
    return int((body.get("status") or {}).get("readyReplicas") or 0) > 0
