"""Searches beside the passes: one at a time, those of new specs first, and no key is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from energylens.controller.queueing.queue import KeyQueue
from energylens.controller.queueing.searches import Searches
from energylens.controller.state.store import Key
from energylens.planner.answers import SearchNeededError

A: Key = ("team", "a")
B: Key = ("team", "b")
C: Key = ("team", "c")
NEW = {C}


class HeldError(SearchNeededError):
    """A search that ends when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.entered, self.ends = threading.Event(), threading.Event()
        self.error = error

    def search(self) -> None:
        self.entered.set()
        assert self.ends.wait(10.0)
        if self.error is not None:
            raise self.error


@pytest.fixture
async def queue() -> KeyQueue:
    return KeyQueue(lambda key: key in NEW)


async def put(queue: KeyQueue, searches: Searches, key: Key, needed: HeldError) -> None:
    """Let a pass over a key end because it needs a search."""
    queue.add(key)
    assert await queue.take() == key
    searches.put(key, needed)
    queue.done(key)


async def began(needed: HeldError) -> None:
    assert await asyncio.to_thread(needed.entered.wait, 10.0)


@contextmanager
def running(searches: Searches) -> Iterator[asyncio.Task[None]]:
    task = asyncio.create_task(searches.run())
    try:
        yield task
    finally:
        task.cancel()


async def test_new_specs_are_searched_for_first_and_each_key_comes_back(queue: KeyQueue) -> None:
    searches, needed = Searches(queue), {key: HeldError() for key in (A, B, C)}
    with running(searches):
        await put(queue, searches, A, needed[A])
        await began(needed[A])
        for key in (B, C):
            await put(queue, searches, key, needed[key])
        for key in (A, C, B):
            assert len(queue) == 0
            needed[key].ends.set()
            assert await asyncio.wait_for(queue.take(), 10.0) == key
            queue.done(key)
    assert queue.idle


async def test_a_search_that_fails_brings_its_key_back(queue: KeyQueue) -> None:
    searches, failing, next_one = Searches(queue), HeldError(ValueError("defect")), HeldError()
    for needed in (failing, next_one):
        needed.ends.set()
    with running(searches):
        await put(queue, searches, A, failing)
        assert await asyncio.wait_for(queue.take(), 10.0) == A
        queue.done(A)
        await put(queue, searches, B, next_one)
        assert await asyncio.wait_for(queue.take(), 10.0) == B


async def test_what_waits_when_the_watches_start_again_is_searched_for_then(queue: KeyQueue) -> None:
    searches, needed = Searches(queue), HeldError()
    with running(searches) as task:
        await put(queue, searches, A, needed)
        await began(needed)
    with suppress(asyncio.CancelledError):
        await task
    assert queue.unfinished == 1
    with running(searches):
        needed.ends.set()
        assert await asyncio.wait_for(queue.take(), 10.0) == A


async def test_a_key_whose_question_changed_meanwhile_waits_for_the_newer_answer(queue: KeyQueue) -> None:
    searches, older, newer = Searches(queue), HeldError(), HeldError()
    with running(searches):
        await put(queue, searches, A, older)
        await began(older)
        await put(queue, searches, A, newer)
        older.ends.set()
        await began(newer)
        assert len(queue) == 0
        newer.ends.set()
        assert await asyncio.wait_for(queue.take(), 10.0) == A


async def test_a_key_that_was_served_meanwhile_is_not_searched_for(queue: KeyQueue) -> None:
    searches, running_one, left, last = Searches(queue), HeldError(), HeldError(), HeldError()
    with running(searches):
        await put(queue, searches, A, running_one)
        await began(running_one)
        await put(queue, searches, B, left)
        await put(queue, searches, C, last)
        # B is deleted.
        queue.add(B)
        assert await queue.take() == B
        queue.done(B)
        for needed in (running_one, last):
            needed.ends.set()
        for key in (A, C):
            assert await asyncio.wait_for(queue.take(), 10.0) == key
            queue.done(key)
        await put(queue, searches, A, running_one)
        assert await asyncio.wait_for(queue.take(), 10.0) == A
    assert not left.entered.is_set()


async def test_new_specs_without_end_do_not_keep_a_running_deployment_from_another_plan() -> None:
    queue = KeyQueue(lambda key: key[1] != "old")
    searches, order = Searches(queue), list[str]()
    keys: list[Key] = [("team", name) for name in ("old", "a", "b", "c", "d", "e")]
    for key in keys:
        needed = HeldError()
        needed.ends.set()
        await put(queue, searches, key, needed)
    with running(searches):
        for _ in keys:
            key = await asyncio.wait_for(queue.take(), 10.0)
            order.append(key[1])
            queue.done(key)
    assert order == ["a", "b", "c", "old", "d", "e"]


async def test_a_key_that_is_put_aside_keeps_nothing_of_its_pass(queue: KeyQueue) -> None:
    searches, needed = Searches(queue), HeldError()
    with suppress(SearchNeededError):
        raise needed
    assert needed.__traceback__ is not None
    await put(queue, searches, A, needed)
    assert needed.__traceback__ is None
