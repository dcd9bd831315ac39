"""A deployment whose load has a profile, over hours, edits, budgets and restarts of the operator."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.world import KEY, World, llama

from energylens.api.timestamp import moment_of
from energylens.cluster.port import Object
from energylens.planner.explain import relaxations

FREE = {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}}
BUSY = {"days": ["Mon", "Tue", "Wed", "Thu", "Fri"], "fromHour": 8, "toHour": 18, "requestsPerSecond": "60"}
LOAD = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "2"}


@pytest.fixture(autouse=True)
def without_nearest_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the nearest load out of the explanations: finding it took most of the time of this file."""
    monkeypatch.setattr(relaxations, "_loads", lambda *_: ())


def weekly(*hours: dict[str, Any], **changes: Any) -> Object:
    workload = LOAD | {"profile": {"hours": list(hours or (BUSY,))}}
    parts: dict[str, Any] = {"planning": FREE, "workload": workload}
    return llama(**parts | changes)


async def world(**changes: Any) -> World:
    found = World()
    found.cluster.put(weekly(**changes))
    await found.settle()
    return found


async def to(found: World, text: str) -> Object:
    """Let time pass until a moment, a look at each change that was announced, and return the status."""
    end = datetime.fromisoformat(text)
    while found.clock.now() < end:
        known = moment_of(found.status()["schedule"].get("nextChangeTime"))
        step = end if known is None or known <= found.clock.now() else min(end, known)
        found.clock.advance((step - found.clock.now()).total_seconds())
        await found.settle()
    return found.status()


def workload(found: World) -> Object:
    return found.cluster.objects["Deployment", "team", "llama"]


def events(found: World, reason: str) -> list[str]:
    return [event["note"] for event in found.cluster.events if event["reason"] == reason]


def budget(watts: int, action: str = "Deny") -> Object:
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": "cap", "namespace": "team"},
        "spec": {"powerWatts": watts, "action": action, "shed": {"cooldownSeconds": 60, "hysteresisPercent": 5}},
    }


def committed(found: World) -> int:
    watts: int = found.cluster.objects["EnergyBudget", "team", "cap"]["status"]["committedPowerWatts"]
    return watts


async def test_replicas_follow_the_hours_without_a_restart() -> None:
    found = await world()
    status = found.status()
    assert found.condition("PlanReady")["status"] == "True"
    schedule, template = status["schedule"], workload(found)["spec"]["template"]
    most = max(entry["replicas"] for entry in schedule["hours"])
    assert (schedule["replicas"], workload(found)["spec"]["replicas"], most > 1) == (1, 1, True)
    assert schedule["nextReplicas"] == most
    assert schedule["weekWattHours"] < schedule["constantWattHours"]
    plan_hash, adopted = status["plan"]["hash"], status["planAdoptionTime"]

    status = await to(found, "2026-03-02T09:00:00+00:00")
    assert (status["plan"]["replicas"], workload(found)["spec"]["replicas"]) == (most, most)
    status = await to(found, "2026-03-02T19:00:00+00:00")
    assert (status["plan"]["replicas"], workload(found)["spec"]["replicas"]) == (1, 1)

    assert workload(found)["spec"]["template"] == template
    assert (status["plan"]["hash"], status["planAdoptionTime"]) == (plan_hash, adopted)
    up, down = events(found, "ReplicasScaled")
    assert f"Mon 08:00 UTC: {most} replicas instead of 1 for 60 requests per second" in up
    assert f"1 replica instead of {most} for 2 requests per second" in down
    assert "the week takes" in up
    assert "the best constant plan" in up
    assert not events(found, "RolloutStarted")
    assert not events(found, "BecameUnready")


async def test_replicas_start_early_by_the_time_that_the_last_start_took() -> None:
    found = await world()
    modelled = moment_of(found.status()["schedule"]["nextChangeTime"])
    assert modelled is not None
    lead = (datetime(2026, 3, 2, 8, tzinfo=UTC) - modelled).total_seconds()
    assert lead == found.status()["schedule"]["startSeconds"]

    found.pods_run = False
    found.clock.advance((modelled - found.clock.now()).total_seconds())
    await found.settle()
    assert found.status()["schedule"]["startingSince"] is not None
    found.clock.advance(400)
    found.pods_run = True
    await found.settle()
    schedule = found.status()["schedule"]
    assert "startingSince" not in schedule
    # The next change is the stop of Monday evening, on the hour.
    assert schedule["nextChangeTime"] == "2026-03-02T18:00:00Z"


async def test_replicas_that_start_early_leave_the_deployment_ready_until_the_hour_needs_them() -> None:
    found = await world()
    change = moment_of(found.status()["schedule"]["nextChangeTime"])
    assert change is not None
    found.pods_run = False
    found.clock.advance((change - found.clock.now()).total_seconds())
    await found.settle()
    ready = found.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("True", "PodsReady")
    assert ready["message"].endswith("the others start early")
    assert not events(found, "BecameUnready")
    # At eight o'clock the hour needs them.
    found.clock.advance((datetime(2026, 3, 2, 8, tzinfo=UTC) - found.clock.now()).total_seconds())
    await found.settle()
    assert found.condition("Ready")["status"] == "False"
    found.pods_run = True
    await found.settle()
    assert found.condition("Ready")["status"] == "True"


async def test_a_start_that_was_measured_by_the_site_is_taken_as_it_is() -> None:
    found = await world(scaling={"startSeconds": 900})
    schedule = found.status()["schedule"]
    assert (schedule["startSeconds"], schedule["nextChangeTime"]) == (900, "2026-03-02T07:45:00Z")


async def test_a_restart_of_the_operator_changes_nothing() -> None:
    found = await world()
    await to(found, "2026-03-02T09:00:00+00:00")
    before, mark = found.status(), found.mark
    found.start()
    await found.settle()
    assert found.status() == before
    assert not found.writes_since(mark)


async def test_between_two_changes_nothing_is_written() -> None:
    found = await world()
    mark = found.mark
    for _ in range(6):
        found.clock.advance(3600)
        await found.settle()
    assert not found.writes_since(mark)


async def test_a_deployment_at_rest_is_looked_at_again_when_its_replicas_change() -> None:
    found = await world()
    change = moment_of(found.status()["schedule"]["nextChangeTime"])
    assert change is not None
    found.clock.advance((change - found.clock.now()).total_seconds() - 100)
    await found.settle()
    assert await found.reconciler.reconcile(KEY) == 100.0


async def test_a_schedule_that_somebody_edited_is_planned_again() -> None:
    found = await world()
    planned = found.status()["schedule"]
    body = found.cluster.objects["LLMDeployment", "team", "llama"]
    edited = {**planned, "hours": [{**entry, "replicas": 9} for entry in planned["hours"]]}
    found.cluster.put({**body, "status": {**body["status"], "schedule": edited}})
    found.start()
    await found.settle()
    assert found.status()["schedule"]["hours"] == planned["hours"]


async def test_a_load_that_no_plan_sustains_keeps_the_schedule() -> None:
    found = await world()
    body = found.cluster.objects["LLMDeployment", "team", "llama"]
    before = found.status()["schedule"]
    found.cluster.put(weekly({**BUSY, "requestsPerSecond": "9000"}) | {"status": body["status"]})
    await found.settle()
    condition = found.condition("PlanReady")
    assert (condition["status"], condition["reason"]) == ("False", "LoadTooHigh")
    assert "Mon 08:00, 9000 requests per second" in condition["message"]
    assert found.status()["schedule"]["hours"] == before["hours"]
    status = await to(found, "2026-03-02T09:00:00+00:00")
    assert status["plan"]["replicas"] == max(entry["replicas"] for entry in before["hours"])


def rates(*hours: dict[str, Any], text: str = "") -> Object:
    data = {"hours.yaml": text or json.dumps(list(hours or (BUSY,)))}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rates", "namespace": "team"}, "data": data}


async def test_the_hours_of_a_config_map_are_followed_and_planned_again_when_they_change() -> None:
    found = World()
    workload_part = LOAD | {"profile": {"hoursConfigMapRef": {"name": "rates"}}}
    found.cluster.put(llama(planning=FREE, workload=workload_part))
    await found.settle()
    condition = found.condition("PlanReady")
    assert (condition["status"], condition["reason"]) == ("False", "ProfileMissing")
    assert condition["message"] == "spec.workload.profile.hoursConfigMapRef: ConfigMap rates does not exist"
    assert "plan" not in found.status()

    found.cluster.put(rates())
    await found.settle()
    inline = await world()
    assert found.status()["schedule"]["hours"] == inline.status()["schedule"]["hours"]
    most = max(entry["replicas"] for entry in found.status()["schedule"]["hours"])
    mark = found.mark
    found.clock.advance(60)
    await found.settle()
    assert not found.writes_since(mark)

    # Twice the load and another hour, without an edit of the deployment.
    found.cluster.put(rates({**BUSY, "fromHour": 6, "requestsPerSecond": "120"}))
    await found.settle()
    status = await to(found, "2026-03-02T06:30:00+00:00")
    assert status["plan"]["replicas"] > most
    assert not events(found, "RolloutStarted")


async def test_a_schedule_is_followed_while_its_config_map_is_gone_or_wrong() -> None:
    found = World()
    found.cluster.put(rates())
    found.cluster.put(llama(planning=FREE, workload=LOAD | {"profile": {"hoursConfigMapRef": {"name": "rates"}}}))
    await found.settle()
    before = found.status()["schedule"]["hours"]
    found.cluster.put(rates(text="[{requestsPerSecond: -3}]"))
    status = await to(found, "2026-03-02T09:00:00+00:00")
    condition = found.condition("PlanReady")
    assert (condition["status"], condition["reason"]) == ("False", "ProfileInvalid")
    wrong = "ConfigMap rates, key 'hours.yaml': entry 1, requestsPerSecond: '-3' must be greater than 0"
    assert condition["message"] == f"spec.workload.profile.hoursConfigMapRef: {wrong}; the running plan stays"
    assert status["schedule"]["hours"] == before
    assert status["plan"]["replicas"] == max(entry["replicas"] for entry in before)
    assert found.condition("Ready")["status"] == "True"
    found.cluster.remove("ConfigMap", "team", "rates")
    status = await to(found, "2026-03-02T19:00:00+00:00")
    assert found.condition("PlanReady")["reason"] == "ProfileMissing"
    assert status["plan"]["replicas"] == 1
    found.cluster.put(rates())
    await found.settle()
    assert found.condition("PlanReady")["reason"] == "Planned"


async def test_without_a_profile_the_plan_is_one_of_a_constant_load() -> None:
    found = await world()
    template = workload(found)["spec"]["template"]
    body = found.cluster.objects["LLMDeployment", "team", "llama"]
    found.cluster.put(llama(planning=FREE, workload=LOAD) | {"status": body["status"]})
    await found.settle()
    status = found.status()
    assert "schedule" not in status
    assert "plannedReplicas" not in status["plan"]
    assert (status["plan"]["replicas"], workload(found)["spec"]["replicas"]) == (1, 1)
    assert workload(found)["spec"]["template"] == template


async def test_a_plan_of_a_constant_load_with_the_same_layout_follows_the_hours_without_a_restart() -> None:
    found = World()
    found.cluster.put(llama(planning=FREE, workload=LOAD))
    await found.settle()
    template = workload(found)["spec"]["template"]
    body = found.cluster.objects["LLMDeployment", "team", "llama"]
    found.cluster.put(weekly() | {"status": body["status"]})
    await found.settle()
    status = await to(found, "2026-03-02T09:00:00+00:00")
    assert status["plan"]["replicas"] > 1
    assert workload(found)["spec"]["template"] == template


async def test_a_running_layout_stays_while_another_one_saves_too_little_over_the_week() -> None:
    found = World()
    found.cluster.put(llama(planning={"overrides": {"tensorParallel": 1, "maxBatchSize": 8}}, workload=LOAD))
    await found.settle()
    template = workload(found)["spec"]["template"]
    body = found.cluster.objects["LLMDeployment", *KEY]
    overrides = {"overrides": {"tensorParallel": 1}}
    much = overrides | {"replan": {"minEnergySavingPercent": 100, "cooldownSeconds": 0}}
    found.cluster.put(weekly(planning=much) | {"status": body["status"]})
    await found.settle()
    condition, status = found.condition("PlanReady"), found.status()
    assert (condition["status"], condition["reason"]) == ("True", "KeepingRunningPlan")
    assert "less than minEnergySavingPercent=100" in condition["message"]
    assert (status["plan"]["maxBatchSize"], workload(found)["spec"]["template"]) == (8, template)
    # The layout that stays follows the hours, too.
    most = max(entry["replicas"] for entry in status["schedule"]["hours"])
    status = await to(found, "2026-03-02T09:00:00+00:00")
    assert (status["plan"]["replicas"], workload(found)["spec"]["replicas"]) == (most, most)

    any_saving = overrides | {"replan": {"minEnergySavingPercent": 0, "cooldownSeconds": 0}}
    found.cluster.put(weekly(planning=any_saving) | {"status": found.status()})
    await found.settle()
    assert found.status()["plan"]["maxBatchSize"] > 8
    (note,) = events(found, "PlanAdopted")[-1:]
    assert note.startswith("EnergySaving: ")
    assert "the week takes" in note


async def test_an_approval_holds_for_every_hour() -> None:
    found = await world(planning=FREE | {"mode": "Manual"})
    assert ("Deployment", "team", "llama") not in found.cluster.objects
    body = found.cluster.objects["LLMDeployment", "team", "llama"]
    approved = FREE | {"mode": "Manual", "approvedPlanHash": found.status()["plan"]["hash"]}
    found.cluster.put(weekly(planning=approved) | {"status": body["status"]})
    await found.settle()
    for moment in ("2026-03-02T09:00:00+00:00", "2026-03-02T19:00:00+00:00"):
        status = await to(found, moment)
        assert workload(found)["spec"]["replicas"] == status["plan"]["replicas"]
        assert found.condition("PlanReady")["reason"] == "Planned"


async def test_the_power_committed_follows_the_hours_and_the_highest_is_kept_for_the_deployment() -> None:
    found, other = await world(), ("team", "other")
    peak = found.status()["plan"]["peakPowerWatts"]
    found.cluster.put(llama("other"))
    await found.settle(KEY, other)
    before = found.status(other)["plan"]["predicted"]["powerWatts"]
    found.meter = {KEY: found.status()["plan"]["predicted"]["powerWatts"], other: before}
    found.cluster.put(budget(peak + before + 5))
    await found.look(KEY, other)
    assert committed(found) == found.status()["plan"]["predicted"]["powerWatts"] + before
    assert committed(found) < peak

    # At night there is room for another replica, and in the morning there is none.
    body = found.cluster.objects["LLMDeployment", *other]
    more = {"overrides": {"tensorParallel": 1, "replicas": 3, "maxBatchSize": 64}}
    found.cluster.put(llama("other", planning=more) | {"status": body["status"]})
    await found.look(KEY, other)
    assert found.condition("PlanReady", other)["reason"] == "BudgetExceeded"

    change = moment_of(found.status()["schedule"]["nextChangeTime"])
    assert change is not None
    await found.look(KEY, other, seconds=(change - found.clock.now()).total_seconds())
    await found.look(KEY, other, seconds=60)
    assert found.status()["plan"]["predicted"]["powerWatts"] == peak
    assert committed(found) == peak + before


async def test_members_with_peaks_at_different_hours_share_the_power_of_a_budget() -> None:
    found, other, third = await world(), ("team", "other"), ("team", "third")
    peak = found.status()["plan"]["peakPowerWatts"]
    night = found.status()["plan"]["predicted"]["powerWatts"]
    limit = peak + night + 50
    found.meter = {KEY: float(night), other: float(night)}
    found.cluster.put(budget(limit))
    await found.look()
    late = {**BUSY, "days": ["Mon", "Tue", "Wed", "Thu", "Fri"], "fromHour": 20, "toHour": 23}
    body = weekly(late)
    found.cluster.put({**body, "metadata": {**body["metadata"], "name": "other", "uid": "other"}})
    await found.look(KEY, other)
    status = found.status(other)
    assert found.condition("PlanReady", other)["status"] == "True", found.condition("PlanReady", other)
    assert limit < peak + status["plan"]["peakPowerWatts"]
    # The same peak as the first one finds no power, and the hour is named in the night before.
    found.cluster.put({**weekly(BUSY), "metadata": {**body["metadata"], "name": "third", "uid": "third"}})
    await found.look(KEY, other, third)
    condition = found.condition("PlanReady", third)
    assert (condition["status"], condition["reason"]) == ("False", "BudgetExceeded")
    assert condition["message"].startswith("Mon 08:00, 60 requests per second: ")
    # Over a day the budget holds in every hour, and each has its peak.
    most = 0
    for hour in range(1, 26):
        moment = datetime(2026, 3, 2, tzinfo=UTC) + timedelta(hours=hour)
        while found.clock.now() < moment:
            looks = [found.status(key)["schedule"]["nextChangeTime"] for key in (KEY, other)]
            times = [time for text in looks if (time := moment_of(text)) is not None and time > found.clock.now()]
            step = min([moment, *times])
            found.clock.advance((step - found.clock.now()).total_seconds())
            found.meter = {key: found.status(key)["plan"]["predicted"]["powerWatts"] for key in (KEY, other)}
            await found.look(KEY, other)
            most = max(most, committed(found))
            assert committed(found) <= limit
    assert most > peak


async def test_power_that_is_kept_for_the_morning_is_not_said_to_be_committed() -> None:
    found, other = await world(), ("team", "other")
    found.cluster.put(llama("other"))
    await found.settle(KEY, other)
    watts = [found.status(key)["plan"]["predicted"]["powerWatts"] for key in (KEY, other)]
    found.meter = dict(zip((KEY, other), map(float, watts), strict=True))
    # Less than the morning needs, and more than the night.
    found.cluster.put(budget(sum(watts) + 10))
    await found.look(KEY, other)
    assert found.condition("WithinEnergyBudget", other)["reason"] == "WithinBudget"


async def test_a_budget_that_binds_in_the_morning_is_seen_at_night() -> None:
    found = await world(energy={"powerCap": {"mode": "Never"}})
    peak, night = (found.status()["plan"][name] for name in ("peakPowerWatts", "predicted"))
    found.meter = {KEY: night["powerWatts"]}
    found.cluster.put(budget(peak - 100))
    await found.look()
    status = found.status()
    assert night["powerWatts"] < peak - 100
    condition = found.condition("PlanReady")
    if condition["status"] == "True":
        assert status["plan"]["peakPowerWatts"] <= peak - 100
    else:
        assert condition["reason"] == "BudgetExceeded"
        assert condition["message"].startswith("Mon 08:00, 60 requests per second: ")
    change = moment_of(status["schedule"]["nextChangeTime"])
    assert change is not None
    await found.look(seconds=(change - found.clock.now()).total_seconds())
    await found.look(seconds=60)
    assert committed(found) <= peak - 100
    assert workload(found)["spec"]["replicas"] == found.status()["plan"]["replicas"] > 1


async def test_a_budget_sheds_replicas_of_the_hour_and_returns_them() -> None:
    found = await world()
    whole = (await to(found, "2026-03-02T09:00:00+00:00"))["plan"]
    template = workload(found)["spec"]["template"]
    found.cluster.put(budget(whole["predicted"]["powerWatts"] - 100, "Shed"))
    for _ in range(3):
        await found.look(seconds=10)
    shed = found.status()["plan"]
    assert (shed["replicas"], shed["hash"]) == (whole["replicas"] - 1, whole["hash"])
    assert found.condition("PlanReady")["reason"] == "Shed"
    assert workload(found)["spec"]["replicas"] == shed["replicas"]

    found.cluster.put(budget(2 * whole["predicted"]["powerWatts"], "Shed"))
    for _ in range(4):
        await found.look(seconds=300)
    assert found.status()["plan"]["replicas"] == whole["replicas"]
    assert found.condition("PlanReady")["reason"] == "Planned"
    assert workload(found)["spec"]["template"] == template


async def test_the_morning_has_the_power_that_was_granted_while_nothing_is_measured() -> None:
    found = await world()
    peak = found.status()["plan"]["peakPowerWatts"]
    found.cluster.put(budget(peak + 5))
    await found.look()
    change = moment_of(found.status()["schedule"]["nextChangeTime"])
    assert change is not None
    await found.look(seconds=(change - found.clock.now()).total_seconds())
    assert found.condition("WithinEnergyBudget")["reason"] == "BudgetNotChecked"
    assert found.status()["plan"]["predicted"]["powerWatts"] == peak


async def test_a_week_of_two_deployments_under_a_budget_takes_the_energy_that_was_planned() -> None:
    """The pods that run all week are never replaced, the budget holds at every moment, and the saving is as planned."""
    found, other = World(), ("team", "other")
    late = {**BUSY, "fromHour": 12, "toHour": 22, "requestsPerSecond": "40"}
    found.cluster.put(weekly())
    found.cluster.put({**weekly(late), "metadata": {"name": "other", "namespace": "team"}})
    keys = (KEY, other)
    await found.settle(*keys)
    limit = sum(found.status(key)["plan"]["peakPowerWatts"] for key in keys)
    found.cluster.put(budget(limit))
    await found.look(*keys)
    schedules = {key: found.status(key)["schedule"] for key in keys}
    start = {name for kind, _, name in found.cluster.objects if kind == "Pod"}
    # From the next change on, so that the week begins and ends with the same replicas.
    used, end = dict.fromkeys(keys, 0.0), found.clock.now().timestamp() + 7 * 86400
    while found.clock.now().timestamp() < end:
        changes = [moment_of(found.status(key)["schedule"]["nextChangeTime"]) for key in keys]
        step = min(*(change.timestamp() for change in changes if change is not None), end)
        seconds = step - found.clock.now().timestamp()
        watts = {key: found.status(key)["plan"]["predicted"]["powerWatts"] for key in keys}
        found.meter = {key: float(watts[key]) for key in keys}
        assert sum(watts.values()) <= limit
        for key in keys:
            used[key] += watts[key] * seconds
        await found.look(*keys, seconds=seconds)
        assert committed(found) <= limit
    for key in keys:
        schedule = schedules[key]
        started = schedule["starts"] * schedule["startJoules"]
        assert (used[key] + started) / 3600 == pytest.approx(schedule["weekWattHours"], rel=0.05)
        assert schedule["weekWattHours"] < 0.9 * schedule["constantWattHours"]
    assert not events(found, "RolloutStarted")
    assert start <= {name for kind, _, name in found.cluster.objects if kind == "Pod"}
