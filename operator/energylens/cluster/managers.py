"""Owners of an object's fields, from its managedFields. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from energylens.cluster.port import FIELD_MANAGER

Path = tuple[str, ...]


def managers_of(managed: Iterable[Mapping[str, Any]], paths: Sequence[Path]) -> list[str]:
    """Return the field managers other than ours that own any of these fields, else the last writer.

    Args:
        managed: ``metadata.managedFields``.
        paths: Fields by the names on the way to them; an item of a list is its value of the merge key.
    """
    others = [entry for entry in managed if entry.get("manager") and entry["manager"] != FIELD_MANAGER]
    owning = [entry for entry in others if any(_owns(entry.get("fieldsV1") or {}, path) for path in paths)]
    if not owning:
        owning = sorted(others, key=lambda entry: str(entry.get("time", "")))[-1:]
    return list(dict.fromkeys(str(entry["manager"]) for entry in owning))


def status_managers(managed: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the field managers other than ours that own fields of the status."""
    found = [entry for entry in managed if entry.get("subresource") == "status"]
    return managers_of(found, [("status",)])


def _owns(fields: Mapping[str, Any], path: Path) -> bool:
    """Return whether a set of fields (``fieldsV1``) has a field, or one inside."""
    if not path:
        return True
    for name, inner in fields.items():
        item = name.startswith("k:") and f'"{path[0]}"' in name
        if (item or name == f"f:{path[0]}") and isinstance(inner, Mapping) and _owns(inner, path[1:]):
            return True
        # A list or map that is owned as a whole.
        if name == f"f:{path[0]}" and not inner:
            return True
    return False
