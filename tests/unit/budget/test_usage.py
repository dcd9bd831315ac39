"""What is left, how fast it goes, and the power that it allows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.api.energybudget import EnergyBudgetSpec
from energylens.budget.carbon import Forecast
from energylens.budget.ledger import Entry
from energylens.budget.periods import Span
from energylens.budget.usage import burn_rate_watts, exhaustion, growth_allowed, power_allowed, usage

START = datetime(2026, 11, 25, tzinfo=UTC)
DAY = Span(START, START + timedelta(days=1))


def spec(**fields: Any) -> EnergyBudgetSpec:
    return EnergyBudgetSpec.model_validate({"period": "Day", **fields})


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def used(watt_hours: float, *, predicted: float = 0.0, grams: float = 0.0) -> tuple[Entry, ...]:
    return (Entry("u", "t", "n", START, (watt_hours - predicted) * 3600, predicted * 3600, grams),)


def test_energy_is_used_and_left() -> None:
    found = usage(spec(energyWattHours=1000), used(400, predicted=100), DAY, at(6), None)
    assert (found.used_watt_hours, found.predicted_watt_hours) == (pytest.approx(400), pytest.approx(100))
    assert (found.remaining_watt_hours, found.limit) == (pytest.approx(600), "spec.energyWattHours")


def test_power_that_holds_until_the_reset() -> None:
    limits = spec(energyWattHours=2400, powerWatts=500)
    allowed = power_allowed(limits, usage(limits, used(600), DAY, at(6), None), DAY, at(6))
    assert allowed is not None
    assert (allowed.watts, allowed.limit) == (pytest.approx(100), "spec.energyWattHours")
    tight = spec(energyWattHours=240_000, powerWatts=500)
    allowed = power_allowed(tight, usage(tight, used(600), DAY, at(6), None), DAY, at(6))
    assert allowed is not None
    assert (allowed.watts, allowed.limit) == (500, "spec.powerWatts")


def test_growth_must_hold_a_whole_period_too() -> None:
    limits = spec(energyWattHours=2400)
    # Nothing was used for most of the day, so that the last hours could take much: the next day could not.
    late = usage(limits, used(0), DAY, at(20), None)
    burst, grown = power_allowed(limits, late, DAY, at(20)), growth_allowed(limits, late, DAY, at(20))
    assert burst is not None
    assert grown is not None
    assert (burst.watts, grown.watts) == (pytest.approx(600), pytest.approx(100))


@given(st.floats(0, 23.9), st.floats(0, 3000))
def test_growth_is_never_more_than_what_holds(hours: float, watt_hours: float) -> None:
    limits = spec(energyWattHours=2400)
    found = usage(limits, used(watt_hours), DAY, at(hours), None)
    burst, grown = (f(limits, found, DAY, at(hours)) for f in (power_allowed, growth_allowed))
    assert burst is not None
    assert grown is not None
    assert 0 <= grown.watts <= min(burst.watts, 100) + 1e-6


def test_grams_become_energy_and_the_tighter_limit_binds() -> None:
    grid = Forecast(tuple(at(h) for h in range(24)), tuple(500.0 for _ in range(24)))
    limits = spec(energyWattHours=10_000, carbon={"forecastConfigMapRef": {"name": "grid"}, "gramsPerPeriod": 1000})
    found = usage(limits, used(400, grams=200), DAY, at(6), grid)
    assert found.limit == "spec.carbon.gramsPerPeriod"
    assert found.used_grams == pytest.approx(200)
    assert found.remaining_watt_hours == pytest.approx(1600)


def test_time_without_a_forecast_counts_with_the_worst_that_is_known() -> None:
    grid = Forecast((START,), (500.0,))
    limits = spec(carbon={"forecastConfigMapRef": {"name": "grid"}, "gramsPerPeriod": 1000})
    entry = Entry("u", "t", "n", START, 3.6e6, ungraded_joules=3.6e6)
    assert usage(limits, (entry,), DAY, START, grid).used_grams == pytest.approx(500)


def test_the_burn_rate_is_that_of_the_last_hour() -> None:
    points = [(at(0), 0.0), (at(1), 1000.0), (at(1.5), 1100.0), (at(2), 1200.0)]
    assert burn_rate_watts(points, 7) == pytest.approx(200)
    assert burn_rate_watts(points[:1], 7) == 7
    assert burn_rate_watts([(at(0), 0.0), (at(0.01), 9.0)], 7) == 7


def test_exhaustion_is_when_the_rest_is_burnt() -> None:
    found = usage(spec(energyWattHours=1000), used(400), DAY, at(6), None)
    assert exhaustion(found, DAY, at(6), 100) == at(12)
    assert exhaustion(found, DAY, at(6), 30) is None
    assert exhaustion(found, DAY, at(6), 0) is None
    gone = usage(spec(energyWattHours=1000), used(1001), DAY, at(6), None)
    assert gone.remaining_watt_hours == 0
    assert exhaustion(gone, DAY, at(6), 0) == at(6)


def test_power_alone_never_runs_out() -> None:
    found = usage(spec(powerWatts=5), (), DAY, at(6), None)
    assert found.remaining_watt_hours is None
    assert exhaustion(found, DAY, at(6), 1e9) is None


@pytest.mark.parametrize(
    ("watt_hours", "spent", "hours", "watts"),
    [
        # Steps of a hundredth of the mean power, 10 W, and at least of 1 W.
        (24_000, 13_145, 13, 980),
        (24_000, 13_200, 13, 980),
        (240, 131.8, 13, 9),
    ],
)
def test_growth_goes_in_steps(watt_hours: int, spent: float, hours: float, watts: float) -> None:
    limits = spec(energyWattHours=watt_hours)
    grown = growth_allowed(limits, usage(limits, used(spent), DAY, at(hours), None), DAY, at(hours))
    assert grown is not None
    assert (grown.watts, grown.limit) == (pytest.approx(watts), "spec.energyWattHours")


def test_growth_under_powerwatts_has_no_steps_and_keeps_its_name_at_equal_power() -> None:
    limits = spec(powerWatts=1003, energyWattHours=2_400_000)
    found = growth_allowed(limits, usage(limits, (), DAY, START, None), DAY, START)
    assert found is not None
    assert (found.watts, found.limit) == (1003, "spec.powerWatts")
    equal = spec(powerWatts=100, energyWattHours=2400)
    found = growth_allowed(equal, usage(equal, (), DAY, START, None), DAY, START)
    assert found is not None
    assert (found.watts, found.limit) == (100, "spec.powerWatts")


def test_without_a_limit_growth_has_none() -> None:
    unlimited = usage(spec(powerWatts=1), (), DAY, START, None)
    grid = Forecast((START,), (0.0,))
    limits = spec(carbon={"forecastConfigMapRef": {"name": "grid"}, "gramsPerPeriod": 1000})
    assert growth_allowed(limits, usage(limits, (), DAY, START, grid), DAY, START) is None
    assert unlimited.allowed_watt_hours is None


def test_nothing_is_allowed_by_hours_that_are_over() -> None:
    limits = spec(energyWattHours=2400)
    assert power_allowed(limits, usage(limits, (), DAY, DAY.end, None), DAY, DAY.end) is None


@pytest.mark.parametrize("hours", [23.5, 23.0])
def test_energy_lasts_through_the_last_hour_of_a_period(hours: float) -> None:
    limits = spec(energyWattHours=2400)
    allowed = power_allowed(limits, usage(limits, used(2300), DAY, at(hours), None), DAY, at(hours))
    assert allowed is not None
    assert allowed.watts == pytest.approx(100 / (24 - hours))


def test_a_carbon_limit_counts_nothing_without_its_forecast_and_allows_nothing_when_used_up() -> None:
    limits = spec(carbon={"forecastConfigMapRef": {"name": "grid"}, "gramsPerPeriod": 100})
    assert usage(limits, (), DAY, START, None).used_grams is None
    gone = usage(limits, used(400, grams=100), DAY, START, Forecast((START,), (500.0,)))
    assert gone.allowed_watt_hours == pytest.approx(400)
    assert gone.remaining_watt_hours == pytest.approx(0)


def test_the_burn_rate_takes_a_whole_hour_and_at_least_five_minutes() -> None:
    assert burn_rate_watts([(at(0), 0.0), (at(1), 100.0)], 7) == pytest.approx(100)
    assert burn_rate_watts([(at(0), 0.0), (at(0.9), 90.0), (at(1), 100.0), (at(1.1), 400.0)], 7) == pytest.approx(1550)
    minute = 1 / 60
    assert burn_rate_watts([(at(0), 0.0), (at(5 * minute), 10.0)], 7) == pytest.approx(120)
    assert burn_rate_watts([(at(0), 0.0), (at(4.9 * minute), 10.0)], 7) == 7
    # A point of more than an hour ago is left out.
    assert burn_rate_watts([(at(0), 0.0), (at(0.25), 1000.0), (at(1.25), 1100.0)], 7) == pytest.approx(100)


def test_half_a_watt_burns_the_last_half_watt_hour_and_energy_that_just_lasts_does_not_run_out() -> None:
    limits = spec(energyWattHours=1000)
    found = usage(limits, used(999.5), DAY, at(6), None)
    assert exhaustion(found, DAY, at(6), 0.5) == at(7)
    assert exhaustion(usage(limits, used(400), DAY, at(6), None), DAY, at(6), 600 / 18) is None
