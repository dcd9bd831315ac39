"""What the workers do with an answer, a refusal, a defect and a stop."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.metrics_page import scrape
from tests.support.world import ManualClock

from energylens.cluster.errors import BusyError, TransientError
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.queueing.queue import KeyQueue
from energylens.controller.reconciling.workers import RETRY_SECONDS, Workers
from energylens.controller.state.store import Key, Store
from energylens.planner.answers import SearchNeededError

KEY: Key = ("team", "llama")


class Queue(KeyQueue):
    """A queue that notes what is asked for later."""

    def __init__(self) -> None:
        super().__init__(lambda key: True)
        self.later: list[float] = []

    def add_later(self, key: Key, seconds: float) -> None:
        assert key == KEY
        self.later.append(seconds)


class Work:
    """Workers whose reconciliations end as told."""

    def __init__(self, *outcomes: float | BaseException | None) -> None:
        self.outcomes = list(outcomes)
        self.queue = Queue()
        self.metrics = Metrics(Store())
        self.shown: list[tuple[Exception, int]] = []
        self.searches: list[SearchNeededError] = []
        self.workers = Workers(self.queue, self.reconcile, self.show, self.metrics, ManualClock(), self.search)

    def search(self, key: Key, needed: SearchNeededError) -> None:
        self.searches.append(needed)
        self.queue.put_aside(key)

    async def show(self, key: Key, error: Exception, in_a_row: int) -> None:
        self.shown.append((error, in_a_row))

    async def reconcile(self, key: Key) -> float | None:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def run(self) -> None:
        """Reconcile the key once per outcome."""

        async def steps() -> None:
            while self.outcomes:
                self.queue.add(KEY)
                await self.workers.step()

        asyncio.run(steps())

    def counted(self, result: str) -> float:
        value = asyncio.run(scrape(self.metrics)).value("energylens_reconciles_total", result=result)
        assert value is not None
        return value


def test_what_is_to_be_looked_at_again_is() -> None:
    work = Work(30.0, None)
    work.run()
    assert work.queue.later == [30.0]
    assert work.queue.idle
    assert work.counted("ok") == 2


def test_what_fails_is_tried_again_later_each_time_and_soon_after_a_success() -> None:
    failures = [TransientError("connection reset")] * (len(RETRY_SECONDS) + 1)
    work = Work(*failures, None, TransientError("connection reset"))
    work.run()
    assert work.queue.later == [*RETRY_SECONDS, RETRY_SECONDS[-1], RETRY_SECONDS[0]]
    assert work.counted("retry") == len(failures) + 1


def test_a_busy_server_is_asked_when_it_wants_to_be() -> None:
    work = Work(BusyError("too many requests", 17.0))
    work.run()
    assert work.queue.later == [17.0]


def test_a_defect_is_counted_and_stops_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(KeyError("plan"), None)
    work.run()
    assert work.queue.later == [RETRY_SECONDS[0]]
    assert (work.counted("error"), work.counted("ok")) == (1, 1)
    assert "internal error" in caplog.text


def test_failures_are_told_with_their_number_in_a_row() -> None:
    refused, defect = TransientError("connection reset"), KeyError("plan")
    work = Work(refused, defect, None, refused)
    work.run()
    assert work.shown == [(refused, 1), (defect, 2), (refused, 1)]


def test_a_search_that_a_pass_needs_is_no_failure() -> None:
    needed = SearchNeededError.__new__(SearchNeededError)
    work = Work(needed)
    work.run()
    assert (work.searches, work.shown, work.queue.later) == ([needed], [], [])
    assert (work.queue.unfinished, len(work.queue)) == (1, 0)
    assert [work.counted(result) for result in ("ok", "retry", "error")] == [0, 0, 0]


def test_a_key_outlives_a_stop() -> None:
    work = Work(asyncio.CancelledError())

    async def stopped() -> None:
        work.queue.add(KEY)
        with pytest.raises(asyncio.CancelledError):
            await work.workers.step()
        assert await work.queue.take() == KEY

    asyncio.run(stopped())


def test_what_changed_while_it_failed_is_tried_at_once() -> None:
    queue, tries = KeyQueue(lambda key: True), 0

    async def reconcile(key: Key) -> float | None:
        nonlocal tries
        tries += 1
        if tries == 1:
            queue.add(key)
            raise TransientError("connection reset")
        return None

    async def show(key: Key, error: Exception, in_a_row: int) -> None:
        pass

    async def steps() -> None:
        workers = Workers(queue, reconcile, show, Metrics(Store()), ManualClock(), lambda key, needed: None)
        queue.add(KEY)
        await workers.step()
        assert queue.unfinished == 1
        await workers.step()
        assert queue.unfinished == 0

    asyncio.run(steps())
    assert tries == 2
