"""What scale.py reads: processor time and memory of processes, writes in the audit log, and watch events."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from energylens_dev.devcluster import Kubectl
from energylens_dev.devcluster.audit import WRITES

ACCOUNT = "system:serviceaccount:energylens-system:energylens"
NOT_COUNTED = ("leases", "selfsubjectaccessreviews")
"""The operator's own lease, and questions about rights, which are stored nowhere."""
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, user and system (proc(5), fields 14 and 15 of /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def is_running(pid: int) -> bool:
    """Return whether a process exists and has not ended (proc(5), field 3 of /proc/PID/stat)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def memory_mib(pid: int, name: str = "VmRSS") -> float:
    """Return the resident memory of a process, MiB: ``VmRSS`` now, ``VmHWM`` at its highest."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    line = next(line for line in text.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / 1024


@dataclass
class WriteCounter:
    """Counts the operator's requests in the audit log, a part at a time; a rotated log is followed."""

    path: Path
    writes: Counter[str] = field(default_factory=Counter)
    """By plural, with the subresource."""
    reads: Counter[str] = field(default_factory=Counter)
    """By verb and plural; watches are not counted."""
    named: set[tuple[str, str]] = field(default_factory=set)
    """Namespaces and names of LLMDeployments whose status was written."""
    _offset: int = 0
    _inode: int = 0

    def __post_init__(self) -> None:
        """Begin at the log's end."""
        found = self.path.stat()
        self._offset, self._inode = found.st_size, found.st_ino

    def read(self) -> None:
        """Count what was written to the log since."""
        found = self.path.stat()
        if found.st_ino != self._inode:
            # What was logged between the last look and the rotation is in the old file, which has another name.
            old = max(self.path.parent.glob(f"{self.path.stem}-*{self.path.suffix}"), key=lambda p: p.stat().st_mtime)
            self._take(old)
            self._offset, self._inode = 0, found.st_ino
        self._take(self.path)

    def _take(self, path: Path) -> None:
        with path.open("rb") as file:
            file.seek(self._offset)
            lines = file.read().split(b"\n")
        # The last line may be half written.
        self._offset += sum(len(line) + 1 for line in lines[:-1])
        for line in lines[:-1]:
            if ACCOUNT.encode() in line:
                self._count(json.loads(line))

    def _count(self, event: Mapping[str, Any]) -> None:
        target = event.get("objectRef", {})
        resource = target.get("resource", "")
        if event["user"]["username"] != ACCOUNT or event["stage"] != "ResponseComplete" or resource in NOT_COUNTED:
            return
        if event["verb"] in WRITES:
            if 200 <= event.get("responseStatus", {}).get("code", 0) < 300:
                self.writes["/".join(filter(None, (resource, target.get("subresource", ""))))] += 1
                if resource == "llmdeployments":
                    self.named.add((target.get("namespace", ""), target.get("name", "")))
        elif event["verb"] != "watch":
            self.reads[f"{event['verb']} {resource}"] += 1

    def taken(self) -> tuple[Counter[str], Counter[str]]:
        """Return writes and reads since the last call, and begin again."""
        self.read()
        found = self.writes, self.reads
        self.writes, self.reads = Counter(), Counter()
        return found


@dataclass
class Seen:
    """When objects first met a condition, by name; monotonic seconds."""

    at: dict[str, float] = field(default_factory=dict)


@contextmanager
def watching(kubectl: Kubectl, kind: str, expression: str, wanted: str) -> Iterator[Seen]:
    """Note when each object of a kind in kubectl's namespace is first seen with a value.

    Args:
        kubectl: In the namespace to watch.
        kind: To watch.
        expression: JSONPath of the value.
        wanted: "" for any value but none.
    """
    seen = Seen()
    path = f"{{.metadata.name}} {expression}{{'\\n'}}"
    command = [str(kubectl.program), f"--kubeconfig={kubectl.kubeconfig}", f"--cache-dir={kubectl.cache}"]
    command += [f"--namespace={kubectl.namespace}", "get", kind, "--watch", f"-o=jsonpath={path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = process.stdout
        assert lines is not None

        def follow() -> None:
            for line in lines:
                name, _, value = line.strip().partition(" ")
                if value and wanted in ("", value):
                    seen.at.setdefault(name, time.monotonic())

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            process.terminate()
            process.wait(timeout=30)
            thread.join(timeout=30)
