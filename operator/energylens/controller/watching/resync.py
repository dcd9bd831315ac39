"""Finds changes that the watches missed, reads them, and says when watches must be restarted.

An operator that is short of processor time is late, too: its watches deliver everything, only later than a list. A
restart would list everything again, which delays the operator further. Therefore a restart needs changes that did not
arrive although nothing else arrived for a while (:meth:`Sweeper.settle
<energylens.controller.watching.sweep.Sweeper.settle>`), and restarts that do not help become rarer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from energylens.clock import Clock
from energylens.controller.backoff import Backoff
from energylens.controller.watching.sweep import MOST_READ, Missed, Sweeper

MOST_SECONDS = 3600.0
"""Longest time between two restarts."""
LISTING = "listing what is watched"

log = logging.getLogger("energylens")


class UntilDone(Protocol):
    """Repeats a step until the API server answers; the words say what fails meanwhile."""

    async def __call__(self, step: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Return what the step returns."""
        ...


class Resync:
    """The comparisons with the API server's lists, over all restarts of the watches."""

    def __init__(self, sweeper: Sweeper, until_done: UntilDone, clock: Clock, seconds: float) -> None:
        """Compare by ``sweeper`` every ``seconds``; the first restart is followed by a pause of twice as long."""
        self._sweeper = sweeper
        self._until_done = until_done
        self._clock = clock
        self._restarts: Backoff[str] = Backoff(2.0 * seconds, MOST_SECONDS)
        self._missed_before = False

    def begin(self) -> None:
        """Say that new watches began, which have missed nothing yet."""
        self._missed_before = False

    async def step(self) -> bool:
        """Compare once; return whether the watches must be restarted."""
        behind = await self._until_done(self._sweeper.sweep, LISTING)
        missed: list[Missed] = await self._until_done(self._sweeper.settle, LISTING) if behind else []
        before, self._missed_before = self._missed_before, bool(missed)
        now = self._clock.monotonic()
        if not missed:
            if self._restarts.quiet("watches", now) >= self._restarts.pause("watches", 0.0):
                self._restarts.forget("watches")
            return False
        log.warning("the watches missed %d changes, such as of %s", len(missed), missed[0])
        if not before and len(missed) <= MOST_READ:
            await self._until_done(partial(self._sweeper.read, missed), LISTING)
            return False
        if (pause := self._restarts.wait("watches", now)) > 0:
            log.warning("the watches were restarted lately: not again for %.0f s; changes are read instead", pause)
            await self._until_done(partial(self._sweeper.read, missed[:MOST_READ]), LISTING)
            return False
        self._restarts.tried("watches", now)
        return True
