"""Periods of budgets, and names of the time zones in which they begin."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field

from energylens.api.base import Rule

TIME_ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9][A-Za-z0-9_+-]*){0,2}$"
Period = Literal["Hour", "Day", "Week", "Month"]
TimeZone = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        pattern=TIME_ZONE_PATTERN,
        description="Time zone in which days, weeks and months begin: a name of the IANA time zone database, such as "
        "Europe/Berlin.",
    ),
]


class _HasTimeZone(Protocol):
    @property
    def time_zone(self) -> str: ...


def _known_time_zone(spec: _HasTimeZone) -> str | None:
    zone = spec.time_zone
    if zone != "Local" and re.fullmatch(TIME_ZONE_PATTERN.strip("^$"), zone):
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            pass
        else:
            return None
    return f"timeZone '{zone}' is not in the IANA time zone database; use UTC or a name such as Europe/Berlin"


KNOWN_TIME_ZONE = Rule(
    summary="timeZone is a name of the IANA time zone database, such as UTC or Europe/Berlin",
    cel="self.timeZone != 'Local' && timestamp('2026-01-01T00:00:00Z').getHours(self.timeZone) >= 0",
    message_cel="\"timeZone '%s' is not in the IANA time zone database; "
    'use UTC or a name such as Europe/Berlin".format([self.timeZone])',
    check=_known_time_zone,
)
