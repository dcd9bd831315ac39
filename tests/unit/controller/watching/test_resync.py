"""When watches are restarted: after changes that do not come, and ever more rarely where that does not help."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.support.world import ManualClock

from energylens.cluster.resources import NODE
from energylens.controller.watching.resync import Resync
from energylens.controller.watching.sweep import MOST_READ, Missed


class Lists:
    """A sweeper that finds as many missed changes as it is told."""

    def __init__(self) -> None:
        self.missing = 0
        self.read_of: list[int] = []

    async def sweep(self) -> bool:
        return self.missing > 0

    async def settle(self) -> list[Missed]:
        return [Missed(NODE, ("", f"n{number}")) for number in range(self.missing)]

    async def read(self, missed: Sequence[Missed]) -> None:
        self.read_of.append(len(missed))


async def once(step: Callable[[], Awaitable[Any]], what: str) -> Any:
    return await step()


def made() -> tuple[Lists, ManualClock, Resync]:
    lists, clock = Lists(), ManualClock()
    return lists, clock, Resync(lists, once, clock, 300.0)  # type: ignore[arg-type]


async def restarts(resync: Resync, clock: ManualClock, comparisons: int) -> list[int]:
    """Return after which comparisons, 300 s apart, the watches are restarted."""
    found = []
    for number in range(comparisons):
        clock.advance(300.0)
        if await resync.step():
            found.append(number)
            resync.begin()
    return found


async def test_a_few_missed_changes_are_read_the_first_time_and_restart_the_watches_the_second() -> None:
    lists, clock, resync = made()
    lists.missing = 3
    assert await restarts(resync, clock, 2) == [1]
    assert lists.read_of == [3]


async def test_many_missed_changes_restart_the_watches_at_once() -> None:
    lists, clock, resync = made()
    lists.missing = MOST_READ + 1
    assert await restarts(resync, clock, 1) == [0]
    assert lists.read_of == []


async def test_restarts_that_do_not_help_become_rarer_and_changes_are_read_between_them() -> None:
    lists, clock, resync = made()
    lists.missing = 2 * MOST_READ
    # Pauses of 600, 1,200, 2,400 and then 3,600 s.
    assert await restarts(resync, clock, 40) == [0, 2, 6, 14, 26, 38]
    assert set(lists.read_of) == {MOST_READ}


async def test_after_watches_that_missed_nothing_for_long_a_restart_comes_at_once_again() -> None:
    lists, clock, resync = made()
    lists.missing = 2 * MOST_READ
    assert await restarts(resync, clock, 3) == [0, 2]
    lists.missing = 0
    assert await restarts(resync, clock, 9) == []
    lists.missing = 2 * MOST_READ
    assert await restarts(resync, clock, 3) == [0, 2]
