"""Batch jobs beside budgets: energy instead of mean power, hours that others hold, and a check at the start."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from tests.faults.test_job_start import DAY, T0, grid, hour, job
from tests.support.world import KEY, World, llama

from energylens.cluster.port import Object
from energylens.controller.state.store import Key


def cap(**spec: Any) -> Object:
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": "cap", "namespace": "team"},
        "spec": {"action": "Deny", "period": "Day", **spec},
    }


def at_once(requests: int = 20_000, seconds: int = 7200, **spec: Any) -> Object:
    asked = {"requests": requests, "completeWithinSeconds": seconds, "afterCompletion": "Release"}
    workload = {"inputTokens": 512, "outputTokens": 256, "job": asked}
    return llama(workload=workload, planning={"overrides": {"tensorParallel": 1}}, **spec)


def named(body: Object, name: str) -> Object:
    return {**body, "metadata": {**body["metadata"], "name": name, "uid": f"uid-{name}"}}


async def world(*objects: Object) -> World:
    found = World()
    for each in (grid(DAY), *objects):
        found.cluster.put(each)
    await found.look(seconds=10)
    return found


async def apply(found: World, body: Object) -> Object:
    """Apply a deployment, keep its status, and return the new one."""
    key = "team", body["metadata"]["name"]
    before = found.cluster.objects.get(("LLMDeployment", *key))
    found.cluster.put(body if before is None or "status" not in before else {**body, "status": before["status"]})
    await found.settle(key)
    return found.status(key)


async def to(found: World, number: float, *keys: Key) -> None:
    """Let time pass, look at the budgets, and let the deployments follow."""
    found.clock.advance((T0 + timedelta(hours=number) - found.clock.now()).total_seconds())
    found.accounts.step()
    await found.keeper.step()
    await found.settle(*(keys or (KEY,)))


def start(found: World, name: str = "llama") -> Object:
    status: Object = found.status(("team", name))["jobStart"]
    return status


def runs(found: World, name: str = "llama") -> bool:
    live = found.cluster.objects.get(("Deployment", "team", name))
    return live is not None and live["spec"]["replicas"] > 0


def span(found: World, name: str) -> tuple[datetime, datetime]:
    """Return the time in which a job draws power at worst."""
    begin = datetime.fromisoformat(start(found, name)["startTime"])
    longest = found.status(("team", name))["plan"]["job"]["longestSeconds"]
    return begin, begin + timedelta(seconds=longest)


async def test_a_job_whose_energy_fits_is_admitted_whatever_its_power() -> None:
    found = await world()
    watt_hours = (await apply(found, at_once()))["plan"]["job"]["energyWattHours"]
    # The mean power of this budget is less than an idle GPU.
    found = await world(cap(energyWattHours=watt_hours))
    status = await apply(found, at_once())
    assert status["plan"]["predicted"]["powerWatts"] > 100 * watt_hours / 24
    assert found.condition("PlanReady")["status"] == "True"
    assert (start(found)["state"], start(found)["reason"], runs(found)) == ("Started", "AtOnce", True)
    assert "StartTimed" not in {condition["type"] for condition in status["conditions"]}
    # While it runs, no other job has energy, measured or not yet; the job itself stays.
    await found.look(seconds=10)
    await apply(found, named(at_once(requests=1000), "other"))
    assert found.condition("PlanReady", ("team", "other"))["reason"] == "BudgetExceeded"
    await to(found, 0.1)
    assert found.condition("PlanReady")["status"] == "True"
    await found.settle(("team", "other"))
    assert found.condition("PlanReady", ("team", "other"))["reason"] == "BudgetExceeded"

    found = await world(cap(energyWattHours=watt_hours - 11))
    await apply(found, at_once())
    denied = found.condition("PlanReady")
    assert (denied["status"], denied["reason"], runs(found)) == ("False", "BudgetExceeded", False)
    assert denied["message"].startswith(
        f"EnergyBudget team/cap: spec.energyWattHours={watt_hours - 11} Wh leaves too little energy: the job takes at "
        "least 11 Wh more ("
    )
    assert f"would work: EnergyBudget team/cap: spec.energyWattHours={watt_hours} (at " in denied["message"]


@pytest.mark.parametrize("action", ["Enforce", "Warn"])
async def test_the_deployments_own_budget_counts_the_energy_of_its_job(action: str) -> None:
    own = {"energyWattHours": 120, "period": "Day", "action": action}
    found = await world()
    await apply(found, at_once(energy={"budget": own}))
    assert (found.condition("PlanReady")["status"], runs(found)) == ("True", True)
    assert found.condition("WithinEnergyBudget")["status"] == "True"
    found = await world()
    await apply(found, at_once(requests=200_000, seconds=20_000, energy={"budget": own}))
    assert runs(found) == (action == "Warn")
    if action == "Enforce":
        denied = found.condition("PlanReady")
        assert denied["message"].startswith("spec.energy.budget.energyWattHours=120 Wh leaves too little energy: ")
        return
    within = found.condition("WithinEnergyBudget")
    assert (within["status"], within["reason"]) == ("True", "RunsOut")
    assert "the energy of the job is more than spec.energy.budget.energyWattHours=120 Wh leaves" in within["message"]


async def test_two_jobs_never_hold_the_same_watts_and_say_who_holds_them() -> None:
    found = await world(cap(powerWatts=1000))
    for name in ("llama", "second", "third"):
        await apply(found, named(job(requests=200_000, seconds=20_000), name))
    spans = sorted(span(found, name) for name in ("llama", "second", "third"))
    assert all(one[1] <= two[0] for one, two in pairwise(spans))
    text = start(found, "second")["message"]
    assert f"a start at {start(found)['startTime']} would take " in text
    assert "but EnergyBudget team/cap: spec.powerWatts leaves too little power: team/llama holds 662 W from " in text
    # A job that starts at once is refused, and told when there is room.
    await apply(found, named(at_once(requests=200_000, seconds=20_000), "now"))
    denied = found.condition("PlanReady", ("team", "now"))
    assert denied["reason"] == "BudgetExceeded"
    assert "; team/second holds 662 W from " in denied["message"]
    assert "; there is room from 2026-03-01T" in denied["message"]
    # A fourth one has no hours left.
    await apply(found, named(job(requests=200_000, seconds=20_000), "fourth"))
    assert found.condition("PlanReady", ("team", "fourth"))["reason"] == "BudgetExceeded"
    # A restart of the operator, and passes in another order, change nothing.
    before = [start(found, name) for name in ("llama", "second", "third")]
    found.start()
    await to(found, 0.05, *(("team", name) for name in ("third", "llama", "second")))
    assert [start(found, name)["startTime"] for name in ("llama", "second", "third")] == [
        each["startTime"] for each in before
    ]


async def test_a_start_for_which_the_room_is_gone_is_refused_and_comes_later() -> None:
    found = await world(cap(powerWatts=1000))
    await apply(found, job(requests=200_000, seconds=20_000))
    begin = (datetime.fromisoformat(start(found)["startTime"]) - T0) / timedelta(hours=1)
    found.cluster.put(cap(powerWatts=300))
    await to(found, begin)
    assert (start(found)["state"], start(found)["reason"], runs(found)) == ("Waiting", "BudgetExceeded", False)
    assert "startTime" not in start(found)
    plan, ready = found.condition("PlanReady"), found.condition("Ready")
    assert (plan["status"], plan["reason"]) == ("False", "BudgetExceeded")
    assert start(found)["message"].startswith("does not start: EnergyBudget team/cap=300 W (of spec.powerWatts=300 W)")
    assert ready["status"] == "False"
    # It reserves nothing, also after a restart.
    found.start()
    await found.settle()
    assert found.reconciler.allowances.deployments()[KEY].reserved_watts == 0
    found.cluster.put(cap(powerWatts=1000))
    await to(found, begin + 0.5)
    assert (start(found)["state"], runs(found)) == ("Started", True)


async def test_a_late_job_holds_its_power_until_it_is_deleted() -> None:
    found = await world(cap(powerWatts=1000))
    found.meter[KEY] = 600.0
    await apply(found, at_once())
    await apply(found, named(job(), "timed"))
    assert start(found, "timed")["state"] == "Waiting"
    # An hour later the pods are still there.
    begin = (datetime.fromisoformat(start(found, "timed")["startTime"]) - T0) / timedelta(hours=1)
    await to(found, begin, KEY, ("team", "timed"))
    assert not runs(found, "timed")
    assert "team/llama holds 662 W until the job, which is late, is deleted" in start(found, "timed")["message"]
    found.cluster.remove("LLMDeployment", "team", "llama")
    await to(found, begin + 0.1, KEY, ("team", "timed"))
    assert start(found, "timed")["state"] == "Started"


async def test_a_suspended_job_does_not_take_back_what_another_has_now() -> None:
    found = await world(cap(powerWatts=1000))
    await apply(found, at_once())
    await apply(found, at_once(suspend=True))
    assert ("jobStart" in found.status(), runs(found)) == (False, False)
    await apply(found, named(at_once(requests=200_000, seconds=20_000), "other"))
    await apply(found, at_once())
    assert (start(found)["state"], start(found)["reason"], runs(found)) == ("Waiting", "BudgetExceeded", False)
    assert "team/other holds 662 W from 2026-03-01T00:00:00Z to " in start(found)["message"]
    assert "StartTimed" not in {condition["type"] for condition in found.status()["conditions"]}
    found.cluster.remove("LLMDeployment", "team", "other")
    await found.settle()
    assert (start(found)["state"], runs(found)) == ("Started", True)


async def test_a_job_that_was_edited_does_not_start_with_the_plan_of_the_old_one() -> None:
    found = await world(cap(energyWattHours=300))
    planned = (await apply(found, job()))["jobStart"]["startTime"]
    await apply(found, job(requests=200_000))
    assert (start(found)["state"], start(found)["reason"]) == ("Waiting", "BudgetExceeded")
    assert "the running plan stays" not in start(found)["message"]
    await to(found, 6)
    assert not runs(found)
    await apply(found, job())
    assert runs(found)
    assert start(found)["startTime"] > planned


async def test_a_budget_that_is_lowered_stops_no_job_that_runs() -> None:
    found = await world(cap(powerWatts=1000, energyWattHours=2000))
    await apply(found, at_once(requests=200_000, seconds=20_000))
    began = start(found)["startTime"]
    found.cluster.put(cap(powerWatts=100, energyWattHours=10))
    await to(found, 0.2)
    found.start()
    await found.settle()
    assert (runs(found), start(found)["startTime"]) == (True, began)
    assert found.condition("WithinEnergyBudget")["reason"] in ("OverBudget", "RunsOut")


async def test_a_job_takes_from_the_day_in_which_it_runs() -> None:
    found = await world(cap(energyWattHours=150))
    found.clock.advance(23.8 * 3600)
    await found.look(seconds=10)
    # 12 minutes are left of the day; the rest of the job belongs to the next day.
    await apply(found, at_once())
    assert runs(found)
    # A job of the next day has what the first one leaves of it.
    await apply(found, named(job(by=40, notBefore=hour(30)), "next"))
    assert found.condition("PlanReady", ("team", "next"))["reason"] in ("StartScheduled", "BudgetExceeded")
    taken = found.reconciler.allowances.of({**job(by=40), "metadata": {"name": "x", "namespace": "team", "uid": "x"}})
    assert taken.allowance is not None
    assert taken.allowance.room is not None
    (energy,) = taken.allowance.room.energy
    today, tomorrow = energy.left_watt_hours[:2]
    assert today < 150
    assert tomorrow < 150 - 100
