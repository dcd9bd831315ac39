"""Plans are made in one thread, since each thread that plans keeps the memory of its largest search."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from tests.support.world import KEY, World, llama

from energylens.controller.inventory import Inventory
from energylens.decide.deployment.inputs import Inputs
from energylens.decide.deployment.observation import PlanChoice
from energylens.decide.deployment.planning import PlanningService
from energylens.planner.types import ClusterSnapshot


async def test_every_plan_is_made_in_the_same_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, original = list[int](), PlanningService.planning_for

    def noted(self: PlanningService, inputs: Inputs) -> PlanChoice:
        threads.append(threading.get_ident())
        return original(self, inputs)

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
    assert len(threads) == 2
    assert len(set(threads) - {threading.get_ident()}) == 1


async def test_a_deployment_without_a_week_is_gathered_for_one_plan_only(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, original = list[tuple[str, str]](), Inventory.snapshot

    def noted(self: Inventory, key: tuple[str, str]) -> ClusterSnapshot:
        taken.append(key)
        return original(self, key)

    monkeypatch.setattr(Inventory, "snapshot", noted)
    world = World()
    world.cluster.put(llama())
    await world.reconciler.reconcile(KEY)
    assert taken == [KEY]


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
