"""Reads the API server's audit log: who wrote what, for tests that count writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class AuditEvent:
    """One request that the API server answered.

    Attributes:
        user: Name of the user who asked; a service account's is system:serviceaccount:NAMESPACE:NAME.
        verb: Such as get, create or patch.
        resource: Plural name of the kind, such as deployments.
        subresource: Such as status, or empty.
        namespace: Namespace of the object, or empty.
        name: Name of the object; empty when the request named none.
        code: HTTP status of the answer.
    """

    user: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int

    @classmethod
    def parse(cls, event: dict[str, Any]) -> AuditEvent:
        """Return an event of the log, parsed from JSON (audit.k8s.io/v1)."""
        target = event.get("objectRef", {})
        return cls(
            user=event["user"]["username"],
            verb=event["verb"],
            resource=target.get("resource", ""),
            subresource=target.get("subresource", ""),
            namespace=target.get("namespace", ""),
            name=target.get("name", ""),
            code=event.get("responseStatus", {}).get("code", 0),
        )

    @property
    def is_write(self) -> bool:
        """Whether the request asked for a change, and the API server did not refuse it."""
        return self.verb in WRITES and 200 <= self.code < 300


class AuditLog:
    """The audit log from one moment on.

    The API server writes an event before it sends the answer, so what a caller has seen answered is in the log.
    """

    def __init__(self, path: Path) -> None:
        """Start at the log's present end."""
        self._path = path
        self._start = path.stat().st_size if path.exists() else 0

    def events(self) -> list[AuditEvent]:
        """Return the finished requests since the start.

        Raises:
            ValueError: When the log was rotated since, so that events are missing.
        """
        if self._path.stat().st_size < self._start:
            raise ValueError(f"{self._path} was rotated: a count over it would be wrong")
        with self._path.open("rb") as file:
            file.seek(self._start)
            # The last line may be half written.
            lines = file.read().split(b"\n")[:-1]
        events = [json.loads(line) for line in lines]
        return [AuditEvent.parse(event) for event in events if event["stage"] == "ResponseComplete"]

    def writes(self, user: str, *, namespace: str | None = None) -> list[AuditEvent]:
        """Return the changes that a user made since the start.

        Args:
            user: The user's name; a name that ends in a colon stands for all that begin so.
            namespace: Only changes in this namespace, or None for all.
        """
        return [
            event
            for event in self.events()
            if event.is_write
            and (event.user == user or (user.endswith(":") and event.user.startswith(user)))
            and namespace in (None, event.namespace)
        ]
