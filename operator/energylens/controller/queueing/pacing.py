"""Limits the rate of passes that become due at the same moment.

Measured windows end together, and a failing source affects all deployments: thousands of status writes in one second
would overload the API server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from energylens.controller.state.store import Key


class Pacer:
    """Forwards keys at a bounded rate, in order of arrival; a waiting key is not added twice."""

    def __init__(
        self,
        enqueue: Callable[[Key], None],
        per_second: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Forward at most ``per_second`` keys per second to ``enqueue``."""
        self._enqueue = enqueue
        self._pause = 1.0 / per_second
        self._sleep = sleep
        self._waiting: dict[Key, None] = {}
        self._some = asyncio.Event()

    def __len__(self) -> int:
        """Return the number of waiting keys."""
        return len(self._waiting)

    def add(self, key: Key) -> None:
        """Add a key."""
        self._waiting.setdefault(key)
        self._some.set()

    async def run(self) -> None:
        """Forward keys until cancelled."""
        while True:
            await self._some.wait()
            while self._waiting:
                key = next(iter(self._waiting))
                del self._waiting[key]
                self._enqueue(key)
                await self._sleep(self._pause)
            self._some.clear()
