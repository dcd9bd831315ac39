"""What the probes say, and when the log repeats it.

Readiness fails with the reason while something that the operator needs does not work: a lease that cannot be read, a
kind that may not be listed. Liveness fails only where a restart would help, and it would not help against those.
"""

from __future__ import annotations

import logging

from energylens.clock import Clock

SILENCE_SECONDS = 600.0
"""No watch event for so long means dead watches: nodes' heartbeats alone bring some every minute."""
REPEAT_SECONDS = 60.0
"""A problem that stays as it is comes into the log this often."""

log = logging.getLogger("energylens")


class Health:
    """Collects what works and what does not."""

    def __init__(self, clock: Clock) -> None:
        """Begin without a problem, not leading."""
        self._clock = clock
        self._problems: dict[str, str] = {}
        self._logged: dict[str, tuple[str, float]] = {}
        self._last_event = clock.monotonic()
        self.leading = False
        self.synced = False
        """Whether the initial lists are in."""

    @property
    def event_age_seconds(self) -> float:
        """Seconds since a watch brought something."""
        return self._clock.monotonic() - self._last_event

    def heard(self) -> None:
        """Note a watch event."""
        self._last_event = self._clock.monotonic()

    def report(self, what: str, problem: str) -> None:
        """Note why something does not work, or with "" that it does; log what is new, and now and then what is not."""
        if not problem:
            if self._problems.pop(what, None) is not None:
                self._logged.pop(what, None)
                # Silence that was explained until now begins now.
                self.heard()
                log.info("%s: works again", what)
            return
        self._problems[what] = problem
        text, at = self._logged.get(what, ("", float("-inf")))
        now = self._clock.monotonic()
        if text != problem or now - at >= REPEAT_SECONDS:
            self._logged[what] = problem, now
            log.warning("%s: %s; retrying", what, problem)

    def alive(self) -> str:
        """Return "", or why only a restart helps."""
        if self.leading and not self._problems and self.event_age_seconds > SILENCE_SECONDS:
            return f"no watch event for {self.event_age_seconds:.0f} s"
        return ""

    def ready(self) -> str:
        """Return "", or what keeps the operator from its work; a standby that waits for another holder is ready."""
        if self._problems:
            return "; ".join(f"{what}: {problem}" for what, problem in sorted(self._problems.items()))
        return "the initial lists are not in yet" if self.leading and not self.synced else ""
