"""Progress lines: one per step with its elapsed seconds, rewritten in place on a terminal and plain elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import IO


class Progress:
    """Writes progress for a person; the base class writes nothing."""

    def say(self, line: str) -> None:
        """Write one line."""

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[Callable[[], None]]:
        """Time one step.

        Args:
            what: The step as an ongoing action, such as "building etcd 3.6.16".

        Yields:
            A function to call now and then while the step goes on; it shows the elapsed seconds where that is possible.
        """
        del what
        yield lambda: None


class StreamProgress(Progress):
    """Writes to a text stream."""

    def __init__(self, stream: IO[str], monotonic: Callable[[], float] = time.monotonic) -> None:
        """Write to `stream`, taking seconds from `monotonic`."""
        self._stream = stream
        self._monotonic = monotonic
        self._rewrites = stream.isatty()

    def say(self, line: str) -> None:
        """Write one line."""
        self._stream.write(f"{line}\n")
        self._stream.flush()

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[Callable[[], None]]:
        """Time one step; see the base class."""
        began = self._monotonic()

        def show(end: str) -> None:
            # "\x1b[K" clears what a longer line left behind.
            self._stream.write(f"\r{what} ... {self._monotonic() - began:.0f} s\x1b[K{end}")
            self._stream.flush()

        def tick() -> None:
            if self._rewrites:
                show("")

        if not self._rewrites:
            self.say(f"{what} ...")
        try:
            yield tick
        except BaseException:
            if self._rewrites:
                show(" (stopped)\n")
            raise
        if self._rewrites:
            show("\n")
        else:
            self.say(f"{what}: {self._monotonic() - began:.0f} s")
