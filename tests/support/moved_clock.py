"""A process whose clock a test moves forward: ``python -m tests.support.moved_clock FILE WHAT MODULE ARGUMENTS``.

The file has the seconds by which :class:`energylens.clock.SystemClock` is ahead. WHAT is ``dates`` for a process whose
leases and pauses keep to the machine's clock, and ``all`` for one that measures durations by the moved clock.
"""

from __future__ import annotations

import runpy
import sys
from datetime import datetime, timedelta
from pathlib import Path

from energylens import clock


def move(file: Path, seconds: float) -> None:
    """Let the processes that read a file be so many seconds ahead."""
    new = file.with_suffix(".new")
    new.write_text(repr(seconds), encoding="utf-8")
    new.replace(file)


class MovedClock(clock.SystemClock):
    """The machine's clock, ahead by the seconds in a file."""

    file: Path
    moves_durations = False

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self._ahead())

    def monotonic(self) -> float:
        return super().monotonic() + (self._ahead() if self.moves_durations else 0.0)

    def _ahead(self) -> float:
        return float(self.file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    _, path, what, module, *arguments = sys.argv
    MovedClock.file, MovedClock.moves_durations = Path(path), what == "all"
    # Before the modules are imported that take the clock by its name.
    clock.SystemClock = MovedClock  # type: ignore[misc]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
