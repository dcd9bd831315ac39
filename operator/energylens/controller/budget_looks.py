"""When the operator looks at the budgets: before the first pass, every few seconds, and when a deployment waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from energylens.controller.budget_keeper import BudgetKeeper

BUDGET_PAUSES = 50.0
"""Budgets are checked again after as many times as long as the last look took, at least, requests apart: with tens of
thousands of memberships the looks of an idle operator would else be most of what it does."""
UNSETTLED_SECONDS = 1.0
"""Between two checks of the budgets while members answer to what was taken: a pass takes less."""

log = logging.getLogger("energylens")


class BudgetLooks:
    """Looks at the budgets by way of a keeper."""

    def __init__(
        self, keeper: BudgetKeeper, count: Callable[[], object], wanted: asyncio.Event, seconds: float
    ) -> None:
        """Look with ``keeper`` every so many seconds.

        Args:
            keeper: Keeps the budgets.
            count: Counts the energy of deployments that limit it themselves.
            wanted: Set when a deployment waits for a look at its budget.
            seconds: Pause between two checks, at least.
        """
        self._keeper = keeper
        self._count = count
        self._wanted = wanted
        self._seconds = seconds

    async def before_passes(self) -> None:
        """Look at the budgets once, where members would only find that they have to wait for that."""
        if self._keeper.owes_a_look:
            await self._look()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._wanted.clear()
            await self._look()
            seconds = max(self._seconds, BUDGET_PAUSES * self._keeper.busy_seconds)
            pause = min(UNSETTLED_SECONDS, seconds) if self._keeper.is_unsettled else seconds
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), pause)

    async def _look(self) -> None:
        try:
            self._count()
            await self._keeper.step()
        except Exception:
            log.exception("keeping the budgets failed: internal error; retrying")
