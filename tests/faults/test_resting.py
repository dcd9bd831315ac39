"""A deployment whose pass found nothing to do is not passed over again until something changes, or time passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.fake_pods import node
from tests.support.world import KEY, NAMESPACE, World, llama, overrides

from energylens.cluster.errors import ForbiddenError
from energylens.controller.queueing.rest import MOST_UNMEASURED_REST_SECONDS
from energylens.controller.settings import Settings

LATER = "2126-03-01T00:00:00Z"


@pytest.fixture
async def resting(monkeypatch: pytest.MonkeyPatch) -> tuple[World, list[str]]:
    """Return a world whose deployment rests, and the names of those that are planned from then on."""
    world, planned = World(), list[str]()
    world.cluster.put(llama())
    await world.settle()
    original = world.reconciler._planning.planning_for

    def counted(inputs: Any, **how: Any) -> Any:
        found = original(inputs, **how)
        planned.append(inputs.deployment.metadata.name)
        return found

    monkeypatch.setattr(world.reconciler._planning, "planning_for", counted)
    return world, planned


def budget(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "cap", "namespace": NAMESPACE}
    return {"apiVersion": "energylens.dev/v1alpha1", "kind": "EnergyBudget", "metadata": metadata, "spec": spec}


async def test_a_second_look_is_no_pass(resting: tuple[World, list[str]]) -> None:
    world, planned = resting
    mark = world.mark
    for _ in range(3):
        assert await world.reconciler.reconcile(KEY) == 300.0
    assert (planned, world.writes_since(mark)) == ([], [])


CHANGES: dict[str, Callable[[World], object]] = {
    "the spec": lambda world: world.cluster.put(llama(planning=overrides(replicas=1))),
    "a node": lambda world: world.cluster.put(node("more")),
    "a pod": lambda world: world.cluster.remove("Pod", NAMESPACE, "llama-0"),
    "a child": lambda world: world.cluster.edit("Service", *KEY, lambda live: live["spec"].update(selector={"a": "b"})),
    "a child that goes": lambda world: world.cluster.remove("Service", *KEY),
    "the status": lambda world: world.cluster.edit("LLMDeployment", *KEY, lambda live: live["status"].pop("plan")),
    "a budget": lambda world: world.cluster.put(budget(powerWatts=9000)),
    "time": lambda world: world.clock.advance(MOST_UNMEASURED_REST_SECONDS),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_what_changed_is_looked_at(resting: tuple[World, list[str]], what: str) -> None:
    world, planned = resting
    CHANGES[what](world)
    await world.reconciler.reconcile(KEY)
    assert planned == ["llama"]


async def test_what_does_not_concern_a_deployment_lets_it_rest(resting: tuple[World, list[str]]) -> None:
    world, planned = resting
    world.cluster.put(llama("other"))
    await world.reconciler.reconcile((NAMESPACE, "other"))
    world.cluster.put({**budget(powerWatts=1, action="Deny"), "metadata": {"name": "cap", "namespace": "elsewhere"}})
    planned.clear()
    await world.reconciler.reconcile(KEY)
    assert planned == []


async def test_a_member_rests_while_others_take_what_it_does_not_need(resting: tuple[World, list[str]]) -> None:
    world, planned = resting
    world.cluster.put(budget(powerWatts=9000, action="Deny"))
    await world.settle()
    planned.clear()
    world.cluster.put(llama("other"))
    await world.settle((NAMESPACE, "other"))
    planned.clear()
    await world.reconciler.reconcile(KEY)
    assert planned == []


async def test_what_is_refused_lets_nothing_rest() -> None:
    world = World()
    world.cluster.put(llama())
    await world.settle()
    world.start(_Refusing(world.cluster))
    world.cluster.remove("PodDisruptionBudget", *KEY)
    for _ in range(3):
        await world.reconciler.reconcile(KEY)
    assert world.condition("Degraded")["reason"] == "ApplyRefused"
    assert len(world.reconciler._resting) == 0


class _Refusing:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def apply(self, manifest: Any) -> Any:
        if manifest["kind"] == "PodDisruptionBudget":
            raise ForbiddenError("denied by policy")
        return await self.inner.apply(manifest)


@pytest.mark.parametrize("resync", [5.0, 300.0])
async def test_pods_that_are_leaving_are_looked_at_until_they_have_left(resync: float) -> None:
    world = World()
    world.cluster.put(llama())
    await world.settle()
    world.reconciler._settings = Settings(resync_seconds=resync)
    world.cluster.edit("Pod", NAMESPACE, "llama-0", lambda live: live["metadata"].update(deletionTimestamp=LATER))
    for _ in range(3):
        await world.reconciler.reconcile(KEY)
    assert len(world.reconciler._resting) == 0


async def test_a_deployment_that_is_gone_is_forgotten(resting: tuple[World, list[str]]) -> None:
    world, _ = resting
    assert len(world.reconciler._resting) == 1
    world.cluster.remove("LLMDeployment", *KEY)
    await world.reconciler.reconcile(KEY)
    assert len(world.reconciler._resting) == 0


async def test_of_a_large_cluster_only_nodes_that_a_plan_can_be_about_end_its_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, planned = World(), list[str]()
    for index in range(20):
        world.cluster.put(node(f"more-{index:02d}"))
    world.cluster.put(llama(planning={}))
    await world.settle()
    assert world.condition("Ready")["status"] == "True"
    original = world.reconciler._planning.planning_for

    def counted(inputs: Any, **how: Any) -> Any:
        found = original(inputs, **how)
        planned.append("")
        return found

    monkeypatch.setattr(world.reconciler._planning, "planning_for", counted)
    await world.reconciler.reconcile(KEY)
    planned.clear()
    mark = world.mark
    world.cluster.put(node("one-more"))
    await world.reconciler.reconcile(KEY)
    assert planned == []
    world.cluster.put(node("other", product="NVIDIA-L40S", gpus=4))
    await world.reconciler.reconcile(KEY)
    assert planned == [""]
    world.cluster.remove("Node", "", "other")
    for index in range(15):
        world.cluster.remove("Node", "", f"more-{index:02d}")
    planned.clear()
    await world.reconciler.reconcile(KEY)
    assert planned == [""]
    assert [write.key[0] for write in world.writes_since(mark)] in ([], ["LLMDeployment"], ["LLMDeployment"] * 2)
