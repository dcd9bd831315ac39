"""Starts and stops background processes by process id, never by name.

Each has a record with its id and its start time: an id that another process has got since is never signalled.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from energylens_dev.devcluster.errors import DevClusterError
from energylens_dev.devcluster.interrupts import deferred

_POLL_SECONDS = 0.05


def start_identity(pid: int) -> str | None:
    """Return what tells a process from every other that ever has the same id, or None when none is alive under it.

    On Linux: the boot's id and the start time in clock ticks (proc(5), field 22 of /proc/PID/stat). A child of this
    process that has ended is reaped and counts as gone.
    """
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    if not sys.platform.startswith("linux"):
        answer = subprocess.run(
            ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        state, _, started = answer.stdout.strip().partition(" ")
        return None if not state or state.startswith("Z") else started.strip()
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name, in parentheses, may hold anything; the fields after it start with the state.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}:{fields[19]}"


@dataclass(frozen=True)
class ProcessRecord:
    """A process that was started here.

    Attributes:
        pid: Its process id, also the id of its process group.
        started: Its `start_identity`.
        command: Its command line.
    """

    pid: int
    started: str
    command: tuple[str, ...]


class Processes:
    """The processes of one state directory."""

    def __init__(self, records: Path, logs: Path, identity: Callable[[int], str | None] = start_identity) -> None:
        """Keep records and logs in these folders, which are made when missing.

        Args:
            records: One JSON file per process.
            logs: One log file per process, appended to.
            identity: See `start_identity`.
        """
        self._records = records
        self._logs = logs
        self._identity = identity

    def running(self, name: str) -> ProcessRecord | None:
        """Return the process of that name when it is alive and the one that was started here."""
        try:
            data = json.loads(self._file(name).read_text(encoding="utf-8"))
            record = ProcessRecord(int(data["pid"]), str(data["started"]), tuple(data["command"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DevClusterError(f"{self._file(name)} is damaged ({error}): remove it and end its process") from error
        return record if self._identity(record.pid) == record.started else None

    def log_file(self, name: str) -> Path:
        """Return the file that a process of that name writes its output to."""
        return self._logs / f"{name}.log"

    def log_tail(self, name: str, lines: int = 15) -> str:
        """Return the last lines of a process's log."""
        try:
            text = self.log_file(name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> ProcessRecord:
        """Start a process in a session of its own, so that a Ctrl-C at the terminal does not reach it.

        An interrupt waits until the record is written: no process is ever started without one.

        Raises:
            DevClusterError: When the program cannot be executed.
        """
        for folder in (self._records, self._logs):
            folder.mkdir(parents=True, exist_ok=True)
        writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with deferred():
            try:
                pid = os.posix_spawn(
                    command[0],
                    list(command),
                    dict(environment),
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_OPEN, 1, str(self.log_file(name)), writing, 0o600),
                        (os.POSIX_SPAWN_DUP2, 1, 2),
                    ],
                    setsid=True,
                    setsigmask=[],
                    setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE],
                )
            except OSError as error:
                raise DevClusterError(f"cannot start {name} ({command[0]}): {error.strerror}") from error
            record = ProcessRecord(pid, self._identity(pid) or "ended at once", tuple(command))
            partial = self._file(name).with_suffix(".tmp")
            partial.write_text(json.dumps(asdict(record)), encoding="utf-8")
            partial.rename(self._file(name))
        return record

    def stop(self, names: Sequence[str], grace_seconds: float) -> list[str]:
        """End processes and wait until they are gone: SIGTERM to each one's group, SIGKILL after the grace.

        Returns:
            The names of those that were running.
        """
        ending = {name: record for name in names if (record := self.running(name)) is not None}
        for record in ending.values():
            self._signal(record, signal.SIGTERM)
        left = self._wait(ending.values(), grace_seconds)
        for record in left:
            self._signal(record, signal.SIGKILL)
        stuck = self._wait(left, grace_seconds)
        if stuck:
            raise DevClusterError(f"process {stuck[0].pid} ({stuck[0].command[0]}) does not end, not even by SIGKILL")
        for name in names:
            self._file(name).unlink(missing_ok=True)
        return list(ending)

    def _file(self, name: str) -> Path:
        return self._records / f"{name}.json"

    def _signal(self, record: ProcessRecord, number: signal.Signals) -> None:
        if self._identity(record.pid) == record.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(record.pid, number)

    def _wait(self, records: Iterable[ProcessRecord], seconds: float) -> list[ProcessRecord]:
        deadline = time.monotonic() + seconds
        left: list[ProcessRecord] = list(records)
        while True:
            left = [record for record in left if self._identity(record.pid) == record.started]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(_POLL_SECONDS)
