"""The loads under which an engine is measured."""

from __future__ import annotations

from typing import Literal

from energylens.records import dataclass

LEVELS = (1, 8, 32, 128, 256)
"""Requests in flight of the closed loops: light load, medium load, and the level at which most engines are full."""
POISSON_SHARE = 0.65
"""Arrival rates relative to the highest throughput of the closed loops: busy, but far from growing queues."""


@dataclass(frozen=True)
class Point:
    """One load: closed loops, each of which sends a request when its previous one has ended, or Poisson arrivals."""

    kind: Literal["closed", "poisson"]
    level: float
    """Requests in flight of closed loops, or arrivals per second."""
    input_tokens: int
    output_tokens: int

    @property
    def task(self) -> str:
        """Name of the run's load in a table, without its level."""
        return f"{self.kind}-{self.input_tokens}-{self.output_tokens}"

    @property
    def name(self) -> str:
        """Name of the point, equal in every measurement, so that an interrupted measurement can resume."""
        level = f"c{self.level:g}" if self.kind == "closed" else "poisson"
        return f"{level}-{self.input_tokens}-{self.output_tokens}"


def closed_points(levels: tuple[int, ...], most: int, input_tokens: int, output_tokens: int) -> list[Point]:
    """Return the closed loops of these levels, without those above ``most`` sequences.

    Args:
        levels: Requests in flight.
        most: Sequences that the engine runs at once; a higher level would measure its queue.
        input_tokens: Of every prompt.
        output_tokens: Of every answer.
    """
    return [Point("closed", level, input_tokens, output_tokens) for level in levels if level <= most]


def poisson_point(requests_per_second: float, input_tokens: int, output_tokens: int) -> Point:
    """Return Poisson arrivals at a rate."""
    return Point("poisson", round(requests_per_second, 3), input_tokens, output_tokens)
