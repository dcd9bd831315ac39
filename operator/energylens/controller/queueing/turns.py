"""A lock whose waiters are served in two queues: those in a hurry first, each queue in its order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """One holder at a time; for one event loop."""

    def __init__(self) -> None:
        """Begin free."""
        self._held = False
        self._waiters: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = (deque(), deque())

    @asynccontextmanager
    async def turn(self, *, first: bool) -> AsyncIterator[None]:
        """Hold the lock; ``first`` passes by all who wait without hurry."""
        if self._held:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue = self._waiters[0 if first else 1]
            queue.append(future)
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    # The lock was handed over in the moment of the cancellation.
                    self._hand_over()
                elif future in queue:
                    queue.remove(future)
                raise
        self._held = True
        try:
            yield
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give the lock to the next waiter, without a moment in which somebody else could take it."""
        for queue in self._waiters:
            while queue:
                future = queue.popleft()
                if not future.done():
                    future.set_result(None)
                    return
        self._held = False
