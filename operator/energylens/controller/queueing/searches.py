"""Searches for plans beside the passes: a deployment whose plan is known is not behind the search for another one's.

A pass that needs a search ends without a decision, and its key is set aside until the answer is there. Searches have a
thread of their own: only one at a time, since each needs tens of megabytes.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from energylens.controller.queueing.queue import KeyQueue
from energylens.controller.state.store import Key
from energylens.planner.answers import SearchNeededError

NEW_PER_OTHER = 3
"""Searches of new specs for each of another deployment while both wait: one that runs may need another plan because its
GPUs are gone."""


class Searches:
    """The searches that passes wait for: mostly those of new specs first, each queue in its order."""

    def __init__(self, queue: KeyQueue) -> None:
        """Bring keys back into ``queue``."""
        self._queue = queue
        self._waiting: tuple[dict[Key, SearchNeededError], dict[Key, SearchNeededError]] = ({}, {})
        """Those of new specs, and all others."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="searcher")
        self._more = asyncio.Event()
        self._turns = 0

    def put(self, key: Key, needed: SearchNeededError) -> None:
        """Set a key aside, whose pass ends now, until the answer that it needs is found."""
        first, others = self._waiting
        waiting, other = (first, others) if self._queue.is_new(key) else (others, first)
        other.pop(key, None)
        # A repeated request keeps its turn. The frames of the traceback would keep the objects of the pass.
        waiting[key] = needed.with_traceback(None)
        self._queue.put_aside(key)
        self._more.set()

    async def run(self) -> None:
        """Search until cancelled. What waits then is searched for by the next run."""
        while True:
            while not any(self._waiting):
                self._more.clear()
                await self._more.wait()
            key, needed = next(iter(self._next_queue().items()))
            if not self._queue.went_on(key):
                # The next pass searches again, and reports the error.
                with suppress(Exception):
                    await asyncio.get_running_loop().run_in_executor(self._thread, needed.search)
            for waiting in self._waiting:
                if waiting.get(key) is needed:
                    del waiting[key]
                    self._queue.bring_back(key)

    def _next_queue(self) -> dict[Key, SearchNeededError]:
        new, others = self._waiting
        if not (new and others):
            return new or others
        self._turns += 1
        return others if self._turns % (NEW_PER_OTHER + 1) == 0 else new
