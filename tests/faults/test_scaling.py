"""A deployment whose replicas an autoscaler or a person sets, over writes of the scale subresource and restarts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_pods import run_pods
from tests.support.world import KEY, World, llama

from energylens.cluster.port import Object
from energylens.planner.explain import relaxations

FREE = {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}}


@pytest.fixture(autouse=True)
def without_nearest_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the nearest load out of the explanations: finding it took most of the time of this file."""
    monkeypatch.setattr(relaxations, "_loads", lambda *_: ())


def scaled(replicas: int, mode: str = "External", **changes: Any) -> Object:
    parts: dict[str, Any] = {"planning": FREE, "scaling": {"mode": mode}, "replicas": replicas}
    return llama(**parts | changes)


def put(world: World, body: Object) -> None:
    live = world.cluster.objects["LLMDeployment", *KEY]
    world.cluster.put(body | {"status": live["status"]})


def workload(world: World) -> Object:
    return world.cluster.objects["Deployment", *KEY]


def events(world: World, reason: str) -> list[str]:
    return [event["note"] for event in world.cluster.events if event["reason"] == reason]


async def start(replicas: int = 2, **changes: Any) -> World:
    world = World()
    world.cluster.put(scaled(replicas, **changes))
    await world.settle()
    return world


async def test_the_replicas_of_the_spec_run_and_the_layout_stays() -> None:
    world = await start(2)
    status, template = world.status(), workload(world)["spec"]["template"]
    assert (workload(world)["spec"]["replicas"], status["plan"]["replicas"], status["replicas"]) == (2, 2, 2)
    assert status["selector"] == "app.kubernetes.io/name=energylens-llm,energylens.dev/llmdeployment=llama"
    assert "for 2 requests per second the plan would have 1 replica" in world.condition("PlanReady")["message"]
    before = status["plan"]

    put(world, scaled(5))
    await world.settle()
    status = world.status()
    assert (workload(world)["spec"]["replicas"], status["plan"]["replicas"], status["replicas"]) == (5, 5, 5)
    assert workload(world)["spec"]["template"] == template
    assert (status["plan"]["hash"], status["plan"]["plannedReplicas"]) == (before["hash"], 1)
    assert status["plan"]["predicted"]["powerWatts"] > before["predicted"]["powerWatts"]
    (note,) = events(world, "ReplicasScaled")
    assert note.startswith("spec.replicas: 5 replicas instead of 2, ")
    assert not events(world, "RolloutStarted")


def start_pods(world: World, ready: int, unschedulable: str = "") -> None:
    """Create the pods of the workload, of which so many are ready and the others start, or wait for a node."""
    run_pods(world.cluster)
    scheduled: Object = {"type": "PodScheduled", "status": "True"}
    if unschedulable:
        scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable}
    serving = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    starting = {"phase": "Pending", "conditions": [scheduled, {"type": "Ready", "status": "False"}]}
    for index in range(workload(world)["spec"]["replicas"]):
        pod = world.cluster.objects["Pod", KEY[0], f"llama-{index}"]
        world.cluster.put({**pod, "status": serving if index < ready else starting})


async def test_replicas_that_an_autoscaler_adds_leave_the_deployment_ready() -> None:
    world = await start(2)
    world.pods_run = False
    put(world, scaled(5))
    await world.settle()
    start_pods(world, ready=2)
    await world.settle()
    ready, progressing = world.condition("Ready"), world.condition("Progressing")
    assert (ready["status"], ready["reason"]) == ("True", "PodsReady")
    assert ready["message"].startswith("2 of 5 replicas of plan ")
    assert ready["message"].endswith("are ready; the others start")
    assert (progressing["status"], progressing["reason"]) == ("True", "Starting")
    # The operator knows after a restart which replicas served before.
    start_pods(world, ready=4)
    world.start()
    await world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert not events(world, "BecameUnready")

    # One of the four that served fails: that is no start.
    start_pods(world, ready=3)
    await world.settle()
    assert world.condition("Ready")["status"] == "False"
    (note,) = events(world, "BecameUnready")
    assert "3 of 5 replicas" in note
    start_pods(world, ready=5)
    await world.settle()
    assert world.condition("Ready")["message"].startswith("5 of 5 replicas")


async def test_replicas_that_find_no_gpus_leave_the_deployment_ready_and_are_named() -> None:
    world = await start(2)
    world.pods_run = False
    put(world, scaled(4))
    await world.settle()
    start_pods(world, ready=2, unschedulable="0/2 nodes are available")
    await world.settle()
    for kind in ("Ready", "Progressing"):
        found = world.condition(kind)
        assert found["status"] == "True"
        assert found["message"].endswith("llama-2 waits for a node: 0/2 nodes are available")


async def test_fewer_replicas_leave_the_deployment_ready_while_others_stop() -> None:
    world = await start(4)
    world.pods_run = False
    put(world, scaled(1))
    await world.settle()
    assert world.condition("Ready")["message"].endswith("are ready; others stop")
    assert not events(world, "BecameUnready")


async def test_an_autoscaler_stops_the_last_replica_and_starts_it_again() -> None:
    zero = {"mode": "External", "minReplicas": 0, "startSeconds": 90, "startJoules": 9000}
    world = await start(2, scaling=zero)
    before, template = world.status()["plan"], workload(world)["spec"]["template"]
    message = world.condition("PlanReady")["message"]
    idle = before["predicted"]["idlePowerWatts"] / 2
    assert f"zero replicas save the {idle:.0f} W of the last idle one, which pays for the 9 kJ of a start" in message
    assert message.endswith("the next request waits about 90 s longer for its first token")
    watts = before["predicted"]["powerWatts"]
    world.meter = {KEY: watts}
    cap = {"apiVersion": "energylens.dev/v1alpha1", "kind": "EnergyBudget", "spec": {"powerWatts": 10 * watts}}
    world.cluster.put({**cap, "metadata": {"name": "cap", "namespace": "team"}})
    await world.look()

    put(world, scaled(0, scaling=zero))
    await world.look(seconds=60)
    await world.look(seconds=60)
    status, ready = world.status(), world.condition("Ready")
    assert (workload(world)["spec"]["replicas"], status["replicas"]) == (0, 0)
    assert (ready["status"], ready["reason"]) == ("False", "ScaledToZero")
    assert world.condition("PlanReady")["reason"] == "Planned"
    assert status["plan"]["hash"] == before["hash"]
    assert world.cluster.objects["EnergyBudget", "team", "cap"]["status"]["committedPowerWatts"] == 0
    assert not [name for kind, _, name in world.cluster.objects if kind == "Pod"]
    mark = world.mark
    await world.settle()
    world.start()
    await world.settle()
    assert not world.writes_since(mark)

    put(world, scaled(1, scaling=zero))
    await world.settle()
    assert (workload(world)["spec"]["replicas"], world.condition("Ready")["status"]) == (1, "True")
    assert workload(world)["spec"]["template"] == template
    assert [note.split(",")[0] for note in events(world, "ReplicasScaled")] == [
        "spec.replicas: 0 replicas instead of 2",
        "spec.replicas: 1 replica instead of 0",
    ]
    assert not events(world, "BecameUnready")
    assert not events(world, "RolloutStarted")


async def test_a_deployment_at_zero_leaves_its_gpus_to_others() -> None:
    zero = {"mode": "External", "minReplicas": 0}
    world = World()
    full = {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}}
    world.cluster.put(scaled(0, scaling=zero))
    world.cluster.put({**scaled(16, planning=full), "metadata": {"name": "other", "namespace": "team"}})
    other = ("team", "other")
    await world.settle(KEY, other)
    assert world.condition("Ready", other)["status"] == "True"
    assert len([name for kind, _, name in world.cluster.objects if kind == "Pod"]) == 16


async def test_all_replicas_of_the_first_start_are_needed() -> None:
    world = World(pods_run=False)
    world.cluster.put(scaled(3))
    await world.settle()
    start_pods(world, ready=2)
    await world.settle()
    assert world.condition("Ready")["status"] == "False"


async def test_nothing_is_written_while_the_spec_stays() -> None:
    world = await start(3)
    mark = world.mark
    for _ in range(4):
        world.clock.advance(1200)
        await world.settle()
    world.start()
    await world.settle()
    assert not world.writes_since(mark)


async def test_a_budget_leaves_fewer_replicas_than_the_spec_asks_for_and_the_spec_stays() -> None:
    world = await start(2)
    watts = world.status()["plan"]["predicted"]["powerWatts"]
    world.meter = {KEY: watts}
    limits = {"powerWatts": watts + 5, "action": "Deny"}
    cap = {"apiVersion": "energylens.dev/v1alpha1", "kind": "EnergyBudget", "spec": limits}
    world.cluster.put({**cap, "metadata": {"name": "cap", "namespace": "team"}})
    await world.look()
    put(world, scaled(6))
    await world.look(seconds=30)
    assert workload(world)["spec"]["replicas"] == 2
    assert world.cluster.objects["LLMDeployment", *KEY]["spec"]["replicas"] == 6
    condition = world.condition("PlanReady")
    assert condition["reason"] == "BudgetExceeded"
    assert condition["message"].startswith("spec.replicas=6 needs ")
    assert condition["message"].endswith(": 2 replicas run")

    world.cluster.put(
        {**cap, "spec": limits | {"powerWatts": 20 * watts}, "metadata": {"name": "cap", "namespace": "team"}}
    )
    await world.look(seconds=30)
    await world.look(seconds=30)
    assert workload(world)["spec"]["replicas"] == 6
    assert world.condition("PlanReady")["reason"] == "Planned"


async def test_replicas_follow_the_spec_where_no_plan_sustains_the_stated_load() -> None:
    world = await start(2)
    workload_part = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": 9000}
    put(world, scaled(3, workload=workload_part))
    await world.settle()
    assert workload(world)["spec"]["replicas"] == 3
    assert world.condition("PlanReady")["reason"] == "LoadTooHigh"


async def test_a_fixed_number_of_replicas_is_a_constraint_of_the_plan() -> None:
    world = await start(3, mode="Fixed")
    status = world.status()
    assert (status["plan"]["replicas"], workload(world)["spec"]["replicas"]) == (3, 3)
    assert "plannedReplicas" not in status["plan"]
    put(world, scaled(4, mode="Fixed"))
    await world.settle()
    assert workload(world)["spec"]["replicas"] == 4


async def test_the_plan_decides_again_when_the_mode_is_left() -> None:
    world = await start(5)
    template = workload(world)["spec"]["template"]
    put(world, llama(planning=FREE))
    world.clock.advance(4000)
    await world.settle()
    assert (workload(world)["spec"]["replicas"], world.status()["plan"]["replicas"]) == (1, 1)
    assert workload(world)["spec"]["template"] == template
