"""The store against the API server's lists: waiting for what is missing, dropping what is gone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.support.devices import claim, device_class, gpu, resource_slice, taint_rule
from tests.support.fake_pods import node
from tests.support.world import KEY, World, llama

from energylens.cluster.errors import ForbiddenError, NotFoundError
from energylens.cluster.port import Identity, Object
from energylens.cluster.resources import ENERGY_BUDGET, LEADER_WORKER_SET, RESOURCE_CLAIM, Resource
from energylens.controller.watching.kinds import ALL_KINDS, DYNAMIC_KINDS, TAINT_RULE_KINDS, WatchableKinds
from energylens.controller.watching.sweep import LISTS_GET_OLD_AFTER, Sweeper
from energylens.planner.inventory.snapshot import OWNER_LABEL

PDB = ("PodDisruptionBudget", *KEY)


class Swept:
    """A settled world whose watches are interrupted, and a sweeper."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[tuple[str, str]] = []
        self.naps = 0
        self.sweeper = Sweeper(world.cluster, world.store, self.asked.append, sleep=self.nap)
        world.delayed = []

    async def nap(self, seconds: float) -> None:
        self.naps += 1
        if self.naps == 3:
            self.world.deliver()


@pytest.fixture
async def swept() -> Swept:
    world = World()
    world.cluster.put(llama())
    await world.settle()
    return Swept(world)


async def test_what_still_exists_stays_and_makes_no_work(swept: Swept) -> None:
    before = copy.deepcopy(swept.world.store)
    await swept.sweeper.sweep()
    assert swept.world.store == before
    assert swept.asked == []


async def test_children_and_pods_deleted_during_an_interruption_are_dropped_and_made_again(swept: Swept) -> None:
    world = swept.world
    pods = len(world.store.pods)
    world.cluster.remove("Deployment", *KEY)
    for name in [key[2] for key in world.cluster.objects if key[0] == "Pod"][:1]:
        world.cluster.remove("Pod", KEY[0], name)
    version = world.store.inventory_version
    await swept.sweeper.sweep()
    assert ("Deployment", *KEY) not in world.store.children
    assert len(world.store.pods) < pods
    assert world.store.inventory_version > version
    assert KEY in swept.asked
    world.delayed = None
    await world.settle()
    assert ("Deployment", *KEY) in world.cluster.objects


async def test_a_deployment_deleted_during_an_interruption_is_dropped(swept: Swept) -> None:
    swept.world.cluster.remove("LLMDeployment", *KEY)
    await swept.sweeper.sweep()
    assert not swept.world.store.deployments
    assert not swept.world.store.children
    assert KEY in swept.asked


async def test_a_node_that_went_during_an_interruption_is_dropped(swept: Swept) -> None:
    swept.world.cluster.remove("Node", "", "h100-1")
    await swept.sweeper.sweep()
    assert set(swept.world.store.nodes) == {"h100-0"}


async def test_a_successor_of_the_same_name_is_not_taken_for_the_old_object(swept: Swept) -> None:
    world = swept.world
    world.cluster.remove("LLMDeployment", *KEY)
    world.cluster.put(llama())
    await swept.sweeper.sweep()
    assert not world.store.deployments
    world.deliver()
    assert (
        world.store.deployments[KEY]["metadata"]["uid"]
        == world.cluster.objects["LLMDeployment", *KEY]["metadata"]["uid"]
    )


async def test_settling_waits_for_what_the_watches_have_not_brought(swept: Swept) -> None:
    swept.world.cluster.put(node("h100-2"))
    assert await swept.sweeper.settle() == []
    assert swept.naps == 3
    assert "h100-2" in swept.world.store.nodes


async def test_settling_looks_again_only_for_what_is_missing(swept: Swept, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, original = list[str](), Sweeper._identity

    def noted(self: Sweeper, resource: Resource, name: tuple[str, str]) -> Identity | None:
        looked.append(name[1])
        return original(self, resource, name)

    monkeypatch.setattr(Sweeper, "_identity", noted)
    swept.world.cluster.put(node("h100-2"))
    await swept.sweeper.settle()
    assert len(set(looked)) > 5
    # Once before each nap, and when it came in.
    assert looked.count("h100-2") == 4
    assert all(looked.count(name) <= 4 for name in looked)
    assert looked.count("h100-0") == 1


async def test_what_does_not_come_in_is_named_by_settling_and_noticed_by_a_sweep(swept: Swept) -> None:
    swept.naps = 3
    swept.world.cluster.put(node("h100-2"))
    assert [str(missed) for missed in await swept.sweeper.settle()] == ["Node h100-2"]
    assert swept.naps == 3 + LISTS_GET_OLD_AFTER
    assert await swept.sweeper.sweep() is True
    swept.world.deliver()
    assert await swept.sweeper.sweep() is False


async def test_watches_that_are_late_are_waited_for_as_long_as_they_bring_something(swept: Swept) -> None:
    world, sweeper = swept.world, swept.sweeper
    swept.naps, late = 3, 3 * LISTS_GET_OLD_AFTER
    for number in range(late):
        world.cluster.put(node(f"late-{number:02d}"))
    told, world.delayed = list(world.delayed or ()), []

    async def one_comes_in_every_other_time(seconds: float) -> None:
        swept.naps += 1
        if told and swept.naps % 2:
            world.delayed = [told.pop(0)]
            world.deliver()

    sweeper._sleep = one_comes_in_every_other_time
    assert await sweeper.settle() == []
    assert swept.naps >= 2 * late


def change(body: Object) -> None:
    body["metadata"].setdefault("labels", {})["changed"] = "yes"


@pytest.mark.parametrize(
    "key", [("LLMDeployment", *KEY), ("Deployment", *KEY), ("Node", "", "h100-1")], ids=lambda key: key[0]
)
async def test_a_change_that_no_watch_told_is_noticed_and_read(swept: Swept, key: tuple[str, str, str]) -> None:
    swept.naps = 3
    assert await swept.sweeper.sweep() is False
    swept.world.cluster.edit(*key, change)
    assert await swept.sweeper.sweep() is True
    missed = await swept.sweeper.settle()
    assert [(found.resource.kind, *found.name) for found in missed] == [key]
    await swept.sweeper.read(missed)
    assert await swept.sweeper.sweep() is False
    assert await swept.sweeper.settle() == []


async def test_to_read_what_has_gone_meanwhile_is_no_error(swept: Swept) -> None:
    swept.naps = 3
    swept.world.cluster.put(node("h100-2"))
    missed = await swept.sweeper.settle()
    swept.world.cluster.remove("Node", "", "h100-2")
    await swept.sweeper.read(missed)
    assert "h100-2" not in swept.world.store.nodes


async def test_a_kind_that_is_not_watched_is_not_listed(swept: Swept) -> None:
    swept.world.cluster.withheld["EnergyBudget"] = NotFoundError("no such kind")
    with pytest.raises(NotFoundError):
        await swept.sweeper.settle()
    swept.sweeper.found = WatchableKinds(ALL_KINDS - {ENERGY_BUDGET}, unserved=frozenset({ENERGY_BUDGET}))
    assert await swept.sweeper.settle() == []


async def test_leader_worker_sets_that_went_with_their_kind_are_dropped(swept: Swept) -> None:
    world = swept.world
    name = f"{KEY[1]}-group"
    body = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"namespace": KEY[0], "name": name, "uid": "u", "labels": {OWNER_LABEL: KEY[1]}},
    }
    world.store.put_child("LeaderWorkerSet", body, deleted=False)
    rest = ALL_KINDS - {LEADER_WORKER_SET}
    swept.sweeper.found = WatchableKinds(rest, {LEADER_WORKER_SET: "forbidden"})
    await swept.sweeper.sweep()
    assert ("LeaderWorkerSet", KEY[0], name) in world.store.children
    swept.sweeper.found = WatchableKinds(rest, unserved=frozenset({LEADER_WORKER_SET}))
    await swept.sweeper.sweep()
    assert ("LeaderWorkerSet", KEY[0], name) not in world.store.children
    assert KEY in swept.asked


async def test_settling_does_not_wait_for_what_was_deleted_after_the_list(swept: Swept) -> None:
    world = swept.world
    swept.naps = 3
    world.cluster.put(node("h100-2"))
    listing = world.cluster.list_objects

    async def goes_after_the_list(resource: Resource, **kwargs: Any) -> list[Object]:
        found = await listing(resource, **kwargs)
        if resource.kind == "Node" and ("Node", "", "h100-2") in world.cluster.objects:
            world.cluster.remove("Node", "", "h100-2")
        return found

    world.cluster.list_objects = goes_after_the_list  # type: ignore[method-assign]
    assert await swept.sweeper.settle() == []
    assert swept.naps == 3 + LISTS_GET_OLD_AFTER


async def test_what_a_watch_told_the_end_of_while_other_kinds_were_listed_was_not_missed(swept: Swept) -> None:
    world, listing = swept.world, swept.world.cluster.list_identities
    world.delayed = None

    async def node_goes_after_its_list(resource: Resource, **kwargs: Any) -> dict[tuple[str, str], Identity]:
        found = await listing(resource, **kwargs)
        if resource.kind == "Node" and ("Node", "", "h100-1") in world.cluster.objects:
            world.cluster.remove("Node", "", "h100-1")
        return found

    world.cluster.list_identities = node_goes_after_its_list  # type: ignore[method-assign]
    assert await swept.sweeper.settle() == []
    assert "h100-1" not in world.store.nodes


async def test_a_disruption_budget_that_was_edited_or_deleted_is_put_right(swept: Swept) -> None:
    world = swept.world
    wanted = copy.deepcopy(world.cluster.objects[PDB]["spec"])

    def edit(body: Object) -> None:
        body["spec"]["maxUnavailable"] = 7
        body["metadata"]["generation"] = 9

    world.cluster.edit(*PDB, edit)
    await swept.sweeper.sweep()
    assert swept.asked == [KEY]
    world.delayed = None
    await world.settle()
    assert world.cluster.objects[PDB]["spec"] == wanted
    world.delayed = []
    world.cluster.remove(*PDB)
    await swept.sweeper.sweep()
    world.delayed = None
    await world.settle()
    assert world.cluster.objects[PDB]["spec"] == wanted


async def test_a_list_that_is_refused_is_an_error(swept: Swept) -> None:
    async def refused(resource: Resource, **kwargs: str | None) -> dict[tuple[str, str], Identity]:
        raise ForbiddenError("nodes is forbidden")

    swept.world.cluster.list_identities = refused  # type: ignore[method-assign]
    with pytest.raises(ForbiddenError):
        await swept.sweeper.settle()


async def test_devices_that_are_not_watched_any_more_are_not_counted_by(swept: Swept) -> None:
    store, cluster = swept.world.store, swept.world.cluster
    for body in (resource_slice("n", [gpu(0)]), claim("a", "n", "gpu-0"), device_class(), taint_rule("r")):
        store.put_device_object(body["kind"], cluster.put(body), deleted=False)
    await swept.sweeper.sweep()
    assert all(store.devices.bodies.values())
    # Of the kinds of dynamic resource allocation some are not enough.
    swept.sweeper.found = WatchableKinds(ALL_KINDS - {*DYNAMIC_KINDS, *TAINT_RULE_KINDS}, {RESOURCE_CLAIM: "forbidden"})
    await swept.sweeper.sweep()
    assert not any(store.devices.bodies.values())


async def test_allocations_that_no_watch_told_the_end_of_are_dropped(swept: Swept) -> None:
    store, cluster = swept.world.store, swept.world.cluster
    body = cluster.put(claim("a", "n", "gpu-0"))
    store.put_device_object("ResourceClaim", body, deleted=False)
    cluster.remove("ResourceClaim", "team", "a")
    await swept.sweeper.sweep()
    assert not store.devices.bodies["ResourceClaim"]
