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
        """When the first of the present problems began that excuse silence, s."""
        self._curable_since: dict[str, float] = {}
        """When the present problems began that a restart may remove, s."""
        self._logged: dict[str, tuple[str, float]] = {}
        self._leading = False
        self.synced = False
        """Whether the initial lists are complete."""

    @property
    def leading(self) -> bool:
        """Whether this operator acts."""
        return self._leading

    @leading.setter
    def leading(self, leads: bool) -> None:
        if leads and not self._leading:
            # A standby watches nothing, however long it has waited.
            self.heartbeats.clear()
        self._leading = leads

    @property
    def event_age_seconds(self) -> float:
        """Seconds since the most silent watch received anything, including bookmarks."""
        return self.heartbeats.longest()[1]

    def report(self, what: str, problem: str, *, curable: bool = False) -> None:
        """Record a problem, or with "" that it is solved; log new problems, and repeat unchanged ones occasionally.

        Args:
            what: Subject of the problem.
            problem: The problem in words.
            curable: Whether a restart may remove the problem. Such a problem excuses no silent watch, and liveness
                fails if the problem lasts as long as a watch may be silent.
        """
        now = self._clock.monotonic()
        if not problem:
            self._curable_since.pop(what, None)
            if self._problems.pop(what, None) is not None:
                self._logged.pop(what, None)
                if not self._excuses and not curable:
                    self._excuse(now)
                log.info("%s: works again", what)
            return
        if curable:
            self._curable_since.setdefault(what, now)
        elif not self._excuses:
            self._since = now
        self._problems[what] = problem
        text, at = self._logged.get(what, ("", float("-inf")))
        if text != problem or now - at >= REPEAT_SECONDS:
            self._logged[what] = problem, now
            log.warning("%s: %s; retrying", what, problem)

    @property
    def _excuses(self) -> bool:
        """Whether there is a problem that a restart would not remove."""
        return len(self._problems) > len(self._curable_since)

    def _excuse(self, now: float) -> None:
        self.heartbeats.excuse(self._since)
        self._curable_since = {
            what: min(now, at + now - max(at, self._since)) for what, at in self._curable_since.items()
        }

    def alive(self) -> str:
        """Return why only a restart helps, or ""."""
        if not self.leading or self._excuses:
            return ""
        for what, since in self._curable_since.items():
            if (seconds := self._clock.monotonic() - since) > self._silence_seconds:
                return f"{what}: {self._problems[what]}, for {seconds:.0f} s"
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
