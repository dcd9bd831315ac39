"""Latencies of a window out of what a client saw. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

FEWEST_FIRST_TOKENS = {50: 8, 95: 50, 99: 150}
"""Requests that must have got their first token in the window before a percentile of TTFT is given."""


@dataclass
class Trace:
    """One request; times in seconds of a clock that all processes of the machine share."""

    sent: float
    events: list[tuple[float, int]] = field(default_factory=list)
    """When an event of the stream came, and the tokens in it."""
    ended: bool = False
    error: str = ""


@dataclass(frozen=True)
class Latencies:
    """Figures of one window, ms; None where too few requests tell."""

    tokens: int
    """That came within the window."""
    requests: int
    """That ended within the window."""
    first_tokens: int
    """Requests sent in the window whose first token came in it."""
    itl_ms: dict[int, float]
    """Percentile to time between two tokens; an event of several tokens is so many gaps of equal length."""
    mean_tpot_ms: float | None
    """Mean of all gaps of the window."""
    ttft_ms: dict[int, float]


def latencies(traces: Iterable[Trace], start: float, end: float) -> Latencies:
    """Return the latencies between two moments.

    Args:
        traces: All requests, those of the warm-up included.
        start: Where the window begins.
        end: Where it ends.
    """
    gaps: list[float] = []
    first: list[float] = []
    tokens = requests = 0
    for trace in traces:
        gaps += _gaps(trace.events, start, end)
        tokens += sum(count for time, count in trace.events if start < time <= end)
        if trace.events:
            requests += trace.ended and start < trace.events[-1][0] <= end
            if trace.sent >= start and trace.events[0][0] <= end:
                first.append(1000.0 * (trace.events[0][0] - trace.sent))
    return Latencies(
        tokens=tokens,
        requests=requests,
        first_tokens=len(first),
        itl_ms=_percentiles(gaps, dict.fromkeys((50, 90, 95, 99), 20)),
        mean_tpot_ms=float(np.mean(gaps)) if gaps else None,
        ttft_ms=_percentiles(first, FEWEST_FIRST_TOKENS),
    )


def _gaps(events: Sequence[tuple[float, int]], start: float, end: float) -> list[float]:
    """Return the time between tokens of one request, ms, of the events within the window."""
    found: list[float] = []
    for (before, _), (after, count) in pairwise(events):
        if before >= start and after <= end and count:
            found += [1000.0 * (after - before) / count] * count
    return found


def _percentiles(values: Sequence[float], fewest: dict[int, int]) -> dict[int, float]:
    return {q: float(np.percentile(values, q)) for q, least in fewest.items() if len(values) >= least}
