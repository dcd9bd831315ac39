"""Plans are made in one thread, since each thread that plans keeps the memory of its largest search."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from tests.support.fake_pods import node
from tests.support.world import KEY, World, llama

from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.queueing.queue import KeyQueue
from energylens.controller.queueing.searches import Searches
from energylens.controller.reconciling.workers import Workers
from energylens.controller.state.inventory import Inventory
from energylens.controller.writing.failures import Failures
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.decide.deployment.plans.planning import PlanningService
from energylens.planner.answers import SearchNeededError
from energylens.planner.question import Question
from energylens.planner.search.candidates import Candidates
from energylens.planner.types import ClusterSnapshot, PlanningResult


async def test_every_plan_is_made_in_the_same_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, original = list[int](), PlanningService.planning_for

    def noted(self: PlanningService, inputs: Inputs, *, searching: bool = True) -> PlanChoice:
        threads.append(threading.get_ident())
        return original(self, inputs, searching=searching)

    monkeypatch.setattr(PlanningService, "planning_for", noted)
    world = World()
    world.cluster.put(llama())
    await world.reconciler.reconcile(KEY)
    # Other work occupies the threads that the event loop shares.
    done = threading.Event()
    busy = [asyncio.create_task(asyncio.to_thread(done.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    await world.reconciler.reconcile(KEY)
    done.set()
    await asyncio.gather(*busy)
    # The first pass asks before and after its search.
    assert len(threads) == 3
    assert len(set(threads) - {threading.get_ident()}) == 1


async def test_a_deployment_without_a_week_is_gathered_before_and_after_its_search_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken, original = list[tuple[str, str]](), Inventory.snapshot

    def noted(self: Inventory, key: tuple[str, str]) -> ClusterSnapshot:
        taken.append(key)
        return original(self, key)

    monkeypatch.setattr(Inventory, "snapshot", noted)
    world = World()
    world.cluster.put(llama())
    await world.reconciler.reconcile(KEY)
    assert taken == [KEY, KEY]
    world.cluster.put(llama("other"))
    await world.reconciler.reconcile(("team", "other"))
    assert taken[2:] == [("team", "other")]


async def test_another_deployment_is_planned_between_the_rates_of_a_week() -> None:
    world, other = World(), ("team", "other")
    hours = [{"fromHour": hour, "toHour": hour + 1, "requestsPerSecond": str(hour + 3)} for hour in range(6)]
    load = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "2", "profile": {"hours": hours}}
    fixed = {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}}
    world.cluster.put(llama(workload=load, planning=fixed))
    world.cluster.put(llama("other"))
    order, steps = list[str](), 0
    original = PlanningService.prepare

    def counted(self: PlanningService, inputs: Inputs) -> Iterator[None]:
        nonlocal steps
        for _ in original(self, inputs):
            steps += 1
            yield

    async def planned(key: tuple[str, str]) -> None:
        await world.reconciler.reconcile(key)
        order.append(key[1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlanningService, "prepare", counted)
        await asyncio.gather(planned(KEY), planned(other))
    assert order == ["other", "llama"]
    # Its GPUs were free in the first steps: seven rates twice, and each time one step before the highest.
    assert 7 <= steps <= 3 * 7
    assert world.condition("PlanReady")["status"] == "True"
    await world.settle(KEY, other)
    free = 16 - sum(world.status(key)["plan"]["gpus"] for key in (KEY, other))
    assert free >= 0


async def test_a_known_plan_is_not_behind_the_search_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    world, equal, other = World(), ("team", "equal"), ("team", "other")
    world.cluster.put(llama())
    await world.settle()
    goes_on, original = threading.Event(), SearchNeededError.search

    def held(self: SearchNeededError) -> None:
        assert goes_on.wait(10.0)
        original(self)

    monkeypatch.setattr(SearchNeededError, "search", held)
    world.cluster.put(llama("other", slo={"itlMilliseconds": 77}))
    world.cluster.put(llama("equal"))
    queue, searches, workers = working(world)
    searching = asyncio.create_task(searches.run())
    for key in (other, equal):
        queue.add(key)
        await workers.step()
    assert world.condition("PlanReady", equal)["status"] == "True"
    assert (queue.unfinished, len(queue)) == (1, 0)
    goes_on.set()
    await asyncio.wait_for(workers.step(), 10.0)
    assert world.condition("PlanReady", other)["status"] == "True"
    assert queue.idle
    searching.cancel()


def working(world: World) -> tuple[KeyQueue, Searches, Workers]:
    queue = KeyQueue(lambda key: "status" not in world.cluster.objects["LLMDeployment", *key])
    searches, metrics = Searches(queue), Metrics(world.store)
    failures = Failures(world.port, world.store, world.clock, metrics, "test")
    return queue, searches, Workers(queue, world.reconciler.attempt, failures.show, metrics, world.clock, searches.put)


async def test_a_request_for_a_key_during_its_search_begins_no_other_search(monkeypatch: pytest.MonkeyPatch) -> None:
    world, searches_made = World(), list[str]()
    began, goes_on, original = threading.Event(), threading.Event(), Question.searched

    def held(self: Question) -> tuple[PlanningResult, Candidates | None]:
        searches_made.append(threading.current_thread().name)
        began.set()
        assert goes_on.wait(10.0)
        return original(self)

    monkeypatch.setattr(Question, "searched", held)
    world.cluster.put(llama())
    queue, searches, workers = working(world)
    # Once while the search waits for its turn, and twice while it runs.
    for _ in range(2):
        queue.add(KEY)
        await workers.step()
    searching = asyncio.create_task(searches.run())
    assert await asyncio.to_thread(began.wait, 10.0)
    for _ in range(2):
        queue.add(KEY)
        await asyncio.wait_for(workers.step(), 10.0)
    assert (queue.unfinished, len(queue)) == (1, 0)
    goes_on.set()
    await asyncio.wait_for(workers.step(), 10.0)
    assert world.condition("PlanReady")["status"] == "True"
    assert [name.partition("_")[0] for name in searches_made] == ["searcher"]
    assert queue.idle
    searching.cancel()


async def test_an_answer_that_no_longer_holds_is_searched_for_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    original = SearchNeededError.search

    def late(self: SearchNeededError) -> None:
        original(self)
        # Nodes of another size change the question.
        world.cluster.put(node(f"small-{len(world.store.nodes)}", gpus=1))

    monkeypatch.setattr(SearchNeededError, "search", late)
    world.cluster.put(llama())
    await asyncio.wait_for(world.reconciler.reconcile(KEY), 60.0)
    assert world.condition("PlanReady")["status"] == "True"
    assert len(world.store.nodes) == 3
