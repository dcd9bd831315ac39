"""Plans are made in one thread, since each thread that plans keeps the memory of its largest search."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tests.support.world import KEY, World, llama

from energylens.decide.deployment.inputs import Inputs
from energylens.decide.deployment.observation import PlanChoice
from energylens.decide.deployment.planning import PlanningService


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
