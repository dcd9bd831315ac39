"""Whether a live object still contains all values that the operator applied; stateless, so a restart changes nothing.

A live object has more fields than the operator applied (defaults, injected sidecars, other managers' fields), so each
applied value is looked up in the live object. Lists of objects are matched by the merge key of server-side apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MERGE_KEYS = ("name", "mountPath", "containerPort", "topologyKey", "key", "type", "uid")


def holds(live: Any, applied: Any) -> bool:
    """Return whether ``live`` has every value of ``applied``.

    An empty value in ``applied`` matches a missing value in ``live``, because the API server drops empty maps and
    lists.
    """
    if applied is live:
        return True
    # isinstance(x, Mapping) takes ten times as long as isinstance(x, dict), and a reconcile makes some hundreds of
    # these checks.
    if isinstance(applied, dict | Mapping):
        if not isinstance(live, dict | Mapping):
            return not applied and not live
        return all(holds(live.get(key), value) for key, value in applied.items())
    if isinstance(applied, list):
        return _list_holds(live or [], applied)
    if applied is None or applied == "":
        return live is None or live == ""
    return bool(live == applied)


def _list_holds(live: Any, applied: list[Any]) -> bool:
    if not isinstance(live, list):
        return False
    key = _merge_key(applied)
    if key is None:
        return len(live) == len(applied) and all(map(holds, live, applied))
    by_key = {item.get(key): item for item in live if isinstance(item, Mapping)}
    return all(holds(by_key.get(item[key]), item) for item in applied)


def differences(live: Any, applied: Any) -> list[tuple[str, ...]]:
    """Return the fields of ``applied`` that ``live`` does not contain, as paths of names.

    A list item is named by the value of its merge key; a list without merge key is one field.
    """
    if holds(live, applied):
        return []
    if isinstance(applied, Mapping):
        known = live if isinstance(live, Mapping) else {}
        return [(name, *path) for name, value in applied.items() for path in differences(known.get(name), value)]
    key = _merge_key(applied) if isinstance(applied, list) and isinstance(live, list) else None
    if key is None:
        return [()]
    by_key = {item.get(key): item for item in live if isinstance(item, Mapping)}
    return [(str(item[key]), *path) for item in applied for path in differences(by_key.get(item[key]), item)]


def _merge_key(items: list[Any]) -> str | None:
    if not items or not all(isinstance(item, dict | Mapping) for item in items):
        return None
    for key in _MERGE_KEYS:
        if all(key in item for item in items):
            values = [item[key] for item in items]
            return key if len(set(map(str, values))) == len(values) else None
    return None
