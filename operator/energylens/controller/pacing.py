"""Passes of which many become due at the same moment are asked for a few at a time.

Measured windows end together, and a source that goes silent does so for all: thousands of status writes in one second
would keep the API server from everybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from energylens.controller.store import Key


class Pacer:
    """Passes keys on at a bounded rate, in the order in which they came; a key that waits waits once."""

    def __init__(
        self,
        enqueue: Callable[[Key], None],
        per_second: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Give keys to ``enqueue``, ``per_second`` of them at most."""
        self._enqueue = enqueue
        self._pause = 1.0 / per_second
        self._sleep = sleep
        self._waiting: dict[Key, None] = {}
        self._some = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait."""
        return len(self._waiting)

    def add(self, key: Key) -> None:
        """Ask for a key."""
        self._waiting.setdefault(key)
        self._some.set()

    async def run(self) -> None:
        """Pass keys on until cancelled."""
        while True:
            await self._some.wait()
            while self._waiting:
                key = next(iter(self._waiting))
                del self._waiting[key]
                self._enqueue(key)
                await self._sleep(self._pause)
            self._some.clear()
