"""A rule that some fields cannot be set together with a field, said once for CEL and Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from energylens.api.base import Rule

Use = tuple[str, str, Callable[[Any], bool]]
"""The name of a field, with its value where that matters, and the CEL and the Python of its use."""


def exclusive(field: str, unset: str, is_set: Callable[[Any], bool], conflicts: Sequence[Use], listed: str) -> Rule:
    """Return the rule that none of the conflicts is used where a field is set.

    Args:
        field: Name of the field, for the messages.
        unset: CEL that is true where the field is not set.
        is_set: Says of a model whether the field is set.
        conflicts: Fields that cannot stand beside the field; the message names the first that is used.
        listed: The conflicts in words, for the documentation.
    """
    advice = f" cannot be combined with {field}; leave one of the two out"

    def check(spec: Any) -> str | None:
        used = next((name for name, _, is_used in conflicts if is_used(spec)), None)
        return None if used is None or not is_set(spec) else f"{used}{advice}"

    return Rule(
        summary=f"{field} cannot be combined with {listed}",
        cel=f"{unset} || !(" + " || ".join(f"({cel})" for _, cel, _ in conflicts) + ")",
        message_cel="(" + " : ".join(f"({cel}) ? '{name}'" for name, cel, _ in conflicts) + f" : '') + '{advice}'",
        check=check,
    )
