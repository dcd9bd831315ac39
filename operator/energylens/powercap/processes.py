"""The pod of a process, from its control group."""

from __future__ import annotations

import re
from pathlib import Path

_POD = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})")


def pod_of_cgroup(text: str) -> str | None:
    """Return the UID of the pod named in the text of /proc/PID/cgroup; None without a pod.

    The kubelet's two cgroup drivers write the UID differently: ``kubepods/burstable/pod<uid>`` and, by systemd,
    ``kubepods-burstable-pod<uid with underscores>.slice``.
    """
    found = _POD.search(text)
    return found[1].replace("_", "-") if found is not None else None


def pod_of_process(pid: int, proc: Path = Path("/proc")) -> str | None:
    """Return the UID of a process's pod; None if the process is in no pod or has ended."""
    try:
        return pod_of_cgroup((proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
