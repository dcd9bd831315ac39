"""A forecast of the grid's carbon intensity, and conversions between energy and carbon."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from datetime import UTC, datetime

from energylens.budget.hourly import STEP, ForecastError, parse_hourly
from energylens.records import dataclass

__all__ = ["HEADER", "Forecast", "ForecastError", "csv_of", "hourly", "parse_forecast"]

HEADER = ("time", "gramsPerKilowattHour")
_JOULES_PER_KILOWATT_HOUR = 3.6e6


@dataclass(frozen=True)
class Forecast:
    """Grams of CO2 equivalent per kilowatt-hour by time; each value holds from its time to the next value's time."""

    times: tuple[datetime, ...]
    """Times in ascending order, at least one."""
    grams_per_kwh: tuple[float, ...]

    @property
    def end(self) -> datetime:
        """End of the last value: one hour after its time."""
        return self.times[-1] + STEP

    @property
    def highest(self) -> float:
        """The largest value, g/kWh."""
        return max(self.grams_per_kwh)

    def covers(self, start: datetime, end: datetime) -> bool:
        """Return whether every moment from ``start`` to ``end`` has a value."""
        return self.times[0] <= start and end <= self.end

    def mean(self, start: datetime, end: datetime) -> float:
        """Return the mean intensity of a constant power from ``start`` to ``end``, g/kWh.

        Time after the forecast's end counts with the forecast's mean from ``start`` on, because a forecast of a few
        days cannot cover a month.

        Raises:
            ForecastError: The forecast does not cover ``start``, or ``end`` is not after it.
        """
        if end <= start:
            raise ForecastError(f"the time from {_text(start)} to {_text(end)} is empty")
        if not self.times[0] <= start < self.end:
            raise ForecastError(f"covers {_text(self.times[0])} to {_text(self.end)}, but not {_text(start)}")
        until = min(end, self.end)
        edges = [*self.times, self.end]
        weighted = sum(
            value * max(0.0, (min(until, last) - max(start, first)).total_seconds())
            for value, (first, last) in zip(self.grams_per_kwh, itertools.pairwise(edges), strict=True)
        )
        return weighted / (until - start).total_seconds()

    def grams(self, joules: float, start: datetime, end: datetime) -> float | None:
        """Return the grams caused by energy that was drawn evenly from ``start`` to ``end``.

        None without a forecast.
        """
        if not self.covers(start, end) or end <= start:
            return None
        return joules / _JOULES_PER_KILOWATT_HOUR * self.mean(start, end)

    def watt_hours(self, grams: float, start: datetime, end: datetime) -> float:
        """Return the energy, Wh, of a constant power from ``start`` to ``end`` that causes the given grams.

        Raises:
            ForecastError: as :meth:`mean`.
        """
        mean = self.mean(start, end)
        return math.inf if mean == 0 and grams > 0 else 0.0 if grams <= 0 else 1000.0 * grams / mean


def csv_of(forecast: Forecast) -> str:
    """Return the text that :func:`parse_forecast` reads."""
    rows = zip(forecast.times, forecast.grams_per_kwh, strict=True)
    lines = [f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ},{grams:g}" for time, grams in rows]
    return "\n".join((",".join(HEADER), *lines, ""))


def hourly(points: Iterable[tuple[datetime, float]]) -> Forecast:
    """Return the means of points, (time, g/kWh), by hour of UTC; the points are spaced evenly, at most an hour apart.

    The first hour counts from its beginning, whichever part of it has points.

    Raises:
        ForecastError: There is no point, or an hour between the first and the last has none.
    """
    by_hour: dict[datetime, list[float]] = {}
    for time, grams in points:
        by_hour.setdefault(time.astimezone(UTC).replace(minute=0, second=0, microsecond=0), []).append(grams)
    if not by_hour:
        raise ForecastError("holds no values")
    times = sorted(by_hour)
    for before, after in itertools.pairwise(times):
        if after - before > STEP:
            raise ForecastError(f"has no value from {_text(before + STEP)} to {_text(after)}")
    return Forecast(tuple(times), tuple(sum(by_hour[time]) / len(by_hour[time]) for time in times))


def parse_forecast(text: str) -> Forecast:
    """Return the forecast of a CSV text with the columns time (RFC 3339) and gramsPerKilowattHour.

    Raises:
        ForecastError: The text is malformed; the message names the line, the value and what is allowed.
    """
    found = parse_hourly(text, HEADER[1])
    return Forecast(found.times, found.values)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
