"""A key waits at most once, is never worked on twice at a time, and no request for it is lost."""

from __future__ import annotations

import asyncio

import pytest

from energylens.controller.queueing.queue import CHANGED_PER_AGAIN, QUEUES, ROLLOUTS_PER_SPEC, KeyQueue
from energylens.controller.state.store import Key

A: Key = ("team", "a")
B: Key = ("team", "b")
C: Key = ("team", "c")


class LoopTime:
    """The event loop's clock, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    async def advance(self, seconds: float) -> None:
        self.seconds += seconds
        # A timer's callback is queued in one turn of the loop and runs in the next.
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
async def time(monkeypatch: pytest.MonkeyPatch) -> LoopTime:
    now = LoopTime()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", now)
    return now


@pytest.fixture
def new() -> set[Key]:
    """Deployments whose spec no pass has seen."""
    return set()


@pytest.fixture
def queue(new: set[Key]) -> KeyQueue:
    return KeyQueue(lambda key: key in new)


async def drained(queue: KeyQueue) -> list[Key]:
    taken = []
    while len(queue):
        key = await queue.take()
        taken.append(key)
        queue.done(key)
    return taken


async def test_many_requests_for_a_key_are_one(queue: KeyQueue) -> None:
    for key in (A, B, A, A, B):
        queue.add(key)
    assert len(queue) == 2
    assert await drained(queue) == [A, B]
    assert queue.idle


async def test_a_new_spec_is_not_behind_thousands_that_are_looked_at_again(queue: KeyQueue, new: set[Key]) -> None:
    again: list[Key] = [("team", f"old-{index}") for index in range(2000)]
    for key in again:
        queue.add_again(key)
    new.add(A)
    queue.add_again(A)
    queue.add(B)
    assert (queue.waiting("changed"), queue.waiting("again")) == (2, 2000)
    assert sorted((await drained(queue))[:2]) == [A, B]


async def test_what_is_looked_at_again_does_not_wait_for_ever(queue: KeyQueue) -> None:
    queue.add_again(C)
    for index in range(100):
        queue.add(("team", f"busy-{index}"))
    assert (await drained(queue)).index(C) == CHANGED_PER_AGAIN


async def test_rollouts_and_new_specs_take_turns(queue: KeyQueue, new: set[Key]) -> None:
    specs: list[Key] = [("team", f"spec-{index}") for index in range(20)]
    new.update(specs)
    for key in specs:
        queue.add(key)
    for index in range(60):
        queue.add(("team", f"rollout-{index}"))
    taken = await drained(queue)
    for start in range(0, 80, 1 + ROLLOUTS_PER_SPEC):
        assert sum(key in new for key in taken[start : start + 1 + ROLLOUTS_PER_SPEC]) == 1


async def test_a_key_that_waits_to_be_looked_at_again_moves_up_when_it_changes(queue: KeyQueue, new: set[Key]) -> None:
    for key in (B, A, C):
        queue.add_again(key)
    queue.add(A)
    # Asking for it once more without a change does not move it back.
    queue.add_again(A)
    assert len(queue) == 3
    assert await drained(queue) == [A, B, C]


async def test_what_changed_while_it_was_worked_on_goes_first_afterwards(queue: KeyQueue) -> None:
    queue.add_again(A)
    await queue.take()
    queue.add_again(B)
    queue.add_again(A)
    queue.add(A)
    queue.done(A)
    assert await drained(queue) == [A, B]


async def test_depth_and_age_are_told_for_both_queues(queue: KeyQueue, time: LoopTime) -> None:
    assert [queue.oldest_seconds(name) for name in QUEUES] == [0.0, 0.0]
    queue.add_again(A)
    await time.advance(5.0)
    queue.add(B)
    queue.add_again(C)
    await time.advance(2.0)
    assert [(queue.waiting(name), queue.oldest_seconds(name)) for name in QUEUES] == [(1, 2.0), (2, 7.0)]


async def test_a_request_while_the_key_is_worked_on_is_worked_on_once_more(queue: KeyQueue) -> None:
    queue.add(A)
    assert await queue.take() == A
    queue.add(A)
    queue.add(A)
    assert len(queue) == 0
    assert not queue.idle
    queue.done(A)
    assert await drained(queue) == [A]
    assert queue.idle


async def test_a_busy_key_is_not_handed_to_a_second_worker(queue: KeyQueue) -> None:
    queue.add(A)
    await queue.take()
    queue.add(A)
    second = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)
    assert not second.done()
    queue.add(B)
    assert await second == B
    queue.done(A)
    assert await queue.take() == A


async def test_a_worker_waits_until_there_is_something(queue: KeyQueue) -> None:
    waiting = [asyncio.ensure_future(queue.take()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    queue.add(A)
    queue.add(B)
    assert set(await asyncio.gather(*waiting)) == {A, B}


async def test_done_without_a_new_request_leaves_nothing_behind(queue: KeyQueue) -> None:
    queue.add(A)
    queue.done(await queue.take())
    assert len(queue) == 0
    assert queue.idle


async def test_a_later_request_comes_when_its_time_has_come(queue: KeyQueue, time: LoopTime) -> None:
    queue.add_later(A, 30.0)
    await time.advance(29.0)
    assert len(queue) == 0
    await time.advance(1.5)
    assert await drained(queue) == [A]
    await time.advance(100.0)
    assert len(queue) == 0


async def test_a_request_now_replaces_the_later_one(queue: KeyQueue, time: LoopTime) -> None:
    queue.add_later(A, 30.0)
    queue.add(A)
    assert await drained(queue) == [A]
    await time.advance(60.0)
    assert len(queue) == 0


async def test_a_later_request_for_a_waiting_key_is_not_needed(queue: KeyQueue, time: LoopTime) -> None:
    queue.add(A)
    queue.add_later(A, 30.0)
    assert await drained(queue) == [A]
    await time.advance(60.0)
    assert len(queue) == 0


async def test_of_two_later_requests_the_earlier_one_counts(queue: KeyQueue, time: LoopTime) -> None:
    queue.add_later(A, 30.0)
    queue.add_later(A, 60.0)
    queue.add_later(B, 60.0)
    queue.add_later(B, 30.0)
    await time.advance(31.0)
    assert await drained(queue) == [A, B]
    await time.advance(60.0)
    assert len(queue) == 0


async def test_a_later_request_for_a_busy_key_waits_for_its_time_and_for_the_worker(
    queue: KeyQueue, time: LoopTime
) -> None:
    queue.add(A)
    await queue.take()
    queue.add_later(A, 10.0)
    await time.advance(11.0)
    assert len(queue) == 0
    queue.done(A)
    assert await drained(queue) == [A]


async def test_a_key_that_waits_for_a_search_is_unfinished_and_goes_first_afterwards(
    queue: KeyQueue, new: set[Key], time: LoopTime
) -> None:
    new.update((A, B))
    queue.add(A)
    await time.advance(5.0)
    assert await queue.take() == A
    queue.put_aside(A)
    queue.done(A)
    queue.add(B)
    queue.add_again(C)
    await time.advance(1.0)
    assert (len(queue), queue.unfinished) == (2, 3)
    assert [(queue.waiting(name), queue.oldest_seconds(name)) for name in QUEUES] == [(2, 6.0), (1, 1.0)]
    queue.bring_back(A)
    assert (len(queue), queue.unfinished) == (3, 3)
    assert [(queue.waiting(name), queue.oldest_seconds(name)) for name in QUEUES] == [(2, 6.0), (1, 1.0)]
    assert await drained(queue) == [A, B, C]
    assert queue.idle


async def test_a_key_that_is_checked_again_waits_for_its_search_in_its_queue(queue: KeyQueue) -> None:
    queue.add_again(A)
    await queue.take()
    queue.put_aside(A)
    queue.done(A)
    assert [queue.waiting(name) for name in QUEUES] == [0, 1]


async def test_a_key_that_changes_while_it_waits_for_a_search_is_served_once(queue: KeyQueue) -> None:
    queue.add(A)
    await queue.take()
    queue.put_aside(A)
    queue.done(A)
    queue.add(B)
    queue.add(A)
    assert (len(queue), queue.unfinished, queue.waiting("changed")) == (2, 2, 2)
    assert await drained(queue) == [B, A]
    # Its answer comes when nobody waits for it any more.
    queue.bring_back(A)
    assert queue.idle


async def test_a_search_that_ends_while_its_key_waits_elsewhere_moves_the_key_up(queue: KeyQueue) -> None:
    queue.add(A)
    await queue.take()
    queue.put_aside(A)
    queue.add_again(A)
    queue.done(A)
    queue.add(B)
    queue.bring_back(A)
    assert await drained(queue) == [A, B]
    assert queue.idle
