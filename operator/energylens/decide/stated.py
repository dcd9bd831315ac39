"""A status as input: conditions of the operator, and plausible values. Pure.

A status is the operator's memory, and others may edit it. These checks are common to all kinds;
:mod:`energylens.decide.deployment.reports.status_check` and :mod:`energylens.decide.budgets.status_check` check the
fields of each kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel

from energylens.decide.planned import Body

Checked = tuple[dict[str, Any], tuple[str, ...]]
"""The plausible parts of a status, and one line for each discarded part."""

CLOCK_SKEW = timedelta(minutes=5)
"""Seconds by which a time may lie in the future, because an operator on another machine wrote it."""
MOST_JOULES = 10**15
"""Largest energy of an account, J: a gigawatt for eleven days."""
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
    """Return the status to use: unchanged, or as read with the changes if a part was discarded."""
    if not left_out:
        return stated, ()
    kept = status.model_copy(update=changes)
    return kept.model_dump(mode="json", by_alias=True, exclude_none=True), tuple(left_out)


def is_amount(value: Any) -> bool:
    """Return whether a value of a status is a plausible energy, J."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_JOULES


def time_problem(time: str | None, now: datetime) -> str:
    """Return why a time is impossible; "" if it is plausible."""
    if time is None:
        return ""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return f"{time!r} is not a time"
    if moment.tzinfo is None:
        return f"{time!r} has no time zone"
    return f"{time} {FUTURE}" if moment > now + CLOCK_SKEW else ""
