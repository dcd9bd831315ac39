"""The replicas of a moment, started early, by the local clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from energylens.api.llmdeployment import ScheduledReplicas, Weekday
from energylens.decide.deployment.loads.timetable import Timetable
from energylens.planner.search.week_load import HOURS, WeekLoad


def entry(day: Weekday, hour: int, replicas: int) -> ScheduledReplicas:
    return ScheduledReplicas(day=day, hour=hour, requests_per_second="1", replicas=replicas, power_watts=replicas * 300)


def table(*entries: ScheduledReplicas, lead: int = 120, zone: str = "UTC") -> Timetable:
    load = WeekLoad(ZoneInfo(zone), ("1",) * HOURS)
    return Timetable(load, entries, timedelta(seconds=lead))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


OFFICE = (entry("Mon", 8, 3), entry("Mon", 18, 1), entry("Tue", 8, 3), entry("Tue", 18, 1))


@pytest.mark.parametrize(
    ("moment", "replicas"),
    [
        ("2026-03-02T07:57:59+00:00", 1),
        ("2026-03-02T07:58:00+00:00", 3),
        ("2026-03-02T08:00:00+00:00", 3),
        ("2026-03-02T17:59:59+00:00", 3),
        ("2026-03-02T18:00:00+00:00", 1),
        # The weekend belongs to the last entry, and so do the hours before the first one.
        ("2026-03-08T12:00:00+00:00", 1),
        ("2026-03-02T00:00:00+00:00", 1),
    ],
)
def test_replicas_are_started_early_and_stopped_on_the_hour(moment: str, replicas: int) -> None:
    found = table(*OFFICE)
    assert found.entries[found.entry_at(at(moment))].replicas == replicas


def test_a_start_that_takes_longer_than_an_hour_begins_more_than_an_hour_early() -> None:
    found = table(*OFFICE, lead=2 * 3600 + 60)
    assert found.next_change(at("2026-03-02T00:00:00+00:00")) == (at("2026-03-02T05:59:00+00:00"), 3)
    assert found.next_change(at("2026-03-02T06:00:00+00:00")) == (at("2026-03-02T18:00:00+00:00"), 1)


def test_the_next_change_is_the_next_other_number_of_replicas() -> None:
    steps = table(entry("Mon", 8, 2), entry("Mon", 12, 2), entry("Mon", 18, 1))
    noon = at("2026-03-02T11:00:00+00:00")
    assert steps.next_change(noon) == (at("2026-03-02T18:00:00+00:00"), 1)
    assert steps.next_entry(noon) == at("2026-03-02T12:00:00+00:00")
    assert steps.next_change(at("2026-03-02T18:00:00+00:00")) == (at("2026-03-09T07:58:00+00:00"), 2)


def test_a_look_is_due_when_replicas_start_and_when_their_hour_begins() -> None:
    found, moments = table(*OFFICE), [at("2026-03-02T07:00:00+00:00")]
    while len(moments) < 4:
        following = found.next_look(moments[-1])
        assert following is not None
        moments.append(following)
    assert [moment.strftime("%H:%M") for moment in moments] == ["07:00", "07:58", "08:00", "18:00"]


def test_a_number_that_never_changes_has_no_next_change() -> None:
    constant = table(entry("Mon", 0, 2))
    assert constant.next_change(at("2026-03-02T11:00:00+00:00")) is None
    assert constant.next_entry(at("2026-03-02T11:00:00+00:00")) is None
    # Two rates with the same replicas: another entry, and the same replicas.
    both = table(entry("Mon", 8, 2), entry("Mon", 18, 2))
    assert both.next_change(at("2026-03-02T11:00:00+00:00")) is None
    assert both.next_entry(at("2026-03-02T11:00:00+00:00")) == at("2026-03-02T18:00:00+00:00")


@pytest.mark.parametrize(
    ("moment", "change"),
    [
        # Friday before clocks are put forward: eight o'clock is an hour earlier from then on.
        ("2026-03-27T20:00:00+00:00", "2026-03-30T05:58:00+00:00"),
        ("2026-10-23T20:00:00+00:00", "2026-10-26T06:58:00+00:00"),
    ],
)
def test_hours_follow_the_local_clock_when_clocks_change(moment: str, change: str) -> None:
    berlin = table(*OFFICE, zone="Europe/Berlin")
    assert berlin.next_change(at(moment)) == (at(change), 3)


def test_an_hour_that_clocks_leave_out_is_followed_by_the_next_and_one_that_comes_twice_is_one() -> None:
    berlin = table(entry("Sun", 2, 5), entry("Sun", 3, 1), lead=0, zone="Europe/Berlin")
    spring = [berlin.entries[berlin.entry_at(at("2026-03-29T00:30:00+00:00") + timedelta(hours=h))] for h in range(3)]
    assert [found.replicas for found in spring] == [1, 1, 1]
    autumn = [berlin.entries[berlin.entry_at(at("2026-10-25T00:30:00+00:00") + timedelta(hours=h))] for h in range(3)]
    assert [found.replicas for found in autumn] == [5, 5, 1]


def test_the_next_entry_is_where_the_entry_changes() -> None:
    """Every minute of two weeks with a change of the clocks has the entry that the last announced change led to."""
    berlin = table(*OFFICE, lead=300, zone="Europe/Berlin")
    moment = at("2026-03-23T00:00:00+00:00")
    change, current = berlin.next_entry(moment), berlin.entry_at(moment)
    while moment < at("2026-04-06T00:00:00+00:00"):
        moment += timedelta(minutes=1)
        assert change is not None
        if moment >= change:
            assert berlin.entry_at(change) != current
            current, change = berlin.entry_at(change), berlin.next_entry(change)
        assert berlin.entry_at(moment) == current, moment.astimezone(UTC)
