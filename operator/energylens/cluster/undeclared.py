"""Fields that an API server refuses because the installed CustomResourceDefinition does not have them.

A server-side apply is refused as a whole for one field that the schema does not declare, whatever fieldValidation says,
and the answer names each of these fields. So does the answer to a value that is none of the schema's enumeration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Path = tuple[str, ...]
"""Names from the top of an object; ``ELEMENT`` for any element of a list."""

ELEMENT = "[]"
_NAME = r"[A-Za-z_][\w-]*"
_KEY = r'\[(?:"(?:[^"\\]|\\.)*"|[^\]"])*\]'
# Each step begins with a sign of its own, so that a path can be read in one way only.
_PATH = rf"(?<![\w.\]-])\.?({_NAME}(?:\.{_NAME}|{_KEY})*)"
_UNDECLARED = re.compile(f"{_PATH}: field not declared in schema")
_UNSUPPORTED = re.compile(f"{_PATH}: Unsupported value")
_STEP = re.compile(f"({_NAME})|{_KEY}")


def refused_paths(message: str) -> frozenset[Path]:
    """Return the fields that an answer names as not declared, or as no value of an enumeration."""
    found = (*_UNDECLARED.findall(message), *_UNSUPPORTED.findall(message))
    return frozenset(tuple(step[1] or ELEMENT for step in _STEP.finditer(path)) for path in found)


def without(value: Any, paths: Iterable[Path]) -> Any:
    """Return a copy of a JSON value without the fields of these paths; the value itself where there are none."""
    heads: dict[str, list[Path]] = {}
    for first, *rest in filter(None, paths):
        heads.setdefault(first, []).append(tuple(rest))
    if not heads:
        return value
    if isinstance(value, Mapping):
        return {
            name: without(entry, heads.get(name, ())) for name, entry in value.items() if () not in heads.get(name, ())
        }
    if isinstance(value, list | tuple):
        return [without(entry, heads.get(ELEMENT, ())) for entry in value]
    return value


def as_text(path: Path) -> str:
    """Return a path as messages name fields: ``status.plan.alternatives[].gpus``."""
    return ".".join(path).replace(f".{ELEMENT}", ELEMENT)
