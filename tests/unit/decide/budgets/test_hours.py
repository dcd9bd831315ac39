"""Power that members of a budget reserve by the hour, against looking at every moment of a week."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from energylens.api.energybudget import EnergyBudgetSpec
from energylens.api.llmdeployment import WEEKDAYS, ScheduledReplicas, WorkloadSpec
from energylens.decide.budgets.allowance import allowance
from energylens.decide.budgets.budget import read_budget
from energylens.decide.budgets.counted import CountedWatts, counted_watts, summed
from energylens.decide.budgets.membership import Surroundings
from energylens.decide.deployment.loads.timetable import Timetable
from energylens.decide.planned import PlannedDeployment, planned
from energylens.planner.search.week_load import WeekLoad
from energylens.planner.types import PowerAllowance

NOW = datetime(2026, 11, 25, 12, 7, tzinfo=UTC)
STEADY = ("UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/Phoenix")
"""Zones that never change their clocks."""
Entries = Sequence[tuple[int, int]]
"""Hours of the week, and the watts from each on."""


def weekly(
    name: str, entries: Entries, zone: str = "UTC", lead: int = 0, now: int = 1, **plan: Any
) -> PlannedDeployment:
    """Return a member that follows a week; ``now`` is the power that it commits at present."""
    hours = [
        {"day": WEEKDAYS[hour // 24], "hour": hour % 24, "requestsPerSecond": "1", "replicas": 1, "powerWatts": watts}
        for hour, watts in entries
    ]
    peak = max(watts for _, watts in entries)
    held = {"predicted": {"powerWatts": now}, "gpus": 1, "gpuProduct": "H100", "peakPowerWatts": peak, **plan}
    spec = {"workload": {"requestsPerSecond": 1, "profile": {"timeZone": zone, "learned": {}}}}
    status = {"plan": held, "schedule": {"hours": hours, "startSeconds": lead}}
    return planned({"metadata": {"name": name, "namespace": "team"}, "spec": spec, "status": status})


def constant(name: str, watts: int) -> PlannedDeployment:
    plan = {"predicted": {"powerWatts": watts}, "gpus": 1, "gpuProduct": "H100"}
    return planned({"metadata": {"name": name, "namespace": "team"}, "spec": {}, "status": {"plan": plan}})


def counted(*members: PlannedDeployment) -> CountedWatts:
    spec = EnergyBudgetSpec(power_watts=1)
    return summed(filter(None, (counted_watts(spec, "team", member, Surroundings()) for member in members)))


def budget(watts: int) -> dict[str, Any]:
    return {"metadata": {"name": "cap", "namespace": "team"}, "spec": {"powerWatts": watts, "action": "Deny"}}


def left(me: PlannedDeployment, watts: int, *others: PlannedDeployment) -> PowerAllowance:
    found = allowance(me, [read_budget(budget(watts))], others, NOW).allowance
    assert found is not None
    return found


def by_minutes(entries: Entries, zone: str, lead: int, start: datetime) -> float:
    """Return the most that the followed entries draw in a quarter of an hour, by the operator's own timetable."""
    load = {"inputTokens": 1, "outputTokens": 1, "requestsPerSecond": "1"}
    week = WeekLoad.of(WorkloadSpec.model_validate(load | {"profile": {"timeZone": zone, "learned": {}}}))
    followed = [
        ScheduledReplicas(
            day=WEEKDAYS[hour // 24], hour=hour % 24, requests_per_second="1", replicas=watts + 1, power_watts=watts
        )
        for hour, watts in entries
    ]
    table = Timetable(week, followed, timedelta(seconds=lead))
    # Nothing changes within a minute but at its beginning, since leads are whole minutes here.
    moments = (start + timedelta(minutes=minute) for minute in range(15))
    return max(followed[table.entry_at(moment)].power_watts for moment in moments)


@pytest.mark.parametrize("seed", range(8))
def test_the_sum_of_each_hour_is_that_of_every_moment_of_the_week(seed: int) -> None:
    draw = random.Random(seed)
    members = []
    for _ in range(draw.randint(1, 3)):
        entries = [(start, draw.randint(1, 900)) for start in sorted(draw.sample(range(168), draw.randint(1, 4)))]
        members.append((entries, draw.choice(STEADY), 60 * draw.choice([0, 0, 2, 14, 16, 75])))
    base = draw.choice([0, 250])
    found = counted(constant("base", base), *(weekly(f"m{i}", *member) for i, member in enumerate(members)))
    slots, monday = found.by_slot("UTC", NOW), datetime(2026, 11, 23, tzinfo=UTC)
    # Around each change in any zone, and elsewhere.
    changes = {(4 * hour - offset) % 672 for entries, _, _ in members for hour, _ in entries for offset in (0, 22, 23)}
    near = {(change + shift) % 672 for change in changes for shift in (-6, -1, 0)}
    for quarter in [*sorted(near), *draw.sample(range(672), 20)]:
        moment = monday + timedelta(minutes=15 * quarter)
        assert slots[quarter] == base + sum(by_minutes(*member, moment) for member in members), moment
    assert found.reserved(NOW) == slots.max()


def test_peaks_at_different_hours_are_not_added() -> None:
    morning = weekly("morning", [(8, 900), (12, 100)])
    evening = weekly("evening", [(14, 700), (22, 50)])
    assert counted(morning, evening).reserved(NOW) == 950
    assert left(constant("new", 0), 2000, morning, evening).watts == 2000 - 950


def test_replicas_that_start_early_coincide_with_those_that_stop_on_the_hour() -> None:
    first, second = weekly("first", [(8, 900), (12, 100)]), weekly("second", [(12, 700), (22, 50)], lead=120)
    assert counted(first, second).reserved(NOW) == 900 + 700
    apart = weekly("second", [(13, 700), (22, 50)], lead=120)
    assert counted(first, apart).reserved(NOW) == 950


def test_a_week_is_planned_on_what_each_hour_leaves() -> None:
    noon = weekly("noon", [(12, 900), (14, 100)], lead=120)
    me = weekly("me", [(0, 0)], lead=60, now=0)
    found = left(me, 1000, noon)
    assert found.hours is not None
    hours = found.hours
    # The replicas of 12 o'clock start in the last quarter before, and those of 14 o'clock before 900 W are gone.
    assert {hour for hour in range(168) if hours[hour] == 100} == {11, 12, 13, 14}
    assert set(hours) == {100.0, 900.0}
    assert (found.watts, found.within(11, 3).watts, found.within(15, 160).watts) == (900.0, 100.0, 900.0)
    limit = found.within(12, 1).limit
    assert limit is not None
    assert (limit.others_watts, found.within(20, 1).limit.others_watts) == (900.0, 100.0)


@pytest.mark.parametrize("now", [900, 100], ids=["busy now", "quiet now"])
def test_each_hour_leaves_the_power_of_its_own_replicas_whichever_hour_it_is(now: int) -> None:
    noon = weekly("noon", [(12, 600), (14, 500)])
    me = weekly("me", [(8, 900), (16, 100)], now=now)
    hours = left(me, 1000, noon).hours
    assert hours is not None
    assert [hours[hour] for hour in (7, 8, 12, 15, 16)] == [500.0, 900.0, 900.0, 900.0, 500.0]
    stopped = left(weekly("me", [(8, 900), (16, 100)], now=0), 1000, noon).hours
    assert stopped is not None
    assert [stopped[hour] for hour in (7, 8, 12, 16)] == [500.0, 500.0, 400.0, 500.0]
    # The hours of the status are of another plan than the one that runs.
    other = left(weekly("me", [(8, 900), (16, 100)], now=700, peakPowerWatts=950), 1000, noon)
    assert (other.hours, other.watts) == (None, 700.0)


def test_hours_are_those_of_the_clock_of_each_member() -> None:
    noon = weekly("noon", [(12, 900), (14, 100)], "Asia/Kolkata")
    found = left(weekly("me", [(0, 0)], "UTC", now=0), 1000, noon)
    assert found.hours is not None
    assert {hour for hour in range(168) if found.hours[hour] == 100} == {6, 7, 8}


@pytest.mark.parametrize("now", [datetime(2026, 1, 7, tzinfo=UTC), datetime(2026, 7, 8, tzinfo=UTC)])
def test_in_one_zone_a_changed_clock_moves_all_members_and_in_two_both_cases_count(now: datetime) -> None:
    first = weekly("first", [(8, 900), (12, 100)], "Europe/Berlin")
    second = weekly("second", [(12, 700), (22, 50)], "Europe/Berlin")
    assert counted(first, second).reserved(now) == 950
    # 12 o'clock in Berlin is 10 or 11 o'clock UTC.
    assert counted(first, weekly("utc", [(10, 700), (22, 50)])).reserved(now) == 1600
    assert counted(first, weekly("utc", [(11, 700), (22, 50)])).reserved(now) == 950
    # New York is 6 hours behind Berlin, and 5 hours for a few weeks in spring and a week in autumn.
    berlin = weekly("berlin", [(14, 900), (15, 100)], "Europe/Berlin")
    for hour, watts in ((7, 950), (8, 1600), (9, 1600), (10, 950)):
        america = weekly("america", [(hour, 700), (hour + 1, 50)], "America/New_York")
        assert counted(berlin, america).reserved(now) == watts


@pytest.mark.parametrize(
    "odd",
    [
        weekly("approval", [(8, 900), (12, 100)], peakPowerWatts=800),
        weekly("more", [(8, 900), (12, 100)], now=950),
        constant("constant", 900),
    ],
)
def test_a_plan_that_is_not_that_of_the_hours_counts_in_every_hour(odd: PlannedDeployment) -> None:
    evening = weekly("evening", [(14, 700), (22, 50)])
    assert counted(odd, evening).reserved(NOW) == odd.reserved_watts + 700


def test_a_member_without_a_profile_has_the_same_power_in_every_hour() -> None:
    noon = weekly("noon", [(12, 900), (14, 100)])
    found = left(constant("new", 0), 1000, noon)
    assert (found.watts, found.hours) == (100.0, None)


@pytest.mark.parametrize(
    ("zone", "hours"),
    [
        ("Mars/Olympus", [{"day": "Mon", "hour": 1, "powerWatts": 5}]),
        ("UTC", [{"day": "Day", "hour": 1, "powerWatts": 5}]),
        ("UTC", [{"day": "Mon", "hour": 24, "powerWatts": 5}]),
        ("UTC", [{"day": "Mon", "hour": 1}]),
        ("UTC", ["Mon"]),
        ("UTC", 7),
    ],
)
def test_hours_that_cannot_be_read_stop_no_other_member(zone: str, hours: Any) -> None:
    plan = {"predicted": {"powerWatts": 5}, "gpus": 1, "gpuProduct": "H100", "peakPowerWatts": 900}
    spec = {"workload": {"profile": {"timeZone": zone, "learned": {}}}}
    body = {"metadata": {"name": "odd", "namespace": "team"}, "spec": spec}
    odd = planned({**body, "status": {"plan": plan, "schedule": {"hours": hours}}})
    assert counted(odd).reserved(NOW) == 900


def test_several_budgets_leave_the_least_of_each_hour() -> None:
    me = weekly("me", [(0, 0)], now=0)
    noon, night = weekly("noon", [(12, 900), (14, 100)]), weekly("night", [(20, 600), (22, 0)])
    bodies = [budget(1000), {**budget(1600), "metadata": {"name": "all", "namespace": "team"}}]
    found = allowance(me, map(read_budget, bodies), [noon, night], NOW).allowance
    assert found is not None
    assert found.hours is not None
    # The clocks of both begin on the hour, and so does the start that is not planned yet: a quarter of an hour early.
    assert (found.hours[12], found.hours[20], found.hours[3]) == (100.0, 300.0, 900.0)
