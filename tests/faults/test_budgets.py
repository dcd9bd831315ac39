"""Budgets of a whole operator in memory: shedding and its end, what cannot be checked, and the ledger over crashes."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from itertools import count as count_from
from itertools import pairwise
from typing import Any

import pytest
from tests.support.metrics_page import scrape
from tests.support.world import NAMESPACE, CrashError, Faults, World, llama, overrides

from energylens.cluster.errors import ForbiddenError, TransientError
from energylens.cluster.resources import Resource
from energylens.controller.energy.budget_looks import BudgetLooks
from energylens.controller.state.store import Key
from energylens.decide.deployment.reports.status import is_unplanned

LOW, HIGH = (NAMESPACE, "low"), (NAMESPACE, "high")


@pytest.fixture
def world() -> World:
    return World()


def budget(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": "cap", "namespace": NAMESPACE},
        "spec": spec,
    }


def status(world: World, kind: str = "EnergyBudget", namespace: str = NAMESPACE) -> dict[str, Any]:
    found: dict[str, Any] = world.cluster.objects[kind, namespace, "cap"].get("status", {})
    return found


def verdict(world: World, kind: str) -> tuple[str, str]:
    (found,) = [c for c in status(world)["conditions"] if c["type"] == kind]
    return found["status"], found["reason"]


async def two(world: World, **low: Any) -> int:
    """Let two deployments of two replicas run; return their power together, W."""
    world.cluster.put(llama("low", energy={"priority": -1}, **low))
    world.cluster.put(llama("high"))
    await world.settle(LOW, HIGH)
    return watts(world, LOW) + watts(world, HIGH)


def watts(world: World, key: Key) -> int:
    found: int = world.status(key)["plan"]["predicted"]["powerWatts"]
    return found


def replicas(world: World, key: Key) -> int:
    found: int = world.cluster.objects["Deployment", *key]["spec"]["replicas"]
    return found


async def test_shedding_takes_replicas_from_the_lowest_priority_and_gives_them_back(world: World) -> None:
    total = await two(world)
    pods = {name for kind, _, name in world.cluster.objects if kind == "Pod" and name.startswith("high")}
    world.cluster.put(budget(powerWatts=total - 10, action="Shed"))
    await world.look(LOW, HIGH)
    assert verdict(world, "Shedding") == ("True", "PowerTaken")
    (taken,) = [m for m in status(world)["members"] if "allowedPowerWatts" in m]
    assert (taken["name"], taken["formerPowerWatts"]) == ("low", total - watts(world, HIGH))
    assert (replicas(world, LOW), replicas(world, HIGH)) == (1, 2)
    assert world.condition("WithinEnergyBudget", LOW)["reason"] == "PowerTaken"
    assert world.condition("PlanReady", LOW)["reason"] == "Shed"
    assert world.condition("SLOFeasible", LOW)["reason"] == "Shed"
    assert world.condition("Ready", LOW)["status"] == "True"
    assert pods == {name for kind, _, name in world.cluster.objects if kind == "Pod" and name.startswith("high")}
    await world.look(LOW, HIGH)
    assert verdict(world, "WithinEnergyBudget") == ("True", "Within")
    # With a little more the members would fit, and be taken from again at the next breath.
    world.cluster.put(budget(powerWatts=total + 1, action="Shed"))
    await world.look(LOW, HIGH, seconds=700)
    assert replicas(world, LOW) == 1
    world.cluster.put(budget(powerWatts=2 * total, action="Shed"))
    await world.look(LOW, HIGH)
    assert replicas(world, LOW) == 2
    assert verdict(world, "Shedding") == ("False", "NothingTaken")
    assert world.condition("PlanReady", LOW)["status"] == "True"


async def test_what_was_taken_is_not_taken_again_while_pods_go_and_their_power_is_still_measured(world: World) -> None:
    total = await two(world)
    world.meter = {key: float(watts(world, key)) for key in (LOW, HIGH)}
    world.cluster.put(budget(powerWatts=total - 10, action="Shed"))
    # They drain for long, and the mean of the last minutes is older still.
    world.pods_run = False
    for _ in range(8):
        await world.look(LOW, HIGH, seconds=60)
    assert (replicas(world, LOW), replicas(world, HIGH)) == (1, 2)


async def measured(world: World, factor: float) -> None:
    """Let ten minutes pass in which the members draw so many times the power of their plans."""
    for _ in range(10):
        world.meter = {key: factor * watts(world, key) for key in (LOW, HIGH)}
        await world.look(LOW, HIGH, seconds=60)


async def test_power_beyond_the_predictions_is_shed_once_and_remembered_over_restarts_and_gaps(world: World) -> None:
    total = await two(world)
    world.cluster.put(
        budget(powerWatts=total + 100, action="Shed", shed={"cooldownSeconds": 60, "hysteresisPercent": 0})
    )
    await measured(world, 1.0)
    assert (replicas(world, LOW), replicas(world, HIGH)) == (2, 2)
    await measured(world, 1.1)
    assert (replicas(world, LOW), replicas(world, HIGH)) == (1, 2)
    assert 0 < status(world)["excessPowerWatts"] < 0.11 * total
    # Neither silence nor a new operator makes it look as if there was room again.
    world.meter = {}
    for _ in range(3):
        world.start(world.cluster)
        await world.look(LOW, HIGH, seconds=120)
    assert replicas(world, LOW) == 1


async def test_noise_of_what_is_measured_does_not_make_replicas_come_and_go(world: World) -> None:
    total = await two(world)
    world.cluster.put(budget(powerWatts=total + 50, action="Shed"))
    turns = []
    for number in range(40):
        noise = (1.0, 1.06, 0.95, 1.02, 0.97)[number % 5]
        world.meter = {key: noise * watts(world, key) for key in (LOW, HIGH)}
        await world.look(LOW, HIGH, seconds=60)
        turns.append(replicas(world, LOW))
    assert sum(a != b for a, b in pairwise(turns)) <= 1


async def test_when_priorities_change_the_lowest_gives_instead(world: World) -> None:
    total = await two(world)
    world.cluster.put(budget(powerWatts=total - 10, action="Shed"))
    await world.look(LOW, HIGH)
    assert (replicas(world, LOW), replicas(world, HIGH)) == (1, 2)
    world.cluster.put(llama("low", energy={"priority": 10}))
    for _ in range(3):
        await world.look(LOW, HIGH, seconds=700)
    assert (replicas(world, LOW), replicas(world, HIGH)) == (2, 1)


@pytest.mark.parametrize("ends", ["deleted", "reports", "raised"])
async def test_a_budget_that_ends_or_grows_gives_everything_back(world: World, ends: str) -> None:
    total = await two(world)
    before = world.status(LOW)["plan"]["hash"]
    world.cluster.put(budget(powerWatts=total - 10, action="Shed"))
    await world.look(LOW, HIGH)
    assert replicas(world, LOW) == 1
    if ends == "deleted":
        world.cluster.remove("EnergyBudget", NAMESPACE, "cap")
    else:
        world.cluster.put(
            budget(powerWatts=total - 10, action="Report")
            if ends == "reports"
            else budget(powerWatts=2 * total, action="Shed")
        )
    await world.look(LOW, HIGH, seconds=700)
    assert replicas(world, LOW) == 2
    assert world.status(LOW)["plan"]["hash"] == before
    assert "shedBy" not in world.status(LOW)["plan"]


@pytest.mark.parametrize("load", [{"concurrency": 64}, {"requestsPerSecond": 12}], ids=["concurrency", "rate"])
async def test_replicas_that_cannot_carry_the_load_are_as_busy_as_they_can_be(world: World, load: Any) -> None:
    workload = {"inputTokens": 512, "outputTokens": 512, **load}
    asked = {"workload": workload, "planning": overrides(replicas=2, maxBatchSize=32) | {"headroomPercent": 0}}
    world.cluster.put(llama("low", **asked, energy={"priority": -1}))
    world.cluster.put(llama("high", **asked))
    await world.settle(LOW, HIGH)
    total = watts(world, LOW) + watts(world, HIGH)
    world.cluster.put(budget(powerWatts=total - 10, action="Shed"))
    await world.look(LOW, HIGH)
    assert (replicas(world, LOW), replicas(world, HIGH)) == (1, 2)
    assert watts(world, HIGH) / 2 * 0.8 < watts(world, LOW) < watts(world, HIGH)


async def test_nobody_is_taken_below_its_floor_and_the_budget_says_what_is_missing(world: World) -> None:
    await two(world)
    world.cluster.put(budget(powerWatts=1, action="Shed"))
    for _ in range(3):
        await world.look(LOW, HIGH)
    assert (replicas(world, LOW), replicas(world, HIGH)) == (1, 1)
    assert verdict(world, "Shedding") == ("True", "AtTheFloor")
    mark = world.mark
    await world.look(LOW, HIGH)
    assert [w for w in world.writes_since(mark) if w.key[0] != "EnergyBudget"] == []


async def test_a_floor_of_its_own_keeps_all_replicas(world: World) -> None:
    total = await two(world)
    world.cluster.put(llama("low", energy={"priority": -1, "minReplicas": 2}))
    world.cluster.put(budget(powerWatts=total - 10, action="Shed"))
    await world.look(LOW, HIGH)
    assert (replicas(world, LOW), replicas(world, HIGH)) == (2, 1)


async def test_a_plan_of_less_power_is_taken_before_any_replica(world: World) -> None:
    await two(world)
    # Free to choose, a plan of less power exists, which the cooldown keeps from being followed.
    world.cluster.put(llama("low", planning={"overrides": {"tensorParallel": 1}}, energy={"priority": -1}))
    await world.settle(LOW, HIGH)
    assert world.condition("PlanReady", LOW)["reason"] == "KeepingRunningPlan"
    before = world.status(LOW)["plan"]
    lowest = before["lowestPowerWatts"]
    assert lowest < before["predicted"]["powerWatts"]
    world.cluster.put(budget(powerWatts=lowest + watts(world, HIGH), action="Shed"))
    await world.look(LOW, HIGH)
    after = world.status(LOW)["plan"]
    assert after["predicted"]["powerWatts"] <= lowest
    assert world.condition("PlanReady", LOW)["status"] == "True"
    assert world.condition("SLOFeasible", LOW)["status"] == "True"
    assert "shedBy" not in after


async def test_no_plan_of_less_power_has_fewer_replicas_than_the_floor(world: World) -> None:
    await two(world)
    free = {"planning": {"overrides": {"tensorParallel": 1}}, "energy": {"priority": -1, "minReplicas": 2}}
    world.cluster.put(llama("low", **free))
    await world.settle(LOW, HIGH)
    lowest = world.status(LOW)["plan"]["lowestPowerWatts"]
    assert lowest < watts(world, LOW)
    world.cluster.put(budget(powerWatts=lowest + watts(world, HIGH), action="Shed"))
    for _ in range(4):
        await world.look(LOW, HIGH, seconds=60)
    assert replicas(world, LOW) == 2
    # The one of higher priority gives what the floor of the lower one keeps.
    assert replicas(world, HIGH) == 1


async def test_a_crash_at_any_write_while_power_is_taken_ends_in_the_same_state() -> None:
    for number in count_from(1):
        world = World()
        total = await two(world)
        world.cluster.put(budget(powerWatts=total - 10, action="Shed"))
        world.start(Faults(world.cluster, crash_after=number))
        try:
            await world.look(LOW, HIGH)
        except CrashError:
            world.start(world.cluster)
        else:
            assert number > 4, "few writes were tried"
            return
        for _ in range(2):
            await world.look(LOW, HIGH)
        assert (replicas(world, LOW), replicas(world, HIGH)) == (1, 2), number
        (taken,) = [m for m in status(world)["members"] if "allowedPowerWatts" in m]
        assert (taken["name"], taken["formerPowerWatts"]) == ("low", total - watts(world, HIGH)), number


async def test_a_power_cap_is_taken_where_it_is_allowed_and_reaches_the_pods(world: World) -> None:
    await two(world)
    # Allowed from now on; the cooldown keeps the plan with a cap from being followed.
    world.cluster.put(llama("low", energy={"priority": -1, "powerCap": {"mode": "Plan"}}))
    await world.settle(LOW, HIGH)
    before = world.status(LOW)["plan"]
    assert "powerCapWattsPerGPU" not in before
    world.cluster.put(budget(powerWatts=before["lowestPowerWatts"] + watts(world, HIGH), action="Shed"))
    await world.look(LOW, HIGH)
    after = world.status(LOW)["plan"]
    template = world.cluster.objects["Deployment", *LOW]["spec"]["template"]
    cap = template["metadata"]["annotations"]["dynamo.nvidia.com/gpu-power-limit"]
    assert cap == str(after["powerCapWattsPerGPU"])
    assert after["replicas"] == before["replicas"]
    assert after["predicted"]["powerWatts"] <= before["lowestPowerWatts"]
    assert world.condition("SLOFeasible", LOW)["status"] == "True"


@pytest.mark.parametrize("action", ["Report", "Deny"])
async def test_other_actions_take_nothing(world: World, action: str) -> None:
    await two(world)
    world.cluster.put(budget(powerWatts=1, action=action))
    await world.look(LOW, HIGH)
    assert (replicas(world, LOW), replicas(world, HIGH)) == (2, 2)
    assert verdict(world, "WithinEnergyBudget") == ("False", "Exceeded")
    assert world.condition("WithinEnergyBudget", LOW)["reason"] == "OverBudget"


async def test_a_larger_plan_is_denied_and_the_running_one_stays(world: World) -> None:
    total = await two(world)
    world.cluster.put(budget(powerWatts=total + 10, action="Deny"))
    before = world.status(LOW)["plan"]["hash"]
    world.cluster.put(llama("low", planning=overrides(replicas=6)))
    await world.look(LOW, HIGH)
    assert world.status(LOW)["plan"]["hash"] == before
    assert replicas(world, LOW) == 2
    denied = world.condition("WithinEnergyBudget", LOW)
    assert (denied["status"], denied["reason"]) == ("False", "GrowthDenied")
    assert "EnergyBudget team/cap=" in denied["message"]
    assert "W too much" in denied["message"]
    assert world.condition("Ready", LOW)["status"] == "True"


CARBON = {"carbon": {"forecastConfigMapRef": {"name": "grid"}, "gramsPerPeriod": 1000}, "period": "Day"}
UNCHECKABLE: dict[str, tuple[dict[str, Any], str]] = {
    # What API servers take, since only the values of labels can be checked there.
    "a selector that no label can match": (
        {"powerWatts": 9000, "selector": {"matchLabels": {"a b": "c"}}},
        "InvalidSpec",
    ),
    "no forecast": (CARBON, "ForecastMissing"),
    "no metrics": ({"energyWattHours": 10**6, "period": "Day"}, "MetricsMissing"),
    "no metrics, power": ({"powerWatts": 10**6}, "MetricsMissing"),
    "a selector that says nothing": (
        {"powerWatts": 9000, "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        "InvalidSpec",
    ),
}


@pytest.mark.parametrize("name", UNCHECKABLE)
@pytest.mark.parametrize("action", ["Deny", "Shed"])
async def test_what_cannot_be_checked_denies_growth_and_kills_nothing(world: World, name: str, action: str) -> None:
    spec, reason = UNCHECKABLE[name]
    await two(world)
    standing = world.cluster.children()
    world.cluster.put(budget(action=action, **spec))
    await world.look(LOW, HIGH)
    await world.look(LOW, HIGH, seconds=1000)
    assert verdict(world, "Ready") == ("False", reason)
    served = await scrape(world.budget_metrics)
    assert served.value("energylens_budget_checked", namespace=NAMESPACE, name="cap") == 0
    assert world.cluster.children() == standing
    world.cluster.put(llama("low", planning=overrides(replicas=3)))
    await world.settle(LOW, HIGH)
    assert replicas(world, LOW) == 2
    assert world.condition("WithinEnergyBudget", LOW)["status"] == "Unknown"


@pytest.mark.parametrize("kind", ["EnergyBudget", "ClusterEnergyBudget"])
async def test_a_new_member_waits_for_the_first_look_at_its_budget(world: World, kind: str) -> None:
    cap = budget(energyWattHours=10**6, period="Day", action="Deny")
    if kind == "ClusterEnergyBudget":
        cap |= {"kind": kind, "metadata": {"name": "cap"}}
    world.cluster.put(cap)
    world.cluster.put(llama("low"))
    await world.settle(LOW)
    ready = world.condition("PlanReady", LOW)
    assert (ready["status"], ready["reason"]) == ("False", "AwaitingBudget")
    assert "its energy is not counted yet; planning waits" in ready["message"]
    assert world.condition("SLOFeasible", LOW)["status"] == "Unknown"
    assert world.condition("WithinEnergyBudget", LOW)["reason"] == "BudgetNotChecked"
    assert world.waited
    assert world.keeper.owes_a_look
    # Nothing was decided that anybody would want to hear of, and the spec is as urgent as a new one.
    assert not [event for event in world.cluster.events if event["reason"] == "PlanRejected"]
    assert is_unplanned(world.store.deployments[LOW])
    world.asked.clear()
    await world.keeper.step()
    assert LOW in world.asked
    assert not world.keeper.owes_a_look
    waited = world.waited
    await world.settle(LOW)
    assert world.condition("Ready", LOW)["status"] == "True"
    assert world.waited == waited
    assert not is_unplanned(world.store.deployments[LOW])


async def test_a_running_member_goes_on_while_its_new_budget_was_not_looked_at(world: World) -> None:
    await two(world)
    standing = world.cluster.children()
    world.cluster.put(budget(energyWattHours=10**6, period="Day", action="Deny"))
    await world.settle(LOW, HIGH)
    assert world.cluster.children() == standing
    assert world.condition("PlanReady", LOW)["status"] == "True"
    assert not world.waited


async def test_the_first_look_comes_before_the_passes_only_where_somebody_would_wait(world: World) -> None:
    looks = BudgetLooks(world.keeper, world.accounts.step, asyncio.Event(), 15.0)
    await looks.before_passes()
    assert not world.cluster.writes
    world.cluster.put(budget(energyWattHours=10**6, period="Day", action="Deny"))
    await looks.before_passes()
    assert verdict(world, "Ready") == ("True", "Checked")
    seen = world.mark
    world.clock.advance(3600)
    await looks.before_passes()
    assert world.mark == seen
    world.clock.advance(24 * 3600)
    await looks.before_passes()
    assert world.mark > seen


async def test_a_look_that_somebody_waits_for_comes_at_once(world: World) -> None:
    wanted, counted = asyncio.Event(), asyncio.Queue[None]()
    looks = asyncio.ensure_future(BudgetLooks(world.keeper, lambda: counted.put_nowait(None), wanted, 10**6).run())
    await counted.get()
    for _ in range(3):
        wanted.set()
        # Only what is wanted ends the pause of a million seconds.
        await counted.get()
    looks.cancel()


async def test_sources_that_go_silent_are_missed_although_their_last_samples_are_known(world: World) -> None:
    await two(world)
    world.meter = {LOW: 500.0, HIGH: 500.0}
    world.cluster.put(budget(energyWattHours=10**6, period="Day", action="Deny"))
    await world.look(LOW, HIGH)
    # Between two whole seconds, which is where the ledger counts up to.
    world.last_sample_at = world.clock.now().timestamp() + 30.7
    for _ in range(14):
        await world.look(LOW, HIGH, seconds=60)
    assert verdict(world, "Ready") == ("True", "Checked")
    for _ in range(3):
        await world.look(LOW, HIGH, seconds=60)
    assert verdict(world, "Ready") == ("False", "MetricsMissing")


async def test_a_forecast_that_comes_makes_a_carbon_budget_work(world: World) -> None:
    await two(world)
    world.meter = {LOW: 500.0, HIGH: 500.0}
    world.cluster.put(budget(action="Deny", **CARBON))
    await world.look(LOW, HIGH)
    start = world.clock.now()
    lines = "".join(f"{(start + timedelta(hours=h)).isoformat()},250\n" for h in range(24))
    world.cluster.put(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "grid", "namespace": NAMESPACE},
            "data": {"forecast.csv": f"time,gramsPerKilowattHour\n{lines}"},
        }
    )
    await world.look(LOW, HIGH, seconds=3600)
    found = status(world)
    assert verdict(world, "Ready") == ("True", "Checked")
    assert found["usedWattHours"] == 1000
    assert found["usedGrams"] == 250
    assert found["energyLimit"] == "spec.carbon.gramsPerPeriod"
    assert found["remainingWattHours"] == 3000
    assert found["exhaustionTime"] == (world.clock.now() + timedelta(hours=3)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_after_a_crash_between_workload_and_status_nobody_gets_the_same_watts(world: World) -> None:
    world.cluster.put(llama("high"))
    await world.settle(HIGH)
    power = watts(world, HIGH)
    world.cluster.put(budget(powerWatts=2 * power + 10, action="Deny"))
    # The operator dies when the Deployment of the next one is written, before its status says so.
    world.start(Faults(world.cluster, crash_after=1))
    world.cluster.put(llama("low"))
    with pytest.raises(CrashError):
        await world.reconciler.reconcile(LOW)
    assert "plan" not in world.status(LOW)
    assert replicas(world, LOW) == 2
    world.start(world.cluster)
    world.cluster.put(llama("third"))
    third = (NAMESPACE, "third")
    await world.settle(third)
    assert world.condition("PlanReady", third)["reason"] == "BudgetExceeded"
    await world.settle(LOW, third)
    assert world.condition("PlanReady", LOW)["status"] == "True"
    assert world.condition("PlanReady", third)["reason"] == "BudgetExceeded"


async def test_a_smaller_plan_that_waits_for_approval_frees_nothing_yet(world: World) -> None:
    total = await two(world)
    world.cluster.put(budget(powerWatts=total + 10, action="Deny"))
    world.cluster.put(llama("low", planning={**overrides(replicas=1), "mode": "Manual"}))
    await world.look(LOW, HIGH)
    await world.look(LOW, HIGH, seconds=60)
    assert (replicas(world, LOW), world.status(LOW)["plan"]["replicas"]) == (2, 1)
    assert status(world)["committedPowerWatts"] == total


async def test_a_forecast_that_may_not_be_read_denies_growth_although_it_could_be_read_before(world: World) -> None:
    class Forbidding(Faults):
        async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
            raise ForbiddenError("configmaps is forbidden")

    await two(world)
    world.cluster.put(budget(action="Deny", **CARBON))
    world.start(Forbidding(world.cluster))
    await world.look(LOW, HIGH)
    assert verdict(world, "Ready") == ("False", "ForecastMissing")
    assert "may not be read: configmaps is forbidden" in status(world)["conditions"][0]["message"]


async def test_a_defect_in_one_budget_keeps_no_other_from_being_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two(world)
    world.cluster.put({**budget(powerWatts=9000), "metadata": {"name": "a-broken", "namespace": NAMESPACE}})
    world.cluster.put(budget(powerWatts=9000))
    look = world.keeper._look

    async def broken(key: Key, body: dict[str, Any]) -> None:
        if key[1] == "a-broken":
            raise ZeroDivisionError
        await look(key, body)

    monkeypatch.setattr(world.keeper, "_look", broken)
    await world.look(LOW, HIGH)
    assert verdict(world, "WithinEnergyBudget") == ("True", "Within")


async def test_a_longer_period_keeps_what_was_counted_in_the_shorter_one(world: World) -> None:
    await two(world)
    world.meter = {LOW: 500.0, HIGH: 500.0}
    world.clock.advance(36 * 3600)
    world.cluster.put(budget(energyWattHours=10**6, period="Day"))
    await world.look(LOW, HIGH)
    await world.look(LOW, HIGH, seconds=3600)
    assert status(world)["usedWattHours"] == 1000
    world.cluster.put(budget(energyWattHours=10**6, period="Month"))
    await world.look(LOW, HIGH, seconds=3600)
    assert status(world)["usedWattHours"] == 2000


async def test_a_reset_begins_anew_and_lets_denied_growth_in(world: World) -> None:
    await two(world)
    world.meter = {LOW: 500.0, HIGH: 500.0}
    total = watts(world, LOW) + watts(world, HIGH)
    world.cluster.put(budget(energyWattHours=48 * total, period="Day", action="Deny"))
    await world.look(LOW, HIGH)
    for _ in range(24):
        await world.look(LOW, HIGH, seconds=3600)
    assert status(world)["usedWattHours"] == 0
    assert status(world)["periodStart"] == world.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    await world.look(LOW, HIGH, seconds=3600)
    assert status(world)["usedWattHours"] == 1000


async def count(world: World, looks: int, restart_at: set[int] | None = None) -> dict[str, Any]:
    """Let hours pass in steps of 20 s with 500 W measured; return the budget's status."""
    for number in range(looks):
        if number in (restart_at or ()):
            world.start(world.cluster)
        await world.look(LOW, HIGH, seconds=20)
    # So that the last look is written.
    await world.look(LOW, HIGH, seconds=60)
    return status(world)


def as_predicted(world: World) -> float:
    """Let both be measured as they are predicted, so that every second counts the same; return the watts of one."""
    world.meter = {key: float(watts(world, key)) for key in (LOW, HIGH)}
    assert world.meter[LOW] == world.meter[HIGH]
    return world.meter[LOW]


def accounted(found: dict[str, Any], start: datetime, drawn: float) -> tuple[float, float]:
    """Return the joules in the ledger and those that constant power must have drawn until its watermarks."""
    joules = sum(e["measuredJoules"] + e["predictedJoules"] for e in found["ledger"])
    seconds = sum((datetime.fromisoformat(e["accountedUntil"]) - start).total_seconds() for e in found["ledger"])
    return joules, drawn * seconds


async def test_the_ledger_survives_restarts_at_any_moment(world: World) -> None:
    await two(world)
    drawn = as_predicted(world)
    world.cluster.put(budget(energyWattHours=10**6, period="Day", action="Report"))
    await world.look(LOW, HIGH)
    start = world.clock.now()
    found = await count(world, 30, restart_at={3, 4, 11, 20})
    joules, due = accounted(found, start, drawn)
    assert joules == pytest.approx(due, abs=30)
    assert due == pytest.approx(2 * drawn * 660)
    gaps = sum(e["predictedJoules"] for e in found["ledger"])
    assert 0 < gaps < 0.5 * joules


async def test_a_crash_or_a_lost_answer_at_any_write_of_a_status_counts_nothing_twice() -> None:
    for number in range(1, 5):
        for lost in (False, True):
            world = World()
            await two(world)
            drawn = as_predicted(world)
            world.cluster.put(budget(energyWattHours=10**6, period="Day", action="Report"))
            await world.look(LOW, HIGH)
            start = world.clock.now()
            faults = Faults(world.cluster, lost_answers={number: TransientError("time-out")} if lost else {})
            if not lost:
                faults.crash_after = number
            world.start(faults)
            try:
                await count(world, 12)
            except CrashError:
                world.start(world.cluster)
            found = await count(world, 3)
            joules, due = accounted(found, start, drawn)
            assert joules == pytest.approx(due, abs=30), (number, lost)


async def test_a_member_that_is_gone_stays_in_the_ledger_until_the_period_ends(world: World) -> None:
    await two(world)
    world.meter = {LOW: 500.0, HIGH: 500.0}
    world.cluster.put(budget(energyWattHours=10**6, period="Day", action="Report"))
    await world.look(LOW, HIGH)
    await world.look(LOW, HIGH, seconds=3600)
    power = watts(world, LOW)
    world.cluster.remove("LLMDeployment", *LOW)
    await world.look(HIGH, seconds=3600)
    found = status(world)
    assert found["memberCount"] == 1
    # When it went nobody saw: the time since it was last looked at counts as predicted.
    assert found["usedWattHours"] == 1500 + power
    await world.look(HIGH, seconds=3600)
    found = status(world)
    assert found["usedWattHours"] == 2000 + power
    assert {e["name"] for e in found["ledger"]} == {"low", "high"}
    await world.look(HIGH, seconds=86_400)
    found = status(world)
    assert found["usedWattHours"] < 20_000
    assert {e["name"] for e in found["ledger"]} == {"high"}


async def test_a_budget_of_the_cluster_is_kept_too(world: World) -> None:
    total = await two(world)
    world.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"a": "b"}}})
    body = budget(powerWatts=total - 10, action="Shed", namespaceSelector={"matchLabels": {"a": "b"}})
    body = {**body, "kind": "ClusterEnergyBudget", "metadata": {"name": "cap"}}
    world.cluster.put(body)
    await world.look(LOW, HIGH)
    assert status(world, "ClusterEnergyBudget", "")["memberCount"] == 2
    assert replicas(world, LOW) == 1
    assert "ClusterEnergyBudget cap" in world.condition("WithinEnergyBudget", LOW)["message"]


async def test_figures_alone_are_written_once_a_minute(world: World) -> None:
    await two(world)
    world.meter = {LOW: 500.0, HIGH: 500.0}
    world.cluster.put(budget(energyWattHours=10**6, period="Day"))
    await world.look(LOW, HIGH)
    await world.look(LOW, HIGH, seconds=60)
    mark = world.mark
    for _ in range(8):
        await world.look(LOW, HIGH, seconds=15)
    assert len(world.writes_since(mark)) == 2
    assert world.asked == {LOW, HIGH}


@pytest.mark.parametrize("spec", [{"powerWatts": 9000}, {"energyWattHours": 10**6, "period": "Day"}])
@pytest.mark.parametrize("action", ["Report", "Deny"])
async def test_a_member_that_comes_or_goes_costs_the_others_no_write(
    world: World, spec: dict[str, Any], action: str
) -> None:
    world.cluster.put(budget(action=action, **spec))
    # Energy has to be counted before anything may grow.
    await world.look(LOW, HIGH)
    await two(world)
    await world.look(LOW, HIGH, seconds=61)
    mark, more = world.mark, (NAMESPACE, "more")
    world.cluster.put(llama("more"))
    for _ in range(2):
        await world.look(more, LOW, HIGH, seconds=61)
    before = status(world)["committedPowerWatts"]
    world.cluster.remove("LLMDeployment", *more)
    await world.look(more, LOW, HIGH, seconds=61)
    assert status(world)["committedPowerWatts"] < before
    touched = {write.key[0::2] for write in world.writes_since(mark)}
    assert not touched & {("LLMDeployment", "low"), ("LLMDeployment", "high")}
