"""The operations of a cluster that the controller needs; the tests have another implementation, with faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from energylens.cluster.resources import Resource

Object = dict[str, Any]

FIELD_MANAGER = "energylens"
"""Owns what is written, in ``metadata.managedFields``."""


class Identity(NamedTuple):
    """The identity of an object, and its version."""

    uid: str
    version: str
    """The resource version: a number that grows with every change."""

    def is_newer_than(self, other: Identity) -> bool:
        """Return whether the object is known to have changed since ``other``, which has the same name."""
        numbers = self.version.isdecimal() and other.version.isdecimal()
        return numbers and int(self.version) > int(other.version)


class ClusterPort(Protocol):
    """Reads and writes of plain objects. Every method raises a :class:`~energylens.cluster.errors.ClusterError`."""

    async def list_objects(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        name: str | None = None,
        field_selector: str = "",
    ) -> list[Object]:
        """Return the objects of a kind, in a namespace or everywhere; with ``name`` at most one per namespace.

        ``field_selector`` is such as ``reason=FailedCreate``; with ``name`` it is not used.
        """
        ...

    async def list_identities(
        self, resource: Resource, *, namespace: str | None = None, label_selector: str = ""
    ) -> dict[tuple[str, str], Identity]:
        """Return the identities of a kind's objects, by namespace ("" for cluster-scoped objects) and name."""
        ...

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """Return one object; NotFoundError if there is none."""
        ...

    async def apply(self, manifest: Mapping[str, Any]) -> Object:
        """Server-side apply with force under our field manager; return the object."""
        ...

    async def apply_status(self, manifest: Mapping[str, Any]) -> Object:
        """Server-side apply of the status subresource; return the object."""
        ...

    async def patch_status(self, patch: Mapping[str, Any]) -> Object:
        """Merge-patch (RFC 7396) the status subresource of the object that ``patch`` names; return the object."""
        ...

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        """Create an object; ConflictError if the object exists."""
        ...

    async def replace(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        """Replace an object that still has the manifest's resourceVersion; ConflictError otherwise."""
        ...

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Delete the object with this uid and its dependents; do nothing if the object is gone."""
        ...

    async def may_list(self, resource: Resource, *, namespace: str | None = None) -> None:
        """Return if a kind can be listed; ForbiddenError or NotFoundError gives the reason why not."""
        ...

    async def may(self, verb: str, resource: Resource, subresource: str = "", *, namespace: str | None = None) -> bool:
        """Return whether the operator has a right, in a namespace or (None) in all of them.

        ForbiddenError or NotFoundError if the user may not ask.
        """
        ...

    async def serves(self, resource: Resource) -> bool:
        """Return whether the API server knows the kind."""
        ...
