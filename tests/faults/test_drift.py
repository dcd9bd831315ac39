"""What follows from an error, end to end in memory: corrections that plans learn from, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.fake_pods import node
from tests.support.world import KEY, World, llama

from energylens.api.quantity import parse_quantity
from energylens.cluster.errors import BusyError
from energylens.controller.writing.corrections_store import load_pool, store_pool
from energylens.decide.learned.corrections import Pool
from energylens.measure.types import LatencyQuantiles, WindowMeasurement
from energylens.planner.explain import relaxations

L40S = "NVIDIA-L40S"
NAMESPACE = "energylens-system"
ROLLBACK = {"onDrift": "Rollback"}
Rates = Callable[[dict[str, Any]], dict[str, float]]


class Meter:
    """Measures what a test says of each plan, one window per call of `window`, at the load of the plan."""

    def __init__(self, world: World, rates: Rates) -> None:
        self.world = world
        self.rates = rates
        self.end = 1000.0
        self.attach()

    def attach(self) -> None:
        self.world.reconciler.observing.measurements = self._latest

    async def windows(self, count: int) -> None:
        for _ in range(count):
            self.end += 600.0
            self.world.clock.advance(600)
            await self.world.settle()

    def _latest(self, key: tuple[str, str], plan_hash: str) -> WindowMeasurement | None:
        plan = self.world.status()["plan"]
        if plan["hash"] != plan_hash:
            return None
        found, load = self.rates(plan), plan["predicted"]["outputTokensPerSecond"]
        return WindowMeasurement(
            "Measured",
            "measured",
            self.end - 600,
            self.end,
            100.0,
            energy_joules=1.0,
            output_tokens_per_second=load * found.get("load", 1.0),
            joules_per_output_token=found["joules"],
            power_watts=found.get("watts", 500.0),
            latency=LatencyQuantiles(found.get("ttft", 50.0), found.get("itl", 10.0)),
        )


def joules(plan: dict[str, Any]) -> float:
    return float(parse_quantity(plan["predicted"]["joulesPerOutputToken"]))


async def serving(**spec: Any) -> World:
    world = World()
    world.cluster.put(llama(**spec))
    await world.settle()
    return world


def pods(world: World) -> set[str]:
    return {body["metadata"]["uid"] for (kind, _, _), body in world.cluster.objects.items() if kind == "Pod"}


async def test_an_error_is_only_reported_by_default() -> None:
    world = await serving()
    before = joules(world.status()["plan"])
    await Meter(world, lambda plan: {"joules": 1.5 * before}).windows(3)
    assert world.condition("PredictionAccurate")["reason"] == "OutsideTolerance"
    assert joules(world.status()["plan"]) == before
    assert "correction" not in world.status()["prediction"]
    assert "rollback" not in world.status()


async def test_recalibration_moves_the_prediction_to_the_measurement_and_touches_no_pod() -> None:
    world = await serving(validation={"onDrift": "Recalibrate"})
    plan, running = world.status()["plan"], pods(world)
    true = 1.5 * joules(plan)
    await Meter(world, lambda plan: {"joules": true, "watts": 600.0}).windows(6)
    status = world.status()
    assert status["plan"]["hash"] == plan["hash"]
    assert pods(world) == running
    assert abs(joules(status["plan"]) / true - 1) < 0.07
    assert world.condition("PredictionAccurate")["reason"] == "WithinTolerance"
    learned = status["prediction"]["correction"]
    assert (learned["gpuProduct"], learned["layout"]) == (plan["gpuProduct"], "TP1")
    assert 1.4 < float(parse_quantity(learned["energy"])) < 1.6
    assert 5 <= learned["windows"] <= 6
    assert status["plan"]["correction"]["energy"] != "1000m"


@pytest.mark.parametrize("most", [None, "running"])
async def test_steps_that_were_measured_to_be_slower_stop_no_pod(most: str | None, monkeypatch: Any) -> None:
    monkeypatch.setattr(relaxations, "_loads", lambda *_: ())
    spec: dict[str, Any] = {
        "validation": {"onDrift": "Recalibrate"},
        "planning": {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}},
        "workload": {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "60"},
    }
    world = await serving(**spec)
    plan, running = world.status()["plan"], pods(world)
    if most is not None:
        # No plan of more replicas is allowed.
        live = world.cluster.objects["LLMDeployment", *KEY]
        body = llama(**spec, hardware={"maxGPUs": plan["gpus"]})
        world.cluster.put({**body, "status": live["status"]})
        await world.settle()
        assert world.status()["plan"]["hash"] == plan["hash"]
    slow = 1.9 * plan["predicted"]["itlMilliseconds"]
    await Meter(world, lambda plan: {"joules": joules(plan), "itl": slow}).windows(8)
    status, ready, found = world.status(), world.condition("Ready"), world.condition("PlanReady")
    assert float(parse_quantity(status["prediction"]["correction"]["itl"])) > 1.5
    assert running <= pods(world)
    assert ready["status"] == "True"
    if most is None:
        assert status["plan"]["replicas"] > plan["replicas"]
        assert found["status"] == "True"
    else:
        assert status["plan"]["replicas"] == plan["replicas"]
        assert (found["status"], found["reason"]) == ("False", "LoadTooHigh")
        assert found["message"].endswith("; the running plan stays")


async def test_the_same_window_is_learned_from_once_whatever_the_number_of_passes() -> None:
    world = await serving(validation={"onDrift": "Recalibrate"})
    meter = Meter(world, lambda plan: {"joules": 1.5})
    await meter.windows(1)
    learned = world.status()["prediction"]["correction"]
    mark = world.mark
    for _ in range(3):
        await world.settle()
    assert world.status()["prediction"]["correction"] == learned
    assert world.writes_since(mark) == []


async def test_a_window_is_learned_from_once_though_its_status_is_written_late() -> None:
    world = await serving(validation={"onDrift": "Recalibrate"})
    write, failures = world.cluster.apply_status, [1, 2]

    async def busy(manifest: Any) -> Any:
        if failures:
            failures.pop()
            raise BusyError("try later", 1.0)
        return await write(manifest)

    world.cluster.apply_status = busy  # type: ignore[method-assign]
    await Meter(world, lambda plan: {"joules": 1.5}).windows(1)
    assert failures == []
    assert world.status()["prediction"]["correction"]["windows"] == 1


async def test_a_window_at_another_load_teaches_nothing() -> None:
    world = await serving(validation={"onDrift": "Recalibrate"})
    await Meter(world, lambda plan: {"joules": 5.0, "load": 0.3}).windows(3)
    assert "correction" not in world.status()["prediction"]
    assert world.condition("PredictionAccurate")["reason"] == "LoadDiffers"


async def test_a_restart_knows_what_was_learned_and_writes_nothing() -> None:
    world = await serving(validation={"onDrift": "Recalibrate"})
    meter = Meter(world, lambda plan: {"joules": 1.5})
    await meter.windows(4)
    await store_pool(world.cluster, NAMESPACE, world.reconciler._learning.pool)
    status, mark = world.status(), world.mark
    world.start()
    await load_pool(world.cluster, NAMESPACE, world.reconciler._learning.pool)
    meter.attach()
    await world.settle()
    assert world.status() == status
    assert world.writes_since(mark) == []


async def test_no_more_recalibration_takes_the_correction_back() -> None:
    world = await serving(validation={"onDrift": "Recalibrate"})
    before = joules(world.status()["plan"])
    await Meter(world, lambda plan: {"joules": 2 * before}).windows(4)
    assert joules(world.status()["plan"]) > 1.5 * before
    world.cluster.put(llama(validation={"onDrift": "Report"}))
    await world.settle()
    assert joules(world.status()["plan"]) == before
    assert "correction" not in world.status()["plan"]


async def test_nothing_learned_is_not_stored_and_what_is_unreadable_is_learned_anew() -> None:
    world, pool = World(), Pool()
    await store_pool(world.cluster, NAMESPACE, pool)
    await load_pool(world.cluster, NAMESPACE, pool)
    assert world.mark == 0
    pool.changed = True
    await store_pool(world.cluster, NAMESPACE, pool)
    assert (pool.changed, world.mark) == (False, 1)
    (body,) = [body for (kind, _, _), body in world.cluster.objects.items() if kind == "ConfigMap"]
    body["data"] = {"corrections.json": "{"}
    again = Pool()
    await load_pool(world.cluster, NAMESPACE, again)
    assert again == Pool(stored=True)


async def test_whoever_deletes_the_config_map_lets_the_operator_forget() -> None:
    world = await serving(validation={"onDrift": "Recalibrate"})
    before = joules(world.status()["plan"])
    pool, meter = world.reconciler._learning.pool, Meter(world, lambda plan: {"joules": 2 * before})
    await meter.windows(4)
    await store_pool(world.cluster, NAMESPACE, pool)
    assert joules(world.status()["plan"]) > 1.5 * before
    world.cluster.remove("ConfigMap", NAMESPACE, "energylens-corrections")
    await store_pool(world.cluster, NAMESPACE, pool)
    assert pool.stored, "nothing was learned since, so nothing is written or looked at"
    meter.rates = lambda plan: {"joules": before}
    await meter.windows(1)
    await store_pool(world.cluster, NAMESPACE, pool)
    world.reconciler.observing.measurements = lambda key, plan_hash: None
    await world.settle()
    assert (pool.stored, pool.changed) == (False, False)
    assert joules(world.status()["plan"]) == before
    assert "correction" not in world.status()["plan"]


async def switched(validation: dict[str, Any], **spec: Any) -> World:
    """A deployment that was measured at 0.3 J on its first GPUs, and then moved to better ones for the same spec."""
    world = await serving(validation=validation, **spec)
    first = world.status()["plan"]["gpuProduct"]
    await Meter(world, lambda plan: {"joules": 0.3}).windows(2)
    for index in range(2):
        world.cluster.put(node(f"better-{index}", L40S))
    world.clock.advance(7 * 86_400)
    world.reconciler.observing.measurements = lambda key, plan_hash: None
    await world.settle()
    assert world.status()["plan"]["gpuProduct"] == L40S != first
    return world


def worse(plan: dict[str, Any]) -> dict[str, float]:
    return {"joules": 0.4 if plan["gpuProduct"] == L40S else 0.3}


async def test_a_plan_that_costs_more_energy_than_the_one_before_is_given_up_once_and_for_all() -> None:
    world = await switched(ROLLBACK)
    left = world.status()["plan"]["hash"]
    meter = Meter(world, worse)
    await meter.windows(1)
    assert world.status()["plan"]["hash"] == left, "one window is not enough"
    await meter.windows(1)
    status = world.status()
    assert status["plan"]["gpuProduct"] != L40S
    assert world.condition("PlanReady")["reason"] == "RolledBack"
    (rejected,) = status["rollback"]["rejectedPlans"]
    assert (rejected["hash"], rejected["reason"]) == (left, "HigherEnergy")
    assert "0.4 J per output token measured, the previous plan 0.3 J" in rejected["message"]
    notes = [event for event in world.cluster.events if event["reason"] == "PlanRolledBack"]
    assert [event["type"] for event in notes] == ["Warning"]
    assert notes[0]["note"].startswith("HigherEnergy: back to 2 x NVIDIA-H100-80GB-HBM3 TP1")
    hashes = set()
    for _ in range(10):
        world.clock.advance(86_400)
        await meter.windows(2)
        hashes.add(world.status()["plan"]["hash"])
    assert hashes == {status["plan"]["hash"]}, "it flaps"
    world.start()
    meter.attach()
    await world.settle()
    assert world.status()["plan"]["hash"] == status["plan"]["hash"]


async def test_the_spec_is_tried_anew_when_what_is_asked_for_changes() -> None:
    world = await switched(ROLLBACK)
    await Meter(world, worse).windows(2)
    assert world.status()["plan"]["gpuProduct"] != L40S
    world.cluster.put(llama(validation=ROLLBACK, slo={"itlMilliseconds": 400}))
    world.clock.advance(7 * 86_400)
    world.reconciler.observing.measurements = lambda key, plan_hash: None
    await world.settle()
    assert world.status()["plan"]["gpuProduct"] == L40S


async def test_a_plan_that_breaks_the_objective_is_given_up() -> None:
    world = await switched({}, slo={"itlMilliseconds": 100}, rollout={"rollbackOn": ["SLOViolation"]})
    meter = Meter(world, lambda plan: {"joules": 0.2, "itl": 150.0 if plan["gpuProduct"] == L40S else 20.0})
    await meter.windows(2)
    status = world.status()
    assert status["plan"]["gpuProduct"] != L40S
    assert status["rollback"]["rejectedPlans"][0]["reason"] == "SLOViolation"
    assert "ITL P95 150 ms > 100 ms" in status["rollback"]["rejectedPlans"][0]["message"]


async def test_only_what_was_asked_for_rolls_back() -> None:
    world = await switched({}, rollout={"rollbackOn": ["SLOViolation"]})
    await Meter(world, worse).windows(4)
    assert world.status()["plan"]["gpuProduct"] == L40S


async def test_a_better_plan_becomes_the_good_one() -> None:
    world = await switched(ROLLBACK)
    await Meter(world, lambda plan: {"joules": 0.25}).windows(2)
    good = world.status()["rollback"]["lastGoodPlan"]
    assert good["plan"]["gpuProduct"] == L40S
    assert good["joulesPerOutputToken"] == "250m"
    assert "trial" not in world.status()["rollback"]


async def test_another_load_is_no_verdict() -> None:
    world = await switched(ROLLBACK)
    await Meter(world, lambda plan: {"joules": 0.9, "load": 0.2}).windows(5)
    assert world.status()["plan"]["gpuProduct"] == L40S
    assert "trial" not in world.status()["rollback"]


async def test_a_good_window_between_two_bad_ones_starts_the_count_anew() -> None:
    world = await switched(ROLLBACK)
    figures = iter([0.4, 0.3, 0.4, 0.3, 0.4])
    meter = Meter(world, worse)
    for joules_per_token in figures:
        meter.rates = lambda plan, now=joules_per_token: {"joules": now}  # type: ignore[misc]
        await meter.windows(1)
    assert world.status()["plan"]["gpuProduct"] == L40S


async def test_without_gpus_for_the_plan_before_the_new_one_stays() -> None:
    world = await switched(ROLLBACK)
    for key in [key for key in world.cluster.objects if key[0] == "Node" and key[2].startswith("h100")]:
        world.store.put_node(world.cluster.objects.pop(key), deleted=True)
    await Meter(world, worse).windows(4)
    assert world.status()["plan"]["gpuProduct"] == L40S
    assert world.status()["rollback"]["trial"]["badWindows"] >= 2
    said = world.condition("Degraded")
    assert (said["status"], said["reason"]) == ("True", "CannotRollBack")
    assert "the previous plan, 2 x NVIDIA-H100-80GB-HBM3 TP1" in said["message"]
    assert "is not possible: " in said["message"]


async def test_a_plan_that_waits_for_approval_is_not_rolled_back() -> None:
    world = await serving(validation=ROLLBACK, planning={"mode": "Manual"})
    await Meter(world, lambda plan: {"joules": 0.3}).windows(2)
    assert "rollback" not in world.status()
