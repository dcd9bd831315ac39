"""Watches that are lost silently are given up, and slow ones are not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.support.world import ManualClock

from energylens.cluster.resources import POD
from energylens.controller.arrival import INITIAL_LISTS, STUCK_LISTS, WATCHING, Arrival
from energylens.controller.endpoints.health import Health
from energylens.controller.process import Process
from energylens.controller.watching.sweep import Missed

SILENCE_SECONDS = 180.0
LIST_SECONDS = 5.0


class Lists:
    """An arrival whose lists lack so many objects, one after the other, and the health that hears of them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.health = Health(self.clock, SILENCE_SECONDS)
        self.health.leading = True
        process = Process("me", self.health, asyncio.Event(), lambda: None, lambda: None)
        self.arrival = Arrival(process, self._settle)
        self._lacking: Iterator[int] = iter(())

    async def _settle(self) -> list[Missed]:
        self.clock.advance(LIST_SECONDS)
        return [Missed(POD, ("team", f"pod-{number}")) for number in range(next(self._lacking))]

    async def start(self, *lacking: int) -> bool:
        """Start the watches; what the lists of this start lack."""
        self._lacking = iter(lacking)
        self.health.heartbeats.clear()
        return await self.arrival.completes()


STUCK = [1] * (STUCK_LISTS + 1)


@pytest.fixture
def lists() -> Lists:
    return Lists()


async def test_a_dead_watch_is_given_up_once_nothing_comes_in(lists: Lists) -> None:
    assert not await lists.start(*STUCK)
    assert lists.health.ready() == (f"{INITIAL_LISTS}: 1 listed objects have not arrived, such as Pod team/pod-0")


async def test_watches_that_bring_everything_are_kept(lists: Lists) -> None:
    assert await lists.start(3, 3, 1, 0)
    assert lists.health.ready() == "the initial lists have not arrived yet"


async def test_slow_lists_after_a_start_that_lacked_less_are_waited_for(lists: Lists) -> None:
    assert not await lists.start(*STUCK)
    slow = [200] * (STUCK_LISTS - 1) + [50] * STUCK_LISTS + [10] * STUCK_LISTS + [0]
    assert await lists.start(*slow)


async def test_a_start_that_gets_on_and_stops_is_given_up(lists: Lists) -> None:
    assert not await lists.start(*STUCK)
    assert not await lists.start(200, *[50] * (STUCK_LISTS + 1))


async def test_starts_that_get_no_further_than_the_last_hide_no_dead_watch(lists: Lists) -> None:
    for _ in range(4):
        assert not await lists.start(3, 2, *STUCK)
    assert lists.health.alive().startswith(f"{INITIAL_LISTS}: 1 listed objects have not arrived")


async def test_the_error_of_earlier_watches_excuses_no_dead_watch(lists: Lists) -> None:
    lists.health.report(WATCHING, "503 Service Unavailable")
    for _ in range(5):
        assert not await lists.start(*STUCK)
    assert lists.health.alive().startswith(f"{INITIAL_LISTS}: 1 listed objects have not arrived")


async def test_an_error_of_the_watches_stays_known_while_lists_may_still_come_in(lists: Lists) -> None:
    lists.health.report(WATCHING, "503 Service Unavailable")
    assert await lists.start(*STUCK[2:], 0)
    assert lists.health.ready() == f"{WATCHING}: 503 Service Unavailable"
