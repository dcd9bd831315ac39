"""A plan that moves between one node and several: the old pods serve until the new ones are ready, whatever happens."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tests.support.fake_cluster import FakeCluster
from tests.support.fake_pods import node, run_pods
from tests.support.world import KEY, NAMESPACE, CrashError, Faults, World, llama, overrides

from energylens.cluster.errors import ForbiddenError, TransientError

ONE = llama(planning=overrides(tensorParallel=8, replicas=2))
SEVERAL = llama(planning=overrides(tensorParallel=8, pipelineParallel=2, replicas=1))
DEPLOYMENT, GROUPS = ("Deployment", *KEY), ("LeaderWorkerSet", NAMESPACE, "llama-group")
DIRECTIONS = [
    pytest.param(ONE, SEVERAL, DEPLOYMENT, GROUPS, id="to several nodes"),
    pytest.param(SEVERAL, ONE, GROUPS, DEPLOYMENT, id="to one node"),
]


def cluster_of(nodes: int) -> World:
    world = World(cluster=FakeCluster(served={"LeaderWorkerSet"}))
    for index in range(2, nodes):
        world.cluster.put(node(f"h100-{index}"))
    return world


async def serving(nodes: int, spec: dict[str, Any]) -> World:
    world = cluster_of(nodes)
    world.cluster.put(spec)
    await world.settle()
    assert world.condition("Ready")["status"] == "True", world.condition("Ready")
    return world


def answering(world: World) -> list[str]:
    """Return the ready pods that the Service selects."""
    selector = world.cluster.objects["Service", *KEY]["spec"]["selector"]
    return [
        name
        for (kind, _, name), body in world.cluster.objects.items()
        if kind == "Pod"
        and selector.items() <= body["metadata"]["labels"].items()
        and {"type": "Ready", "status": "True"}.items() <= body["status"]["conditions"][1].items()
    ]


def make_ready(world: World, of: tuple[str, str, str], ready: bool) -> None:
    """Let the bound pods of a workload turn ready, or not be ready yet."""
    uid = world.cluster.objects[of]["metadata"]["uid"]
    for (kind, space, name), body in list(world.cluster.objects.items()):
        if kind == "Pod" and body["metadata"]["ownerReferences"][0]["uid"] == uid:
            world.cluster.edit("Pod", space, name, lambda pod: pod["status"]["conditions"][1].update(status=str(ready)))
    replicas = world.cluster.objects[of]["spec"]["replicas"] if ready else 0
    world.cluster.edit(*of, lambda live: live["status"].update(readyReplicas=replicas, availableReplicas=replicas))


@pytest.mark.parametrize(("before", "after", "old", "new"), DIRECTIONS)
async def test_the_old_pods_serve_until_the_new_ones_are_ready(
    before: dict[str, Any], after: dict[str, Any], old: tuple[str, str, str], new: tuple[str, str, str]
) -> None:
    world = await serving(4, before)
    served = answering(world)
    world.pods_run = False
    world.cluster.put(after)
    await world.settle()
    run_pods(world.cluster)
    make_ready(world, new, False)
    await world.settle()
    assert {old, new} <= world.cluster.objects.keys()
    assert answering(world) == served
    ready, progressing = world.condition("Ready"), world.condition("Progressing")
    assert (ready["status"], progressing["reason"]) == ("False", "RollingSurge")
    assert "of the previous revision still serve" in ready["message"]
    assert world.status()["activeRevision"]["workloadRef"]["kind"] == new[0]
    assert world.status()["activeRevision"]["readyReplicas"] == 0
    started = [e["note"] for e in world.cluster.events if e["reason"] == "RolloutStarted"]
    assert [note.startswith("Surge: GPUs for") for note in started] == [True]
    make_ready(world, new, True)
    world.pods_run = True
    await world.settle()
    assert old not in world.cluster.objects
    assert answering(world)
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("Progressing")["reason"] == "Complete"


@pytest.mark.parametrize(("before", "after", "old", "new"), DIRECTIONS)
async def test_at_no_write_does_nothing_answer(
    before: dict[str, Any], after: dict[str, Any], old: tuple[str, str, str], new: tuple[str, str, str]
) -> None:
    world = await serving(4, before)
    seen: list[int] = []
    world.cluster.listeners.append(lambda *_: seen.append(len(answering(world))))
    world.cluster.put(after)
    await world.settle()
    assert old not in world.cluster.objects
    assert min(seen) >= 1


@pytest.mark.parametrize("nodes", [2, 4])
@pytest.mark.parametrize(("before", "after", "old", "new"), DIRECTIONS)
async def test_a_crash_after_any_write_changes_nothing_of_the_end(
    before: dict[str, Any], after: dict[str, Any], old: tuple[str, str, str], new: tuple[str, str, str], nodes: int
) -> None:
    straight = await serving(nodes, before)
    counting = Faults(straight.cluster)
    straight.start(counting)
    straight.cluster.put(after)
    await patiently(straight)
    assert straight.condition("Ready")["status"] == "True", straight.condition("Ready")
    wanted = without_strategy(straight)
    for number in range(1, counting.count + 1):
        world = await serving(nodes, before)
        world.start(Faults(world.cluster, crash_after=number))
        world.cluster.put(after)
        with pytest.raises(CrashError):
            await patiently(world)
        world.start()
        await patiently(world)
        assert without_strategy(world) == wanted, f"crashed after write {number}"
        mark = world.mark
        world.start()
        await world.settle()
        assert world.writes_since(mark) == []


def without_strategy(world: World) -> dict[Any, Any]:
    """Return the end without the limits of the rolling update, which follow what was free at the moment."""
    found = copy.deepcopy(world.end_state())
    for (kind, _, _), body in found.items():
        if kind in ("Deployment", "LeaderWorkerSet"):
            body["spec"].pop("strategy", None)
            body["spec"].pop("rolloutStrategy", None)
            body["metadata"]["annotations"].pop("energylens.dev/applied-hash")
        if kind == "LLMDeployment":
            body["status"]["conditions"] = [
                {k: c[k] for k in ("type", "status", "reason")} for c in body["status"]["conditions"]
            ]
    return found


async def patiently(world: World) -> None:
    """Let time pass until nothing is left to be done."""
    for _ in range(6):
        await world.settle()
        world.clock.advance(200)


async def test_without_free_gpus_old_replicas_go_one_by_one_and_it_is_said() -> None:
    world = await serving(2, ONE)
    world.cluster.put(SEVERAL)
    world.pods_run = False
    await world.settle()
    run_pods(world.cluster)
    await world.settle()
    assert world.cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 1
    assert world.condition("Progressing")["reason"] == "RollingRecreate"
    (note,) = [e["note"] for e in world.cluster.events if e["reason"] == "RolloutStarted"]
    assert note.startswith("Recreate: too few GPUs are free")
    run_pods(world.cluster)
    assert "llama-0" in answering(world)
    # What became free gets time to be used before more goes.
    await world.settle()
    assert world.cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 1
    world.clock.advance(200)
    await world.settle()
    assert DEPLOYMENT not in world.cluster.objects
    world.pods_run = True
    await patiently(world)
    assert world.condition("Ready")["status"] == "True"


async def test_where_gpus_are_free_recreate_stops_an_old_replica_first() -> None:
    world = await serving(4, {**ONE, "spec": {**ONE["spec"], "rollout": {"strategy": "Recreate"}}})
    world.pods_run = False
    world.cluster.put({**SEVERAL, "spec": {**SEVERAL["spec"], "rollout": {"strategy": "Recreate"}}})
    await world.settle()
    assert world.cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 1


async def test_surge_waits_for_gpus_however_long() -> None:
    world = await serving(2, {**ONE, "spec": {**ONE["spec"], "rollout": {"strategy": "Surge"}}})
    world.cluster.put({**SEVERAL, "spec": {**SEVERAL["spec"], "rollout": {"strategy": "Surge"}}})
    await patiently(world)
    assert world.cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 2
    assert len(answering(world)) == 2
    assert world.condition("Ready")["reason"] == "Unschedulable"


async def test_a_surge_whose_gpus_were_taken_goes_on_by_recreating() -> None:
    world = await serving(4, ONE)
    world.pods_run = False
    world.cluster.put(SEVERAL)
    await world.settle()
    for name in ("h100-2", "h100-3"):
        world.cluster.remove("Node", "", name)
    world.pods_run = True
    await patiently(world)
    assert DEPLOYMENT not in world.cluster.objects
    assert world.condition("Ready")["status"] == "True"


async def test_old_pods_on_another_product_never_stop_for_new_ones_that_wait() -> None:
    world = cluster_of(2)
    for index in range(2):
        world.cluster.put(node(f"h200-{index}", "NVIDIA-H200"))
    old = {**ONE, "spec": {**ONE["spec"], "hardware": {"gpuProducts": ["NVIDIA-H200"]}}}
    world.cluster.put(old)
    await world.settle()
    world.pods_run = False
    world.cluster.put({**SEVERAL, "spec": {**SEVERAL["spec"], "hardware": {"gpuProducts": ["NVIDIA-H100-80GB-HBM3"]}}})
    await world.settle()
    world.cluster.remove("Node", "", "h100-1")
    world.pods_run = True
    await patiently(world)
    assert world.cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 2
    assert {"llama-0", "llama-1"} <= set(answering(world))


async def test_a_plan_that_moves_back_meanwhile_costs_nothing() -> None:
    world = await serving(4, ONE)
    before = {name for (kind, _, name) in world.cluster.objects if kind == "Pod"}
    world.pods_run = False
    world.cluster.put(SEVERAL)
    await world.settle()
    assert GROUPS in world.cluster.objects
    world.cluster.put(ONE)
    world.pods_run = True
    await patiently(world)
    assert GROUPS not in world.cluster.objects
    assert {name for (kind, _, name) in world.cluster.objects if kind == "Pod"} == before
    assert world.condition("Ready")["status"] == "True"


async def test_suspending_meanwhile_stops_both() -> None:
    world = await serving(4, ONE)
    world.pods_run = False
    world.cluster.put(SEVERAL)
    await world.settle()
    world.cluster.put({**SEVERAL, "spec": {**SEVERAL["spec"], "suspend": True}})
    await world.settle()
    assert DEPLOYMENT not in world.cluster.objects
    assert world.cluster.objects[GROUPS]["spec"]["replicas"] == 0


@pytest.mark.parametrize(
    "error", [ForbiddenError("may not delete"), TransientError("reset")], ids=lambda e: type(e).__name__
)
async def test_an_old_workload_that_cannot_be_removed_is_tried_again(error: Exception) -> None:
    world = await serving(4, ONE)
    faults = Faults(world.cluster)
    world.start(faults)
    delete, refusals = faults.delete, [error]

    async def refuse(*arguments: Any) -> None:
        if refusals:
            raise refusals.pop()
        await delete(*arguments)

    faults.delete = refuse  # type: ignore[assignment, method-assign]
    world.cluster.put(SEVERAL)
    await patiently(world)
    assert DEPLOYMENT not in world.cluster.objects
    assert world.condition("Ready")["status"] == "True"


async def test_while_both_run_the_one_of_more_power_counts() -> None:
    world = await serving(4, ONE)
    before = world.status()["plan"]["predicted"]["powerWatts"]
    world.pods_run = False
    world.cluster.put(SEVERAL)
    await world.settle()
    after = world.status()["plan"]["predicted"]["powerWatts"]
    body = world.store.deployments[KEY]
    held = world.reconciler._inventory.with_plan(KEY, body)["status"]["plan"]["predicted"]["powerWatts"]
    assert held == max(before, after)
    assert before != after
    # A restart between the two writes knows it from the workloads.
    world.start()
    assert world.reconciler._inventory.with_plan(KEY, body)["status"]["plan"]["predicted"]["powerWatts"] == held


@pytest.mark.parametrize("spec", [ONE, SEVERAL], ids=["Deployment", "LeaderWorkerSet"])
async def test_a_change_of_only_the_replicas_restarts_nothing(spec: dict[str, Any]) -> None:
    world = await serving(8, spec)
    old_hash, rollouts = world.status()["plan"]["hash"], events(world, "RolloutStarted")
    before = pods(world)
    more = copy.deepcopy(spec)
    more["spec"]["planning"]["overrides"]["replicas"] += 1
    world.cluster.put(more)
    await world.settle()
    assert world.status()["plan"]["hash"] != old_hash
    assert world.condition("Ready")["status"] == "True"
    assert before.items() < pods(world).items()
    world.cluster.put(spec)
    await world.settle()
    assert pods(world) == before
    assert events(world, "RolloutStarted") == rollouts
    assert world.status()["activeRevision"]["planHash"] == world.status()["plan"]["hash"]


def pods(world: World) -> dict[str, str]:
    return {name: body["metadata"]["uid"] for (kind, _, name), body in world.cluster.objects.items() if kind == "Pod"}


def events(world: World, reason: str) -> list[str]:
    return [event["note"] for event in world.cluster.events if event["reason"] == reason]
