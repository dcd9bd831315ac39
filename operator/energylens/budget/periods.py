"""The hours, days, weeks and months over which energy is counted, in any time zone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from energylens.api.energybudget import Period
from energylens.records import dataclass

_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Span:
    """From ``start`` until just before ``end``; both aware, in UTC."""

    start: datetime
    end: datetime

    @property
    def hours(self) -> float:
        """Length in hours."""
        return (self.end - self.start) / _HOUR

    def hours_left(self, now: datetime) -> float:
        """Return the hours from ``now`` to the end, at least 0."""
        return max(0.0, (self.end - now) / _HOUR)


def period_at(period: Period, zone: ZoneInfo, now: datetime) -> Span:
    """Return the period that contains a moment.

    Days, weeks (from Monday) and months begin at midnight of the zone or, if that does not exist, at the moment when
    the clocks are put forward past it; days with a clock change have 23 or 25 hours. Hours are UTC hours, because an
    hour of wall-clock time may occur twice or never.

    Args:
        period: Kind of the period.
        zone: Time zone of midnight.
        now: An aware moment.
    """
    moment = now.astimezone(UTC)
    if period == "Hour":
        start = moment.replace(minute=0, second=0, microsecond=0)
        return Span(start, start + _HOUR)
    first, following = _STEPS[period]
    begin = first(moment.astimezone(zone).date())
    # Where the clocks skip midnight, the first moments of a date belong to the day before by this rule.
    while _midnight(begin, zone) > moment:
        begin = first(begin - timedelta(days=1))
    end = following(begin)
    while _midnight(end, zone) <= moment:
        begin, end = end, following(end)
    return Span(_midnight(begin, zone), _midnight(end, zone))


MOST_PERIODS = 10_000
"""Most periods of a job: the hours of more than a year, its longest time."""


def periods_from(period: Period, zone: ZoneInfo, first: Span, hours: float) -> tuple[Span, ...]:
    """Return the periods from ``first`` on, until they have a length of ``hours``; at least ``first``."""
    found, until = [first], first.start + timedelta(hours=min(hours, MOST_PERIODS))
    while found[-1].end < until:
        end = found[-1].end
        found.append(Span(end, end + _HOUR) if period == "Hour" else period_at(period, zone, end))
    return tuple(found)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the first midnight of a date; for a skipped midnight, the moment of the clock change."""
    return datetime.combine(day, time(0), tzinfo=zone).astimezone(UTC)


def _same(day: date) -> date:
    return day


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _first_of_month(day: date) -> date:
    return day.replace(day=1)


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


_STEPS: dict[str, tuple[Callable[[date], date], Callable[[date], date]]] = {
    "Day": (_same, lambda day: day + timedelta(days=1)),
    "Week": (_monday, lambda day: day + timedelta(days=7)),
    "Month": (_first_of_month, _next_month),
}
