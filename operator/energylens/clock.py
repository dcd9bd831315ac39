"""The one place that reads the wall clock, so that everything else can be tested with a fake one."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

_UPTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""CLOCK_BOOTTIME exists on Linux only; elsewhere CLOCK_MONOTONIC is the nearest clock."""


class Clock(Protocol):
    """Wall-clock and monotonic time."""

    def now(self) -> datetime:
        """Return the current time, timezone-aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary origin that never goes back and counts a suspension of the machine."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current time, timezone-aware, in UTC."""
        return datetime.now(tz=UTC)  # noqa: TID251

    def monotonic(self) -> float:
        """Return seconds from an arbitrary origin that never goes back and counts a suspension of the machine.

        Linux stops CLOCK_MONOTONIC meanwhile (clock_gettime(2)), so a lease would seem to be held after it ran out.
        """
        return time.clock_gettime(_UPTIME)
