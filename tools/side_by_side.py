"""Run lanes of commands side by side; every line of output says which lane wrote it.

A lane runs its commands one after another, the later ones also when an earlier one fails. At the end each command is
listed with its exit code and time. Of each that failed the end of its output is repeated, of each that passed the last
line, where test runners count. The exit code is 1 when any command failed.

    python tools/side_by_side.py --lane checks 'make lint' 'pytest tests/unit' --lane slow 'pytest tests/controlplane'
"""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TextIO

REPEATED_LINES = 40
_NOT_STARTED = 127
"""Exit code of a shell for a program that is not there."""


@dataclass
class Command:
    """A command line of a lane, and what became of it."""

    line: str
    code: int | None = None
    """Exit code; negative for a signal, as `subprocess` has it, and None before the end."""
    seconds: float = 0.0
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=REPEATED_LINES))


class Lanes:
    """Lanes that run at the same time."""

    def __init__(self, lanes: Sequence[tuple[str, Sequence[str]]], output: TextIO) -> None:
        """Take the name and the command lines of each lane, and where output goes."""
        self.lanes = [(name, [Command(line) for line in lines]) for name, lines in lanes]
        self._output = output
        self._width = max(len(name) for name, _ in lanes)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self) -> int:
        """Run all commands; return 1 when any of them failed, else 0."""
        threads = [threading.Thread(target=self._run_lane, args=lane) for lane in self.lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._report()
        return int(any(command.code != 0 for _, commands in self.lanes for command in commands))

    def stop(self, number: int | None = None) -> None:
        """Start no more commands, and send those that run a signal where one is given."""
        self._stopped = True
        for process in [*self._running]:
            if number is not None:
                process.send_signal(number)

    def _run_lane(self, name: str, commands: Sequence[Command]) -> None:
        for command in commands:
            if self._stopped:
                return
            self._say(name, f"$ {command.line}")
            started = time.monotonic()
            command.code = self._run_command(name, command)
            command.seconds = time.monotonic() - started

    def _run_command(self, name: str, command: Command) -> int:
        def say(line: str) -> None:
            self._say(name, line.rstrip("\n"))
            command.tail.append(line)

        try:
            process = subprocess.Popen(
                shlex.split(command.line),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as error:
            say(f"{error}\n")
            return _NOT_STARTED
        with process:
            self._running.add(process)
            assert process.stdout is not None
            for line in process.stdout:
                say(line)
        self._running.discard(process)
        return process.returncode

    def _say(self, name: str, text: str) -> None:
        with self._lock:
            self._output.write(f"{name:<{self._width}} | {text}\n")
            self._output.flush()

    def _report(self) -> None:
        everything = [(name, command) for name, commands in self.lanes for command in commands]
        for name, command in everything:
            if command.code:
                self._output.write(f"\nThe end of the output of {name}: {command.line}\n{''.join(command.tail)}")
        for _, command in everything:
            if command.code == 0 and command.tail:
                # Without the lane in front: who counts the tests of a log looks for such a line alone.
                self._output.write(f"\n{command.tail[-1].rstrip()}\n")
        self._output.write("\n")
        for name, command in everything:
            end = "not run" if command.code is None else f"exit code {command.code}" if command.code else "passed"
            self._output.write(f"{name:<{self._width}} | {end} in {command.seconds:.0f} s: {command.line}\n")
        self._output.flush()


def main(arguments: Sequence[str], output: TextIO) -> int:
    """Run the lanes of a command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--lane",
        dest="lanes",
        action="append",
        nargs="+",
        required=True,
        metavar=("NAME", "COMMAND"),
        help="a name, and the command lines that run one after another; no shell reads them",
    )
    lanes = Lanes([(name, lines) for name, *lines in parser.parse_args(arguments).lanes], output)
    # A Ctrl-C reaches the commands too, since they are in the same process group; they end in their own way.
    signal.signal(signal.SIGINT, lambda *_: lanes.stop())
    signal.signal(signal.SIGTERM, lambda number, _: lanes.stop(number))
    return lanes.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdout))
