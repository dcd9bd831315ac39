"""What a request to an API server asks for, read from its method and URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NOT_STORED = ("leases", "selfsubjectaccessreviews")
"""Creations that change nothing that anybody asked the operator for."""


@dataclass(frozen=True)
class Call:
    """One request; what does not apply is empty."""

    verb: str
    """get, list, watch, create, update, patch or delete; "get" also for what names no kind, such as discovery."""
    resource: str = ""
    """Plural name of the kind."""
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def is_write(self) -> bool:
        """Whether it changes an object; renewals of leases and questions about rights do not count."""
        return self.verb in _VERBS.values() and self.resource not in _NOT_STORED


def call_of(method: str, path: str, query: Mapping[str, str]) -> Call:
    """Return what a request asks for.

    Paths are those of https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris: a prefix of /api/V or
    /apis/GROUP/V, then an optional namespace, the plural, a name and a subresource.
    """
    parts = [part for part in path.split("/") if part]
    rest = parts[2:] if parts[:1] == ["api"] else parts[3:]
    namespace = ""
    # Of a namespace itself the path goes no further than its name and a subresource.
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource, name, subresource = (*rest[:3], "", "", "")[:3]
    verb = _VERBS.get(method, "get")
    if verb == "get" and resource and not name:
        verb = "watch" if query.get("watch") in ("true", "1") else "list"
    return Call(verb, resource, namespace, name, subresource)
