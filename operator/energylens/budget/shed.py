"""Which members give power up when a budget is exceeded, how much, and when power is given back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

Key = tuple[str, str]
"""Namespace and name."""
_WATT = 0.5
"""Less than this is nothing: figures are whole watts."""
COMING_DOWN_SECONDS = 120.0
"""A member adopts a smaller plan within so long after power was taken; one that has not then counts as it is."""


@dataclass(frozen=True)
class Share:
    """A member of a budget; only watts that count against the budget are in the figures."""

    key: Key
    priority: int
    watts: float
    """Predicted power of the present plan."""
    least_watts: float
    """Predicted power of the plan of least power that holds the member's objectives."""
    levels_watts: tuple[float, ...] = ()
    """Predicted power with each smaller number of replicas that shedding may leave."""
    is_priced: bool = True
    """Whether ``levels_watts`` are known; a member that has just been planned may lack them for a moment."""
    has_answered: bool = False
    """The plan was made under the present cap: a plan above the cap cannot draw less."""
    cap_watts: float | None = None
    """Power left by earlier shedding; None when no power was taken."""
    former_watts: float | None = None
    """Predicted power before any power was taken."""
    whole_watts: float | None = None
    """Predicted power with the replicas that this budget took; None where it took none."""

    @property
    def most_watts(self) -> float:
        """Power before any was taken, also where a plan for power given back was not adopted yet."""
        return max(self.former_watts or self.watts, self.whole_watts or 0.0)

    @property
    def floor_watts(self) -> float:
        """The least power that shedding can leave to the member."""
        return min((self.watts, self.least_watts, *self.levels_watts))


@dataclass(frozen=True)
class Cap:
    """The power left to a member, and its power before shedding."""

    watts: float
    former_watts: float


@dataclass(frozen=True)
class Shed:
    """The caps that hold from now on."""

    caps: Mapping[Key, Cap]
    took: bool
    """Whether power was taken from a member in this step."""
    missing_watts: float
    """Power by which the budget stays exceeded with every member at its floor."""
    waits: bool = False
    """Members are above their caps, or their power with fewer replicas is not known yet: check again soon."""


def shed(
    shares: Sequence[Share],
    allowed_watts: float,
    *,
    growth_watts: float | None = None,
    hysteresis_percent: int,
    seconds_since: float | None,
    cooldown_seconds: float,
) -> Shed:
    """Return the caps under which members draw no more than ``allowed_watts`` together.

    Power is taken from the lowest priority first, and of equals from the one that draws most: first as much as plans of
    less power save, then replicas, and only then from the next priority. A member is left with what it is predicted to
    draw with so many replicas, never with a part of a replica's power. It is given back in the
    opposite order, to a member's former plan or at least to a plan that holds its objectives, and only where the budget
    then has ``hysteresis_percent`` of it left. Where priorities changed meanwhile, so that one member gave power up
    that now another one of lower priority should, all is shared out again.

    Args:
        shares: All members.
        allowed_watts: What the budget allows now.
        growth_watts: What it allows for giving back; None for ``allowed_watts``.
        hysteresis_percent: Share of the budget that giving back leaves free, %.
        seconds_since: Since power was last taken; None: it never was.
        cooldown_seconds: Least time between taking power and giving it back.
    """
    caps = {s.key: Cap(s.cap_watts, s.most_watts) for s in shares if s.cap_watts is not None}
    above = {s.key for s in shares if s.key in caps and s.watts > caps[s.key].watts + _WATT}
    # A member above its cap is on the way down, and some never come: no plan of theirs draws so little.
    late = seconds_since is None or seconds_since >= COMING_DOWN_SECONDS
    stuck = {s.key for s in shares if s.key in above and (late or s.has_answered)}
    waits = bool(above - stuck)
    draws = {s.key: caps[s.key].watts if s.key in above - stuck else s.watts for s in shares}
    floors = {s.key: s.watts if s.key in stuck else s.floor_watts for s in shares}
    excess = sum(draws.values()) - allowed_watts
    if excess > _WATT:
        return _take(shares, draws, stuck, caps, excess, waits)
    if seconds_since is not None and seconds_since < cooldown_seconds:
        return Shed(caps, False, 0.0, waits)
    whole = allowed_watts if growth_watts is None else min(allowed_watts, growth_watts)
    room = whole * (1 - hysteresis_percent / 100.0) - sum(draws.values())
    given = _give_back(shares, draws, caps, room)
    if not given and _is_out_of_order(shares, draws, floors, caps):
        before = {s.key: caps[s.key].former_watts if s.key in caps else s.watts for s in shares}
        missing = sum(before.values()) - allowed_watts
        if missing > _WATT:
            return _take(shares, before, stuck, {}, missing, waits)
    return Shed(caps, False, 0.0, waits)


def _give_back(shares: Sequence[Share], draws: Mapping[Key, float], caps: dict[Key, Cap], room: float) -> bool:
    """Raise or lift the caps that ``room`` watts have space for, the highest priority first; return whether any was."""
    given = False
    for share in reversed(_in_order(shares)):
        if share.key not in caps:
            continue
        for level in (caps[share.key].former_watts, share.least_watts):
            more = level - draws[share.key]
            if more <= room and level > caps[share.key].watts + _WATT:
                room -= max(0.0, more)
                former = caps.pop(share.key).former_watts
                if level < former:
                    caps[share.key] = Cap(level, former)
                given = True
                break
    return given


def _is_out_of_order(
    shares: Sequence[Share], draws: Mapping[Key, float], floors: Mapping[Key, float], caps: Mapping[Key, Cap]
) -> bool:
    """Return whether power was taken from a member while one of lower priority has some to give."""
    giving = [s.priority for s in shares if draws[s.key] > floors[s.key] + _WATT]
    return any(s.priority > min(giving, default=s.priority) for s in shares if s.key in caps)


def _take(
    shares: Sequence[Share],
    draws: dict[Key, float],
    stuck: Iterable[Key],
    caps: dict[Key, Cap],
    excess: float,
    waits: bool,
) -> Shed:
    took, done, kept = False, False, frozenset(stuck)
    for _, group in groupby(_in_order(shares), key=lambda share: share.priority):
        members = [share for share in group if share.key not in kept]
        # The next priority has to give only what this one cannot, which is not known of all yet.
        done = not all(share.is_priced for share in members)
        for find in (_less_power,) if done else (_less_power, _fewer_replicas):
            for share in members:
                left = find(share, draws[share.key], excess) if excess > _WATT else None
                if left is None:
                    continue
                former = caps[share.key].former_watts if share.key in caps else share.most_watts
                excess -= draws[share.key] - left
                draws[share.key] = left
                caps[share.key] = Cap(left, former)
                took = True
        if done or excess <= _WATT:
            break
    waits = waits or took or (done and excess > _WATT)
    return Shed(caps, took, excess if excess > _WATT and not done else 0.0, waits)


def _less_power(share: Share, draws: float, excess: float) -> float | None:
    """Return the whole watts to leave for a plan of less power; None where it has none."""
    left = max(math.ceil(share.least_watts), math.floor(draws - excess))
    return float(left) if left < draws - _WATT else None


def _fewer_replicas(share: Share, draws: float, excess: float) -> float | None:
    """Return the watts of the most replicas that give all of the excess, else of least power; None without any."""
    # Where all is shared out again, one that gave replicas up may also stay as it is.
    known = map(math.ceil, (*share.levels_watts, share.watts))
    levels = [level for level in known if level < draws - _WATT]
    enough = [level for level in levels if draws - level >= excess - _WATT]
    return float(max(enough) if enough else min(levels)) if levels else None


def _in_order(shares: Iterable[Share]) -> list[Share]:
    return sorted(shares, key=lambda share: (share.priority, -(share.former_watts or share.watts), share.key))
