"""Latencies of a window from the observations of a client. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import field
from itertools import pairwise

import numpy as np

from energylens.records import dataclass

FEWEST_FIRST_TOKENS = {50: 8, 95: 50, 99: 150}
"""Fewest requests with a first token in the window for which a percentile of TTFT is reported."""


@dataclass
class Trace:
    """One request; times in seconds of a clock that all processes of the machine share."""

    sent: float
    events: list[tuple[float, int]] = field(default_factory=list)
    """Arrival time of each stream event and the number of tokens in it."""
    ended: bool = False
    error: str = ""


@dataclass(frozen=True)
class WindowLatencies:
    """Latencies of one window, ms; None if too few requests were seen."""

    tokens: int
    """Tokens that arrived within the window."""
    requests: int
    """Requests that ended within the window."""
    first_tokens: int
    """Requests that were sent, and got their first token, within the window."""
    itl_ms: dict[int, float]
    """Percentile to time between two tokens; an event of several tokens counts as that many gaps of equal length."""
    mean_tpot_ms: float | None
    """Mean of all gaps of the window."""
    ttft_ms: dict[int, float]


def latencies(traces: Iterable[Trace], start: float, end: float) -> WindowLatencies:
    """Return the latencies between two moments.

    Args:
        traces: All requests, including those of the warm-up.
        start: Start of the window.
        end: End of the window.
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
    return WindowLatencies(
        tokens=tokens,
        requests=requests,
        first_tokens=len(first),
        itl_ms=_percentiles(gaps, dict.fromkeys((50, 90, 95, 99), 20)),
        mean_tpot_ms=float(np.mean(gaps)) if gaps else None,
        ttft_ms=_percentiles(first, FEWEST_FIRST_TOKENS),
    )


def _gaps(events: Sequence[tuple[float, int]], start: float, end: float) -> list[float]:
    """Return the times between tokens of one request, ms, for events within the window."""
    found: list[float] = []
    for (before, _), (after, count) in pairwise(events):
        if before >= start and after <= end and count:
            found += [1000.0 * (after - before) / count] * count
    return found


def _percentiles(values: Sequence[float], fewest: dict[int, int]) -> dict[int, float]:
    return {q: float(np.percentile(values, q)) for q, least in fewest.items() if len(values) >= least}
