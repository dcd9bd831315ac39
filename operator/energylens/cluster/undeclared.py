"""Fields that an API server refuses because the installed CustomResourceDefinition lacks them.

A single field that the schema does not declare makes a server-side apply fail as a whole, whatever fieldValidation
says. The answer names each undeclared field, and each value outside the schema's enumerations.
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
# Each step begins with a distinct character, so that paths are unambiguous.
_PATH = rf"(?<![\w.\]-])\.?({_NAME}(?:\.{_NAME}|{_KEY})*)"
_UNDECLARED = re.compile(f"{_PATH}: field not declared in schema")
_UNSUPPORTED = re.compile(f"{_PATH}: Unsupported value")
_STEP = re.compile(f"({_NAME})|{_KEY}")


def refused_paths(message: str) -> frozenset[Path]:
    """Return the fields that an answer names as not declared, or as values outside of an enumeration."""
    found = (*_UNDECLARED.findall(message), *_UNSUPPORTED.findall(message))
    return frozenset(tuple(step[1] or ELEMENT for step in _STEP.finditer(path)) for path in found)


def without(value: Any, paths: Iterable[Path]) -> Any:
    """Return a copy of a JSON value without the fields of these paths; the value itself if it has none of them."""
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
