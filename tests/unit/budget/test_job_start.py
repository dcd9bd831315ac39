"""The best start of a job against trying every second, and the rules that keep a planned start."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pytest

from energylens.budget.hourly import ForecastError, HourlyValues, parse_hourly
from energylens.budget.job_start import MIN_GAIN, Phase, Starts, best_start

T0 = datetime(2026, 11, 28, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def steps(values: Sequence[float], seconds: float = 3600.0, begin: float = 0.0) -> HourlyValues:
    return HourlyValues(tuple(at(begin + i * seconds) for i in range(len(values))), tuple(values))


def second_by_second(phases: Sequence[Phase], start: int, values: HourlyValues) -> float:
    """Return the weighted energy, with each second at the value of its beginning."""
    total, now = 0.0, start
    for phase in phases:
        for second in range(now, now + phase.seconds):
            index = max(i for i, time in enumerate(values.times) if time <= at(second))
            total += phase.watts * values.values[index]
        now += phase.seconds
    return total / 3.6e6


@pytest.mark.parametrize("seed", range(60))
def test_the_start_is_the_best_second_of_all(seed: int) -> None:
    draw = random.Random(seed)
    width = draw.choice([3, 7, 10])
    # The last value holds for an hour, so that the end does not bind.
    values = steps([draw.choice([0.0, draw.uniform(-50, 500)]) for _ in range(draw.randint(1, 12))], width)
    phases = [Phase(draw.randint(0, 15), draw.uniform(0, 3000)) for _ in range(draw.randint(1, 3))]
    earliest = draw.randint(0, 20)
    latest = earliest + draw.randint(0, 60)
    found = best_start(phases, at(earliest), at(latest), values)
    assert found is not None
    amounts = {start: second_by_second(phases, start, values) for start in range(earliest, latest + 1)}
    least = min(amounts.values())
    chosen = round((found.start - T0).total_seconds())
    assert found.amount == pytest.approx(least, rel=1e-9, abs=1e-12)
    assert amounts[chosen] == pytest.approx(least, rel=1e-9, abs=1e-12)
    assert found.at_once == pytest.approx(amounts[earliest], rel=1e-9, abs=1e-12)
    assert found.until == at(latest)


def test_of_equal_hours_the_first_is_taken() -> None:
    found = best_start([Phase(3600, 1000.0)], T0, at(5 * 3600), steps([300, 100, 100, 100, 300, 300, 300]))
    assert found is not None
    assert found.start == at(3600)
    assert (found.amount, found.at_once) == (pytest.approx(100.0), pytest.approx(300.0))


def test_the_last_safe_start_binds_before_the_cleanest_hour() -> None:
    found = best_start([Phase(3600, 1000.0)], T0, at(1800), steps([300, 200, 10, 10]))
    assert found is not None
    assert found.start == at(1800)
    assert found.amount == pytest.approx(250.0)


def test_only_the_known_part_of_a_short_forecast_is_compared() -> None:
    found = best_start([Phase(3600, 1000.0)], T0, at(86_400), steps([300, 200, 250]))
    assert found is not None
    assert (found.start, found.until) == (at(3600), at(7200))
    assert best_start([Phase(4 * 3600, 1000.0)], T0, at(86_400), steps([300, 200, 250])) is None
    assert best_start([Phase(60, 1000.0)], at(3 * 3600), at(86_400), steps([300, 200, 250])) is None


def test_a_forecast_that_begins_later_has_no_figure_for_a_start_at_once() -> None:
    found = best_start([Phase(3600, 1000.0)], T0, at(86_400), steps([300, 200], begin=7200))
    assert found is not None
    assert (found.start, found.at_once) == (at(3 * 3600), None)


def test_a_planned_start_stays_until_another_one_is_clearly_better() -> None:
    def with_second_hour(value: float) -> datetime:
        found = best_start([Phase(3600, 1000.0)], T0, at(2 * 3600), steps([300, value, 200]), planned=at(7200))
        assert found is not None
        return found.start

    assert with_second_hour(200 * (1 - MIN_GAIN) + 0.1) == at(7200)
    assert with_second_hour(200 * (1 - MIN_GAIN) - 0.1) == at(3600)


def test_a_planned_start_that_is_no_longer_safe_or_known_is_replaced() -> None:
    values = steps([300, 250, 249])
    late = best_start([Phase(3600, 1000.0)], T0, at(3600), values, planned=at(7200))
    unknown = best_start([Phase(3600, 1000.0)], T0, at(86_400), values, planned=at(4 * 3600))
    assert late is not None
    assert unknown is not None
    assert (late.start, unknown.start) == (at(3600), at(7200))


def test_moments_within_a_second_are_never_left() -> None:
    values = HourlyValues((T0 + timedelta(milliseconds=400),), (100.0,))
    found = best_start([Phase(10, 1000.0)], at(-60), at(86_400), values)
    assert found is not None
    assert (found.start, found.until) == (at(1), at(3590))


def test_prices_may_be_negative_and_intensities_may_not() -> None:
    text = "time,pricePerKilowattHour\n2026-11-28T00:00:00Z,-0.05\n"
    assert parse_hourly(text, "pricePerKilowattHour", least=None).values == (-0.05,)
    with pytest.raises(ForecastError, match=r"line 2: pricePerKilowattHour '-0\.05' must be a number of at least 0"):
        parse_hourly(text, "pricePerKilowattHour")
    with pytest.raises(ForecastError, match=r"line 2: pricePerKilowattHour '1e\+13' must be at most 1e\+12"):
        parse_hourly(text.replace("-0.05", "1e+13"), "pricePerKilowattHour", least=None)
    with pytest.raises(ForecastError, match="line 1 must be time,pricePerKilowattHour"):
        parse_hourly("time,gramsPerKilowattHour\n", "pricePerKilowattHour", least=None)


@pytest.mark.parametrize("seed", range(30))
def test_the_best_allowed_start_is_the_best_of_every_minute(seed: int) -> None:
    draw = random.Random(seed)
    values = steps([draw.uniform(-50, 500) for _ in range(10)])
    phases = [Phase(60 * draw.randint(0, 20), 300.0), Phase(60 * draw.randint(1, 100), 900.0)]
    length = sum(phase.seconds for phase in phases)
    longest = length + 60 * draw.choice([0, 0, draw.randint(1, 40)])
    taken = {quarter for quarter in range(60) if draw.random() < 0.25}

    def allowed(starts: Starts) -> npt.NDArray[np.bool_]:
        begin = int(T0.timestamp())
        free = [not taken & set(range((s - begin) // 900, -(-(s - begin + longest) // 900))) for s in starts.tolist()]
        return np.asarray(free, dtype=bool)

    earliest, latest = 60 * draw.randint(0, 60), 60 * draw.randint(100, 400)
    found = best_start(phases, at(earliest), at(latest), values, None, allowed, (longest,))
    minutes = np.arange(earliest, min(latest, 36_000 - length) + 1, 60) + int(T0.timestamp())
    free = minutes[allowed(minutes)]
    if not free.size:
        assert found is None
        return
    assert found is not None
    start = round((found.start - T0).total_seconds())
    assert earliest <= start <= latest
    assert allowed(np.asarray([start + int(T0.timestamp())])).all()
    amounts = [weighed(phases, int(minute - T0.timestamp()), values) for minute in free.tolist()]
    # Phases are whole minutes, so that every bend is one; a second before the end of a quarter may be better.
    assert found.amount <= min(amounts) + 1e-9
    assert found.amount == pytest.approx(weighed(phases, start, values))


def weighed(phases: Sequence[Phase], start: int, values: HourlyValues) -> float:
    """Return the weighted energy, hour by hour."""
    total, now = 0.0, float(start)
    for phase in phases:
        for hour, value in enumerate(values.values):
            overlap = min(now + phase.seconds, 3600.0 * (hour + 1)) - max(now, 3600.0 * hour)
            total += phase.watts * max(0.0, overlap) * value
        now += phase.seconds
    return total / 3.6e6


def test_a_planned_start_that_is_no_longer_allowed_is_given_up() -> None:
    values, phases = steps([300.0] * 5), [Phase(3600, 1000.0)]

    def allowed(starts: Starts) -> npt.NDArray[np.bool_]:
        return np.asarray(starts >= int(at(7200).timestamp()), dtype=bool)

    kept = best_start(phases, T0, at(10_000), values, at(3600))
    moved = best_start(phases, T0, at(10_000), values, at(3600), allowed, (3600,))
    assert kept is not None
    assert moved is not None
    assert (kept.start, moved.start) == (at(3600), at(7200))
