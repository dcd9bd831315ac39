"""Objects that the parts of one operator process share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from energylens.controller.endpoints.health import Health
from energylens.records import dataclass


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
