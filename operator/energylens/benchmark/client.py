"""A client of an engine's completions endpoint that streams answers and records when tokens arrive."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from energylens.benchmark.points import Point
from energylens.benchmark.statistics import Trace
from energylens.records import dataclass

LOWEST_TOKEN = 1000
"""Lowest token id of prompts; below it are the special tokens of most vocabularies."""
_SECONDS_WITHOUT_EVENT = 300.0


class MalformedStreamError(ValueError):
    """An answer is no stream of JSON objects."""


@dataclass(frozen=True)
class ServerUnderTest:
    """The server to which requests are sent."""

    url: str
    """Base URL of the engine, without /v1."""
    model: str
    """The model name in requests."""
    vocabulary: int
    """Token ids of prompts are below this."""


@dataclass
class Client:
    """The client of one process, which sends its requests."""

    target: ServerUnderTest
    point: Point
    seed: int
    first_ended: Callable[[], None] = lambda: None
    """Called when the first request of a closed loop, or any request of arrivals, has ended."""
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        """Seed the prompts, because equal prompts in two processes would hit the prefix cache."""
        self._random = random.Random(self.seed)
        self.traces: list[Trace] = []

    async def run(self, share: float, stop: asyncio.Event) -> list[Trace]:
        """Send requests until told to stop, and return the observations.

        Args:
            share: Closed loops of this process, or its part of the arrivals per second.
            stop: Set when the window is over; requests in flight are then cancelled.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30.0, sock_read=_SECONDS_WITHOUT_EVENT)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            if self.point.kind == "closed":
                loops = [asyncio.create_task(self._loop(session)) for _ in range(round(share))]
            else:
                loops = [asyncio.create_task(self._arrivals(session, share))]
            try:
                done, _ = await asyncio.wait(
                    {asyncio.create_task(stop.wait()), *loops}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
            finally:
                for task in loops:
                    task.cancel()
                await asyncio.gather(*loops, return_exceptions=True)
        return self.traces

    async def _loop(self, session: aiohttp.ClientSession) -> None:
        # Start in the middle of a request, so that the loops do not all end at once.
        tokens = self._random.randint(1, self.point.output_tokens)
        first = True
        while True:
            trace = await self._request(session, tokens)
            if first:
                self.first_ended()
            if trace.error:
                await asyncio.sleep(0.2)
            first, tokens = False, self.point.output_tokens

    async def _arrivals(self, session: aiohttp.ClientSession, rate: float) -> None:
        async def one() -> None:
            await self._request(session, self.point.output_tokens)
            self.first_ended()

        at = self.clock()
        async with asyncio.TaskGroup() as group:
            while True:
                at += self._random.expovariate(rate)
                await asyncio.sleep(max(at - self.clock(), 0.0))
                group.create_task(one())

    async def _request(self, session: aiohttp.ClientSession, tokens: int) -> Trace:
        most = max(self.target.vocabulary, LOWEST_TOKEN + 1)
        body = {
            "model": self.target.model,
            "prompt": [self._random.randrange(LOWEST_TOKEN, most) for _ in range(self.point.input_tokens)],
            "max_tokens": tokens,
            "min_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        trace = Trace(self.clock())
        self.traces.append(trace)
        try:
            async with session.post(f"{self.target.url}/v1/completions", json=body) as response:
                if response.status != 200:
                    text = " ".join((await response.text()).split())
                    trace.error = f"status {response.status}: {text[:200]}"
                    return trace
                await self._read(response, trace, tokens)
        except (aiohttp.ClientError, TimeoutError, MalformedStreamError) as error:
            trace.error = f"{type(error).__name__}: {error}"
        return trace

    async def _read(self, response: aiohttp.ClientResponse, trace: Trace, wanted: int) -> None:
        counted, stated = 0, None
        async for event in _events(response):
            now = self.clock()
            if event.get("error"):
                trace.error = str(event["error"])[:200]
                return
            usage = event.get("usage") or {}
            total = usage.get("completion_tokens")
            stated = total if isinstance(total, int) else stated
            if not event.get("choices"):
                continue
            new = total - counted if isinstance(total, int) else 1
            counted += new
            if new > 0:
                trace.events.append((now, new))
        made = counted if stated is None else max(counted, stated)
        # Without usage an event may have several tokens, so that only an empty answer is known to be short.
        if made < wanted and (stated is not None or not made):
            trace.error = f"an answer ended after {made} of {wanted} tokens"
            return
        trace.ended = True


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Yield the objects of a stream of server-sent events."""
    async for line in response.content:
        if line.startswith(b"data:"):
            text = line[5:].strip()
            if text != b"[DONE]":
                try:
                    event = json.loads(text)
                except ValueError:
                    event = None
                if not isinstance(event, dict):
                    raise MalformedStreamError(f"an event of the stream is not a JSON object: {text[:80]!r}")
                yield event
