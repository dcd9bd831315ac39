"""Exponential back-off per key."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from energylens.records import dataclass

K = TypeVar("K", bound=Hashable)


@dataclass
class _Tries:
    count: int
    last: float
    until: float


class Backoff(Generic[K]):
    """The wait before the next attempt of a failing operation; times are from one monotonic clock, s."""

    def __init__(self, first_seconds: float, most_seconds: float, *, free_tries: int = 0) -> None:
        """Wait ``first_seconds`` after the first attempt, then twice as long each time, at most ``most_seconds``.

        The first ``free_tries`` wait for nothing.
        """
        self._first = first_seconds
        self._most = most_seconds
        self._free = free_tries
        self._tries: dict[K, _Tries] = {}

    def wait(self, key: K, now: float) -> float:
        """Return the seconds until the next attempt; 0 if it is due."""
        tries = self._tries.get(key)
        return 0.0 if tries is None else max(0.0, tries.until - now)

    def tried(self, key: K, now: float, *, at_least: float = 0.0) -> float:
        """Count an attempt; return the seconds until the next one."""
        count = self.count(key)
        # Beyond some doublings the power overflows, and the bound holds anyway.
        doublings = min(count - self._free, 32)
        pause = 0.0 if doublings < 0 else min(self._most, self._first * 2.0**doublings)
        pause = max(pause, at_least)
        self._tries[key] = _Tries(count + 1, now, now + pause)
        return pause

    def count(self, key: K) -> int:
        """Return the number of attempts for a key since it was last reset."""
        tries = self._tries.get(key)
        return 0 if tries is None else tries.count

    def quiet(self, key: K, now: float) -> float:
        """Return the seconds since the last attempt."""
        tries = self._tries.get(key)
        return 0.0 if tries is None else now - tries.last

    def pause(self, key: K, at_least: float) -> float:
        """Return the seconds without an attempt after which a key counts as recovered: two of its pauses."""
        tries = self._tries.get(key)
        return at_least if tries is None else max(at_least, 2.0 * (tries.until - tries.last))

    def forget(self, key: K) -> None:
        """Reset the key: the failure has passed."""
        self._tries.pop(key, None)
