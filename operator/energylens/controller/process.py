"""Objects that the parts of one operator process share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from energylens.cluster.errors import ClusterError
from energylens.controller.endpoints.health import Health
from energylens.controller.watching.kinds import AGAIN_SECONDS
from energylens.records import dataclass

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """Objects that the parts of one process share."""

    identity: str
    """For events and kopf."""
    health: Health
    """Hears what does not work."""
    stop: asyncio.Event
    """Set when the process is to end."""
    stop_on_signals: Callable[[], None]
    """Sets the signal handlers, which kopf replaces by its own when it starts."""
    drop_connections: Callable[[], None]
    """Closes the connections of probes and scrapes, whose tasks kopf cancels when it stops; clients open new ones."""

    async def until_done(self, step: Callable[[], Awaitable[T]], what: str) -> T:
        """Return the result of a step, which is retried while the API server fails it; ``what`` names the step."""
        while True:
            try:
                result = await step()
            except ClusterError as error:
                self.health.report(what, str(error))
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                self.health.report(what, "")
                return result
