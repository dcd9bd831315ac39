"""Which members shed power when a budget is exceeded, how much, and when power is restored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from energylens.records import dataclass

Key = tuple[str, str]
"""Namespace and name of a member."""
_WATT = 0.5
"""Power below which differences count as zero, since figures are whole watts."""
COMING_DOWN_SECONDS = 120.0
"""Time within which a member adopts a smaller plan after power was shed; later its current plan counts."""


@dataclass(frozen=True)
class Share:
    """A member of a budget; figures contain only watts that count against the budget."""

    key: Key
    priority: int
    watts: float
    """Predicted power of the current plan."""
    least_watts: float
    """Predicted power of the plan of least power that meets the member's objectives."""
    levels_watts: tuple[float, ...] = ()
    """Predicted power with each smaller number of replicas that shedding may leave."""
    is_priced: bool = True
    """Whether ``levels_watts`` are known; a newly planned member may lack them for a moment."""
    has_answered: bool = False
    """Whether the plan was made under the current cap; a plan above the cap then cannot draw less."""
    cap_watts: float | None = None
    """Power left by earlier shedding; None if no power was shed."""
    former_watts: float | None = None
    """Predicted power before any power was shed."""
    whole_watts: float | None = None
    """Predicted power with the replicas that this budget shed; None if it shed none."""

    @property
    def most_watts(self) -> float:
        """Power before any was shed, even if the plan for restored power is not adopted yet."""
        return max(self.former_watts or self.watts, self.whole_watts or 0.0)

    @property
    def floor_watts(self) -> float:
        """Least power to which shedding can reduce the member."""
        return min((self.watts, self.least_watts, *self.levels_watts))


@dataclass(frozen=True)
class Cap:
    """The power left to a member, and its power before shedding."""

    watts: float
    former_watts: float


@dataclass(frozen=True)
class Shed:
    """The caps that apply from now on."""

    caps: Mapping[Key, Cap]
    took: bool
    """Whether power was shed from a member in this step."""
    missing_watts: float
    """Power by which the budget remains exceeded with every member at its floor."""
    waits: bool = False
    """Whether members exceed their caps, or their power with fewer replicas is unknown: check again soon."""


def shed(
    shares: Sequence[Share],
    allowed_watts: float,
    *,
    growth_watts: float | None = None,
    hysteresis_percent: int,
    seconds_since: float | None,
    cooldown_seconds: float,
) -> Shed:
    """Return the caps under which members together draw at most ``allowed_watts``.

    Power is shed from the lowest priority first, and among equals from the member that draws most: first by plans of
    less power, then by removing replicas, and only then from the next priority. A cap is always the predicted power
    with a whole number of replicas. Power is restored in the opposite order, up to a member's former plan or at least
    to a plan that meets its objectives, and only if the budget then has ``hysteresis_percent`` left. If priorities
    changed so that a member of lower priority should shed instead, all caps are recomputed.

    Args:
        shares: All members.
        allowed_watts: Power that the budget allows now.
        growth_watts: Power up to which power may be restored; None for ``allowed_watts``.
        hysteresis_percent: Share of the budget that restoring leaves free, %.
        seconds_since: Time since power was last shed; None if it never was.
        cooldown_seconds: Least time between shedding and restoring power.
    """
    caps = {s.key: Cap(s.cap_watts, s.most_watts) for s in shares if s.cap_watts is not None}
    above = {s.key for s in shares if s.key in caps and s.watts > caps[s.key].watts + _WATT}
    # A member above its cap is expected to adopt a smaller plan, but some have no plan that draws so little.
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
    """Raise or lift the caps for which ``room`` watts suffice, the highest priority first.

    Return whether any changed.
    """
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
    """Return whether a member shed power although a member of lower priority could shed more."""
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
        # The next priority sheds only what this one cannot, which is not known for all members yet.
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
    """Return the whole watts of a plan of less power; None if there is none."""
    left = max(math.ceil(share.least_watts), math.floor(draws - excess))
    return float(left) if left < draws - _WATT else None


def _fewer_replicas(share: Share, draws: float, excess: float) -> float | None:
    """Return the watts of the most replicas that remove all of the excess, otherwise of least power.

    None without any.
    """
    # When all caps are recomputed, a member that shed replicas may also keep its current ones.
    known = map(math.ceil, (*share.levels_watts, share.watts))
    levels = [level for level in known if level < draws - _WATT]
    enough = [level for level in levels if draws - level >= excess - _WATT]
    return float(max(enough) if enough else min(levels)) if levels else None


def _in_order(shares: Iterable[Share]) -> list[Share]:
    return sorted(shares, key=lambda share: (share.priority, -(share.former_watts or share.watts), share.key))
