"""The start of a job over random forecasts, deadlines and looks of the operator: safe, stable, and never undone."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.decide.observations import deployment, plan

from energylens.api.llmdeployment import JobStartStatus, LLMDeployment, PlannedJob
from energylens.api.timestamp import moment_of, timestamp
from energylens.decide.deployment.observed.named_maps import NamedMap
from energylens.decide.deployment.pods.job_hours import JobHours, job_hours
from energylens.decide.deployment.pods.job_start import own_workload, planned_start, waits_until
from energylens.decide.reasons import Reason

T0 = datetime(2026, 3, 1, tzinfo=UTC)
PLANNED = PlannedJob(completion_seconds=4000, start_seconds=400, longest_seconds=5200, energy_watt_hours=900)
PLAN = plan(job=PLANNED)


def asked(before: JobStartStatus | None, by: datetime, not_before: datetime | None, after: str) -> LLMDeployment:
    start: dict[str, Any] = {"completeBy": timestamp(by), "forecastConfigMapRef": {"name": "grid"}}
    start |= {} if not_before is None else {"notBefore": timestamp(not_before)}
    job = {"requests": 10, "completeWithinSeconds": 7200, "afterCompletion": after, "start": start}
    status = {} if before is None else {"jobStart": before.model_dump(mode="json", by_alias=True, exclude_none=True)}
    return deployment(status, workload={"inputTokens": 1, "outputTokens": 1, "job": job})


def forecast(found: LLMDeployment, values: list[float], begin: datetime) -> JobHours:
    lines = "".join(f"{timestamp(begin + timedelta(hours=i))},{value}\n" for i, value in enumerate(values))
    body = {"data": {"forecast.csv": f"time,gramsPerKilowattHour\n{lines}"}}
    hours = job_hours(found, NamedMap(body))
    assert hours is not None
    return hours


@pytest.mark.parametrize("seed", range(60))
def test_every_start_is_safe_and_changes_only_for_something_better(seed: int) -> None:
    draw = random.Random(seed)
    by = T0 + timedelta(hours=draw.uniform(0.5, 40))
    not_before = draw.choice([None, T0 + timedelta(hours=draw.uniform(0, 10))])
    if not_before is not None and not_before >= by:
        not_before = None
    after = draw.choice(["Idle", "Release"])
    before: JobStartStatus | None = None
    now, moves = T0, 0
    hours: JobHours | None = None
    base = [draw.uniform(50, 500) for _ in range(60)]
    while True:
        found = asked(before, by, not_before, after)
        length = draw.choice([60, 60, 12, 3, 0])
        noisy = [value * draw.uniform(0.995, 1.005) for value in base[:length]]
        hours = forecast(found, noisy, T0) if noisy else JobHours(None, Reason.FORECAST_MISSING, "it is gone")
        start = planned_start(found, PLAN, hours, now)
        assert start is not None
        again = planned_start(asked(start, by, not_before, after), PLAN, hours, now)
        assert again == start
        begin, latest = moment_of(start.start_time), moment_of(start.latest_start_time)
        assert begin is not None
        assert latest is not None
        # Times are whole seconds.
        assert abs((latest - (by - timedelta(seconds=5200))).total_seconds()) <= 1
        earliest = max(now, not_before or now)
        assert begin <= max(latest, earliest)
        assert begin >= (not_before or T0) - timedelta(seconds=1)
        due = waits_until(start, now) is None
        assert due == (begin <= now)
        if before is not None and before.start_time != start.start_time:
            moves += 1
        before = start
        if due:
            break
        # The next look is the planned start, or an earlier resync.
        now = min(begin, now + timedelta(minutes=draw.uniform(5, 90)))
    # Noise of half a percent moves nothing; a longer forecast may show a better hour.
    assert moves <= 2


def test_without_figures_of_an_older_plan_the_whole_time_is_kept() -> None:
    old = plan(job=PlannedJob(completion_seconds=4000, energy_watt_hours=900))
    found = asked(None, T0 + timedelta(hours=10), None, "Release")
    start = planned_start(found, old, forecast(found, [300.0] * 20, T0), T0)
    assert start is not None
    assert start.latest_start_time == timestamp(T0 + timedelta(hours=8))


def test_without_a_plan_or_a_choice_there_is_no_start() -> None:
    found = asked(None, T0 + timedelta(hours=10), None, "Release")
    hours = forecast(found, [300.0] * 20, T0)
    assert planned_start(found, None, hours, T0) is None
    assert planned_start(found, plan(), hours, T0) is None
    assert planned_start(deployment(), PLAN, None, T0) is None
    assert job_hours(deployment(), NamedMap()) is None


@pytest.mark.parametrize(("uid", "owners", "own"), [("b", ["b"], 1), ("b", ["a"], 0), ("b", [], 1), ("", ["a"], 1)])
def test_a_workload_is_that_of_its_owner(uid: str, owners: list[str], own: int) -> None:
    found = asked(None, T0 + timedelta(hours=10), None, "Release")
    found = found.model_copy(update={"metadata": found.metadata.model_copy(update={"uid": uid})})
    workload = {"metadata": {"ownerReferences": [{"uid": owner} for owner in owners]}}
    assert own_workload(found, workload) == (workload if own else None)
    assert own_workload(found, None) is None
