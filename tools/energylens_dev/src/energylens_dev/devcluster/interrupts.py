"""Keeps Ctrl-C and SIGTERM from leaving a process behind: deferred where a step must be whole, raised elsewhere."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end; also for SIGTERM and SIGHUP what a Ctrl-C is."""

    def __init__(self, number: int) -> None:
        """Remember the signal's number."""
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.signal_number = number


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Raise Interrupted in the block on SIGINT, SIGTERM or SIGHUP. Signals are left alone outside the main thread."""

    def handler(number: int, frame: FrameType | None) -> None:
        del frame
        raise Interrupted(number)

    with _handling(handler):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Run the block to its end before a signal that arrives in it takes effect."""
    arrived: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        del frame
        arrived.append(number)

    with _handling(handler):
        yield
    if arrived:
        signal.raise_signal(arrived[0])


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    # Python runs signal handlers in the main thread only, so no other thread is ever interrupted by one.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # A signal that is ignored stays so: nohup and background jobs rely on it.
    handled = [number for number, old in before.items() if old is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
