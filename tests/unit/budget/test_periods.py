"""Periods tile time in every zone, over daylight-saving changes and the ends of months."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.api.energybudget import Period
from energylens.budget.periods import Span, period_at

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # clocks move by half an hour
    "America/Havana",  # clocks go back from 01:00 to 00:00
    "Asia/Beirut",  # midnight is skipped
    "Pacific/Apia",  # 2011-12-30 was skipped
    "Pacific/Kiritimati",
    "Africa/Cairo",  # midnight is skipped, and comes twice
    "America/Sao_Paulo",  # the same until 2019
    "Asia/Tehran",  # half an hour off, and midnight skipped until 2022
    "Antarctica/Troll",  # clocks move by two hours
    "Asia/Gaza",  # another rule almost every year
)
PERIODS: tuple[Period, ...] = ("Hour", "Day", "Week", "Month")
moments = st.integers(1_104_537_600, 2_208_988_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
zones = st.sampled_from(ZONES).map(ZoneInfo)
LONGEST = {"Hour": 1, "Day": 26, "Week": 7 * 24 + 2, "Month": 31 * 24 + 2}


@given(st.sampled_from(PERIODS), zones, moments)
def test_a_moment_is_in_its_period_and_the_next_one_follows_at_once(
    period: Period, zone: ZoneInfo, now: datetime
) -> None:
    span = period_at(period, zone, now)
    assert span.start <= now < span.end
    assert period_at(period, zone, span.start) == span
    assert period_at(period, zone, span.end - timedelta(microseconds=1)) == span
    following = period_at(period, zone, span.end)
    assert following.start == span.end
    assert 0 < span.hours <= LONGEST[period]


@given(st.sampled_from(PERIODS), zones, moments, st.integers(1, 400))
def test_a_year_of_resets_leaves_nothing_out(period: Period, zone: ZoneInfo, now: datetime, resets: int) -> None:
    span = first = period_at(period, zone, now)
    total = timedelta()
    for _ in range(min(resets, 60)):
        total += span.end - span.start
        span = period_at(period, zone, span.end)
    assert span.start - first.start == total


@given(st.sampled_from(("Day", "Week", "Month")), st.sampled_from(ZONES[:4]).map(ZoneInfo), moments)
def test_a_period_begins_at_midnight_of_the_zone(period: Period, zone: ZoneInfo, now: datetime) -> None:
    start = period_at(period, zone, now).start.astimezone(zone)
    assert (start.hour, start.minute, start.second) == (0, 0, 0)
    assert period != "Week" or start.weekday() == 0
    assert period != "Month" or start.day == 1


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("period", "now", "hours"),
    [
        ("Day", "2026-03-29T12:00", 23),
        ("Day", "2026-10-25T12:00", 25),
        ("Day", "2026-03-28T12:00", 24),
        ("Week", "2026-03-25T12:00", 167),
        ("Month", "2026-03-01T00:00", 743),
        ("Month", "2026-10-31T23:59", 745),
        ("Month", "2028-02-29T12:00", 29 * 24),
        ("Month", "2026-02-28T23:59", 28 * 24),
        ("Hour", "2026-10-25T02:30", 1),
    ],
)
def test_daylight_saving_and_month_ends(period: Period, now: str, hours: float) -> None:
    assert period_at(period, ZoneInfo("Europe/Berlin"), berlin(now)).hours == hours


def test_a_repeated_hour_of_wall_clock_time_is_two_hours() -> None:
    zone = ZoneInfo("Europe/Berlin")
    first = berlin("2026-10-25T02:30")
    second = first.replace(fold=1)
    spans = [period_at("Hour", zone, moment) for moment in (first, second)]
    assert spans[0].end == spans[1].start


@given(st.sampled_from(("Day", "Week", "Month")), zones, moments)
def test_a_period_begins_where_the_date_of_the_zone_changes(period: Period, zone: ZoneInfo, now: datetime) -> None:
    start = period_at(period, zone, now).start
    first, before = (moment.astimezone(zone) for moment in (start, start - timedelta(microseconds=1)))
    assert before.date() < first.date() <= now.astimezone(zone).date()
    # Of a period whose first day was skipped the first day is that after it.
    assert period != "Week" or first.date() - before.date() > timedelta(days=1) or first.weekday() == 0
    assert period != "Month" or first.month != before.month


@pytest.mark.parametrize(
    ("name", "day", "hours"),
    [
        ("Africa/Cairo", "2026-04-24", 23),
        ("Africa/Cairo", "2026-10-29", 25),
        ("America/Sao_Paulo", "2018-11-04", 23),
        ("America/Sao_Paulo", "2019-02-16", 25),
        ("Australia/Lord_Howe", "2026-10-04", 23.5),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("Asia/Kolkata", "2026-03-29", 24),
    ],
)
def test_days_of_zones_with_rules_of_their_own(name: str, day: str, hours: float) -> None:
    zone = ZoneInfo(name)
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=zone)
    span = period_at("Day", zone, noon)
    assert span.hours == hours
    assert span.start.astimezone(zone).date() == noon.date() < span.end.astimezone(zone).date()


def test_a_skipped_midnight_is_the_moment_of_the_skip() -> None:
    zone = ZoneInfo("Asia/Beirut")
    span = period_at("Day", zone, datetime(2026, 3, 29, 12, tzinfo=UTC))
    assert span.start.astimezone(zone).strftime("%F %T") == "2026-03-29 01:00:00"
    assert span.hours == 23


def test_a_skipped_day_has_no_period() -> None:
    zone = ZoneInfo("Pacific/Apia")
    span = period_at("Day", zone, datetime(2011, 12, 29, 20, tzinfo=UTC))
    days = []
    for _ in range(3):
        days.append(span.start.astimezone(zone).day)
        span = period_at("Day", zone, span.end)
    assert days == [29, 31, 1]


def test_hours_left_never_go_below_zero() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    span = Span(start, start + timedelta(hours=2))
    left = [span.hours_left(start + timedelta(hours=hours)) for hours in range(4)]
    assert left == [2, 1, 0, 0]
    assert all(a >= b for a, b in pairwise(left))


@pytest.mark.parametrize(("now", "day"), [("04:15", 30), ("04:45", 30), ("05:00", 31), ("05:15", 31)])
def test_the_first_moments_of_a_date_whose_midnight_was_skipped_belong_to_the_day_before(now: str, day: int) -> None:
    """In Toronto, 23:30 on 30 March 1919 was followed by 00:30: the date began half an hour before its midnight."""
    found = period_at("Day", ZoneInfo("America/Toronto"), datetime.fromisoformat(f"1919-03-31T{now}:00+00:00"))
    midnight = datetime(1919, 3, day, 5, tzinfo=UTC)
    assert found.start == midnight
    assert found.end == (midnight + timedelta(days=1) if day == 30 else datetime(1919, 4, 1, 4, tzinfo=UTC))
