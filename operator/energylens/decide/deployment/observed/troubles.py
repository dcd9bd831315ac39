"""Why a pod does not run, in words, from the kubelet's status of its containers. Pure.

Reasons are Kubernetes' own: ``pkg/kubelet/images/types.go`` and ``pkg/kubelet/container/sync_result.go`` for waiting
containers, ``pkg/kubelet/lifecycle`` and ``pkg/kubelet/eviction`` for pods that a node rejects or ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_PASSING = ("", "ContainerCreating", "PodInitializing")
"""Waiting reasons of every starting pod."""
_MOST = 300
"""Maximum length of a container's last message, which may be a whole traceback, characters."""


def waits(containers: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """Return why the containers of a pod wait or ended, and whether that needs intervention.

    Args:
        containers: Containers as the store trims them, init containers first.
    """
    stuck = [c for c in containers if c["waiting"].get("reason", "") not in _PASSING]
    if stuck:
        # The engine's container is often only waiting for a sidecar or an init container.
        found = stuck[0]
        text = ": ".join(filter(None, (found["waiting"]["reason"], found["waiting"].get("message", ""))))
        ended = _ended(found)
        return f"{text}; container {found['name']} {ended}" if ended else text, True
    ends = [f"container {c['name']} {end}" for c in containers if not c["ready"] and (end := _ended(c))]
    return (ends[0] if ends else ""), False


def starts(containers: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether no container of a pod has started yet."""
    return all(c["waiting"].get("reason", "") in _PASSING[1:] for c in containers)


def _ended(container: Mapping[str, Any]) -> str:
    """Return how a container ended last; "" if it did not end, or ended successfully."""
    ended = container["ended"]
    if not ended.get("exitCode") and not ended.get("signal") and ended.get("reason") in (None, "Completed"):
        return ""
    code = f"exit code {ended['exitCode']}" if ended.get("exitCode") else ""
    said = ended.get("message", "").strip()[-_MOST:]
    parts = [f"ended: {ended.get('reason', 'Error')}", f"({code})" if code else ""]
    restarts = container["restarts"]
    again = f", restarted {restarts} times" if restarts else ""
    return " ".join(filter(None, parts)) + again + (f": {said}" if said else "")


def why_failed(status: Mapping[str, Any]) -> str:
    """Return why a pod failed permanently: the node's reason and message, otherwise how its containers ended."""
    told = ": ".join(filter(None, (status.get("reason", ""), status.get("message", ""))))
    ends = [f"container {c['name']} {text}" for c in status["containers"] if (text := _ended(c))]
    return told or "; ".join(ends) or "Failed"
