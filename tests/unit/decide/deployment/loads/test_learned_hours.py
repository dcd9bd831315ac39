"""Rates of the hours of a week from measured windows: weighted by week, damped, and only used once there are enough."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.decide.observations import deployment

from energylens.api.llmdeployment import LLMDeployment, ScheduledReplicas, ScheduleStatus
from energylens.decide.deployment.loads.learned_hours import (
    MOST_SECONDS,
    SPARE,
    LearnedHours,
    _rates_of,
    _settled,
    coverage_text,
    learn,
    learned_hours,
    learned_status,
    limited_to,
    with_learned,
)
from energylens.decide.deployment.loads.load import RAISE, STEP, MeasuredLoad, rate_of
from energylens.planner.search.week_load import WeekLoad

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
NOTHING = LearnedHours("UTC", 4.0)


def window(start: datetime, rate: float, minutes: int = 60, *, saturated: bool = False) -> MeasuredLoad:
    return MeasuredLoad(start, start + timedelta(minutes=minutes), rate, saturated)


def after(rates: Iterable[float], *, before: LearnedHours = NOTHING, hour: int = 0, keep: float = 0.5) -> LearnedHours:
    """Return what is known after windows of an hour each."""
    for number, rate in enumerate(rates):
        before = learn(before, window(MONDAY + timedelta(hours=hour + number), rate), keep)
    return before


def day(hour: int) -> float:
    """Return the rate of an hour: 2 at night, 10 by day."""
    return 10.0 if 8 <= hour % 24 < 18 else 2.0


def asked(status: dict[str, Any] | None = None, **learned: Any) -> LLMDeployment:
    workload = {"inputTokens": 300, "outputTokens": 100, "requestsPerSecond": "4"}
    workload |= {"profile": {"timeZone": "UTC", "learned": learned}}
    return deployment(status, workload=workload)


def test_a_week_is_learned_and_planned_by_the_hour() -> None:
    found = after(day(hour) for hour in range(169))
    assert found.covered == 168
    assert found.rates == tuple(day(hour) for hour in range(168))
    for hour, rate in enumerate(found.planned(80)):
        assert day(hour) / 1.001 <= rate <= day(hour) * STEP
    load = WeekLoad.of(with_learned(asked(), found).spec.workload)
    assert [span.hour for span in load.spans[:3]] == [8, 18, 8]


def test_until_enough_hours_were_measured_no_hour_is_planned_for_less_than_was_declared() -> None:
    found = after(day(hour) for hour in range(100))
    assert found.covered == 100
    assert min(found.planned(60)) == 4.0
    assert min(found.planned(59)) < 4.0
    # More than was declared is planned for at once.
    assert found.planned(60)[9] >= 10.0
    text = coverage_text(asked(minCoveragePercent=60).spec.workload, learned_status(found))
    assert text.startswith("100 of 168 hours of the week were measured, and minCoveragePercent=60 needs 101; ")
    assert coverage_text(asked(minCoveragePercent=59).spec.workload, learned_status(found)) == ""
    assert coverage_text(asked().spec.workload, None).startswith("0 of 168 hours")


def test_an_hour_counts_once_a_quarter_of_it_was_measured() -> None:
    short = learn(NOTHING, window(MONDAY, 2.0, minutes=14), 0.5)
    assert (short.covered, short.seconds[0]) == (0, 840)
    assert learn(short, window(MONDAY + timedelta(minutes=30), 2.0, minutes=1), 0.5).covered == 1


def test_a_later_week_weighs_more_than_all_before() -> None:
    first = after([8.0] * 169)
    second = after([2.0] * 168, before=first, hour=169)
    # Half of the first week's 3,600 s against 3,600 s.
    assert second.rates[5] == pytest.approx((8.0 * 1800 + 2.0 * 3600) / 5400, abs=1e-3)
    assert second.seconds[5] == 5400
    assert after([2.0] * 168, before=first, hour=169, keep=0.0).rates[5] == 2.0


def test_windows_of_one_hour_share_its_weight_and_decay_it_once() -> None:
    found = after([6.0] * 168)
    start = MONDAY + timedelta(days=7)
    for minute in range(0, 60, 10):
        found = learn(found, window(start + timedelta(minutes=minute), 3.0, minutes=10), 0.5)
    assert found.seconds[0] == 5400
    assert found.rates[0] == pytest.approx((6.0 * 1800 + 3.0 * 3600) / 5400, abs=1e-2)


def test_a_window_over_several_hours_counts_for_each() -> None:
    found = learn(NOTHING, window(MONDAY + timedelta(minutes=50), 5.0, minutes=80), 0.5)
    assert found.seconds[:4] == (600, 3600, 600, 0)
    assert found.rates[:4] == (5.0, 5.0, 5.0, 0.0)


def test_windows_that_overlap_count_once() -> None:
    found = learn(NOTHING, window(MONDAY, 5.0, minutes=30), 0.5)
    found = learn(found, window(MONDAY + timedelta(minutes=20), 5.0, minutes=30), 0.5)
    assert found.seconds[0] == 3000
    assert learn(found, window(MONDAY + timedelta(minutes=20), 50.0, minutes=30), 0.5) is found


def test_hours_are_those_of_the_local_clock_also_when_clocks_change() -> None:
    berlin = replace(NOTHING, zone="Europe/Berlin")
    # On 29 March 2026 the hour from 2:00 to 3:00 does not exist.
    start = datetime(2026, 3, 29, 1, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)
    found = learn(berlin, window(start, 5.0, minutes=120), 0.5)
    sunday = 6 * 24
    assert found.seconds[sunday : sunday + 5] == (0, 3600, 0, 3600, 0)


def test_a_rate_above_the_step_is_planned_for_at_once_and_others_at_the_end_of_the_day() -> None:
    found = after(day(hour) for hour in range(169))
    monday = MONDAY + timedelta(days=7)
    before = found.planned(80)
    busy = learn(found, window(monday + timedelta(hours=8), 30.0), 0.5)
    assert busy.planned(80)[8] >= 30.0 / RAISE
    quiet = learn(busy, window(monday + timedelta(hours=9), 0.5), 0.0)
    assert quiet.planned(80)[9] == before[9]
    assert learn(quiet, window(monday + timedelta(hours=24), 2.0), 0.5).planned(80)[9] < 1.0


def test_saturated_engines_hide_the_load_so_that_a_step_is_added() -> None:
    found = learn(NOTHING, window(MONDAY, 4.0, saturated=True), 0.5)
    assert found.planned(80)[0] >= 4.0 * STEP
    found = replace(NOTHING, declared=60.0)
    for number in range(1, 9):
        late = window(MONDAY + timedelta(minutes=5 * number), 60.0, minutes=5, saturated=True)
        found = learn(found, late, 0.5)
        assert found.steps[0] == number


def test_engines_that_stay_saturated_add_one_step_to_what_their_replicas_were_planned_for() -> None:
    found = NOTHING
    for minute in range(0, 60, 10):
        late = window(MONDAY + timedelta(minutes=minute), 3.0, minutes=10, saturated=True)
        found = learn(found, late, 0.5, made_for=(4.0,) * 168)
    assert (found.steps[0], found.rates[0]) == (1, 4.0 * STEP)


def test_what_replicas_were_planned_for_is_read_from_the_schedule() -> None:
    hours = [
        {"day": day, "hour": hour, "requestsPerSecond": rate, "replicas": 1, "powerWatts": 1}
        for day, hour, rate in (("Mon", 8, "10"), ("Mon", 18, "2"))
    ]
    figures = {"replicas": 1, "startSeconds": 1, "startJoules": 1, "weekWattHours": 1, "starts": 1}
    before = asked({"schedule": {**figures, "releasedGPUHours": 0, "hours": hours}})
    for hour, made_for in ((7, 2.0), (8, 10.0), (17, 10.0), (18, 2.0), (100, 2.0)):
        found = learned_hours(before, window(MONDAY + timedelta(hours=hour), 0.1, saturated=True))
        assert found is not None
        assert found.rates[hour] == made_for * STEP


def test_what_is_known_survives_its_way_through_the_status() -> None:
    found = after(day(hour) + hour / 7 for hour in range(170))
    status = learned_status(found)
    assert status is not None
    text = json.dumps(status.model_dump(mode="json", by_alias=True))
    assert len(text) < 4000
    kept = asked({"learnedLoad": json.loads(text)})
    assert learned_hours(kept, None) == found
    assert learned_status(learned_hours(kept, None)) == status


def test_another_time_zone_begins_anew_and_another_declared_rate_keeps_the_measurements() -> None:
    found = after(day(hour) for hour in range(169))
    status = learned_status(found)
    assert status is not None
    moved = status.model_copy(update={"time_zone": "Europe/Berlin"})
    assert learned_hours(asked({"learnedLoad": moved.model_dump(by_alias=True)}), None) == NOTHING
    other = status.model_copy(update={"declared_requests_per_second": "64"})
    again = learned_hours(asked({"learnedLoad": other.model_dump(by_alias=True)}), None)
    assert again is not None
    assert again.rates == found.rates
    assert all(rate >= day(hour) / 1.001 for hour, rate in enumerate(again.planned(80)))


def test_a_profile_with_hours_learns_nothing() -> None:
    plain = deployment()
    assert learned_hours(plain, window(MONDAY, 5.0)) is None
    assert with_learned(plain, None) is plain
    assert learned_status(learned_hours(asked(), None)) is None


@settings(max_examples=30)
@given(night=st.floats(0.5, 8), growth=st.floats(1, 20), seed=st.integers(0, 2**32))
@example(night=1.75, growth=1.75, seed=0)
def test_noise_never_lowers_the_step_of_an_hour_that_it_raised(night: float, growth: float, seed: int) -> None:
    """Four weeks with noise of 9 %, after a first week: what is planned covers the mean up to the safety margin."""
    noise = random.Random(seed)
    rates = [night * growth ** math.sin(math.pi * (hour % 24) / 24) for hour in range(168)]
    found = after(rate * noise.uniform(0.91, 1.09) for rate in (*rates, rates[0]))
    changes: list[list[bool]] = [[] for _ in range(168)]
    for number in range(169, 4 * 168):
        before, hour = found, number % 168
        rate = rates[hour] * noise.uniform(0.91, 1.09)
        found = learn(found, window(MONDAY + timedelta(hours=number), rate), 0.5)
        assert found.rates[hour] <= rate_of(4.0, found.steps[hour]) * RAISE
        for mine, old, new in zip(changes, before.steps, found.steps, strict=True):
            mine += [new > old] if new != old else []
    # Down by a low week and up by a high one, never back and forth.
    assert all(mine in ([], [False], [True], [False, True]) for mine in changes)


def test_the_lowest_step_is_a_tenth_of_the_declared_rate() -> None:
    found = after([0.0] * 193)
    assert found.planned(80)[0] == rate_of(4.0, -10)
    assert all(later >= earlier for earlier, later in itertools.pairwise(found.seconds[:24]))


def test_an_hour_weighs_no_more_than_the_api_allows() -> None:
    heavy = replace(NOTHING, seconds=(MOST_SECONDS - 600, *NOTHING.seconds[1:]))
    found = learn(heavy, window(MONDAY, 4.0), 1.0)
    assert found.seconds[0] == MOST_SECONDS == 1_000_000
    assert learned_status(found) is not None


def test_enough_hours_are_as_many_as_asked() -> None:
    half = replace(after([2.0] * 84), steps=(-2,) * 168)
    assert half.covered == 84
    assert half.planned(50)[0] == rate_of(4.0, -2)
    assert half.planned(51)[0] == 4.0


@pytest.mark.parametrize(("rate", "step"), [(4.2, 0), (4.0 * RAISE, 0), (4.0 * RAISE + 1e-3, 1)])
def test_a_rate_within_the_safety_margin_raises_no_step(rate: float, step: int) -> None:
    assert learn(NOTHING, window(MONDAY, rate), 0.5).steps[0] == step


@pytest.mark.parametrize(("percent", "rate"), [(0, 2.0), (25, 3.2), (50, 4.0)])
def test_the_spec_says_how_much_earlier_weeks_weigh(percent: int, rate: float) -> None:
    status = learned_status(after([8.0] * 168))
    assert status is not None
    kept = asked({"learnedLoad": status.model_dump(by_alias=True)}, earlierWeeksPercent=percent)
    found = learned_hours(kept, window(MONDAY + timedelta(days=7), 2.0))
    assert found is not None
    assert found.rates[0] == rate


def with_hours(*rates: str) -> LLMDeployment:
    hours = [{"fromHour": hour, "toHour": hour + 1, "requestsPerSecond": rate} for hour, rate in enumerate(rates)]
    load = {"inputTokens": 300, "outputTokens": 100, "requestsPerSecond": "4", "profile": {"hours": hours}}
    return deployment(workload=load)


def test_only_a_learned_profile_says_how_many_hours_were_measured() -> None:
    assert coverage_text(deployment().spec.workload, None) == ""
    assert coverage_text(with_hours("5").spec.workload, None) == ""
    assert coverage_text(asked().spec.workload, None) != ""


def test_no_hour_of_a_profile_is_above_a_limit() -> None:
    profile = limited_to(with_hours("6", "5", "5.1", "4"), "5000m").spec.workload.profile
    assert profile is not None
    assert profile.hours is not None
    assert [entry.requests_per_second for entry in profile.hours] == ["5000m", "5", "5000m", "4"]
    for unlimited in (deployment(), asked()):
        assert limited_to(unlimited, "1") is unlimited


def test_every_hour_of_a_week_has_the_rate_of_the_last_entry_before_it() -> None:
    entries = [
        ScheduledReplicas(day=day, hour=hour, requests_per_second=rate, replicas=1, power_watts=1)
        for day, hour, rate in (("Mon", 8, "10"), ("Tue", 8, "6"), ("Sun", 23, "1500m"))
    ]
    schedule = ScheduleStatus(
        replicas=1, start_seconds=1, start_joules=1, week_watt_hours=1, starts=1, released_gpu_hours=0, hours=entries
    )
    found = _rates_of(schedule)
    assert found == (1.5,) * 8 + (10.0,) * 24 + (6.0,) * 135 + (1.5,)


@pytest.mark.parametrize(("declared", "step"), [("4", 3), ("4003m", 3), ("4005m", 0)])
def test_steps_belong_to_one_declared_rate_as_a_status_has_it(declared: str, step: int) -> None:
    status = learned_status(replace(NOTHING, steps=(3,) * 168, counted=MONDAY))
    assert status is not None
    other = status.model_copy(update={"declared_requests_per_second": declared})
    found = learned_hours(asked({"learnedLoad": other.model_dump(by_alias=True)}), None)
    assert found is not None
    assert found.steps == (step,) * 168


LOW = 4.0 / (STEP * SPARE)


@pytest.mark.parametrize(
    ("rate", "seconds", "step"),
    [
        (4.0 * RAISE, 900, 0),
        (4.0 * RAISE + 1e-6, 900, 1),
        (4.0 * RAISE + 1e-6, 899, 0),
        (LOW, 900, 0),
        (LOW - 1e-6, 900, -1),
        (LOW - 1e-6, 899, 0),
        (3.8, 900, 0),
    ],
)
def test_a_step_is_settled_again_outside_of_its_range_and_once_it_was_measured(
    rate: float, seconds: int, step: int
) -> None:
    known = replace(NOTHING, rates=(rate,) * 168, seconds=(seconds,) * 168)
    found = _settled(known)
    assert found == (step,) * 168


def test_parts_of_a_window_shorter_than_a_second_count_for_no_hour() -> None:
    late = MeasuredLoad(MONDAY + timedelta(minutes=59, seconds=59.8), MONDAY + timedelta(minutes=70), 5.0)
    found = learn(NOTHING, late, 0.5)
    assert (found.seconds[:2], found.rates[:2]) == ((0, 600), (0.0, 5.0))
    second = MeasuredLoad(MONDAY + timedelta(minutes=59, seconds=59), MONDAY + timedelta(minutes=70), 5.0)
    assert learn(NOTHING, second, 0.5).seconds[:2] == (1, 600)


def test_every_hour_of_a_day_may_have_a_rate_of_its_own() -> None:
    known = replace(NOTHING, seconds=(900,) * 168, steps=(1, *(0,) * 22, 2, *(0,) * 144))
    profile = with_learned(asked(), known).spec.workload.profile
    assert profile is not None
    assert profile.hours is not None
    monday = [
        (entry.from_hour, entry.to_hour, entry.requests_per_second) for entry in profile.hours if entry.days == ("Mon",)
    ]
    assert monday == [(0, 1, "5000m"), (1, 23, "4000m"), (23, 24, "6250m")]
