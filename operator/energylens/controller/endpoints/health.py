"""The answers of the probes, and when the log repeats them.

Readiness fails with a reason while something that the operator needs does not work, such as a lease that cannot be read
or a kind that may not be listed. Liveness fails only if a restart would help, which it would not in these cases.
"""

from __future__ import annotations

import logging

from energylens.clock import Clock
from energylens.controller.watching.heartbeat import Heartbeats

REPEAT_SECONDS = 60.0
"""Interval, s, at which the log repeats an unchanged problem."""

log = logging.getLogger("energylens")


class Health:
    """Collects problems for the probes."""

    def __init__(self, clock: Clock, silence_seconds: float) -> None:
        """Begin without problems and not leading; a watch without data for ``silence_seconds`` is dead."""
        self._clock = clock
        self._silence_seconds = silence_seconds
        self.heartbeats = Heartbeats(clock)
        self._problems: dict[str, str] = {}
        self._since = clock.monotonic()
        """When the first of the present problems began, s."""
        self._logged: dict[str, tuple[str, float]] = {}
        self.leading = False
        self.synced = False
        """Whether the initial lists are complete."""

    @property
    def event_age_seconds(self) -> float:
        """Seconds since the most silent watch received anything, including bookmarks."""
        return self.heartbeats.longest()[1]

    def report(self, what: str, problem: str) -> None:
        """Record a problem, or with "" that it is solved; log new problems, and repeat unchanged ones occasionally."""
        if not problem:
            if self._problems.pop(what, None) is not None:
                self._logged.pop(what, None)
                if not self._problems:
                    self.heartbeats.excuse(self._since)
                log.info("%s: works again", what)
            return
        if not self._problems:
            self._since = self._clock.monotonic()
        self._problems[what] = problem
        text, at = self._logged.get(what, ("", float("-inf")))
        now = self._clock.monotonic()
        if text != problem or now - at >= REPEAT_SECONDS:
            self._logged[what] = problem, now
            log.warning("%s: %s; retrying", what, problem)

    def alive(self) -> str:
        """Return why only a restart helps, or ""."""
        if not self.leading or self._problems:
            return ""
        path, seconds = self.heartbeats.longest()
        if seconds <= self._silence_seconds:
            return ""
        if not path:
            return f"nothing has been watched for {seconds:.0f} s"
        return f"the watch of {path} has brought nothing for {seconds:.0f} s, not even a bookmark"

    def ready(self) -> str:
        """Return why the operator cannot work, or ""; a standby that waits for another holder is ready."""
        if self._problems:
            return "; ".join(f"{what}: {problem}" for what, problem in sorted(self._problems.items()))
        return "the initial lists have not arrived yet" if self.leading and not self.synced else ""
