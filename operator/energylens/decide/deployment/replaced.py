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

from energylens.decide.deployment.workloads import workload_revision
from energylens.serving.queues import KUEUE_PRIORITY, KUEUE_QUEUE


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
    """Return whether Kueue rejects a change of a workload; False for a workload that never named a queue."""
    queue, new_queue = _label(live, KUEUE_QUEUE), _label(wanted, KUEUE_QUEUE)
    priority, new_priority = _label(live, KUEUE_PRIORITY), _label(wanted, KUEUE_PRIORITY)
    if priority != new_priority and (not new_priority or (not priority and _ready(live))):
        return True
    if live["kind"] == "LeaderWorkerSet":
        # By the operator's own label: a webhook that changes the template would otherwise cause this again and again.
        return queue != new_queue or (bool(queue) and workload_revision(live) != workload_revision(wanted))
    return queue != new_queue and (not new_queue or _ready(live))


def _label(body: Mapping[str, Any], name: str) -> str:
    return str((body["metadata"].get("labels") or {}).get(name, ""))


def _ready(body: Mapping[str, Any]) -> bool:
    return int((body.get("status") or {}).get("readyReplicas") or 0) > 0
