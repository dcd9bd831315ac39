"""The loads that an engine is measured under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LEVELS = (1, 8, 32, 128, 256)
"""Requests in flight of the closed loops: light load, the middle, and where most engines are full."""
POISSON_SHARE = 0.65
"""Arrivals over the highest throughput of the closed loops: busy, and far from where queues grow."""


@dataclass(frozen=True)
class Point:
    """One load: closed loops, each of which sends its next request when one has ended, or Poisson arrivals."""

    kind: Literal["closed", "poisson"]
    level: float
    """Requests in flight of closed loops; requests per second of arrivals."""
    input_tokens: int
    output_tokens: int

    @property
    def task(self) -> str:
        """What the run is called in a table: the load without its level."""
        return f"{self.kind}-{self.input_tokens}-{self.output_tokens}"

    @property
    def name(self) -> str:
        """What the point is called, the same whenever it is measured: an interrupted measurement finds it again."""
        level = f"c{self.level:g}" if self.kind == "closed" else "poisson"
        return f"{level}-{self.input_tokens}-{self.output_tokens}"


def closed_points(levels: tuple[int, ...], most: int, input_tokens: int, output_tokens: int) -> list[Point]:
    """Return the closed loops of these levels, those above ``most`` sequences left out.

    Args:
        levels: Requests in flight.
        most: Sequences that the engine runs at once; more would measure its queue.
        input_tokens: Of every prompt.
        output_tokens: Of every answer.
    """
    return [Point("closed", level, input_tokens, output_tokens) for level in levels if level <= most]


def poisson_point(requests_per_second: float, input_tokens: int, output_tokens: int) -> Point:
    """Return Poisson arrivals at a rate."""
    return Point("poisson", round(requests_per_second, 3), input_tokens, output_tokens)
