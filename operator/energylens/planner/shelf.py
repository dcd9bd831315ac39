"""A bounded store of answers that keeps those that are asked for most.

Most caches evict the least recently used entry. If a fleet has more specs than fit and requests them in turn, such a
cache never hits: each answer is evicted just before its next request. Here a new entry replaces others only if it is
requested more often, by more than one round; while all are requested equally often, the kept entries stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

Value = TypeVar("Value")
MARGIN = 2
"""Requests by which a new entry must exceed those that it replaces: within a round, the first are ahead by one."""
ROUNDS = 16
"""Requests per entry after which all counts are halved, so that entries no longer requested are evicted."""
MOST_COUNTED = 8192
"""Keys that are counted, whether they are kept or not."""


class Shelf(Generic[Value]):
    """Values by key, of at most so many bytes together."""

    def __init__(self, most_bytes: int) -> None:
        """Keep at most ``most_bytes``."""
        self._most_bytes = most_bytes
        self._values: dict[str, tuple[Value, int]] = {}
        self._asked: dict[str, int] = {}
        """Requests for each key, halved now and then."""
        self._requests = 0
        self.size = 0
        """Bytes of all values."""

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._values)

    def __iter__(self) -> Iterator[Value]:
        """Iterate over the values."""
        return (value for value, _ in self._values.values())

    def ask(self, key: str) -> Value | None:
        """Count a request for a key; return its value, or None where none is kept."""
        self._requests += 1
        if self._requests > ROUNDS * max(1, len(self._values)) or len(self._asked) >= MOST_COUNTED:
            self._requests = 0
            self._asked = {name: count // 2 for name, count in self._asked.items() if count > 1}
        self._asked[key] = self._asked.get(key, 0) + 1
        found = self._values.get(key)
        return None if found is None else found[0]

    def get(self, key: str) -> Value | None:
        """Return the value of a key without counting."""
        found = self._values.get(key)
        return None if found is None else found[0]

    def put(self, key: str, value: Value, size: int) -> None:
        """Keep a value if there is room, or if those in its place are asked for less often.

        A key that is kept already keeps its place.
        """
        before = self._values.pop(key, None)
        self.size -= 0 if before is None else before[1]
        count = self._asked.get(key, 0)
        for other in self._leaving(size, None if before is not None else count):
            self.size -= self._values.pop(other)[1]
        if self.size + size <= self._most_bytes:
            self._values[key] = value, size
            self.size += size

    def _leaving(self, size: int, count: int | None) -> list[str]:
        """Return the keys to evict for a value, the least requested first; empty if nothing needs to or may be evicted.

        Args:
            size: Size of the value, bytes.
            count: Requests for its key; None if the value may replace any other.
        """
        missing, leaving = self.size + size - self._most_bytes, list[str]()
        if missing <= 0 or size > self._most_bytes:
            return []
        for other in sorted(self._values, key=lambda name: self._asked.get(name, 0)):
            asked = self._asked.get(other, 0)
            if count is not None and asked and count < asked + MARGIN:
                return []
            leaving.append(other)
            missing -= self._values[other][1]
            if missing <= 0:
                break
        return leaving
