"""Fields of this release's statuses that the installed CustomResourceDefinitions do not declare."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from energylens.cluster.undeclared import Path, as_text, without
from energylens.records import dataclass

AGAIN_SECONDS = 15.0
"""Seconds after which a whole status of each kind is sent again, since the definition may have been replaced."""
NAMED_FIELDS = 5

log = logging.getLogger("energylens")

Gauge = Callable[[str, int], object]
"""Function that receives a kind and the number of undeclared fields of its status."""


@dataclass
class _Gap:
    paths: frozenset[Path]
    """Paths from the top of the object."""
    known_at: float


class SchemaGaps:
    """The fields that are left out, by kind."""

    def __init__(self, monotonic: Callable[[], float], show: Gauge = lambda kind, count: None) -> None:
        """Begin without gaps; ``show`` receives each change."""
        self._monotonic = monotonic
        self._gaps: dict[str, _Gap] = {}
        self.show = show

    def of(self, kind: str) -> frozenset[Path]:
        """Return the fields to leave out; none from time to time, so that a newer definition is detected."""
        gap = self._gaps.get(kind)
        if gap is None:
            return frozenset()
        now = self._monotonic()
        if now - gap.known_at < AGAIN_SECONDS:
            return gap.paths
        # Concurrent writes meanwhile continue without the fields.
        gap.known_at = now
        return frozenset()

    def learn(self, kind: str, status: Mapping[str, Any], left_out: frozenset[Path]) -> None:
        """Record that a status of a kind was accepted without some fields, and with all of its other fields."""
        known = self._gaps.get(kind)
        before = frozenset[Path]() if known is None else known.paths
        declared = {path for path in before - left_out if sent_without(status, {path}) != status}
        paths = (before - declared) | left_out
        if paths == before:
            return
        if paths:
            self._gaps[kind] = _Gap(paths, self._monotonic())
        else:
            del self._gaps[kind]
        self.show(kind, len(paths))
        if not paths:
            log.info("the CustomResourceDefinition of %s declares every field of the status again", kind)
            return
        names = sorted(map(as_text, paths))
        more = f" and {len(names) - NAMED_FIELDS} more" if len(names) > NAMED_FIELDS else ""
        log.warning(
            "the CustomResourceDefinition of %s is older than this operator: statuses are written without %s%s; "
            "install the CustomResourceDefinitions of this release",
            kind,
            ", ".join(names[:NAMED_FIELDS]),
            more,
        )


def sent_without(status: Mapping[str, Any], paths: Collection[Path]) -> dict[str, Any]:
    """Return a status without the fields of paths that begin at the top of the object."""
    sent: dict[str, Any] = without({"status": status}, paths)["status"]
    return sent
