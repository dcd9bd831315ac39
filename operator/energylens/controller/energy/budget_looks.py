"""When the operator checks the budgets: before the first pass, every few seconds, and when a deployment waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from energylens.controller.energy.budget_keeper import BudgetKeeper

BUDGET_PAUSES = 50.0
"""Least ratio of the pause between two checks to the duration of the last check, without requests: with tens of
thousands of memberships an idle operator would otherwise mostly check budgets."""
UNSETTLED_SECONDS = 1.0
"""Seconds between two checks while members respond to shedding; a pass takes less."""

log = logging.getLogger("energylens")


class BudgetLooks:
    """Checks budgets through a keeper."""

    def __init__(
        self, keeper: BudgetKeeper, count: Callable[[], object], wanted: asyncio.Event, seconds: float
    ) -> None:
        """Check with ``keeper`` every ``seconds``.

        Args:
            keeper: The keeper of the budgets.
            count: Function that counts the energy of deployments with their own limit.
            wanted: Set when a deployment waits for a check of its budget.
            seconds: Least pause between two checks.
        """
        self._keeper = keeper
        self._count = count
        self._wanted = wanted
        self._seconds = seconds

    async def before_passes(self) -> None:
        """Check the budgets once, if members would otherwise wait for the first check."""
        if self._keeper.owes_a_look:
            await self._look()

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            self._wanted.clear()
            await self._look()
            seconds = max(self._seconds, BUDGET_PAUSES * self._keeper.busy_seconds)
            pause = min(UNSETTLED_SECONDS, seconds) if self._keeper.is_unsettled else seconds
            with suppress(TimeoutError):
                # Unlike wait_for, this makes no task, which kopf would cancel when it stops.
                async with asyncio.timeout(pause):
                    await self._wanted.wait()

    async def _look(self) -> None:
        try:
            self._count()
            await self._keeper.step()
        except Exception:
            log.exception("keeping the budgets failed: internal error; retrying")
