"""Volume claims and events are asked for when they matter; that they may not be read is said, and stops nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_cluster import FakeCluster
from tests.support.fake_pods import node
from tests.support.world import KEY, NAMESPACE, World, llama, overrides

from energylens.cluster.errors import ForbiddenError
from energylens.cluster.resources import EVENT, PERSISTENT_VOLUME_CLAIM

CACHE = {"name": "meta-llama/Llama-3.1-8B-Instruct", "cache": {"persistentVolumeClaim": "models"}}
SEVERAL = llama(planning=overrides(tensorParallel=8, pipelineParallel=2, replicas=1))
QUOTA = 'pods "llama-group-0" is forbidden: exceeded quota: gpus'


def claim(*modes: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models", "namespace": NAMESPACE},
        "spec": {"accessModes": list(modes)},
    }


def cached(seed: int, replicas: int = 1) -> dict[str, Any]:
    engine = {"extraArgs": [f"--seed={seed}"]}
    return llama(model=CACHE, engine=engine, planning=overrides(replicas=replicas))


def told(world: World, reason: str) -> list[str]:
    return [event["note"] for event in world.cluster.events if event["reason"] == reason]


@pytest.mark.parametrize(("mode", "surge"), [("ReadWriteOncePod", 0), ("ReadWriteOnce", 0), ("ReadWriteMany", 1)])
async def test_a_rollout_waits_for_no_claim_that_old_pods_hold(mode: str, surge: int) -> None:
    world = World()
    world.cluster.put(claim(mode))
    world.cluster.put(cached(1))
    await world.settle()
    world.cluster.put(cached(2))
    await world.settle()
    rolling = world.cluster.objects["Deployment", *KEY]["spec"]["strategy"]["rollingUpdate"]
    assert rolling["maxSurge"] == surge
    (note,) = told(world, "RolloutStarted")
    assert (f"claim models is {mode}" in note) is (surge == 0)
    assert world.condition("Ready")["status"] == "True"


async def test_more_pods_than_may_mount_a_claim_are_refused_and_what_runs_stays() -> None:
    world = World()
    world.cluster.put(claim("ReadWriteOncePod"))
    world.cluster.put(cached(1))
    await world.settle()
    world.cluster.put(cached(1, replicas=2))
    await world.settle()
    plan_ready = world.condition("PlanReady")
    assert (plan_ready["status"], plan_ready["reason"]) == ("False", "ClaimNotShareable")
    assert "spec.model.cache.persistentVolumeClaim=models is ReadWriteOncePod" in plan_ready["message"]
    assert world.cluster.objects["Deployment", *KEY]["spec"]["replicas"] == 1
    world.cluster.put(claim("ReadWriteMany"))
    await world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert world.cluster.objects["Deployment", *KEY]["spec"]["replicas"] == 2


class Unreadable(FakeCluster):
    """May read neither claims nor events."""

    async def get(self, resource: Any, namespace: str, name: str) -> Any:
        if resource is PERSISTENT_VOLUME_CLAIM:
            raise ForbiddenError("persistentvolumeclaims is forbidden")
        return await super().get(resource, namespace, name)

    async def list_objects(self, resource: Any, **asked: Any) -> Any:
        if resource is EVENT:
            raise ForbiddenError("events is forbidden")
        return await super().list_objects(resource, **asked)


async def test_a_claim_that_may_not_be_read_is_said_and_stops_nothing() -> None:
    world = World(cluster=Unreadable())
    world.cluster.put(cached(1))
    await world.settle()
    world.cluster.put(cached(2))
    await world.settle()
    (note,) = told(world, "RolloutStarted")
    assert note.endswith("whether claim models may be shared is not known: persistentvolumeclaims is forbidden")
    assert world.condition("Ready")["status"] == "True"


def failed_create(about: str, note: str, at: str) -> dict[str, Any]:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{about}.{at}", "namespace": NAMESPACE},
        "reason": "FailedCreate",
        "type": "Warning",
        "note": note,
        "eventTime": None,
        "deprecatedLastTimestamp": at,
        "regarding": {"kind": "StatefulSet", "name": about, "namespace": NAMESPACE},
    }


async def refused(world: World) -> World:
    for index in range(2, 4):
        world.cluster.put(node(f"h100-{index}"))
    world.pods_run = False
    world.cluster.put(SEVERAL)
    await world.settle()
    return world


@pytest.mark.parametrize("about", ["llama-group", "llama-group-0"], ids=["leaders", "followers"])
async def test_why_the_pods_of_a_group_cannot_be_created_is_in_its_events(about: str) -> None:
    world = await refused(World(cluster=FakeCluster(served={"LeaderWorkerSet"})))
    assert world.condition("Ready")["reason"] == "PodsNotReady"
    world.cluster.put(failed_create("llama-group-extra", "another object's", "2026-03-01T00:00:09Z"))
    world.cluster.put(failed_create(about, "an older one", "2026-02-28T23:59:00Z"))
    world.cluster.put(failed_create(about, QUOTA, "2026-03-01T00:00:01Z"))
    again = await world.reconciler.reconcile(KEY)
    for kind in ("Ready", "Degraded"):
        assert world.condition(kind)["reason"] == "PodsRefused"
        assert world.condition(kind)["message"].endswith(f"pods cannot be created: FailedCreate: {QUOTA}")
    # No watch tells of events.
    assert again is not None
    assert again <= 30
    world.pods_run = True
    await world.settle()
    assert world.condition("Degraded")["status"] == "False"


async def test_what_was_refused_long_ago_is_not_told_again() -> None:
    world = await refused(World(cluster=FakeCluster(served={"LeaderWorkerSet"})))
    world.cluster.put(failed_create("llama-group", QUOTA, "2026-02-28T22:00:00Z"))
    await world.reconciler.reconcile(KEY)
    assert world.condition("Ready")["reason"] == "PodsNotReady"


async def test_events_that_may_not_be_read_are_said_and_stop_nothing() -> None:
    world = await refused(World(cluster=Unreadable(served={"LeaderWorkerSet"})))
    assert "events, which may say why, cannot be read: events is forbidden" in world.condition("Ready")["message"]
    assert world.condition("Degraded")["status"] == "False"
    world.pods_run = True
    await world.settle()
    assert world.condition("Ready")["status"] == "True"


async def test_a_volume_that_cannot_be_mounted_is_told_of() -> None:
    world = World()
    world.cluster.put(llama(planning=overrides(replicas=1)))
    await world.settle()

    def creating(pod: dict[str, Any]) -> None:
        pod["metadata"]["creationTimestamp"] = "2026-03-01T00:00:00Z"
        waiting = {"waiting": {"reason": "ContainerCreating"}}
        pod["status"]["containerStatuses"] = [{"name": "engine", "ready": False, "state": waiting}]
        pod["status"]["conditions"][1] = {"type": "Ready", "status": "False"}

    world.pods_run = False
    world.cluster.edit("Pod", NAMESPACE, "llama-0", creating)
    world.cluster.edit("Deployment", *KEY, lambda live: live["status"].update(readyReplicas=0))
    event = failed_create("llama-0", "Multi-Attach error for volume pvc-1", "2026-03-01T00:00:30Z")
    world.cluster.put({**event, "reason": "FailedAttachVolume", "regarding": {"kind": "Pod", "name": "llama-0"}})
    late = failed_create("llama-0", "0/2 nodes are available", "2026-03-01T00:00:31Z")
    world.cluster.put({**late, "reason": "FailedScheduling", "regarding": {"kind": "Pod", "name": "llama-0"}})
    again = await world.reconciler.reconcile(KEY)
    assert again is not None
    assert again <= 30
    assert world.condition("Degraded")["status"] == "False"
    world.clock.advance(31)
    await world.reconciler.reconcile(KEY)
    assert world.condition("Degraded")["reason"] == "PodsFailing"
    assert "llama-0: FailedAttachVolume: Multi-Attach error for volume pvc-1" in world.condition("Ready")["message"]
