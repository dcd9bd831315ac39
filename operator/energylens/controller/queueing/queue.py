"""A queue of keys that coalesces: a key waits at most once, and is never worked on twice at the same time.

Two queues, so that a user's change is not behind thousands of passes that find nothing new: what changed goes first,
what is only checked again (a resync, another plan's GPUs, a budget, a measured window) behind. What changed has two
lanes that take turns: specs that no pass has seen, and rollouts, whose status would be stale behind thousands of specs.
A key whose plan must be searched for is set aside meanwhile, so that those with known plans are not behind the search.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Literal

from energylens.controller.state.store import Key

QueueName = Literal["changed", "again"]
QUEUES: tuple[QueueName, ...] = ("changed", "again")
ROLLOUTS_PER_SPEC = 3
"""Turns of rollouts for each of a new spec while both wait: the passes of rollouts plan nothing, and are short."""
CHANGED_PER_AGAIN = 15
"""Turns of what changed for each of what is checked again while both wait, so that neither waits for ever."""


class Lane(IntEnum):
    """Why a key waits, the most urgent first."""

    FOUND = 0
    """The search that it waited for has ended: at most one for each search, and its answer is kept for a short time."""
    SPEC = 1
    """No pass has planned the spec as it is."""
    ROLLOUT = 2
    """Something of what runs changed."""
    AGAIN = 3
    """Nothing is known to have changed."""


class KeyQueue:
    """Hands out keys to workers; for one event loop."""

    def __init__(self, is_new: Callable[[Key], bool]) -> None:
        """Put keys for which ``is_new`` holds, specs that no pass has planned, into the first lane in any case."""
        self.is_new = is_new
        """Whether no pass has planned the spec of a key."""
        # Dicts keep their order, and give a key up wherever it stands.
        self._lanes: Mapping[Lane, dict[Key, float]] = {lane: {} for lane in Lane}
        """Keys that wait, and since when, s of the event loop."""
        self._lane_of: dict[Key, Lane] = {}
        self._busy: dict[Key, tuple[Lane, float]] = {}
        """Keys that are worked on, the lane that they came from, and since when they waited there."""
        self._aside: dict[Key, tuple[Lane, float]] = {}
        """The same of keys that are set aside."""
        self._more: dict[Key, Lane] = {}
        """Busy keys that were asked for meanwhile."""
        self._turns = 0
        self._changed_turns = 0
        self._ready = asyncio.Event()
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """Keys that wait."""
        return len(self._lane_of)

    @property
    def unfinished(self) -> int:
        """Keys that wait, also aside, or are worked on."""
        return len(self._lane_of.keys() | self._busy.keys() | self._aside.keys())

    @property
    def idle(self) -> bool:
        """No key waits or is worked on."""
        return not self.unfinished

    def waiting(self, queue: QueueName) -> int:
        """Return the keys that wait in a queue, or aside."""
        return sum(len(self._lanes[lane]) for lane in _lanes_of(queue)) + len(self._aside_of(queue))

    def oldest_seconds(self, queue: QueueName) -> float:
        """Return for how long the oldest key of a queue has waited; 0 where none waits."""
        since = [at for lane in _lanes_of(queue) for at in self._lanes[lane].values()] + self._aside_of(queue)
        return asyncio.get_running_loop().time() - min(since) if since else 0.0

    def add(self, key: Key) -> None:
        """Ask for a key because something changed; once more if it is being worked on now."""
        self._add(key, Lane.ROLLOUT)

    def add_again(self, key: Key) -> None:
        """Ask for a key to be checked again, behind all that changed."""
        self._add(key, Lane.AGAIN)

    def put_aside(self, key: Key) -> None:
        """Let a key that is worked on wait for a search once the work ends; further requests for it are served."""
        self._aside[key] = self._busy[key]

    def bring_back(self, key: Key) -> None:
        """Ask for a key that was put aside, before all others; do nothing if there was another request for it since."""
        found = self._aside.pop(key, None)
        if found is not None:
            self._add(key, Lane.FOUND, found[1])

    def went_on(self, key: Key) -> bool:
        """Return whether a key that was put aside no longer waits: it was served for another request since."""
        return key not in self._aside and key not in self._busy

    def _aside_of(self, queue: QueueName) -> list[float]:
        """Return since when the keys of a queue wait that are set aside and in no lane."""
        lanes = _lanes_of(queue)
        return [since for key, (lane, since) in self._aside.items() if lane in lanes and key not in self._lane_of]

    def _add(self, key: Key, lane: Lane, since: float | None = None) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if self.is_new(key):
            lane = min(lane, Lane.SPEC)
        if key in self._busy:
            self._more[key] = min(lane, self._more.get(key, lane))
            return
        known = self._lane_of.get(key)
        if known is not None and known <= lane:
            return
        since = asyncio.get_running_loop().time() if since is None else since
        if known is not None:
            self._lanes[known].pop(key)
        self._lane_of[key] = lane
        self._lanes[lane][key] = since
        self._ready.set()

    def add_later(self, key: Key, seconds: float) -> None:
        """Ask for a key after some time, unless it is asked for earlier."""
        if key in self._lane_of:
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add_again(key)

    async def take(self) -> Key:
        """Wait for a key; it is busy until :meth:`done`."""
        while not self._lane_of:
            self._ready.clear()
            await self._ready.wait()
        name = self._next_lane()
        lane = self._lanes[name]
        key = next(iter(lane))
        self._busy[key] = name, lane[key]
        del lane[key], self._lane_of[key]
        self._aside.pop(key, None)
        return key

    def _next_lane(self) -> Lane:
        found, spec, rollout, again = (bool(self._lanes[lane]) for lane in Lane)
        if found:
            return Lane.FOUND
        if again and (spec or rollout):
            self._turns += 1
        if again and (not (spec or rollout) or self._turns % (CHANGED_PER_AGAIN + 1) == 0):
            return Lane.AGAIN
        if spec and rollout:
            self._changed_turns += 1
            return Lane.SPEC if self._changed_turns % (ROLLOUTS_PER_SPEC + 1) == 1 else Lane.ROLLOUT
        return Lane.SPEC if spec else Lane.ROLLOUT

    def done(self, key: Key) -> None:
        """Say that the work on a key has ended."""
        self._busy.pop(key, None)
        lane = self._more.pop(key, None)
        if lane is not None:
            self._add(key, lane)


def _lanes_of(queue: QueueName) -> tuple[Lane, ...]:
    return (Lane.AGAIN,) if queue == "again" else (Lane.FOUND, Lane.SPEC, Lane.ROLLOUT)
