"""Keys are passed on at a bounded rate, each once."""

from __future__ import annotations

import asyncio

from energylens.controller.queueing.pacing import Pacer
from energylens.controller.state.store import Key


async def test_thousands_at_once_are_passed_on_at_the_rate() -> None:
    slept, passed, everything = 0.0, list[tuple[float, Key]](), asyncio.Event()

    async def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds
        if not len(pacer):
            everything.set()
        await asyncio.sleep(0)

    pacer = Pacer(lambda key: passed.append((slept, key)), 20.0, sleep)
    keys: list[Key] = [("team", f"llm-{index}") for index in range(200)]
    for key in (*keys, *keys):
        pacer.add(key)
    assert len(pacer) == 200
    running = asyncio.ensure_future(pacer.run())
    await everything.wait()
    assert [key for _, key in passed] == keys
    for second in range(10):
        assert sum(second <= at + 1e-6 < second + 1 for at, _ in passed) <= 20
    # What comes later is passed on, too.
    everything.clear()
    pacer.add(keys[0])
    await everything.wait()
    assert passed[-1][1] == keys[0]
    running.cancel()
