"""The operator's last write of each status, to recognise edits by others.

The operator uses what it wrote last, whatever the API server has meanwhile. After a restart there is nothing to compare
with, so a status is validated as far as possible (:mod:`energylens.decide.deployment.reports.status_check`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from energylens.clock import Clock
from energylens.controller.state.schema_gaps import SchemaGaps
from energylens.decide.stated import Checked
from energylens.decide.trimmed import Packed, packed
from energylens.records import dataclass

Body = Mapping[str, Any]
Key = tuple[str, str]
Check = Callable[[Body], Checked]
"""Function that checks an object as the API server has it."""
OwnPart = Callable[[Body], dict[str, Any]]
_MOST_NAMED = 3


@dataclass
class _Written:
    uid: str
    status: Packed
    sent: Packed | None = None
    """The part of the status that the API server was sent, if its schema lacks fields; None for the whole status."""
    attempt: tuple[Packed, Packed] | None = None
    """A status and what was sent of it by a write that was never answered."""

    @property
    def expected(self) -> Packed:
        """The status as the API server has it."""
        return self.status if self.sent is None else self.sent


class StatusMemory:
    """The statuses of one kind."""

    def __init__(self, check: Check, own_part: OwnPart = dict, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Check statuses of unknown origin with ``check``; only their ``own_part`` is ours."""
        self._check = check
        self._own_part = own_part
        self.gaps = SchemaGaps(monotonic)
        self._written: dict[Key, _Written] = {}

    def believed(self, key: Key, body: Body) -> tuple[Packed, tuple[str, ...]]:
        """Return the status to use, and one line for each part of the stated status that is not used."""
        stated = self._own_part(body.get("status") or {})
        kept = self._kept(key, body)
        if kept is None:
            checked, left_out = self._check(body)
            return packed(checked), left_out
        if stated != kept.expected and kept.attempt is not None and stated == kept.attempt[1]:
            kept.status, kept.sent = kept.attempt
            kept.attempt = None
        return kept.status, () if stated == kept.expected else differences(kept.expected, stated)

    def hold(self, key: Key, body: Body) -> None:
        """Use the status of ``body`` from now on, unless another one was written already."""
        if self._kept(key, body) is None:
            self._written[key] = _Written(_uid(body), packed(body.get("status") or {}))

    def attempts(self, key: Key, body: Body, status: Body, sent: Body) -> None:
        """Say that a write begins, and what is sent of the status; whether it is carried out may never be known."""
        self.hold(key, body)
        whole = packed(status)
        self._written[key].attempt = whole, whole if sent == status else packed(sent)

    def wrote(self, key: Key, body: Body, status: Body, sent: Body) -> None:
        """Say that a write was answered."""
        self._written[key] = _Written(_uid(body), packed(status), None if sent == status else packed(sent))

    def foreign(self, status: Body, answer: Body) -> dict[str, Any]:
        """Return the merge patch that takes out of an answer what an apply of ``status`` left of other managers."""
        stated = answer.get("status") or {}
        own = self._own_part(stated)
        patch = removal(status, own)
        if len(own.get("conditions") or ()) < len(stated.get("conditions") or ()):
            # A list is patched as a whole, and has conditions of others.
            patch.pop("conditions", None)
        return patch

    def forget(self, key: Key) -> None:
        """Forget an object that is gone."""
        self._written.pop(key, None)

    def _kept(self, key: Key, body: Body) -> _Written | None:
        kept = self._written.get(key)
        return kept if kept is not None and kept.uid == _uid(body) else None


def remembering(check: Callable[[Body, datetime], Checked], own_part: OwnPart, clock: Clock) -> StatusMemory:
    """Return a memory whose checks know the current time."""
    return StatusMemory(lambda body: check(body, clock.now()), own_part, clock.monotonic)


def _uid(body: Body) -> str:
    return str(body["metadata"].get("uid", ""))


def differences(ours: Body, stated: Body) -> tuple[str, ...]:
    """Return where a status differs from the one that was written, as paths."""
    found = list(_paths(ours, stated, "status"))
    more = len(found) - _MOST_NAMED
    return (*found[:_MOST_NAMED], *((f"{more} more",) if more > 0 else ()))


def _paths(ours: Any, stated: Any, path: str) -> list[str]:
    if ours == stated:
        return []
    if not isinstance(ours, Mapping) or not isinstance(stated, Mapping):
        return [path]
    return [
        found
        for name in sorted({*ours, *stated})
        for found in _paths(ours.get(name), stated.get(name), f"{path}.{name}")
    ]


def removal(ours: Body, stated: Body) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7396) that takes out of ``stated`` what ``ours`` does not have."""
    patch: dict[str, Any] = {}
    for name, value in stated.items():
        if name not in ours:
            patch[name] = None
        elif isinstance(value, Mapping) and isinstance(ours[name], Mapping):
            if inner := removal(ours[name], value):
                patch[name] = inner
        elif value != ours[name]:
            patch[name] = ours[name]
    return patch
