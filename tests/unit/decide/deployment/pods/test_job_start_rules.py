"""Each rule of the start of a job: its values, its time, what keeps a planned start, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.unit.decide.observations import NOW, OLD, deployment, plan, pod, workload

from energylens.api.base import Condition
from energylens.api.llmdeployment import JobStartStatus, LLMDeployment, PlannedJob
from energylens.api.timestamp import moment_of, timestamp
from energylens.decide.deployment.observed.named_maps import NamedMap
from energylens.decide.deployment.pods.job_choice import FORECAST_WAIT
from energylens.decide.deployment.pods.job_hours import JobHours, job_hours
from energylens.decide.deployment.pods.job_start import (
    FORECAST_LOOK,
    MISSED,
    MOST_START_SECONDS,
    followed_start,
    looks_at,
    own_workload,
    planned_start,
    start_verdict,
    waits_until,
)
from energylens.decide.reasons import Reason

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
BY = NOW + 12 * HOUR
PLANNED = PlannedJob(completion_seconds=4000, start_seconds=400, longest_seconds=5200, energy_watt_hours=900)
PLAN = plan(job=PLANNED)
FORECAST = {"forecastConfigMapRef": {"name": "grid"}}
TARIFF = {"tariffConfigMapRef": {"name": "prices"}}


def asked(
    before: JobStartStatus | None = None,
    source: dict[str, Any] | None = None,
    *,
    by: datetime = BY,
    suspend: bool = False,
    start: dict[str, Any] | None = None,
    **job: Any,
) -> LLMDeployment:
    """Return a job of 7,200 s that ends by midnight; it is noon."""
    when = {"completeBy": timestamp(by), **(source or FORECAST), **(start or {})}
    body = {"requests": 10, "completeWithinSeconds": 7200, "afterCompletion": "Release", "start": when, **job}
    status = {} if before is None else {"jobStart": before.model_dump(mode="json", by_alias=True, exclude_none=True)}
    return deployment(status, workload={"inputTokens": 1, "outputTokens": 1, "job": body}, suspend=suspend)


def table(values: list[float], begin: datetime = NOW, column: str = "gramsPerKilowattHour") -> str:
    rows = "".join(f"{timestamp(begin + at * HOUR)},{value}\n" for at, value in enumerate(values))
    return f"time,{column}\n{rows}"


def hours_of(values: list[float], begin: datetime = NOW) -> JobHours:
    found = job_hours(asked(), NamedMap({"data": {"forecast.csv": table(values, begin)}}))
    assert found is not None
    assert found.values is not None, found.message
    return found


def planned(
    hours: JobHours, before: JobStartStatus | None = None, now: datetime = NOW, **changes: Any
) -> JobStartStatus:
    runs = changes.pop("runs", False)
    made = changes.pop("plan", PLAN)
    found = planned_start(asked(before, **changes), made, hours, now, runs=runs)
    assert found is not None
    return found


def at(start: JobStartStatus) -> timedelta:
    """Return how long after noon a job starts."""
    begin = moment_of(start.start_time)
    assert begin is not None
    return begin - NOW


CLEAN_LATER = [300.0] * 4 + [100.0] * 3 + [300.0] * 13
NO_FORECAST = JobHours(None, Reason.FORECAST_MISSING, "it is gone")


def test_values_are_read_from_the_forecast_or_the_tariff() -> None:
    body = {"data": {"forecast.csv": table([5.0] * 3), "tariff.csv": table([-1.0] * 3, column="pricePerKilowattHour")}}
    forecast, tariff = job_hours(asked(), NamedMap(body)), job_hours(asked(source=TARIFF), NamedMap(body))
    assert forecast is not None
    assert tariff is not None
    assert forecast.values is not None
    assert tariff.values is not None, tariff.message
    # A price may be negative, carbon cannot be.
    assert tuple(tariff.values.values) == (-1.0,) * 3
    assert forecast.digest != tariff.digest
    negative = job_hours(asked(), NamedMap({"data": {"forecast.csv": table([-1.0] * 3)}}))
    assert negative is not None
    assert (negative.values, negative.reason) == (None, Reason.FORECAST_INVALID)
    assert negative.message.startswith(
        "spec.workload.job.start.forecastConfigMapRef: ConfigMap grid, key 'forecast.csv'"
    )


def test_a_missing_table_is_named() -> None:
    for source, name in (
        (FORECAST, "forecastConfigMapRef: ConfigMap grid"),
        (TARIFF, "tariffConfigMapRef: ConfigMap prices"),
    ):
        found = job_hours(asked(source=source), NamedMap())
        assert found is not None
        assert (found.values, found.reason) == (None, Reason.FORECAST_MISSING)
        assert found.message == f"spec.workload.job.start.{name} does not exist"
    assert job_hours(deployment(), NamedMap()) is None


def test_a_job_starts_in_the_clean_hours() -> None:
    found = planned(hours_of(CLEAN_LATER))
    assert (found.state, found.reason, at(found)) == ("Waiting", "BestHours", 4 * HOUR)
    assert moment_of(found.end_time) == NOW + 4 * HOUR + 4000 * SECOND
    assert moment_of(found.latest_start_time) == BY - 5200 * SECOND
    assert found.message.startswith("starts at 2026-03-01T16:00:00Z: ")
    assert "instead of" in found.message
    assert "% less)" in found.message
    assert found.message.endswith("ends at about 2026-03-01T17:06:40Z; the last safe start is at 2026-03-01T22:33:20Z")
    assert found.saving_percent is not None
    assert 60 <= found.saving_percent <= 70


def test_a_job_whose_best_hours_are_now_starts_at_once() -> None:
    found = planned(hours_of([100.0] * 3 + [300.0] * 17))
    assert (at(found), found.saving_percent) == (timedelta(0), 0)
    assert found.message.startswith("starts at once: ")
    assert "; no later start is clearly better; " in found.message


def test_a_start_within_the_present_second_is_due() -> None:
    late_noon = NOW + timedelta(milliseconds=300)
    found = planned(hours_of([100.0] * 3 + [300.0] * 17), now=late_noon)
    assert found.message.startswith("starts at once: ")
    assert waits_until(found, late_noon) is None


def test_starts_after_the_forecast_are_not_compared_and_that_is_said() -> None:
    short = planned(hours_of([300.0, 100.0, 100.0, 100.0]))
    assert (short.reason, at(short)) == ("BestKnownHours", HOUR)
    until = NOW + 4 * HOUR - 4000 * SECOND
    assert f"; starts after {timestamp(until)} are not compared, since the forecast ends" in short.message
    assert "are not compared" not in planned(hours_of([300.0] * 20)).message
    whole = BY - NOW
    # A forecast that ends where the last safe start ends is whole.
    enough = math_hours(whole - 5200 * SECOND + 4000 * SECOND)
    assert planned(hours_of([300.0] * enough)).reason == "BestHours"


def math_hours(length: timedelta) -> int:
    return -(-int(length.total_seconds()) // 3600)


@pytest.mark.parametrize(
    ("grams", "text"), [(100.0, "90 g of CO2"), (1200.0, "1.08 kg of CO2"), (2000.0, "1.8 kg of CO2")]
)
def test_carbon_is_told_in_grams_or_kilograms(grams: float, text: str) -> None:
    watts = plan(job=PLANNED.model_copy(update={"energy_watt_hours": 900}))
    assert text in planned(hours_of([grams] * 20), plan=watts).message


def test_money_is_told_in_the_currency_of_the_tariff() -> None:
    body = {"data": {"tariff.csv": table([0.3] * 4 + [0.1] * 16, column="pricePerKilowattHour")}}
    found = asked(source=TARIFF)
    hours = job_hours(found, NamedMap(body))
    assert hours is not None
    start = planned_start(found, PLAN, hours, NOW)
    assert start is not None
    assert "energy for 0.09 in the tariff's currency instead of energy for 0.27" in start.message


def test_a_saving_of_nothing_is_no_percentage() -> None:
    free = planned(hours_of([0.0] * 20))
    assert (at(free), free.saving_percent) == (timedelta(0), 0)


def test_a_job_that_must_start_now_has_no_choice() -> None:
    for left, said in ((5200, False), (5199, True)):
        found = planned(hours_of(CLEAN_LATER), by=NOW + left * SECOND)
        assert (found.reason, at(found)) == ("NoTimeLeft", timedelta(0))
        assert "leaves no choice" in found.message
        assert ("would surely end in time" in found.message) is said
        assert "last safe start" not in found.message
    assert planned(hours_of(CLEAN_LATER), by=NOW + 5201 * SECOND).reason != "NoTimeLeft"


def test_a_job_never_starts_before_its_earliest_time() -> None:
    when = {"notBefore": timestamp(NOW + 2 * HOUR)}
    found = planned(hours_of([100.0] * 20), start=when)
    assert at(found) == 2 * HOUR
    assert found.message.startswith("starts at 2026-03-01T14:00:00Z")


def test_without_a_forecast_a_job_waits_a_little_and_starts() -> None:
    found = planned(NO_FORECAST)
    assert (found.reason, at(found)) == ("ForecastMissing", FORECAST_WAIT)
    assert "it is gone; waits until then for a usable forecast" in found.message
    soon = planned(NO_FORECAST, by=NOW + 5200 * SECOND + timedelta(minutes=3))
    assert at(soon) == timedelta(minutes=3)
    later = planned(NO_FORECAST, start={"notBefore": timestamp(NOW + HOUR)})
    assert at(later) == HOUR


@pytest.mark.parametrize(
    ("begin", "count", "reason", "text"),
    [
        (NOW - 5 * HOUR, 5, "ForecastStale", "the forecast ended at 2026-03-01T12:00:00Z"),
        (NOW - 5 * HOUR, 6, "ForecastShort", "fits into no part of this time"),
        (NOW + 11 * HOUR, 6, "ForecastShort", "fits into no part of this time"),
    ],
)
def test_a_forecast_of_other_hours_is_stale_or_short(begin: datetime, count: int, reason: str, text: str) -> None:
    found = planned(hours_of([100.0] * count, begin))
    assert (found.reason, at(found)) == (reason, FORECAST_WAIT)
    assert text in found.message


def waiting(time: datetime = NOW + 4 * HOUR, reason: str = "BestHours", **changes: Any) -> JobStartStatus:
    start = {"state": "Waiting", "start_time": timestamp(time), "end_time": timestamp(time + 4000 * SECOND)}
    latest = timestamp(BY - 5200 * SECOND)
    return JobStartStatus(**{**start, "latest_start_time": latest, "reason": reason, "message": "before", **changes})


def test_a_planned_start_stays_without_a_forecast() -> None:
    found = planned(NO_FORECAST, waiting())
    assert (found.reason, at(found)) == ("ForecastMissing", 4 * HOUR)
    assert found.message.startswith("starts at 2026-03-01T16:00:00Z: it is gone; the planned start stays")
    # Unless it would not end in time any more.
    late = planned(NO_FORECAST, waiting(BY - 5000 * SECOND))
    assert at(late) == FORECAST_WAIT


def test_a_forecast_that_does_not_cover_the_planned_hour_says_nothing_against_it() -> None:
    found = planned(hours_of([300.0, 100.0, 100.0]), waiting())
    assert (found.reason, at(found)) == ("ForecastShort", 4 * HOUR)
    assert "covers 2026-03-01T12:00:00Z to 2026-03-01T15:00:00Z only; the planned start stays" in found.message


def test_the_same_forecast_changes_nothing() -> None:
    first = planned(hours_of(CLEAN_LATER))
    assert planned(hours_of(CLEAN_LATER), first, NOW + HOUR) == first
    cleaner = [300.0] * 6 + [50.0] * 14
    assert at(planned(hours_of(cleaner), first, NOW + HOUR)) == 6 * HOUR
    # Another deadline is looked at again.
    assert at(planned(hours_of(CLEAN_LATER), first, by=NOW + 3 * HOUR)) < 4 * HOUR


def test_a_due_start_is_not_moved_while_pods_run_or_may_still_come() -> None:
    due = waiting(NOW - MISSED + SECOND)
    assert planned(hours_of(CLEAN_LATER), due).message == "before"
    assert planned(hours_of(CLEAN_LATER), waiting(NOW)).message == "before"
    missed = waiting(NOW - MISSED)
    assert at(planned(hours_of(CLEAN_LATER), missed)) == 4 * HOUR
    assert planned(hours_of(CLEAN_LATER), missed, runs=True).message == "before"
    assert planned(NO_FORECAST, missed).message == "before"
    # A start that only waited for a forecast moves to the hours that are now known.
    unknown = waiting(NOW, "ForecastMissing")
    assert at(planned(hours_of(CLEAN_LATER), unknown)) == 4 * HOUR
    assert planned(hours_of([100.0] * 3, NOW - 5 * HOUR), unknown).message == "before"


def test_a_start_that_an_edit_made_unsafe_is_planned_again() -> None:
    unsafe = waiting(BY - HOUR, inputs_hash=planned(hours_of(CLEAN_LATER)).inputs_hash)
    assert at(planned(hours_of(CLEAN_LATER), unsafe)) == 4 * HOUR
    edge = replace_time(unsafe, BY - 5200 * SECOND)
    assert planned(hours_of(CLEAN_LATER), edge).message == "before"


def replace_time(start: JobStartStatus, time: datetime) -> JobStartStatus:
    return start.model_copy(update={"start_time": timestamp(time)})


def test_a_suspended_job_has_no_start_and_remembers_how_long_pods_take() -> None:
    found = planned(hours_of(CLEAN_LATER), waiting(start_seconds=77), suspend=True)
    assert (found.state, found.reason, found.start_time, found.start_seconds) == ("Suspended", "Suspended", None, 77)
    fresh = planned(hours_of(CLEAN_LATER), suspend=True)
    assert fresh.start_seconds is None
    again = planned(hours_of(CLEAN_LATER), found)
    assert (again.state, at(again), again.start_seconds) == ("Waiting", 4 * HOUR, 77)


@pytest.mark.parametrize("state", ["Starting", "Started"])
def test_a_job_that_began_is_never_interrupted(state: str) -> None:
    begun = waiting(NOW - HOUR, state=state, start_seconds=100)
    found = planned(hours_of(CLEAN_LATER), begun, runs=True)
    assert (found.state, found.start_time, found.message) == (state, begun.start_time, "before")
    # A status that says so without any pods was edited.
    assert planned(hours_of(CLEAN_LATER), begun).state == "Waiting"
    # It ends as the measured start lets expect.
    assert moment_of(found.end_time) == NOW - HOUR + (4000 - 400 + 100) * SECOND


def test_pods_that_ran_before_the_spec_asked_are_not_stopped() -> None:
    found = planned(hours_of(CLEAN_LATER), runs=True)
    assert (found.state, found.reason, at(found)) == ("Started", "AlreadyRunning", timedelta(0))
    assert moment_of(found.end_time) == NOW + 4000 * SECOND
    assert moment_of(found.latest_start_time) == BY - 5200 * SECOND


@pytest.mark.parametrize(
    ("job", "measured", "begin"),
    [({}, None, 400), ({}, 100, 100), ({"startSeconds": 900}, 100, 900), ({"startSeconds": 0}, 100, 0)],
)
def test_a_stated_start_goes_before_a_measured_one_and_both_before_the_plans(
    job: dict[str, Any], measured: int | None, begin: int
) -> None:
    before = None if measured is None else waiting(start_seconds=measured)
    found = planned(hours_of(CLEAN_LATER), before, **job)
    assert moment_of(found.end_time) == NOW + at(found) + (4000 - 400 + begin) * SECOND
    assert moment_of(found.latest_start_time) == BY - (5200 - 400 + begin) * SECOND


def test_an_old_plan_keeps_the_whole_time_that_the_job_may_take() -> None:
    old = plan(job=PlannedJob(completion_seconds=4000, start_seconds=400, energy_watt_hours=900))
    assert moment_of(planned(hours_of(CLEAN_LATER), plan=old).latest_start_time) == BY - 7200 * SECOND
    longer = plan(job=PlannedJob(completion_seconds=9000, start_seconds=400, energy_watt_hours=900))
    assert moment_of(planned(hours_of(CLEAN_LATER), plan=longer).latest_start_time) == BY - 9000 * SECOND


def test_gpus_that_idle_until_the_deadline_count_where_the_job_keeps_them() -> None:
    # The clean hour is long enough for the requests, not for the idle time of almost two hours after them.
    values = [300.0] * 2 + [100.0] * 2 + [300.0] * 4 + [110.0] * 12
    assert at(planned(hours_of(values))) == 2 * HOUR
    idle = plan(job=PLANNED, predicted=plan().predicted.model_copy(update={"idle_power_watts": 800}))
    long: dict[str, Any] = {"completeWithinSeconds": 4 * 3600, "afterCompletion": "Idle"}
    # Its start takes no energy beside that, so that it may lie before the clean hours.
    assert at(planned(hours_of(values), plan=idle, **long)) == 8 * HOUR - 400 * SECOND


def test_a_start_a_second_later_is_a_later_start() -> None:
    found = planned(hours_of([300.0] + [100.0] * 20, NOW - HOUR), now=NOW - SECOND)
    assert found.message.startswith("starts at 2026-03-01T12:00:00Z: ")
    assert "instead of" in found.message


@pytest.mark.parametrize(("seconds", "reason"), [(0, "BestHours"), (1, "BestKnownHours")])
def test_starts_that_are_not_compared_are_told_from_one_second_on(seconds: int, reason: str) -> None:
    by = NOW + 20 * HOUR + (5200 - 4000 + seconds) * SECOND
    assert planned(hours_of([100.0] * 20), by=by).reason == reason


def test_a_planned_start_stays_at_the_edges_of_the_allowed_time() -> None:
    last = planned(NO_FORECAST, waiting(BY - 5200 * SECOND))
    first = planned(NO_FORECAST, waiting(NOW + 2 * HOUR), start={"notBefore": timestamp(NOW + 2 * HOUR)})
    for found in (last, first):
        assert "the planned start stays" in found.message


def test_a_forecast_that_just_covers_the_planned_start_is_followed() -> None:
    begins = planned(hours_of([100.0] * 16, NOW + 4 * HOUR), waiting())
    ends = planned(hours_of([100.0] * 3), waiting(NOW + 3 * HOUR - 4000 * SECOND))
    for found in (begins, ends):
        assert found.reason in ("BestHours", "BestKnownHours")


@pytest.mark.parametrize(
    ("after", "measured", "weight"),
    [
        # Of 1,100 Wh the requests take 800 in an hour, and the idle GPUs 178 until two hours have passed.
        ("Idle", None, "1.1 kg"),
        # A start of half the time takes half of the energy that is left, and the GPUs idle so much longer.
        ("Idle", 200, "1.05 kg"),
        ("Release", None, "1.1 kg"),
        ("Release", 200, "950 g"),
        # They never idle for less than no time.
        ("Idle", 3600, "1.9 kg"),
    ],
)
def test_the_energy_of_a_job_is_that_of_its_plan_with_the_measured_start(
    after: str, measured: int | None, weight: str
) -> None:
    made = plan(job=PLANNED.model_copy(update={"energy_watt_hours": 1100}))
    before = None if measured is None else waiting(start_seconds=measured)
    found = planned(hours_of([1000.0] * 20), before, plan=made, afterCompletion=after)
    assert f"{weight} of CO2" in found.message


def test_a_plan_without_a_start_has_the_energy_of_its_requests() -> None:
    made = plan(job=PlannedJob(completion_seconds=3600, energy_watt_hours=1100))
    assert "800 g of CO2" in planned(hours_of([1000.0] * 20), plan=made).message


START = waiting(NOW - HOUR)


def seen(ready: tuple[tuple[str, str], ...] = (), start: JobStartStatus | None = START, **changes: Any) -> Any:
    """Return the start after pods of two replicas that were created and ready at these times."""
    pods = tuple(
        replace(pod(f"p{number}"), created=created, ready_since=since) for number, (created, since) in enumerate(ready)
    )
    fields: dict[str, Any] = {"plan": PLAN, "workload": workload(), "pods": pods, **changes}
    return followed_start(start, fields["plan"], fields["workload"], fields["pods"], NOW)


def test_a_start_follows_its_pods() -> None:
    assert seen(workload=None) == START
    none = workload()
    none["spec"] = {**none["spec"], "replicas": 0}
    assert seen(workload=none) == START
    for state in ("Suspended", "Started"):
        assert seen(start=waiting(state=state)) == waiting(state=state)
    assert seen(start=None) is None
    begun = seen()
    assert (begun.state, begun.start_time) == ("Starting", "2026-03-01T12:00:00Z")
    # The pods were created an hour later than planned.
    assert moment_of(begun.end_time) == NOW + 4000 * SECOND
    later = waiting(NOW - HOUR, state="Starting")
    assert seen(start=later) == later


CREATED = "2026-03-01T11:00:00Z"


@pytest.mark.parametrize(
    ("ready", "state", "took"),
    [
        (((CREATED, "2026-03-01T11:01:40Z"),), "Starting", None),
        (((CREATED, "2026-03-01T11:01:40Z"), (CREATED, "2026-03-01T11:03:20Z")), "Started", 200),
        (((CREATED, "2026-03-01T12:00:00Z"),) * 2, "Started", MOST_START_SECONDS),
        (((CREATED, "2026-03-01T12:00:01Z"),) * 2, "Started", None),
        (((CREATED, "2026-03-01T11:00:01Z"),) * 2, "Started", 1),
        (((CREATED, CREATED),) * 2, "Started", None),
        ((("", "2026-03-01T11:01:40Z"),) * 2, "Started", None),
    ],
)
def test_the_slowest_start_is_measured_once_all_replicas_are_ready(
    ready: tuple[tuple[str, str], ...], state: str, took: int | None
) -> None:
    found = seen(ready)
    assert (found.state, found.start_seconds) == (state, took)
    known = seen(ready, waiting(start_seconds=55))
    assert known.start_seconds == (took if took is not None else 55)


def test_a_pod_that_restarted_is_not_measured() -> None:
    times = (CREATED, "2026-03-01T11:03:20Z")
    pods = tuple(replace(pod(name), created=times[0], ready_since=times[1], restarted=name == "b") for name in "ab")
    slow = replace(pods[1], ready_since="2026-03-01T11:30:00Z")
    assert seen(pods=(pods[0], slow)).start_seconds == 200
    assert seen(pods=pods, plan=None).start_seconds is None


def test_a_measured_start_is_of_the_same_weights_engine_and_gpus() -> None:
    measured = seen(((CREATED, "2026-03-01T11:03:20Z"),) * 2)
    assert (measured.start_seconds, bool(measured.start_hash)) == (200, True)
    known = waiting(start_seconds=200, start_hash=measured.start_hash)
    assert planned(hours_of(CLEAN_LATER), known).start_seconds == 200
    other = plan(job=PLANNED, serving_hash="x")
    forgotten = planned(hours_of(CLEAN_LATER), known, plan=other)
    assert (forgotten.start_seconds, forgotten.start_hash) == (None, "")


def test_only_ready_leaders_of_the_wanted_revision_are_counted() -> None:
    two = (pod("a"), pod("b"))
    assert seen(pods=two).state == "Started"
    for other in (pod("b", OLD), pod("b", ready=False), replace(pod("b"), leads=False)):
        assert seen(pods=(two[0], other)).state == "Starting"


def test_a_job_waits_until_its_start() -> None:
    soon = waiting(NOW + SECOND)
    assert waits_until(soon, NOW) == NOW + SECOND
    assert waits_until(soon, NOW + SECOND) is None
    assert waits_until(waiting(state="Started"), NOW) is None
    assert waits_until(None, NOW) is None
    assert waits_until(JobStartStatus(state="Waiting", reason="BestHours", message=""), NOW) is None


def test_a_forecast_that_may_come_is_looked_for_every_half_minute() -> None:
    assert looks_at(None, NOW) is None
    assert looks_at(waiting(), NOW) == NOW + 4 * HOUR
    missing = waiting(NOW + FORECAST_WAIT, "ForecastMissing")
    assert looks_at(missing, NOW) == NOW + FORECAST_LOOK
    assert looks_at(missing, NOW - SECOND) == NOW + FORECAST_WAIT
    assert looks_at(missing, NOW + FORECAST_WAIT - 10 * SECOND) == NOW + FORECAST_WAIT
    assert looks_at(waiting(NOW + FORECAST_WAIT), NOW) == NOW + FORECAST_WAIT


def known(kind: str, reason: str) -> Condition:
    return Condition(type=kind, status="True", reason=reason, message="said before", last_transition_time="")


@pytest.mark.parametrize(
    ("start", "before", "expected"),
    [
        (None, (), None),
        (waiting(state="Suspended"), (), None),
        (waiting(), (known("StartTimed", "ForecastMissing"),), ("True", "BestHours", "before")),
        (waiting(reason="ForecastMissing"), (), ("False", "ForecastMissing", "before")),
        (waiting(state="Started"), (), ("True", "BestHours", "before")),
        (waiting(state="Started"), (known("StartTimed", "NoTimeLeft"),), ("False", "NoTimeLeft", "said before")),
        (
            waiting(state="Starting"),
            (known("StartTimed", "BestKnownHours"),),
            ("True", "BestKnownHours", "said before"),
        ),
        (waiting(state="Started"), (known("StartTimed", "InvalidSpec"),), ("True", "BestHours", "before")),
        (waiting(state="Started"), (known("Ready", "NoTimeLeft"),), ("True", "BestHours", "before")),
    ],
)
def test_the_reason_of_a_start_stays_once_pods_exist(
    start: JobStartStatus | None, before: tuple[Condition, ...], expected: tuple[str, str, str] | None
) -> None:
    assert start_verdict(start, before) == expected


def test_a_workload_without_owners_is_ones_own() -> None:
    assert own_workload(asked(), {"metadata": {}}) == {"metadata": {}}
    assert own_workload(asked(), {"metadata": {"ownerReferences": None}}) is not None
