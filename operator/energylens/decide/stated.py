"""A status as input: which conditions belong to the operator, and which values can be true. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel

from energylens.decide.planned import Body

Checked = tuple[dict[str, Any], tuple[str, ...]]
"""The parts of a status that can be true, and one line for each part that was left out."""

CLOCK_SKEW = timedelta(minutes=5)
"""A time may lie so far ahead: it was written by an operator on another machine."""
MOST_JOULES = 10**15
"""No account has more: a gigawatt for eleven days."""
FUTURE = "lies in the future"


def with_own_conditions(status: Body, types: Sequence[str]) -> dict[str, Any]:
    """Return a status without conditions of other types, which other controllers may add, in the order of ``types``."""
    conditions = status.get("conditions")
    if not isinstance(conditions, list):
        return dict(status)
    own = [found for found in conditions if isinstance(found, Mapping) and found.get("type") in types]
    return {**status, "conditions": sorted(own, key=lambda condition: types.index(condition["type"]))}


def corrected(
    stated: dict[str, Any], status: BaseModel, changes: Mapping[str, Any], left_out: Sequence[str]
) -> Checked:
    """Return what is used of a status: as it is stated, or as it was read with the changes where a part is left out."""
    if not left_out:
        return stated, ()
    kept = status.model_copy(update=changes)
    return kept.model_dump(mode="json", by_alias=True, exclude_none=True), tuple(left_out)


def is_amount(value: Any) -> bool:
    """Return whether a value of a status can be an energy, J."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_JOULES


def time_problem(time: str | None, now: datetime) -> str:
    """Return why a time cannot be one that was written; "" where it can."""
    if time is None:
        return ""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return f"{time!r} is no time"
    if moment.tzinfo is None:
        return f"{time!r} has no time zone"
    return f"{time} {FUTURE}" if moment > now + CLOCK_SKEW else ""
