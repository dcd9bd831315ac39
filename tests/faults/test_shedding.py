"""Shedding under random histories: what is left to the members ends at or below the budget wherever replicas can."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.support.fake_pods import node
from tests.support.world import NAMESPACE, CrashError, Faults, World, llama, overrides

from energylens.controller.state.store import Key
from energylens.planner.explain import relaxations

NAMES = ("a", "b", "c", "d")
KEYS: tuple[Key, ...] = tuple((NAMESPACE, name) for name in NAMES)
LOOKS = 6
"""Until everything that a step can take is taken, whatever the order of answers."""


@pytest.fixture(autouse=True)
def without_nearest_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the nearest load out of the explanations: finding it took most of the time of this file."""
    monkeypatch.setattr(relaxations, "_loads", lambda *_: ())


def budget(watts: int, action: str = "Shed") -> dict[str, Any]:
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": "cap", "namespace": NAMESPACE},
        "spec": {"powerWatts": watts, "action": action, "shed": {"cooldownSeconds": 60, "hysteresisPercent": 5}},
    }


def member(name: str, rate: int, **energy: Any) -> dict[str, Any]:
    load = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": rate}
    return llama(name, workload=load, planning=overrides(replicas=3), energy=energy)


def committed(world: World) -> int:
    return sum(world.status(key)["plan"]["predicted"]["powerWatts"] for key in KEYS)


def replicas(world: World) -> list[int]:
    return [world.status(key)["plan"]["replicas"] for key in KEYS]


def verdict(world: World, kind: str) -> dict[str, Any]:
    status = world.cluster.objects["EnergyBudget", NAMESPACE, "cap"]["status"]
    (found,) = [c for c in status["conditions"] if c["type"] == kind]
    return dict(found)


async def start(rates: tuple[int, ...] = (3, 3, 3, 3)) -> World:
    world = World()
    for index in range(2, 4):
        world.cluster.put(node(f"h100-{index}"))
    world.start()
    for name, rate in zip(NAMES, rates, strict=True):
        world.cluster.put(member(name, rate))
    await world.settle(*KEYS)
    # Measured, so that the budget can be checked, and never more than is predicted.
    world.meter = dict.fromkeys(KEYS, 100.0)
    return world


def floors(world: World) -> int:
    """Return the power of all members at the fewest replicas, before anything was taken."""
    return sum(min(e["powerWatts"] for e in world.status(key)["plan"]["fewerReplicas"]) for key in KEYS)


async def test_the_steps_are_what_fewer_replicas_draw_and_the_rest_is_taken_at_once() -> None:
    world = await start()
    total, least = committed(world), floors(world)
    assert replicas(world) == [3, 3, 3, 3]
    # One replica under the load of three draws more than a third of their power.
    assert least > total / 3 * 1.05
    cap = (least + total) // 2 - 40
    world.cluster.put(budget(cap))
    # No time passes: neither two minutes nor a cooldown are waited for.
    for _ in range(LOOKS):
        await world.look(*KEYS, seconds=1)
    assert committed(world) <= cap
    assert verdict(world, "WithinEnergyBudget")["status"] == "True"
    assert not world.keeper.is_unsettled
    # No more is taken than one member can give.
    assert committed(world) > cap - (total - least) / len(KEYS)
    mark = world.mark
    for _ in range(4):
        await world.look(*KEYS, seconds=15)
    assert [w for w in world.writes_since(mark) if w.key[0] != "EnergyBudget"] == []


async def test_what_nobody_can_give_is_said_at_once() -> None:
    world = await start()
    least = floors(world)
    world.cluster.put(budget(least - 50))
    for _ in range(LOOKS):
        await world.look(*KEYS, seconds=1)
    assert replicas(world) == [1, 1, 1, 1]
    assert committed(world) == least
    shedding = verdict(world, "Shedding")
    assert shedding["reason"] == "AtTheFloor"
    assert "50 W are still missing" in shedding["message"]
    over = verdict(world, "WithinEnergyBudget")
    assert f"{least} W are committed, 50 W more than spec.powerWatts={least - 50}" in over["message"]


@pytest.mark.parametrize("seed", range(2))
async def test_random_histories_with_crashes_end_at_or_below_the_budget(seed: int) -> None:
    chance = random.Random(seed)
    world = await start(tuple(chance.choice((2, 3, 5)) for _ in NAMES))
    total, least = committed(world), floors(world)
    for _ in range(3):
        cap = chance.randrange(least, total + 200)
        world.cluster.put(budget(cap))
        if chance.random() < 0.3:
            index = chance.randrange(len(NAMES))
            rate = int(world.cluster.objects["LLMDeployment", *KEYS[index]]["spec"]["workload"]["requestsPerSecond"])
            world.cluster.put(member(NAMES[index], rate, priority=chance.randrange(-2, 3)))
        if chance.random() < 0.7:
            world.start(Faults(world.cluster, crash_after=chance.randrange(1, 12)))
        for _ in range(LOOKS):
            try:
                await world.look(*KEYS, seconds=chance.choice((1, 15, 70)))
            except CrashError:
                world.start(world.cluster)
        world.start(world.cluster)
        for _ in range(LOOKS):
            await world.look(*KEYS, seconds=1)
        assert committed(world) <= cap, (replicas(world), cap)
        assert verdict(world, "WithinEnergyBudget")["status"] == "True"
    world.cluster.put(budget(2 * total))
    for _ in range(LOOKS):
        await world.look(*KEYS, seconds=120)
    assert replicas(world) == [3, 3, 3, 3]
