"""A new plan is measured on one replica first, end to end in memory: followed, given up, interrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.fake_cluster import FakeCluster
from tests.support.fake_pods import H100, node
from tests.support.world import KEY, NAMESPACE, CrashError, Faults, World, llama, overrides

from energylens.api.llmdeployment import PlanStatus
from energylens.api.quantity import parse_quantity
from energylens.measure.types import LatencyQuantiles, WindowMeasurement
from energylens.planner.search.identity import action_hash

L40S = "NVIDIA-L40S"
ASKED: dict[str, Any] = {"rollout": {"verify": "Measured"}}
Rates = Callable[[dict[str, Any]], dict[str, float]]
RATE = 2.0
"""Requests per second of the example, each with 256 tokens."""


class Meter:
    """Measures the running pods and the replica beside them, each at its share of the load."""

    def __init__(self, world: World, rates: Rates) -> None:
        self.world, self.rates, self.load = world, rates, 1.0
        self.count: Callable[[], int] = lambda: len(canary_pods(self.world))
        """Replicas beside the running ones."""
        self.attach()

    def attach(self) -> None:
        self.world.reconciler.observing.measurements = lambda key, plan_hash: self._of("plan", plan_hash)
        self.world.reconciler.observing.canary_measurements = lambda key, plan_hash: self._of("canary", plan_hash)

    async def windows(self, count: int) -> None:
        for _ in range(count):
            self.world.clock.advance(600)
            await self.world.settle()

    def _of(self, which: str, plan_hash: str) -> WindowMeasurement | None:
        status = self.world.status()
        plan = status["plan"] if which == "plan" else status.get("verification", {}).get("plan")
        if plan is None or plan["hash"] != plan_hash:
            return None
        running, beside = status["plan"]["replicas"], self.count()
        share = (running if which == "plan" else beside) / (running + beside)
        found, end = self.rates(plan), self.world.clock.now().timestamp()
        # One window each 600 s.
        end -= end % 600
        return WindowMeasurement(
            "Measured",
            "measured",
            end - 600,
            end,
            100.0,
            energy_joules=1.0,
            output_tokens_per_second=self.load * RATE * 256 * share,
            requests_per_second=self.load * RATE * share,
            mean_running=8.0 * share,
            mean_waiting=0.0,
            joules_per_output_token=found["joules"],
            power_watts=500.0,
            latency=LatencyQuantiles(found.get("ttft", 50.0), found.get("itl", 10.0)),
        )


def canary(world: World) -> dict[str, Any] | None:
    kinds = ("Deployment", "LeaderWorkerSet")
    found = [world.cluster.objects.get((kind, NAMESPACE, "llama-canary")) for kind in kinds]
    return next((body for body in found if body is not None), None)


def canary_pods(world: World) -> list[dict[str, Any]]:
    label = "energylens.dev/role"
    pods = [body for (kind, _, _), body in world.cluster.objects.items() if kind == "Pod"]
    return [pod for pod in pods if pod["metadata"]["labels"].get(label) == "canary"]


def ours(world: World) -> set[str]:
    """Return the uids of the pods that are of no replica under verification."""
    names = {pod["metadata"]["name"] for pod in canary_pods(world)}
    pods = [body for (kind, _, _), body in world.cluster.objects.items() if kind == "Pod"]
    return {pod["metadata"]["uid"] for pod in pods if pod["metadata"]["name"] not in names}


def events(world: World) -> list[tuple[str, str]]:
    return [(event["reason"], event["note"]) for event in world.cluster.events]


def like_planned(plan: dict[str, Any]) -> dict[str, float]:
    """Measure the predicted energy, whatever the load."""
    return {"joules": float(parse_quantity(plan["predicted"]["joulesPerOutputToken"]))}


async def begun(rates: Rates = like_planned, **spec: Any) -> tuple[World, Meter]:
    """A deployment that runs on its first GPUs, and one replica of a plan for better ones beside it."""
    world = World()
    world.cluster.put(llama(**{**ASKED, **spec}))
    await world.settle()
    for index in range(2):
        world.cluster.put(node(f"better-{index}", L40S))
    world.clock.advance(7 * 86_400)
    meter = Meter(world, rates)
    await world.settle()
    return world, meter


def verified(world: World) -> tuple[str, str]:
    found = world.condition("PlanVerified")
    return found["status"], found["reason"]


async def test_one_replica_of_the_new_plan_serves_beside_the_running_ones() -> None:
    world, _ = await begun()
    status, body = world.status(), canary(world)
    assert status["plan"]["gpuProduct"] == H100
    assert status["verification"]["plan"]["gpuProduct"] == L40S
    assert body is not None
    assert body["spec"]["replicas"] == 1
    service = world.cluster.objects["Service", NAMESPACE, "llama"]["spec"]["selector"]
    (pod,) = canary_pods(world)
    assert service.items() <= pod["metadata"]["labels"].items()
    main = world.cluster.objects["Deployment", NAMESPACE, "llama"]
    assert body["spec"]["selector"] != main["spec"]["selector"]
    revision = "energylens.dev/revision"
    assert pod["metadata"]["labels"][revision] != main["spec"]["template"]["metadata"]["labels"][revision]
    assert verified(world) == ("Unknown", "Verifying")
    assert world.condition("PlanReady")["reason"] == "Verifying"
    assert world.condition("Ready")["status"] == "True"
    assert [reason for reason, _ in events(world)].count("VerificationStarted") == 1
    mark = world.mark
    await world.settle()
    assert world.writes_since(mark) == []


async def test_after_two_good_windows_all_replicas_follow() -> None:
    world, meter = await begun()
    before = ours(world)
    await meter.windows(1)
    assert world.status()["verification"]["goodWindows"] == 1
    assert ours(world) == before
    await meter.windows(1)
    status = world.status()
    assert status["plan"]["gpuProduct"] == L40S
    assert status["activeRevision"]["planHash"] == status["plan"]["hash"]
    assert canary(world) is None
    assert "plan" not in status["verification"]
    assert verified(world) == ("True", "Verified")
    adopted = [note for reason, note in events(world) if reason == "PlanAdopted"]
    assert adopted[-1].startswith("Verified: ")
    assert "J per output token at the planned load" in adopted[-1]
    world.start()
    meter.attach()
    mark = world.mark
    await world.settle()
    assert world.writes_since(mark) == []


def hungry(plan: dict[str, Any]) -> dict[str, float]:
    found = like_planned(plan)["joules"]
    return {"joules": 2 * found if plan["gpuProduct"] == L40S else found}


async def test_a_plan_that_takes_more_energy_is_given_up_and_not_tried_again() -> None:
    world, meter = await begun(hungry)
    before = ours(world)
    await meter.windows(3)
    status = world.status()
    assert status["plan"]["gpuProduct"] == H100
    assert ours(world) == before
    assert canary(world) is None
    (left,) = status["verification"]["givenUp"]
    assert (left["gpuProduct"], left["reason"]) == (L40S, "HigherEnergy")
    assert "the running plan" in left["message"]
    assert verified(world) == ("False", "GivenUp")
    assert left["message"] in world.condition("PlanVerified")["message"]
    notes = [event for event in world.cluster.events if event["reason"] == "PlanGivenUp"]
    assert [event["type"] for event in notes] == ["Warning"]
    assert notes[0]["note"].startswith("HigherEnergy: ")
    for _ in range(5):
        world.clock.advance(86_400)
        await meter.windows(2)
    world.start()
    meter.attach()
    await meter.windows(2)
    assert [reason for reason, _ in events(world)].count("VerificationStarted") == 1
    world.cluster.put(llama(**ASKED, slo={"itlMilliseconds": 400}))
    await world.settle()
    assert [reason for reason, _ in events(world)].count("VerificationStarted") == 2


async def test_a_plan_that_breaks_a_latency_is_given_up_with_its_figures() -> None:
    def slow(plan: dict[str, Any]) -> dict[str, float]:
        return like_planned(plan) | {"itl": 150.0 if plan["gpuProduct"] == L40S else 20.0}

    world, meter = await begun(slow, slo={"itlMilliseconds": 100})
    await meter.windows(3)
    (left,) = world.status()["verification"]["givenUp"]
    assert left["reason"] == "SLOViolation"
    assert "ITL P95 150 ms > 100 ms" in left["message"]
    assert world.status()["plan"]["gpuProduct"] == H100


async def test_a_window_is_counted_once_over_a_restart() -> None:
    world, meter = await begun()
    await meter.windows(1)
    for _ in range(3):
        world.start()
        meter.attach()
        await world.settle()
    status = world.status()
    assert status["verification"]["goodWindows"] == 1
    assert status["plan"]["gpuProduct"] == H100
    await meter.windows(1)
    assert world.status()["plan"]["gpuProduct"] == L40S


async def test_without_free_gpus_a_saving_waits_and_says_so() -> None:
    world = World()
    world.cluster.put(llama(**ASKED, hardware={"maxGPUs": 2}))
    await world.settle()
    for index in range(2):
        world.cluster.put(node(f"better-{index}", L40S))
    world.clock.advance(7 * 86_400)
    await world.settle()
    assert world.status()["plan"]["gpuProduct"] == H100
    assert canary(world) is None
    assert verified(world) == ("Unknown", "NoRoomToVerify")
    assert "spec.hardware.maxGPUs=2" in world.condition("PlanVerified")["message"]
    world.cluster.put(llama(**ASKED))
    await world.settle()
    assert verified(world) == ("Unknown", "Verifying")


async def test_without_free_gpus_a_plan_that_is_needed_is_followed_at_once_and_says_so() -> None:
    world = World()
    world.cluster.put(llama(**ASKED, hardware={"maxGPUs": 2}))
    await world.settle()
    world.cluster.put(llama(**ASKED, hardware={"maxGPUs": 2}, planning=overrides(maxBatchSize=16)))
    await world.settle()
    assert world.status()["plan"]["maxBatchSize"] == 16
    assert verified(world) == ("Unknown", "NotVerified")
    message = world.condition("PlanVerified")["message"]
    assert message.startswith("the running plan does not meet the spec, and no replica can be verified first: ")
    assert world.status()["activeRevision"]["maxBatchSize"] == 16


async def test_an_edit_in_the_middle_begins_anew_with_what_it_asks_for() -> None:
    world, meter = await begun()
    await meter.windows(1)
    first = world.status()["verification"]["plan"]["hash"]
    world.cluster.put(llama(**ASKED, planning=overrides(maxBatchSize=16)))
    await world.settle()
    memory = world.status()["verification"]
    assert memory["plan"]["hash"] != first
    assert memory["plan"]["maxBatchSize"] == 16
    assert memory["goodWindows"] == 0
    body = canary(world)
    assert body is not None
    assert "--max-num-seqs=16" in body["spec"]["template"]["spec"]["containers"][0]["args"]


async def test_an_edit_that_asks_for_what_runs_ends_it() -> None:
    world, _ = await begun()
    running = world.status()["plan"]["hash"]
    world.cluster.put(llama(**ASKED, hardware={"gpuProducts": [H100]}))
    await world.settle()
    assert world.status()["plan"]["hash"] == running
    assert canary(world) is None
    assert canary_pods(world) == []
    assert "plan" not in world.status()["verification"]


async def test_other_arguments_reach_one_replica_first_and_the_others_only_once_it_was_measured() -> None:
    world = World()
    world.cluster.put(llama(**ASKED))
    await world.settle()
    before = ours(world)
    meter = Meter(world, like_planned)
    world.cluster.put(llama(**ASKED, engine={"extraArgs": ["--seed=7"]}))
    await world.settle()
    assert ours(world) == before
    body = canary(world)
    assert body is not None
    assert "--seed=7" in body["spec"]["template"]["spec"]["containers"][0]["args"]
    await meter.windows(3)
    main = world.cluster.objects["Deployment", NAMESPACE, "llama"]
    assert "--seed=7" in main["spec"]["template"]["spec"]["containers"][0]["args"]
    assert verified(world) == ("True", "Verified")


async def test_another_model_is_not_mixed_behind_one_service() -> None:
    world = World()
    world.cluster.put(llama(**ASKED))
    await world.settle()
    world.cluster.put(llama(**ASKED, model={"name": "Qwen/Qwen3-8B"}))
    await world.settle()
    assert canary(world) is None
    assert verified(world) == ("Unknown", "NotVerified")
    assert "another model" in world.condition("PlanVerified")["message"]
    assert world.condition("Ready")["status"] == "True"


async def test_more_replicas_of_the_same_pods_need_no_verification() -> None:
    world = World()
    world.cluster.put(llama(**ASKED))
    await world.settle()
    world.cluster.put(llama(**ASKED, planning=overrides(replicas=3)))
    await world.settle()
    assert world.status()["plan"]["replicas"] == 3
    assert canary(world) is None


def not_ready(pod: dict[str, Any]) -> None:
    pod["status"].update(conditions=[{"type": "Ready", "status": "False"}], phase="Pending")


async def test_a_replica_that_never_becomes_ready_is_given_up_at_the_deadline() -> None:
    world, _ = await begun(rollout={"verify": "Measured", "progressDeadlineSeconds": 900})
    world.pods_run = False
    for pod in canary_pods(world):
        name = pod["metadata"]["name"]
        world.cluster.edit("Pod", NAMESPACE, name, not_ready)
    # It was ready for a moment in memory, and starts anew here.
    world.cluster.edit("LLMDeployment", *KEY, lambda live: live["status"]["verification"].pop("readyTime", None))
    world.start()
    await world.settle()
    assert verified(world) == ("Unknown", "Verifying")
    world.clock.advance(901)
    await world.settle()
    (left,) = world.status()["verification"]["givenUp"]
    assert left["reason"] == "ProgressDeadline"
    assert "was not ready within 900 s" in left["message"]
    assert canary(world) is None
    assert world.status()["plan"]["gpuProduct"] == H100


async def test_without_a_verdict_it_ends_and_is_tried_again_after_the_cooldown() -> None:
    world, meter = await begun()
    world.reconciler.observing.canary_measurements = lambda key, plan_hash: None
    for _ in range(10):
        world.clock.advance(600)
        await world.settle()
    (left,) = world.status()["verification"]["givenUp"]
    assert left["reason"] == "NotMeasured"
    assert canary(world) is None
    world.clock.advance(3600)
    await world.settle()
    assert canary(world) is not None
    meter.attach()
    await meter.windows(3)
    assert world.status()["plan"]["gpuProduct"] == L40S


async def test_an_approved_plan_is_verified_before_the_rest_follows() -> None:
    world = World()
    manual = {"mode": "Manual", **overrides()}
    world.cluster.put(llama(**ASKED, planning=manual))
    await world.settle()
    first = world.status()["plan"]["hash"]
    world.cluster.put(llama(**ASKED, planning={**manual, "approvedPlanHash": first}))
    await world.settle()
    changed = {"mode": "Manual", **overrides(maxBatchSize=16), "approvedPlanHash": first}
    world.cluster.put(llama(**ASKED, planning=changed))
    await world.settle()
    pending = world.status()["plan"]["hash"]
    assert pending != first
    assert canary(world) is None
    meter = Meter(world, like_planned)
    world.cluster.put(llama(**ASKED, planning={**changed, "approvedPlanHash": pending}))
    await world.settle()
    assert canary(world) is not None
    assert world.status()["plan"]["hash"] == first
    assert world.status()["verification"]["plan"]["hash"] == pending
    world.start()
    meter.attach()
    await meter.windows(3)
    assert world.status()["plan"]["hash"] == pending
    assert world.condition("Ready")["status"] == "True"
    assert verified(world) == ("True", "Verified")


async def test_a_budget_that_leaves_no_watts_for_one_more_replica_is_named() -> None:
    world, _ = await begun()
    watts = world.status()["plan"]["predicted"]["powerWatts"]
    assert canary(world) is not None
    world.cluster.put(
        {
            "apiVersion": "energylens.dev/v1alpha1",
            "kind": "EnergyBudget",
            "metadata": {"name": "cap", "namespace": NAMESPACE},
            "spec": {"powerWatts": watts + 1, "action": "Deny"},
        }
    )
    await world.look(KEY)
    assert canary(world) is None
    assert verified(world) == ("Unknown", "NoRoomToVerify")
    assert "EnergyBudget" in world.condition("PlanVerified")["message"]


async def test_budgets_and_others_count_the_replica() -> None:
    world, _ = await begun()
    body = world.store.deployments[KEY]
    inventory = world.reconciler._inventory
    planned, trial = body["status"]["plan"], body["status"]["verification"]["plan"]
    counted = inventory.with_plan(KEY, body)["status"]["plan"]
    assert counted["gpus"] == planned["gpus"] + 1
    share = -(-trial["predicted"]["powerWatts"] // trial["replicas"])
    assert counted["predicted"]["powerWatts"] == planned["predicted"]["powerWatts"] + share
    # A replica without its node yet keeps its GPU from others.
    (pod,) = canary_pods(world)
    world.cluster.edit("Pod", NAMESPACE, pod["metadata"]["name"], lambda live: live["spec"].pop("nodeName"))
    world.store.put_pod(world.cluster.objects["Pod", NAMESPACE, pod["metadata"]["name"]], deleted=False)
    free = sum(n.free_now for n in inventory.snapshot(("team", "other")).nodes if n.product == L40S)
    assert free == 15


@pytest.mark.parametrize("rates", [like_planned, hungry])
async def test_a_crash_after_any_write_ends_as_without_it(rates: Rates) -> None:
    straight, meter = await begun(rates)
    await meter.windows(4)
    for write in range(1, 12):
        world, meter = await begun(rates)
        await meter.windows(1)
        port = Faults(world.cluster, crash_after=write)
        world.start(port)
        meter.attach()
        world.clock.advance(600)
        try:
            await world.settle()
        except CrashError:
            world.start()
            meter.attach()
        port.disarm()
        await meter.windows(4)
        assert world.status()["plan"]["hash"] == straight.status()["plan"]["hash"], write
        assert canary(world) is None, write
        assert len(ours(world)) == 2, write
        assert world.condition("Ready")["status"] == "True", write
        if not port.count or port.count < write:
            break


async def test_asking_no_more_ends_it_and_the_plan_is_followed() -> None:
    world, _ = await begun()
    world.cluster.put(llama())
    await world.settle()
    assert world.status()["plan"]["gpuProduct"] == L40S
    assert canary(world) is None
    assert "verification" not in world.status()
    assert not [c for c in world.status()["conditions"] if c["type"] == "PlanVerified"]


async def test_a_replica_over_several_nodes_is_a_group_of_its_own() -> None:
    world = World(cluster=FakeCluster(served={"LeaderWorkerSet"}))
    for index in range(2, 6):
        world.cluster.put(node(f"h100-{index}"))
    world.cluster.put(llama(**ASKED, planning=overrides(tensorParallel=8, replicas=2)))
    await world.settle()
    before = ours(world)
    meter = Meter(world, like_planned)
    world.cluster.put(llama(**ASKED, planning=overrides(tensorParallel=8, pipelineParallel=2, replicas=1)))
    await world.settle()
    body = canary(world)
    assert body is not None
    assert body["kind"] == "LeaderWorkerSet"
    assert len(canary_pods(world)) == 2
    assert ours(world) == before
    service = world.cluster.objects["Service", NAMESPACE, "llama"]["spec"]["selector"]
    answering = [pod for pod in canary_pods(world) if service.items() <= pod["metadata"]["labels"].items()]
    assert len(answering) == 1
    # The figures of one replica: two pods, one engine.
    meter.count = lambda: 1
    await meter.windows(3)
    assert world.status()["activeRevision"]["workloadRef"]["kind"] == "LeaderWorkerSet"
    assert canary(world) is None
    assert verified(world) == ("True", "Verified")
    assert world.condition("Ready")["status"] == "True"


async def test_where_another_object_has_its_name_nothing_is_taken_over_and_the_pods_go_on() -> None:
    world = World()
    world.cluster.put(llama(**ASKED))
    world.cluster.put(llama("llama-canary"))
    await world.settle(KEY, (NAMESPACE, "llama-canary"))
    uid = world.cluster.objects["Deployment", NAMESPACE, "llama-canary"]["metadata"]["uid"]
    before = ours(world)
    world.cluster.put(llama(**ASKED, planning=overrides(maxBatchSize=16)))
    await world.settle()
    assert world.cluster.objects["Deployment", NAMESPACE, "llama-canary"]["metadata"]["uid"] == uid
    assert "llama-canary exists and does not belong to this LLMDeployment" in world.condition("Degraded")["message"]
    assert ours(world) == before


async def test_followed_load_is_that_of_all_pods() -> None:
    spec = {**ASKED, "planning": {"followLoad": "Auto"}}
    world, meter = await begun(**spec)
    assert canary(world) is not None
    await meter.windows(1)
    assert "changeTime" not in world.status()["load"], "half of the load is no lower load"
    assert world.status()["load"]["requestsPerSecond"] == "2000m"
    assert "belowSince" not in world.status()["load"]


async def test_what_was_verified_once_is_verified_again_after_another_plan() -> None:
    first, second = llama(**ASKED), llama(**ASKED, planning=overrides(maxBatchSize=16))
    world = World()
    world.cluster.put(first)
    await world.settle()
    meter = Meter(world, like_planned)
    world.cluster.put(second)
    await world.settle()
    await meter.windows(2)
    assert verified(world) == ("True", "Verified")
    # More of the same pods are as verified as they were.
    world.cluster.put(llama(**ASKED, planning=overrides(maxBatchSize=16, replicas=3)))
    await world.settle()
    assert verified(world) == ("True", "Verified")
    # Nothing runs that a plan could be measured beside.
    world.cluster.put({**first, "spec": {**first["spec"], "suspend": True}})
    await world.settle()
    world.cluster.put(first)
    await world.settle()
    assert world.status()["activeRevision"]["maxBatchSize"] == 64
    assert verified(world) == ("Unknown", "NotVerified")
    world.cluster.put(second)
    await world.settle()
    assert verified(world) == ("Unknown", "Verifying")


def another_plan(memory: dict[str, Any]) -> None:
    """A plan that nobody made, with the hash that it has."""
    memory["plan"]["maxBatchSize"] = 128
    memory["plan"]["hash"] = action_hash(PlanStatus.model_validate(memory["plan"]))


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "two windows": lambda memory: memory.update(goodWindows=2),
    "a negative number": lambda memory: memory.update(badWindows=-1),
    "another hash": lambda memory: memory["plan"].update(hash="f" * 16),
    "more GPUs": lambda memory: memory["plan"].update(gpus=64),
    "another plan": another_plan,
    "no plan": lambda memory: memory.pop("plan"),
    "a time to come": lambda memory: memory.update(startTime="2126-03-01T00:00:00Z"),
    "no time": lambda memory: memory.update(readyTime="soon"),
    "another type": lambda memory: memory.update(givenUp="none"),
}


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("name", EDITS)
async def test_an_edit_of_its_memory_moves_no_pod_and_makes_no_plan_followed(name: str, restart: bool) -> None:
    world, meter = await begun()
    before, wanted = ours(world), world.status()["verification"]["plan"]["hash"]

    def edit(live: dict[str, Any]) -> None:
        EDITS[name](live["status"]["verification"])

    world.cluster.edit("LLMDeployment", *KEY, edit)
    if restart:
        world.start()
        meter.attach()
    await world.settle()
    assert ours(world) == before
    status = world.status()
    assert status["plan"]["gpuProduct"] == H100
    assert status["verification"]["plan"]["hash"] == wanted
    assert status["verification"]["goodWindows"] == 0
    assert len(canary_pods(world)) == 1
