"""The schedule of a week in the status: its seal, the entry that applies now, and the time of a start."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from tests.unit.decide.deployment.plans.test_scheduled import (
    MONDAY_NIGHT,
    MONDAY_NOON,
    first,
    plan_of,
    schedule_of,
    weekly,
)
from tests.unit.decide.observations import pod

from energylens.decide.deployment.observed.observation import PodState
from energylens.decide.deployment.plans import schedule as module
from energylens.decide.deployment.plans.schedule import (
    MOST_START_SECONDS,
    at,
    followed,
    is_made_from,
    needed,
    peak_watts,
    sealed,
    timetable_of,
    with_measured_start,
)
from energylens.planner.week.planning import WeekPlan

SINCE = "2026-03-01T11:00:00Z"


def test_a_schedule_belongs_to_its_inputs_and_layout() -> None:
    plan, schedule = plan_of(first()), sealed(schedule_of(first()), plan_of(first()), "inputs")
    assert is_made_from(schedule, plan, "inputs")
    assert not is_made_from(schedule, plan, "others")
    assert is_made_from(schedule, plan.model_copy(update={"replicas": 9}), "inputs")
    assert not is_made_from(schedule, plan.model_copy(update={"max_batch_size": 9}), "inputs")
    assert not is_made_from(schedule.model_copy(update={"week_watt_hours": 1}), plan, "inputs")
    passed = {"replicas": 9, "next_replicas": 9, "next_change_time": None, "start_seconds": 9, "starting_since": None}
    assert is_made_from(schedule.model_copy(update=passed), plan, "inputs")
    unsealed = sealed(schedule, plan, "")
    assert unsealed.inputs_hash == ""
    assert not is_made_from(unsealed, plan, "")


def test_the_entry_of_an_hour_has_a_token_of_its_own() -> None:
    deployment, schedule = weekly().inputs.deployment, schedule_of(first())
    table = timetable_of(deployment, schedule)
    noon, night = (followed(table, schedule, now) for now in (MONDAY_NOON, MONDAY_NIGHT))
    assert (noon.entry.day, noon.entry.hour, night.entry.day, night.entry.hour) == ("Mon", 8, "Fri", 18)
    assert noon.token != night.token
    later = schedule.model_copy(update={"start_seconds": 9, "replicas": 3})
    assert followed(timetable_of(deployment, later), later, MONDAY_NOON).token == noon.token
    edited = schedule.model_copy(update={"starts": 99})
    assert followed(table, edited, MONDAY_NOON).token != noon.token


def test_replicas_that_start_early_are_not_needed_yet() -> None:
    deployment, schedule = weekly().inputs.deployment, schedule_of(first())
    early = datetime.fromisoformat("2026-03-02T07:59Z")
    found = at(schedule, timetable_of(deployment, schedule), early)
    assert (found.replicas, found.next_replicas, found.next_change_time) == (4, 1, "2026-03-02T18:00:00Z")
    assert needed(deployment, schedule, early) == 1
    assert needed(deployment, schedule, MONDAY_NOON) == 4
    constant = schedule.model_copy(update={"hours": schedule.hours[:1]})
    always = at(constant, timetable_of(deployment, constant), early)
    assert (always.replicas, always.next_replicas, always.next_change_time) == (4, None, None)


def test_the_peak_is_that_of_the_busiest_hour() -> None:
    schedule = schedule_of(first())
    assert peak_watts(schedule) == schedule.hours[0].power_watts > schedule.hours[1].power_watts


def test_a_planned_week_becomes_whole_figures() -> None:
    week = first().week
    assert isinstance(week, WeekPlan)
    found = module.schedule_of(week)
    assert (found.replicas, found.starts, found.inputs_hash) == (week.replicas[0], week.starts, "")
    assert found.week_watt_hours == round(week.joules / 3600)
    assert week.constant is not None
    assert found.constant_watt_hours == round(week.constant.joules / 3600)
    assert found.constant_plan == week.constant.text
    assert week.start.seconds <= found.start_seconds < week.start.seconds + 1
    alone = module.schedule_of(replace(week, constant=None))
    assert (alone.constant_watt_hours, alone.constant_plan) == (None, None)


def started(created: str, ready_since: str, **changes: Any) -> PodState:
    return replace(pod("p"), created=created, ready_since=ready_since, **changes)


@pytest.mark.parametrize(
    ("pods", "seconds"),
    [
        ([started(SINCE, "2026-03-01T11:05:00Z")], 300),
        ([started(SINCE, "2026-03-01T11:05:00Z"), started(SINCE, "2026-03-01T11:06:00Z")], 360),
        ([started(SINCE, "2026-03-01T12:00:00Z")], MOST_START_SECONDS),
        ([started(SINCE, "2026-03-01T11:00:01Z")], 1),
        # A longer start waited for something else, and older pods did not start now.
        ([started(SINCE, "2026-03-01T12:00:01Z")], None),
        ([started(SINCE, SINCE)], None),
        ([started("2026-03-01T10:59:59Z", "2026-03-01T11:05:00Z")], None),
        ([started("", "2026-03-01T11:05:00Z")], None),
        ([started(SINCE, "")], None),
        ([started(SINCE, "2026-03-01T11:05:00Z"), started(SINCE, "2026-03-01T11:09:00Z", ready=False)], 300),
    ],
)
def test_the_time_of_the_last_start_counts_from_now_on(pods: list[PodState], seconds: int | None) -> None:
    schedule = schedule_of(first()).model_copy(update={"starting_since": SINCE, "start_seconds": 120})
    found = with_measured_start(schedule, weekly().inputs.deployment, 1, pods)
    assert (found.starting_since, found.start_seconds) == (None, 120 if seconds is None else seconds)
    stated = weekly(scaling={"startSeconds": 900}).inputs.deployment
    kept = with_measured_start(schedule, stated, 1, pods)
    assert (kept.starting_since, kept.start_seconds) == (None, 120)
    other = weekly(scaling={"startJoules": 900}).inputs.deployment
    assert with_measured_start(schedule, other, 1, pods) == found


@pytest.mark.parametrize(
    ("since", "pods"),
    [
        (None, [started(SINCE, "2026-03-01T11:05:00Z")] * 2),
        (SINCE, [started(SINCE, "2026-03-01T11:05:00Z")]),
        (SINCE, [started(SINCE, "2026-03-01T11:05:00Z"), started(SINCE, "2026-03-01T11:05:00Z", ready=False)]),
        (SINCE, [started(SINCE, "2026-03-01T11:05:00Z"), started(SINCE, "2026-03-01T11:05:00Z", leads=False)]),
    ],
)
def test_a_start_is_over_when_all_replicas_are_ready(since: str | None, pods: list[PodState]) -> None:
    schedule = schedule_of(first()).model_copy(update={"starting_since": since})
    assert with_measured_start(schedule, weekly().inputs.deployment, 2, pods) == schedule
