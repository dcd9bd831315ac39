"""A forecast of carbon intensity: what is read, what is refused, and what it makes of energy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.budget.carbon import Forecast, ForecastError, csv_of, hourly, parse_forecast

START = datetime(2026, 11, 25, tzinfo=UTC)
HOUR = timedelta(hours=1)


def forecast(*values: float) -> Forecast:
    return Forecast(tuple(START + number * HOUR for number in range(len(values))), values)


def test_a_text_is_read() -> None:
    text = "time,gramsPerKilowattHour\n2026-11-25T00:00:00Z,300\n2026-11-25T02:00:00+01:00, 412.5\n"
    assert parse_forecast(text) == forecast(300.0, 412.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 must be time,gramsPerKilowattHour"),
        ("hour,grams\n", "line 1 must be"),
        ("time,gramsPerKilowattHour\n", "holds no values"),
        ("time,gramsPerKilowattHour\n2026-11-25T00:00:00Z\n", "line 2 has 1 values, must have 2"),
        ("time,gramsPerKilowattHour\nnoon,300\n", "line 2: time 'noon' is not RFC 3339"),
        ("time,gramsPerKilowattHour\n2026-11-25T00:00:00,300\n", "has no time zone"),
        ("time,gramsPerKilowattHour\n0001-01-01T00:00:00+05:00,300\n", "must be in the years 2 to 9998"),
        ("time,gramsPerKilowattHour\n9999-12-31T23:00:00-05:00,300\n", "must be in the years 2 to 9998"),
        ("time,gramsPerKilowattHour\n2026-11-25T00:00:00Z,nan\n", "gramsPerKilowattHour 'nan' must be a number"),
        ("time,gramsPerKilowattHour\n2026-11-25T00:00:00Z,-1\n", "must be a number of at least 0"),
        (
            "time,gramsPerKilowattHour\n2026-11-25T00:00:00Z,1\n2026-11-25T00:00:00Z,1\n",
            "line 3: time 2026-11-25T00:00:00Z is not after the line before",
        ),
        ("time,gramsPerKilowattHour\n2026-11-25T00:00:00Z,1\n2026-11-25T03:00:00Z,1\n", "every hour needs a value"),
    ],
)
def test_a_text_that_is_no_forecast_is_refused(text: str, message: str) -> None:
    with pytest.raises(ForecastError, match=message.replace("(", r"\(")):
        parse_forecast(text)


def test_the_mean_is_weighted_by_time() -> None:
    grid = forecast(100, 300)
    assert grid.mean(START + HOUR / 2, START + 2 * HOUR) == pytest.approx((0.5 * 100 + 300) / 1.5)
    assert grid.grams(3.6e6, START, START + 2 * HOUR) == pytest.approx(200)


def test_what_comes_after_the_forecast_counts_with_its_mean() -> None:
    assert forecast(100, 300).mean(START, START + 100 * HOUR) == pytest.approx(200)


def test_what_the_forecast_does_not_cover_is_not_known() -> None:
    grid = forecast(100, 300)
    assert grid.grams(1.0, START - HOUR, START + HOUR) is None
    assert grid.grams(1.0, START, START + 3 * HOUR) is None
    for now in (START - HOUR, START + 2 * HOUR):
        with pytest.raises(ForecastError, match=", but not 2026"):
            grid.mean(now, now + HOUR)


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=24), st.floats(0, 1e6))
def test_grams_become_energy_that_causes_as_many_grams(values: list[float], grams: float) -> None:
    grid = forecast(*values)
    energy = grid.watt_hours(grams, START, grid.end)
    assert grid.grams(energy * 3600.0, START, grid.end) == pytest.approx(grams)


def test_a_grid_without_carbon_allows_any_energy() -> None:
    assert forecast(0).watt_hours(1, START, START + HOUR) == float("inf")
    assert forecast(0).watt_hours(0, START, START + HOUR) == 0


def test_the_highest_value_is_the_worst_that_is_known() -> None:
    assert forecast(100.0, 300.0, 200.0).highest == 300.0


@pytest.mark.parametrize("value", ["0", "0.5"])
def test_a_grid_without_carbon_is_a_forecast_too(value: str) -> None:
    assert parse_forecast(f"time,gramsPerKilowattHour\n2026-11-25T00:00:00Z,{value}\n") == forecast(float(value))


def test_no_time_has_no_mean_and_no_grams() -> None:
    with pytest.raises(ForecastError, match="from 2026-11-25T00:00Z to 2026-11-25T00:00Z is empty"):
        forecast(300.0).mean(START, START)
    assert forecast(300.0).grams(1.0, START, START) is None


def test_a_mean_begins_inside_any_hour_of_the_forecast() -> None:
    assert forecast(100.0, 300.0).mean(START + HOUR / 2, START + HOUR) == 100.0


@pytest.mark.parametrize(("first", "grams"), [(0, 100.0), (1, 400.0), (2, 900.0)])
def test_values_outside_of_the_time_have_no_weight(first: int, grams: float) -> None:
    begin = START + first * HOUR
    assert forecast(100.0, 400.0, 900.0).mean(begin, begin + HOUR) == grams


def test_the_message_names_the_time_that_a_forecast_covers() -> None:
    with pytest.raises(
        ForecastError, match=r"^covers 2026-11-25T00:00Z to 2026-11-25T02:00Z, but not 2026-11-25T02:00Z$"
    ):
        forecast(1.0, 2.0).mean(START + 2 * HOUR, START + 3 * HOUR)


def test_a_forecast_is_written_as_it_is_read() -> None:
    grid = forecast(300.0, 412.5)
    assert csv_of(grid) == ("time,gramsPerKilowattHour\n2026-11-25T00:00:00Z,300\n2026-11-25T01:00:00Z,412.5\n")
    assert parse_forecast(csv_of(grid)) == grid


def test_points_become_the_means_of_their_hours_of_utc() -> None:
    zone = timezone(timedelta(hours=1))
    quarter = timedelta(minutes=15, seconds=30, microseconds=7)
    points = [(START + quarter, 100.0), (START + 2 * quarter, 300.0), ((START + HOUR).astimezone(zone), 50.0)]
    assert hourly(points) == forecast(200.0, 50.0)
    assert hourly(points).times[1].tzinfo is UTC


def test_points_without_an_hour_between_them_are_no_forecast() -> None:
    with pytest.raises(ForecastError, match=r"^holds no values$"):
        hourly([])
    with pytest.raises(ForecastError, match=r"^has no value from 2026-11-25T01:00Z to 2026-11-25T03:00Z$"):
        hourly([(START, 1.0), (START + 3 * HOUR, 1.0)])


@pytest.mark.parametrize("time", ["0002-01-01T00:00:00Z", "9998-12-31T23:00:00Z"])
def test_the_first_and_the_last_year_are_allowed(time: str) -> None:
    assert parse_forecast(f"time,gramsPerKilowattHour\n{time},1\n").times == (datetime.fromisoformat(time),)
