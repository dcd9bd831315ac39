"""The schedule of :mod:`batching` where the KV cache has room for all, counted instead of kept per sequence.

Sequences that decode differ only in when they end, so that a step costs what arrives and ends in it. A hundred thousand
requests take seconds, which percentiles near capacity need; a test compares every token with :mod:`batching`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.simulator.batching import Limits, Request, Step


@dataclass
class Counted:
    """What became of all requests; times in seconds."""

    first: list[float]
    """From arrival to first token, in the order of arrival."""
    last: list[float]
    """When the last token was there."""
    steps: list[tuple[float, float, int]] = field(default_factory=list)
    """Start, seconds and decoding sequences of every step."""


def count(requests: Sequence[Request], limits: Limits, seconds: Callable[[Step], float]) -> Counted:
    """Serve requests in the order of their arrival until all have ended; blocks of the cache are not looked at.

    Args:
        requests: Sorted by arrival.
        limits: Of the engine.
        seconds: Time of a step.
    """
    found = Counted([0.0] * len(requests), [0.0] * len(requests))
    waiting: deque[list[int]] = deque()
    prompts: list[list[int]] = []
    ends: list[tuple[int, int]] = []
    now = before = 0.0
    following = number = 0
    while True:
        if not (waiting or prompts or ends):
            if following == len(requests):
                return found
            now = before = max(now, requests[following].arrival)
        seen = before if limits.scheduled_ahead else now
        while following < len(requests) and requests[following].arrival <= seen:
            waiting.append([following, requests[following].prompt])
            following += 1
        decodes, budget, tokens = len(ends), limits.step_tokens - len(ends), 0
        while waiting and len(prompts) + decodes < limits.slots and budget > sum(left for _, left in prompts):
            prompts.append(waiting.popleft())
        chunks = 0
        for prompt in prompts:
            part = min(prompt[1], budget)
            prompt[1] -= part
            budget, tokens, chunks = budget - part, tokens + part, chunks + (part > 0)
        if not decodes and not chunks:
            before = now
            continue
        took = seconds(Step(decodes, chunks, tokens, 0))
        found.steps.append((now, took, decodes))
        before, now, number = now, now + took, number + 1
        while ends and ends[0][0] <= number:
            found.last[heapq.heappop(ends)[1]] = now
        for index, left in prompts:
            if not left:
                found.first[index], found.last[index] = now - requests[index].arrival, now
                if requests[index].output > 1:
                    heapq.heappush(ends, (number + requests[index].output - 1, index))
        prompts = [prompt for prompt in prompts if prompt[1]]
