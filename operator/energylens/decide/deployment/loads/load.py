"""The load to plan for if the measured load differs from the spec, damped so that noise changes nothing.

Loads are steps of 25 % above and below the declared rate, so that a plan's inputs change seldom. A rising load is
followed at the next window, since objectives break. A falling load is followed only after a whole cooldown, to the
highest rate of that time. The rate that raises a step and the rate that lowers it again differ by a fifth, so that
smaller noise does not make the step oscillate.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from energylens.records import dataclass

STEP = 1.25
RAISE = 1.1
"""The step is raised when the rate exceeds it by this factor; the safety margin of a plan covers smaller excesses."""
LOWEST_STEP = -10
"""A tenth of the declared rate; below that rate, the objectives determine the plan, not the load."""


@dataclass(frozen=True)
class MeasuredLoad:
    """The load of one window, or the mean length of its requests."""

    start: datetime
    end: datetime
    value: float
    """Requests per second that ended in the window, or the mean tokens of these requests."""
    is_saturated: bool = False
    """Whether more requests wait than run, so that the ended requests show the engines' capacity, not the demand."""


@dataclass(frozen=True)
class Followed:
    """A followed quantity of the load, and the state that damps its changes."""

    declared: float
    """Value of the spec when following began, requests per second or tokens; another value restarts following."""
    step: int = 0
    changed: datetime | None = None
    below_since: datetime | None = None
    """Time since which every window was low enough to lower the step; None if the last window was not."""
    highest_below: float = 0.0
    """Highest value since ``below_since``."""
    counted: datetime | None = None
    """End of the last evaluated window; each window counts once."""

    @property
    def value(self) -> float:
        """The value to plan for."""
        return rate_of(self.declared, self.step)


@dataclass(frozen=True)
class FollowedLoad(Followed):
    """The request rate to plan for, and the lengths of requests if lengths are followed."""

    prompts: Followed | None = None
    """Mean tokens of a prompt."""
    outputs: Followed | None = None
    """Mean tokens generated per request."""
    longest: int | None = None
    """Tokens of the longest request that the engine accepts; None if unknown. No longer request can be measured."""

    @property
    def requests_per_second(self) -> float:
        """The rate to plan for."""
        return self.value

    @property
    def is_longer(self) -> bool:
        """Whether prompts or outputs are planned to be longer than declared."""
        return any(length is not None and length.step > 0 for length in (self.prompts, self.outputs))


_Followed = TypeVar("_Followed", bound=Followed)


def rate_of(declared: float, step: int) -> float:
    """Return the rate of a step above or below the declared rate, to three digits."""
    return float(f"{declared * STEP**step:.3g}") if step else declared


def follow(before: _Followed, window: MeasuredLoad, hold: timedelta) -> _Followed:
    """Return the load to plan for after a window; a window that was evaluated before changes nothing.

    Args:
        before: The load, or the mean length of requests, before the window.
        window: The measured load.
        hold: Time for which a load must stay lower before the step is lowered.
    """
    if before.counted is not None and window.end <= before.counted:
        return before
    before = replace(before, counted=window.end)
    planned, rate = before.value, window.value
    if window.is_saturated:
        return _at(before, max(step_of(before.declared, rate), before.step + 1))
    if rate > planned * RAISE:
        return _at(before, step_of(before.declared, rate))
    if rate >= planned / (STEP * RAISE) or before.step <= LOWEST_STEP:
        return replace(before, below_since=None, highest_below=0.0)
    since = before.below_since or window.start
    highest = max(before.highest_below, rate)
    if window.end - since < hold:
        return replace(before, below_since=since, highest_below=highest)
    return _at(before, step_of(before.declared, highest))


def _at(before: _Followed, step: int) -> _Followed:
    return replace(before, step=step, changed=before.counted, below_since=None, highest_below=0.0)


def step_of(declared: float, rate: float) -> int:
    """Return the lowest step above or below the declared rate whose rate is at least ``rate``."""
    ratio = rate / declared
    if ratio <= 0:
        return LOWEST_STEP
    step = math.ceil(math.log(ratio, STEP) - 1e-9)
    return max(LOWEST_STEP, step)


def step_above(declared: float, rate: float) -> int:
    """Return the step above the step of a planned rate, which has the three digits of :func:`rate_of`."""
    return max(LOWEST_STEP, round(math.log(rate / declared, STEP))) + 1
