"""The load to plan for if the measured load differs from the spec, damped so that noise changes nothing.

Loads are steps of 25 % above and below the declared rate, so that a plan's inputs change seldom. A load that rises is
followed at the next window, since objectives break; one that falls only after it was lower for a whole cooldown, to the
highest rate of that time. Between the rate that raises a step and the one that lowers it again lies a fifth: noise
below that cannot go back and forth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

STEP = 1.25
RAISE = 1.1
"""A step is left upwards when the rate exceeds it by this factor; the safety margin of a plan covers less."""
LOWEST_STEP = -10
"""A tenth of the declared rate; below, the objectives decide and not the load."""


@dataclass(frozen=True)
class MeasuredLoad:
    """The load of one window."""

    start: datetime
    end: datetime
    requests_per_second: float
    """Requests that ended in the window."""
    is_saturated: bool = False
    """Whether more requests wait than run, so that the ended requests show the engines' capacity, not the demand."""


@dataclass(frozen=True)
class FollowedLoad:
    """The load that is planned for, and what damps its changes."""

    declared: float
    """Requests per second of the spec when following began; another one begins again."""
    step: int = 0
    changed: datetime | None = None
    below_since: datetime | None = None
    """Since when every window was low enough to lower the step; None when the last one was not."""
    highest_below: float = 0.0
    """Highest rate since then."""
    counted: datetime | None = None
    """End of the last window that was looked at; each counts once."""

    @property
    def requests_per_second(self) -> float:
        """The rate to plan for."""
        return rate_of(self.declared, self.step)


def rate_of(declared: float, step: int) -> float:
    """Return the rate of a step above or below the declared one, to three digits."""
    return float(f"{declared * STEP**step:.3g}") if step else declared


def follow(before: FollowedLoad, window: MeasuredLoad, hold: timedelta) -> FollowedLoad:
    """Return the load to plan for after a window; one that was looked at before changes nothing.

    Args:
        before: The load that was planned for.
        window: What was measured since.
        hold: How long a load must stay lower before it is followed down.
    """
    if before.counted is not None and window.end <= before.counted:
        return before
    before = replace(before, counted=window.end)
    planned, rate = before.requests_per_second, window.requests_per_second
    if window.is_saturated:
        rate = max(rate, planned * STEP)
    if rate > planned * RAISE:
        return _at(before, _step(before.declared, rate))
    if rate >= planned / (STEP * RAISE) or before.step <= LOWEST_STEP:
        return replace(before, below_since=None, highest_below=0.0)
    since = before.below_since or window.start
    highest = max(before.highest_below, rate)
    if window.end - since < hold:
        return replace(before, below_since=since, highest_below=highest)
    return _at(before, _step(before.declared, highest))


def _at(before: FollowedLoad, step: int) -> FollowedLoad:
    return FollowedLoad(before.declared, step, changed=before.counted, counted=before.counted)


def _step(declared: float, rate: float) -> int:
    """Return the lowest step whose rate is not exceeded by more than noise."""
    if rate <= 0:
        return LOWEST_STEP
    step = math.ceil(math.log(rate / declared, STEP) - 1e-9)
    return max(LOWEST_STEP, step)
