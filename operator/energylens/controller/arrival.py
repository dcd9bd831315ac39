"""Waits for the initial lists of the watches, and gives up watches that are lost silently."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from energylens.controller.process import Process
from energylens.controller.watching.resync import LISTING
from energylens.controller.watching.sweep import Missed

STUCK_LISTS = 12
"""Consecutive lists, 5 s apart, without progress after which a watch counts as lost silently (kopf issue 1276)."""
WATCHING, INITIAL_LISTS = "watching", "the initial lists"


class Arrival:
    """Tells over all starts of the watches whether their lists come in."""

    def __init__(self, process: Process, settle: Callable[[], Awaitable[Sequence[Missed]]]) -> None:
        """Report to ``process``; ``settle`` returns the listed objects that have not arrived and no longer come in."""
        self._process = process
        self._settle = settle
        self._fewest_missing = float("inf")
        """Objects that had not arrived, at best, also before the watches were started again."""

    async def completes(self) -> bool:
        """Return True when all listed objects have arrived; False if there is no progress because a watch is dead."""
        stuck = 0
        fewest: int | None = None
        health = self._process.health
        while missing := await self._process.until_done(self._settle, LISTING):
            # A start that begins with more missing than the last one had is not stuck while it gets on. Only what
            # gets beyond all starts solves the problem: else every start would hide how long the problem has lasted.
            best = len(missing) < self._fewest_missing
            stuck = 0 if best or (fewest is not None and len(missing) < fewest) else stuck + 1
            fewest = len(missing) if fewest is None else min(fewest, len(missing))
            self._fewest_missing = min(self._fewest_missing, len(missing))
            problem = "" if best else f"{len(missing)} listed objects have not arrived, such as {missing[0]}"
            health.report(INITIAL_LISTS, problem, curable=True)
            if stuck >= STUCK_LISTS:
                # The error that ended the last watches is over: it must not excuse that the present ones are silent.
                health.report(WATCHING, "")
                return False
        self._fewest_missing = float("inf")
        health.report(INITIAL_LISTS, "", curable=True)
        return True
