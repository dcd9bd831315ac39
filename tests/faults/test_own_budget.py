"""The budget in an LLMDeployment's own spec: what is counted, said and enforced, over restarts and crashes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.world import KEY, NAMESPACE, CrashError, Faults, World, llama, overrides

from energylens.cluster.errors import TransientError

WATTS = 500


@pytest.fixture
def world() -> World:
    return World()


async def serve(world: World, **budget: Any) -> int:
    """Let one deployment of two replicas run with a budget of its own; return its predicted power, W."""
    world.cluster.put(llama(energy={"budget": budget}))
    await world.settle()
    return power(world)


def power(world: World) -> int:
    found: int = world.status()["plan"]["predicted"]["powerWatts"]
    return found


def replicas(world: World) -> int:
    found: int = world.cluster.objects["Deployment", *KEY]["spec"]["replicas"]
    return found


def verdict(world: World) -> tuple[str, str]:
    found = world.condition("WithinEnergyBudget")
    return found["status"], found["reason"]


def message(world: World) -> str:
    text: str = world.condition("WithinEnergyBudget")["message"]
    return text


def events(world: World, reason: str) -> list[str]:
    return [event["note"] for event in world.cluster.events if event["reason"] == reason]


def joules(world: World) -> int:
    account = world.status()["energyAccount"]
    total: int = account["measuredJoules"] + account["predictedJoules"]
    return total


async def test_energy_beyond_the_limit_is_a_condition_and_one_event_and_nothing_else(world: World) -> None:
    await serve(world, energyWattHours=1000, period="Day")
    assert verdict(world) == ("True", "RunsOut")
    standing = world.cluster.children()
    world.meter = {KEY: float(WATTS)}
    for _ in range(5):
        await world.look(seconds=1800)
    assert verdict(world) == ("False", "OverBudget")
    assert "1250 Wh are used of spec.energy.budget.energyWattHours=1000, 250 Wh more than allowed" in message(world)
    assert "until 2026-03-02T00:00:00Z" in message(world)
    assert len(events(world, "BudgetExceeded")) == 1
    assert world.status()["budget"] == {
        "name": "spec.energy.budget",
        "usedPercent": 125,
        "remainingWattHours": 0,
        "resetTime": "2026-03-02T00:00:00Z",
    }
    assert world.cluster.children() == standing
    # A larger plan is followed: action Warn constrains nothing.
    world.cluster.put(
        llama(energy={"budget": {"energyWattHours": 1000, "period": "Day"}}, planning=overrides(replicas=3))
    )
    await world.settle()
    assert replicas(world) == 3
    # The next period begins with nothing used.
    world.meter = {KEY: 20.0}
    await world.look(seconds=86_400)
    await world.look(seconds=15)
    assert verdict(world)[0] == "True"
    assert world.status()["energyAccount"]["periodStart"] == "2026-03-02T00:00:00Z"
    assert len(events(world, "BudgetHolds")) == 1


async def test_power_beyond_the_limit_is_a_condition_too(world: World) -> None:
    watts = await serve(world, powerWatts=100)
    assert verdict(world) == ("False", "OverBudget")
    assert f"{watts} W are committed, {watts - 100} W more than spec.energy.budget.powerWatts=100" in message(world)
    assert len(events(world, "BudgetExceeded")) == 1
    assert "energyAccount" not in world.status()
    world.cluster.put(llama(energy={"budget": {"powerWatts": watts}}))
    await world.settle()
    assert verdict(world) == ("True", "WithinBudget")
    assert f"{watts} W are committed of {watts} W (spec.energy.budget.powerWatts)" in message(world)


async def test_periods_begin_at_midnight_of_the_time_zone(world: World) -> None:
    await serve(world, energyWattHours=10**6, period="Day", timeZone="America/New_York")
    assert world.status()["energyAccount"]["periodStart"] == "2026-02-28T05:00:00Z"
    assert world.status()["budget"]["resetTime"] == "2026-03-01T05:00:00Z"


async def test_no_plan_may_need_more_than_the_energy_of_a_period(world: World) -> None:
    watts = await serve(world, energyWattHours=10**6, period="Day", action="Enforce")
    spec = {"energyWattHours": 24 * watts - 1, "period": "Day", "action": "Enforce"}
    world.cluster.put(llama(energy={"budget": spec}))
    await world.settle()
    # As with powerWatts: the plan does not meet the spec any more, and what runs stays.
    refused = world.condition("PlanReady")
    assert (refused["status"], refused["reason"]) == ("False", "BudgetExceeded")
    assert refused["message"].startswith(
        f"spec.energy.budget.energyWattHours={24 * watts - 1} ({watts - 1} W) leaves too little power: the lowest "
        f"predicted power is {watts} W (2 x NVIDIA-H100-80GB-HBM3 TP1, max batch 64), 1 W too much"
    )
    assert replicas(world) == 2
    # The value that it names works, and one less does not.
    (named,) = [r for r in world.status()["relaxations"] if r["field"] == "spec.energy.budget.energyWattHours"]
    assert named["allowed"] == str(24 * watts)
    assert f"spec.energy.budget.energyWattHours={24 * watts}" in refused["message"]
    world.cluster.put(llama(energy={"budget": {**spec, "energyWattHours": 24 * watts}}))
    await world.settle()
    assert world.condition("PlanReady")["status"] == "True"
    assert verdict(world) == ("True", "WithinBudget")


async def test_a_larger_plan_must_hold_the_energy_that_is_left(world: World) -> None:
    watts = await serve(world, energyWattHours=10**6, period="Day", action="Enforce")
    limit = 24 * watts * 2
    world.meter = {KEY: 3.0 * watts}
    world.cluster.put(llama(energy={"budget": {"energyWattHours": limit, "period": "Day", "action": "Enforce"}}))
    for _ in range(12):
        await world.look(seconds=3600)
    # 36 of 48 watt-hours per watt are used in 12 of 24 hours: what is left lasts at the power of the plan, no more.
    world.cluster.put(
        llama(
            energy={"budget": {"energyWattHours": limit, "period": "Day", "action": "Enforce"}},
            planning=overrides(replicas=4),
        )
    )
    await world.settle()
    assert replicas(world) == 2
    assert verdict(world) == ("False", "GrowthDenied")
    assert f"spec.energy.budget.energyWattHours={limit} ({watts} W) leaves too little power" in message(world)
    (named,) = [r for r in world.status()["relaxations"] if r["field"] == "spec.energy.budget.energyWattHours"]
    budget = {"energyWattHours": int(named["allowed"]), "period": "Day", "action": "Enforce"}
    world.cluster.put(llama(energy={"budget": budget}, planning=overrides(replicas=4)))
    await world.settle()
    assert replicas(world) == 4


@pytest.mark.parametrize("action", ["Warn", "Enforce"])
async def test_energy_that_nobody_measures_denies_growth_and_stops_nothing(world: World, action: str) -> None:
    budget = {"energyWattHours": 10**6, "period": "Day", "action": action}
    await serve(world, **budget)
    await world.look(seconds=1000)
    assert verdict(world) == ("Unknown", "BudgetNotChecked")
    assert "spec.energy.budget: its pods have not been measured since 2026-03-01T00:00:00Z" in message(world)
    world.start()
    world.cluster.put(llama(energy={"budget": budget}, planning=overrides(replicas=3)))
    await world.settle()
    assert replicas(world) == (2 if action == "Enforce" else 3)
    world.meter = {KEY: float(WATTS)}
    await world.look(seconds=30)
    await world.look(seconds=30)
    assert replicas(world) == 3
    assert verdict(world)[0] == "True"


async def test_what_was_counted_survives_restarts_and_is_counted_once(world: World) -> None:
    await serve(world, energyWattHours=10**6, period="Day")
    # Measured as it is predicted, so that every second counts the same.
    watts = power(world)
    world.meter = {KEY: float(watts)}
    start = world.clock.now()
    for number in range(60):
        if number in (5, 6, 20, 41):
            world.start()
        await world.look(seconds=60)
    account = world.status()["energyAccount"]
    due = watts * (datetime.fromisoformat(account["accountedUntil"]) - start).total_seconds()
    assert due > watts * 1800
    assert joules(world) == pytest.approx(due, abs=2 * watts)


@pytest.mark.parametrize("lost", [False, True], ids=["crash", "lost answer"])
async def test_a_crash_at_any_write_counts_nothing_twice(lost: bool) -> None:
    for number in range(1, 4):
        world = World()
        await serve(world, energyWattHours=10**6, period="Day")
        watts = power(world)
        world.meter = {KEY: float(watts)}
        start = world.clock.now()
        faults = Faults(world.cluster, lost_answers={number: TransientError("time-out")} if lost else {})
        faults.crash_after = None if lost else number
        world.start(faults)
        for _ in range(4):
            try:
                await world.look(seconds=1200)
            except CrashError:
                world.start(world.cluster)
        account = world.status()["energyAccount"]
        due = watts * (datetime.fromisoformat(account["accountedUntil"]) - start).total_seconds()
        assert joules(world) == pytest.approx(due, abs=2 * watts)
        assert due > 0


async def test_counting_costs_no_write_of_its_own_while_windows_would_bring_one(world: World) -> None:
    await serve(world, energyWattHours=10**6, period="Day")
    world.meter = {KEY: float(WATTS)}
    await world.look(seconds=15)
    mark = world.mark
    for _ in range(79):
        await world.look(seconds=15)
    assert len(world.writes_since(mark)) <= 1


async def test_time_without_pods_counts_nothing_over_a_restart(world: World) -> None:
    budget = {"energyWattHours": 10**6, "period": "Day"}
    await serve(world, **budget)
    world.meter = {KEY: float(WATTS)}
    await world.look(seconds=3600)
    world.cluster.put(llama(energy={"budget": budget}, suspend=True))
    await world.settle()
    for pod in [key for key in world.cluster.objects if key[0] == "Pod"]:
        world.cluster.remove(*pod)
    await world.look(seconds=60)
    before = joules(world)
    world.clock.advance(6 * 3600)
    world.start()
    world.cluster.put(llama(energy={"budget": budget}))
    await world.settle()
    await world.look(seconds=60)
    assert joules(world) <= before + WATTS * 120


async def test_a_longer_period_keeps_what_was_counted_and_a_limit_taken_away_forgets_it(world: World) -> None:
    await serve(world, energyWattHours=10**6, period="Hour")
    world.meter = {KEY: float(WATTS)}
    await world.look(seconds=1800)
    world.cluster.put(llama(energy={"budget": {"energyWattHours": 10**6, "period": "Month"}}))
    await world.look(seconds=1800)
    assert joules(world) == pytest.approx(WATTS * 3600, rel=0.01)
    world.cluster.put(llama())
    await world.settle()
    assert "energyAccount" not in world.status()
    assert verdict(world) == ("True", "NoBudget")


async def test_the_tighter_of_the_own_budget_and_a_shared_one_binds(world: World) -> None:
    watts = await serve(world, energyWattHours=24 * 5000, period="Day", action="Enforce")
    shared = {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": "cap", "namespace": NAMESPACE},
        "spec": {"powerWatts": watts + 10, "action": "Deny"},
    }
    world.cluster.put(shared)
    await world.look(seconds=15)
    assert world.status()["budget"]["name"] == "EnergyBudget team/cap"
    world.cluster.put({**shared, "spec": {"powerWatts": 6000, "action": "Deny"}})
    await world.look(seconds=15)
    assert world.status()["budget"]["name"] == "spec.energy.budget"
    assert world.status()["budget"]["allowedPowerWatts"] == 5000
    assert datetime.fromisoformat(world.status()["budget"]["resetTime"]) == datetime(2026, 3, 2, tzinfo=UTC)
