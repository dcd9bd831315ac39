"""A queue of keys that coalesces: a key waits at most once, and is never worked on twice at the same time.

Two lanes: keys whose children stand already go first, so that their status is not stale behind thousands of new ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from energylens.controller.store import Key


class KeyQueue:
    """Hands out keys to workers; for one event loop."""

    def __init__(self, is_urgent: Callable[[Key], bool]) -> None:
        """Put keys for which ``is_urgent`` holds into the first lane."""
        self._is_urgent = is_urgent
        self._lanes: tuple[deque[Key], deque[Key]] = (deque(), deque())
        self._waiting: set[Key] = set()
        self._busy: set[Key] = set()
        self._again: set[Key] = set()
        self._ready = asyncio.Event()
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """Keys that wait."""
        return len(self._waiting)

    @property
    def unfinished(self) -> int:
        """Keys that wait or are worked on."""
        return len(self._waiting | self._busy)

    @property
    def idle(self) -> bool:
        """No key waits or is worked on."""
        return not self.unfinished

    def add(self, key: Key) -> None:
        """Ask for a key to be worked on, once more if it is being worked on now."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._lanes[0 if self._is_urgent(key) else 1].append(key)
            self._ready.set()

    def add_later(self, key: Key, seconds: float) -> None:
        """Ask for a key after some time, unless it is asked for earlier."""
        if key in self._waiting:
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def take(self) -> Key:
        """Wait for a key; it is busy until :meth:`done`."""
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        lane = self._lanes[0] or self._lanes[1]
        key = lane.popleft()
        self._waiting.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: Key) -> None:
        """Say that the work on a key has ended."""
        self._busy.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
