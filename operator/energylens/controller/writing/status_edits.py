"""Somebody else's edits of statuses: each is undone, but not as fast as a program that edits in a loop."""

from __future__ import annotations

from energylens.clock import Clock
from energylens.controller.backoff import Backoff
from energylens.controller.state.store import Edited, Key
from energylens.controller.writing.child_writer import (
    CONTESTED_AFTER,
    MOST_REPAIR_SECONDS,
    QUIET_SECONDS,
    REPAIR_SECONDS,
)


class StatusEdits:
    """How often the status of each LLMDeployment was written again because somebody else had edited it."""

    def __init__(self, clock: Clock) -> None:
        """Begin with none."""
        self._clock = clock
        self._repairs: Backoff[Key] = Backoff(REPAIR_SECONDS, MOST_REPAIR_SECONDS, free_tries=1)
        self._last: dict[Key, Edited] = {}

    def wait(self, key: Key) -> float:
        """Return the seconds until an edit is undone; 0 at once."""
        return self._repairs.wait(key, self._clock.monotonic())

    def count(self, key: Key, edited: Edited) -> bool:
        """Count an edit that was undone; return whether it is the first one for a while, and worth an event."""
        now = self._clock.monotonic()
        if self._repairs.count(key) and self._repairs.quiet(key, now) >= self._repairs.pause(key, QUIET_SECONDS):
            self._repairs.forget(key)
        self._repairs.tried(key, now)
        self._last[key] = edited
        return self._repairs.count(key) == 1

    def contested(self, key: Key) -> str:
        """Return who edits the status repeatedly; "" if nobody does."""
        now = self._clock.monotonic()
        if self._repairs.count(key) < CONTESTED_AFTER:
            return ""
        if self._repairs.quiet(key, now) >= self._repairs.pause(key, QUIET_SECONDS):
            return ""
        managers = self._last[key].managers
        who = f"field manager {', '.join(managers)}" if managers else "another field manager"
        return f"{who} repeatedly writes to the status, which only the operator may write"

    def forget(self, key: Key) -> None:
        """Forget a deployment that is gone."""
        self._repairs.forget(key)
        self._last.pop(key, None)


def described_edit(edited: Edited) -> str:
    """Return what was undone, for the event."""
    who = f" by field manager {', '.join(edited.managers)}" if edited.managers else ""
    return f"the status was edited{who}, and the operator restored it: {', '.join(edited.parts)}"
