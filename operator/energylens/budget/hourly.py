"""Values of energy by the hour, such as carbon intensities and prices, from CSV text."""

from __future__ import annotations

import csv
import io
import math
from datetime import MAXYEAR, UTC, datetime, timedelta

from energylens.records import dataclass

STEP = timedelta(hours=1)
"""Longest time between two values, and the time for which the last value holds."""


MOST = 1e12
"""Largest value; sums of larger ones would overflow."""


class ForecastError(ValueError):
    """A forecast cannot be read or does not cover a relevant moment; one line."""


@dataclass(frozen=True)
class HourlyValues:
    """Values per kilowatt-hour; each holds from its time to the time of the next value."""

    times: tuple[datetime, ...]
    """Times in ascending order, at least one."""
    values: tuple[float, ...]

    @property
    def end(self) -> datetime:
        """End of the last value: one hour after its time."""
        return self.times[-1] + STEP


def parse_hourly(text: str, column: str, least: float | None = 0.0) -> HourlyValues:
    """Return the values of a CSV text with the columns time (RFC 3339) and ``column``.

    Args:
        text: The CSV text.
        column: Header of the second column.
        least: Smallest allowed value; None for any.

    Raises:
        ForecastError: The text is malformed; the message names the line, the value and what is allowed.
    """
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    if not rows or tuple(cell.strip() for cell in rows[0]) != ("time", column):
        raise ForecastError(f"line 1 must be time,{column}")
    if len(rows) < 2:
        raise ForecastError("holds no values")
    times: list[datetime] = []
    values: list[float] = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != 2:
            raise ForecastError(f"line {number} has {len(row)} values, must have 2")
        times.append(_time(row[0].strip(), number))
        values.append(_value(row[1].strip(), number, column, least))
        if len(times) > 1 and times[-1] <= times[-2]:
            raise ForecastError(f"line {number}: time {row[0].strip()} is not after the line before")
        if len(times) > 1 and times[-1] - times[-2] > STEP:
            raise ForecastError(f"line {number}: more than an hour after the line before; every hour needs a value")
    return HourlyValues(tuple(times), tuple(values))


def _time(text: str, number: int) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ForecastError(f"line {number}: time {text!r} is not RFC 3339, such as 2026-11-25T13:00:00Z") from None
    if moment.tzinfo is None:
        raise ForecastError(f"line {number}: time {text!r} has no time zone; write 2026-11-25T13:00:00Z")
    if not 1 < moment.year < MAXYEAR:
        # The first and the last year have hours that no other zone can express.
        raise ForecastError(f"line {number}: time {text!r} must be in the years 2 to {MAXYEAR - 1}")
    return moment.astimezone(UTC)


def _value(text: str, number: int, column: str, least: float | None) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (least is not None and value < least):
        allowed = "a number" if least is None else f"a number of at least {least:g}"
        raise ForecastError(f"line {number}: {column} {text!r} must be {allowed}")
    if abs(value) > MOST:
        raise ForecastError(f"line {number}: {column} {text!r} must be at most {MOST:.0e}")
    return value
