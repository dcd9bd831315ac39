"""A job whose pods start in the hours that are best before its deadline, over forecasts, edits and restarts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.fake_pods import run_pods
from tests.support.world import KEY, World, llama

from energylens.cluster.port import Object

T0 = datetime(2026, 3, 1, tzinfo=UTC)
DAY = [300, 280, 250, 100, 90, 95, 240, 300, 320, 310, 300, 305]


def hour(number: float) -> str:
    return (T0 + timedelta(hours=number)).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(
    by: float = 10.0, source: str = "forecast", requests: int = 20_000, seconds: int = 7200, **changes: Any
) -> Object:
    start = {"completeBy": hour(by), f"{source}ConfigMapRef": {"name": "grid"}} | changes
    asked = {"requests": requests, "completeWithinSeconds": seconds, "afterCompletion": "Release", "start": start}
    workload = {"inputTokens": 512, "outputTokens": 256, "job": asked}
    return llama(workload=workload, planning={"overrides": {"tensorParallel": 1}})


def grid(values: Sequence[float], column: str = "gramsPerKilowattHour", key: str = "forecast.csv") -> Object:
    lines = "".join(f"{hour(i)},{value}\n" for i, value in enumerate(values))
    data = {key: f"time,{column}\n{lines}"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "grid", "namespace": "team"}, "data": data}


async def world(*objects: Object) -> World:
    found = World()
    for each in objects or (grid(DAY), job()):
        found.cluster.put(each)
    await found.settle()
    return found


async def to(found: World, number: float) -> Object:
    found.clock.advance((T0 + timedelta(hours=number) - found.clock.now()).total_seconds())
    await found.settle()
    return start(found)


def start(found: World) -> Object:
    status: Object = found.status()["jobStart"]
    return status


def pods_exist(found: World) -> bool:
    live = found.cluster.objects.get(("Deployment", "team", "llama"))
    return live is not None and live["spec"]["replicas"] > 0


def events(found: World, reason: str) -> list[str]:
    return [event["note"] for event in found.cluster.events if event["reason"] == reason]


async def test_the_pods_start_in_the_cleanest_hours_and_never_stop() -> None:
    found = await world()
    status = start(found)
    assert (status["state"], status["reason"]) == ("Waiting", "BestHours")
    assert hour(3) <= status["startTime"] <= hour(5)
    assert status["startTime"] < status["endTime"] < hour(10)
    assert status["savingPercent"] > 60
    assert not pods_exist(found)
    ready, plan, timed = (found.condition(kind) for kind in ("Ready", "PlanReady", "StartTimed"))
    assert (ready["status"], ready["reason"]) == ("False", "StartScheduled")
    assert (plan["status"], plan["reason"]) == ("True", "StartScheduled")
    assert (timed["status"], timed["reason"]) == ("True", "BestHours")
    assert "instead of" in timed["message"]
    assert events(found, "StartPlanned") == [status["message"]]

    begin = datetime.fromisoformat(status["startTime"])
    before = await to(found, (begin - T0).total_seconds() / 3600 - 1 / 3600)
    assert (before["state"], pods_exist(found)) == ("Waiting", False)
    mark = found.mark
    await found.settle()
    assert not found.writes_since(mark)
    after = await to(found, (begin - T0).total_seconds() / 3600)
    assert (after["state"], after["startTime"], pods_exist(found)) == ("Started", status["startTime"], True)
    assert found.condition("Ready")["status"] == "True"
    # A forecast for the worst does not interrupt the job, nor does a restart of the operator.
    found.cluster.put(grid([500.0] * 5 + [1.0] * 10))
    await to(found, 5.5)
    found.start()
    await to(found, 6)
    assert (start(found)["startTime"], pods_exist(found)) == (status["startTime"], True)
    assert found.condition("StartTimed")["reason"] == "BestHours"


async def test_the_cheapest_hours_may_have_negative_prices() -> None:
    prices = [0.3, 0.2, -0.05, -0.04, 0.1, 0.3, 0.3, 0.3]
    found = await world(grid(prices, "pricePerKilowattHour", "tariff.csv"), job(source="tariff"))
    assert hour(1.5) <= start(found)["startTime"] <= hour(3)
    assert start(found)["savingPercent"] > 100
    assert "in the tariff's currency" in start(found)["message"]


async def test_nothing_starts_later_than_is_safe() -> None:
    found = await world(grid([400 - 20 * i for i in range(14)]), job(by=10, requests=200_000, seconds=20_000))
    status = start(found)
    assert status["startTime"] == status["latestStartTime"]
    plan = found.status()["plan"]["job"]
    latest = T0 + timedelta(hours=10, seconds=-plan["longestSeconds"])
    assert datetime.fromisoformat(status["latestStartTime"]) == latest
    # The headroom is the error of the prediction, and part of the time.
    assert plan["longestSeconds"] > plan["completionSeconds"]
    await to(found, (latest - T0).total_seconds() / 3600)
    assert pods_exist(found)


async def test_a_deadline_without_time_left_starts_at_once_and_says_so() -> None:
    found = await world(grid(DAY), job(by=0.1))
    timed = found.condition("StartTimed")
    assert pods_exist(found)
    assert (timed["status"], timed["reason"]) == ("False", "NoTimeLeft")
    assert f"completeBy={hour(0.1)} leaves no choice" in timed["message"]


async def test_no_start_is_before_not_before() -> None:
    found = await world(grid(DAY), job(notBefore=hour(6)))
    assert hour(6) <= start(found)["startTime"]


@pytest.mark.parametrize(
    ("forecast", "reason", "words"),
    [
        (None, "ForecastMissing", "ConfigMap grid does not exist"),
        (grid(DAY, key="other"), "ForecastMissing", "has no key 'forecast.csv'; its keys: other"),
        (grid(DAY, "price"), "ForecastInvalid", "line 1 must be time,gramsPerKilowattHour"),
        (grid([300] * 1), "ForecastShort", f"the forecast covers {hour(0)} to {hour(1)}, and the job of"),
    ],
)
async def test_without_a_usable_forecast_the_job_starts_after_a_short_wait(
    forecast: Object | None, reason: str, words: str
) -> None:
    found = await world(*([] if forecast is None else [forecast]), job(requests=200_000, seconds=20_000))
    timed = found.condition("StartTimed")
    assert not pods_exist(found)
    assert (timed["status"], timed["reason"]) == ("False", reason)
    assert words in timed["message"]
    assert timed["message"].startswith(f"starts at {hour(1 / 6)}: ")
    assert "waits until then for a usable forecast; ends" in timed["message"]
    assert await found.reconciler.reconcile(KEY) == 30
    # A restart of the operator does not begin the wait again.
    await to(found, 0.1)
    found.start()
    await to(found, 0.16)
    assert (start(found)["startTime"], pods_exist(found)) == (hour(1 / 6), False)
    await to(found, 1 / 6)
    assert pods_exist(found)
    assert found.condition("StartTimed")["reason"] == reason


async def test_a_forecast_that_comes_after_the_job_decides() -> None:
    found = await world(job())
    assert start(found)["reason"] == "ForecastMissing"
    # Even in the pass in which the wait is over.
    found.cluster.put(grid(DAY))
    await to(found, 1 / 6)
    assert (start(found)["reason"], pods_exist(found)) == ("BestHours", False)
    assert hour(3) <= start(found)["startTime"] <= hour(5)


async def test_the_wait_for_a_forecast_ends_at_the_last_safe_start() -> None:
    by = 1.0
    found = await world(job(by=by))
    longest = found.status()["plan"]["job"]["longestSeconds"]
    await to(found, 0)
    found = World()
    found.clock.advance(3600 - longest - 60)
    found.cluster.put(job(by=by))
    await found.settle()
    assert start(found)["startTime"] == start(found)["latestStartTime"] == hour(1 - longest / 3600)
    found.clock.advance(60)
    await found.settle()
    assert pods_exist(found)


async def test_a_start_that_waited_for_approval_is_chosen_again() -> None:
    body = job(by=30)
    body["spec"]["planning"]["mode"] = "Manual"
    found = await world(grid([300, 300, 50, 50, 50, *[300] * 10, 60, 60, 60, *[300] * 12]), body)
    assert hour(2) <= start(found)["startTime"] <= hour(4)
    await to(found, 9)
    assert (start(found)["state"], pods_exist(found)) == ("Waiting", False)
    body["spec"]["planning"]["approvedPlanHash"] = found.status()["plan"]["hash"]
    found.cluster.put(body)
    await found.settle()
    assert (start(found)["state"], pods_exist(found)) == ("Waiting", False)
    assert hour(14.5) <= start(found)["startTime"] <= hour(17)


async def test_the_pods_of_a_deleted_job_of_the_same_name_do_not_count() -> None:
    body = job()
    del body["spec"]["workload"]["job"]["start"]
    found = await world(grid(DAY), body)
    assert pods_exist(found)
    # The garbage collector has not come yet.
    old = found.cluster.objects["Deployment", "team", "llama"]
    found.cluster.remove("LLMDeployment", "team", "llama")
    found.cluster.put({**old, "metadata": {k: v for k, v in old["metadata"].items() if k != "resourceVersion"}})
    found.cluster.put(job())
    await found.settle()
    assert start(found)["state"] == "Waiting"
    found.cluster.remove("Deployment", "team", "llama")
    await found.settle()
    assert (start(found)["state"], pods_exist(found)) == ("Waiting", False)


async def test_an_edited_start_is_never_later_than_is_safe() -> None:
    found = await world()
    planned = start(found)
    body = found.cluster.objects["LLMDeployment", "team", "llama"]
    for edited in (hour(9.99), "9999-12-31T23:59:59Z"):
        body["status"]["jobStart"] = {**planned, "startTime": edited, "latestStartTime": edited}
        found.start()
        await found.settle()
        assert start(found)["startTime"] == planned["startTime"]


async def test_a_new_job_waits_for_a_forecast_that_is_not_stale() -> None:
    found = World()
    found.clock.advance(86_400)
    found.cluster.put(grid(DAY))
    found.cluster.put(job(by=40))
    await found.settle()
    timed = found.condition("StartTimed")
    assert not pods_exist(found)
    assert (timed["status"], timed["reason"]) == ("False", "ForecastStale")
    assert f"the forecast ended at {hour(12)}" in timed["message"]


async def test_the_known_part_of_a_short_forecast_decides() -> None:
    found = await world(grid(DAY[:5]), job(by=20))
    timed = found.condition("StartTimed")
    assert (timed["status"], timed["reason"]) == ("True", "BestKnownHours")
    assert "are not compared, since the forecast ends" in timed["message"]
    assert hour(3) <= start(found)["startTime"] <= hour(5)


async def test_a_changed_forecast_moves_the_start_only_if_that_is_worth_it() -> None:
    found = await world(grid([300, 300, 100, 100, 300, 300, 300, 300, 300]), job())
    first = start(found)
    found.cluster.put(grid([300, 300, 100, 100, 300, 300, 99.5, 99.5, 300]))
    await found.settle()
    assert start(found)["startTime"] == first["startTime"]
    found.cluster.put(grid([300, 300, 100, 100, 300, 300, 60, 60, 300]))
    await found.settle()
    moved = start(found)
    assert moved["startTime"] >= hour(5)
    assert events(found, "StartPlanned")[-1].endswith(f"until now it was {first['startTime']}")


async def test_a_planned_start_outlives_its_forecast() -> None:
    found = await world()
    planned = start(found)["startTime"]
    found.cluster.remove("ConfigMap", "team", "grid")
    await found.settle()
    assert (start(found)["startTime"], pods_exist(found)) == (planned, False)
    timed = found.condition("StartTimed")
    assert (timed["status"], timed["reason"]) == ("False", "ForecastMissing")
    assert "the planned start stays" in timed["message"]
    found.start()
    await found.settle()
    assert start(found)["startTime"] == planned


@pytest.mark.parametrize("restarts", [0, 1])
async def test_a_suspended_job_is_planned_again_with_the_start_that_was_measured(restarts: int) -> None:
    found = await world()
    begin = datetime.fromisoformat(start(found)["startTime"])
    found.pods_run = False
    await to(found, (begin - T0).total_seconds() / 3600)
    assert start(found)["state"] == "Starting"
    found.clock.advance(600)
    run_pods(found.cluster)
    ran = [{"name": "engine", "ready": True, "restartCount": restarts}]
    for key in [key for key in found.cluster.objects if key[0] == "Pod"]:
        found.cluster.edit(*key, lambda pod: pod["metadata"].update(creationTimestamp="2026-02-28T23:50:00Z"))
        found.cluster.edit(*key, lambda pod: pod["status"].update(containerStatuses=ran))
    found.pods_run = True
    await found.settle()
    status = start(found)
    # Of a pod that restarted, nobody knows how long a start takes.
    assert (status["state"], status.get("startSeconds")) == ("Started", None if restarts else 600)
    if restarts:
        return

    body = job(by=30)
    body["spec"]["suspend"] = True
    found.cluster.put(body)
    await found.settle()
    assert (start(found)["state"], pods_exist(found)) == ("Suspended", False)
    assert start(found)["startSeconds"] == 600
    found.cluster.put(grid([300] * 20 + [50, 50, 50] + [300] * 10))
    found.cluster.put(job(by=30))
    await found.settle()
    again = start(found)
    assert (again["state"], pods_exist(found)) == ("Waiting", False)
    assert hour(19) <= again["startTime"] <= hour(22)
    plan = found.status()["plan"]["job"]
    longest = plan["longestSeconds"] - plan["startSeconds"] + 600
    assert datetime.fromisoformat(again["latestStartTime"]) == T0 + timedelta(hours=30, seconds=-longest)
    assert found.condition("Ready")["reason"] == "StartScheduled"
    # Another checkpoint takes another time to load.
    body["spec"]["model"]["revision"] = "v2"
    found.cluster.put(body)
    await found.settle()
    assert (start(found)["state"], start(found).get("startSeconds")) == ("Suspended", None)


async def test_a_job_that_waits_commits_no_watts_and_keeps_its_own_free() -> None:
    budget = {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": "cap", "namespace": "team"},
        "spec": {"powerWatts": 5000, "action": "Deny"},
    }
    found = await world(grid(DAY), budget, job())
    await found.look(seconds=10)
    assert found.cluster.objects["EnergyBudget", "team", "cap"]["status"]["committedPowerWatts"] == 0
    other = found.reconciler.allowances.of({**job(), "metadata": {"name": "other", "namespace": "team", "uid": "o"}})
    assert other.allowance is not None
    watts = found.status()["plan"]["predicted"]["powerWatts"]
    assert other.allowance.room is not None
    # Another job may draw all of the power when this one does not run.
    assert sorted(set(other.allowance.room.watts)) == [5000 - watts, 5000]
    body = {**llama(), "metadata": {"name": "other", "namespace": "team", "uid": "o"}}
    endless = found.reconciler.allowances.of(body)
    assert endless.allowance is not None
    assert endless.allowance.watts == 5000 - watts
    await to(found, 6)
    await found.look(seconds=10)
    assert found.cluster.objects["EnergyBudget", "team", "cap"]["status"]["committedPowerWatts"] == watts


async def test_pods_that_ran_before_are_not_stopped_for_better_hours() -> None:
    body = job()
    del body["spec"]["workload"]["job"]["start"]
    found = await world(grid(DAY), body)
    assert pods_exist(found)
    assert (start(found)["state"], start(found)["reason"]) == ("Started", "AtOnce")
    found.cluster.put(job() | {"status": found.status()})
    await found.settle()
    assert (start(found)["state"], start(found)["reason"], pods_exist(found)) == ("Started", "AlreadyRunning", True)
    assert found.condition("StartTimed")["status"] == "False"


@pytest.mark.parametrize("time", ["yesterday", "2026-02-28T23:00:00Z"])
async def test_an_edited_status_starts_nothing(time: str) -> None:
    found = await world()
    planned = start(found)
    body = found.cluster.objects["LLMDeployment", "team", "llama"]
    body["status"]["jobStart"] = {**planned, "state": "Started", "startTime": time}
    found.start()
    await found.settle()
    assert (start(found)["state"], start(found)["startTime"]) == ("Waiting", planned["startTime"])
    assert not pods_exist(found)
