"""The hours of a profile as spans, by the local clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment
from energylens.planner.search.week_load import HOURS, RateSpan, WeekLoad, at_peak

WORKING_DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri"]


def load(make: Callable[..., LLMDeployment], *hours: dict[str, Any], zone: str = "UTC", base: str = "2") -> WeekLoad:
    workload = {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": base}
    return WeekLoad.of(make(workload=workload | {"profile": {"timeZone": zone, "hours": list(hours)}}).spec.workload)


def test_hours_that_no_entry_names_have_the_base_rate(make_deployment: Callable[..., LLMDeployment]) -> None:
    found = load(make_deployment, {"days": WORKING_DAYS, "fromHour": 8, "toHour": 18, "requestsPerSecond": "20"})
    assert found.rates.count("20") == 5 * 10
    assert found.rates.count("2") == HOURS - 50
    assert [str(span) for span in found.spans[:3]] == ["Mon 08:00", "Mon 18:00", "Tue 08:00"]
    assert found.spans[-1].hours == 14 + 48  # Friday evening, the weekend and Monday morning
    assert sum(span.hours for span in found.spans) == HOURS
    assert found.peak_text == "Mon 08:00, 20 requests per second"


def test_of_entries_with_the_same_hour_the_last_one_applies(make_deployment: Callable[..., LLMDeployment]) -> None:
    day, noon = {"requestsPerSecond": "5"}, {"fromHour": 12, "toHour": 13, "requestsPerSecond": "9"}
    assert load(make_deployment, day, noon).rates[11:14] == ("5", "9", "5")
    assert set(load(make_deployment, noon, day).rates) == {"5"}


def test_equal_rates_are_one_span_however_they_are_written(make_deployment: Callable[..., LLMDeployment]) -> None:
    found = load(make_deployment, {"fromHour": 8, "toHour": 18, "requestsPerSecond": "2000m"})
    assert [(span.start, span.hours) for span in found.spans] == [(0, HOURS)]


@pytest.mark.parametrize(
    ("zone", "moment", "day", "hour"),
    [
        ("UTC", "2026-11-27T15:30:00+00:00", "Fri", 15),
        ("Europe/Berlin", "2026-11-27T23:30:00+00:00", "Sat", 0),
        ("Asia/Kolkata", "2026-11-27T18:29:59+00:00", "Fri", 23),
        ("Asia/Kolkata", "2026-11-27T18:30:00+00:00", "Sat", 0),
        # Clocks are put forward from 2 to 3, and back from 3 to 2.
        ("Europe/Berlin", "2026-03-29T00:59:59+00:00", "Sun", 1),
        ("Europe/Berlin", "2026-03-29T01:00:00+00:00", "Sun", 3),
        ("Europe/Berlin", "2026-10-25T00:30:00+00:00", "Sun", 2),
        ("Europe/Berlin", "2026-10-25T01:30:00+00:00", "Sun", 2),
    ],
)
def test_the_hour_is_that_of_the_local_clock(
    make_deployment: Callable[..., LLMDeployment], zone: str, moment: str, day: str, hour: int
) -> None:
    found = load(make_deployment, {"requestsPerSecond": "3"}, zone=zone)
    names = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    assert found.hour_at(datetime.fromisoformat(moment)) == 24 * names.index(day) + hour


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/New_York"])
def test_every_hour_of_the_local_clock_is_met(make_deployment: Callable[..., LLMDeployment], zone: str) -> None:
    """Clocks change by half an hour on Lord Howe Island; no change of the hour may fall between two moments."""
    found = load(make_deployment, {"requestsPerSecond": "3"}, zone=zone)
    for start in ("2026-03-07T12:10:00+00:00", "2026-03-28T12:10:00+00:00", "2026-04-04T02:00:00+00:00",
                  "2026-10-03T03:15:00+00:00", "2026-10-24T12:10:00+00:00", "2026-10-31T20:00:00+00:00"):  # fmt: skip
        first = datetime.fromisoformat(start)
        moments = list(islice(found.hours_from(first), 80))
        for before, after in pairwise(moments):
            assert timedelta(0) < after.astimezone(UTC) - before.astimezone(UTC) <= timedelta(hours=1)
            last = after.astimezone(UTC) - timedelta(seconds=1)
            if last >= before.astimezone(UTC):
                assert found.hour_at(last) == found.hour_at(before), f"{before} to {after}"


def test_a_constant_load_is_its_own_peak(make_deployment: Callable[..., LLMDeployment]) -> None:
    constant = make_deployment()
    assert at_peak(constant) is constant
    workload = {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": "2"}
    hours = [{"fromHour": 8, "toHour": 18, "requestsPerSecond": "7"}]
    peak = at_peak(make_deployment(workload=workload | {"profile": {"hours": hours}}))
    assert (peak.spec.workload.requests_per_second, peak.spec.workload.profile) == ("7", None)


def test_a_span_names_the_day_and_the_hour_of_its_start() -> None:
    assert [str(RateSpan(start, 1, "2")) for start in (0, 23, 24, 50, 144, 167)] == [
        "Mon 00:00", "Mon 23:00", "Tue 00:00", "Wed 02:00", "Sun 00:00", "Sun 23:00"
    ]  # fmt: skip


@pytest.mark.parametrize("missing", ["profile", "requests_per_second"])
def test_a_week_needs_a_profile_and_a_base_rate(make_deployment: Callable[..., LLMDeployment], missing: str) -> None:
    workload = {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": "2"}
    profile = {"timeZone": "UTC", "hours": [{"requestsPerSecond": "5"}]}
    whole = make_deployment(workload=workload | {"profile": profile}).spec.workload
    with pytest.raises(ValueError, match=r"a week needs workload\.profile and workload\.requestsPerSecond"):
        WeekLoad.of(whole.model_copy(update={missing: None}))


def test_hours_go_on_without_end_from_within_an_hour(make_deployment: Callable[..., LLMDeployment]) -> None:
    found = load(make_deployment, {"requestsPerSecond": "5"})
    begin = datetime(2026, 11, 27, 23, 59, 59, 999_999, tzinfo=UTC)
    assert [moment.isoformat() for moment in islice(found.hours_from(begin), 3)] == [
        "2026-11-27T23:59:59.999999+00:00", "2026-11-28T00:00:00+00:00", "2026-11-28T01:00:00+00:00"
    ]  # fmt: skip
