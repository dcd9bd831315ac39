"""GPUs that come or become free are planned for, whenever they come."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_pods import node
from tests.support.world import KEY, World, llama, overrides

THREE_NODES = llama(planning=overrides(tensorParallel=8, replicas=3))


async def test_a_deployment_without_gpus_is_looked_at_again_when_some_come() -> None:
    world = World()
    world.cluster.put(THREE_NODES)
    await world.reconciler.reconcile(KEY)
    assert world.condition("PlanReady")["reason"] == "InsufficientGPUs"
    assert world.reconciler.to_plan_again == []
    world.cluster.put(node("h100-2"))
    assert world.reconciler.to_plan_again == [KEY]
    await world.settle()
    assert world.condition("PlanReady")["status"] == "True"
    assert world.reconciler.to_plan_again == []


async def test_gpus_that_come_while_a_pass_finds_none_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    planned = world.reconciler._planning.planning_for

    def meanwhile(inputs: Any, **how: Any) -> Any:
        found = planned(inputs, **how)
        world.cluster.put(node("h100-2"))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(world.reconciler._planning, "planning_for", meanwhile)
        world.cluster.put(THREE_NODES)
        await world.reconciler.reconcile(KEY)
    assert world.condition("PlanReady")["reason"] == "InsufficientGPUs"
    assert world.reconciler.to_plan_again == [KEY]
    await world.settle()
    assert world.condition("PlanReady")["status"] == "True"


async def test_a_deployment_that_is_gone_is_not_looked_at_again() -> None:
    world = World()
    world.cluster.put(THREE_NODES)
    await world.reconciler.reconcile(KEY)
    world.cluster.remove("LLMDeployment", *KEY)
    await world.reconciler.reconcile(KEY)
    world.cluster.put(node("h100-2"))
    assert world.reconciler.to_plan_again == []
