"""Fields of one row of a table of runs: what they may hold, and one error text for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_LARGEST = 1e9
"""Far above any token count, batch, watt or millisecond of a run; keeps formulas from overflowing."""


class FieldError(ValueError):
    """A field cannot be used; the message names it, its value and what is allowed."""


def text(row: Mapping[str, str], name: str) -> str | None:
    """Return what a column holds; None where it is empty or absent."""
    return (row.get(name) or "").strip() or None


def required_text(row: Mapping[str, str], name: str) -> str:
    """Return what a column holds.

    Raises:
        FieldError: it is empty.
    """
    found = text(row, name)
    if found is None:
        raise FieldError(f"{name} is empty")
    return found


def choice(row: Mapping[str, str], name: str, allowed: Sequence[str]) -> str | None:
    """Return one of the allowed texts; None where the column is empty.

    Raises:
        FieldError: it is something else.
    """
    found = text(row, name)
    if found is not None and found not in allowed:
        raise FieldError(f"{name}={short(found)} is not one of {', '.join(allowed)}")
    return found


def positive(row: Mapping[str, str], name: str, default: float | None) -> float:
    """Return a number above 0; ``default`` where the column is empty.

    Raises:
        FieldError: it is something else, or empty without a default.
    """
    found = text(row, name)
    if found is None:
        if default is None:
            raise FieldError(f"{name} is empty; a number above 0 is needed")
        return default
    try:
        value = float(found)
    except ValueError:
        value = math.nan
    if not 0 < value <= _LARGEST or "_" in found:
        raise FieldError(f"{name}={short(found)} is not a number above 0 and at most {_LARGEST:g}")
    return value


def count(row: Mapping[str, str], name: str, default: int | None) -> int:
    """Return a whole number of at least 1; ``default`` where the column is empty.

    Raises:
        FieldError: it is something else, or empty without a default.
    """
    found = text(row, name)
    value = positive(row, name, None if default is None else float(default))
    if value != int(value) or value > 1_000_000:
        raise FieldError(f"{name}={short(found)} is not a whole number from 1 to 1000000")
    return int(value)


def short(value: str | None) -> str:
    """Return a value as an error message quotes it."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
