"""One holder at a time; those in a hurry pass by those that are not."""

from __future__ import annotations

import asyncio

from energylens.controller.queueing.turns import Turns


async def test_who_is_in_a_hurry_passes_by_those_that_wait() -> None:
    turns, order = Turns(), list[str]()
    release = asyncio.Event()

    async def hold(name: str, *, first: bool) -> None:
        async with turns.turn(first=first):
            order.append(name)
            await release.wait()
            assert order[-1] == name, "two held it at the same time"

    async with asyncio.TaskGroup() as group:
        for name, first in (("holder", False), ("a", False), ("b", False), ("new", True), ("newer", True)):
            group.create_task(hold(name, first=first))
        await asyncio.sleep(0)
        release.set()
    assert order == ["holder", "new", "newer", "a", "b"]


async def test_a_waiter_that_is_cancelled_keeps_nobody_waiting() -> None:
    turns, order = Turns(), list[str]()

    async def hold(name: str) -> None:
        async with turns.turn(first=False):
            order.append(name)

    async with turns.turn(first=False):
        waiting = [asyncio.ensure_future(hold(name)) for name in "abc"]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.sleep(0)
    # The lock is handed to the first one here, which is cancelled before it runs.
    waiting[0].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert order == ["c"]
    async with turns.turn(first=True):
        order.append("free again")
    assert order == ["c", "free again"]


async def test_an_error_gives_the_turn_on() -> None:
    turns = Turns()
    for _ in range(2):
        try:
            async with turns.turn(first=False):
                raise ValueError
        except ValueError:
            pass
