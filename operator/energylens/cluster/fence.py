"""A cluster that is written to only while the lease is held.

A process that stood still, or was cut off, may have lost its lease without knowing: its workers go on where they were,
before the task that renews the lease has had its turn. What they write then would undo what the next holder wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from energylens.cluster.errors import ClusterError
from energylens.cluster.port import ClusterPort, Object
from energylens.cluster.resources import Resource


class LeaseLostError(ClusterError):
    """The lease has run out, so that another operator may act."""


@dataclass(frozen=True)
class FencedCluster:
    """A :class:`~energylens.cluster.port.ClusterPort` in front of another one.

    Every write raises :class:`LeaseLostError` while ``is_held`` says no; reads go through.
    """

    inner: ClusterPort
    is_held: Callable[[], bool]

    async def list_objects(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        name: str | None = None,
        field_selector: str = "",
    ) -> list[Object]:
        """See the port."""
        return await self.inner.list_objects(
            resource, namespace=namespace, label_selector=label_selector, name=name, field_selector=field_selector
        )

    async def list_uids(
        self, resource: Resource, *, namespace: str | None = None, label_selector: str = ""
    ) -> dict[tuple[str, str], str]:
        """See the port."""
        return await self.inner.list_uids(resource, namespace=namespace, label_selector=label_selector)

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """See the port."""
        return await self.inner.get(resource, namespace, name)

    async def may_list(self, resource: Resource, *, namespace: str | None = None) -> None:
        """See the port."""
        await self.inner.may_list(resource, namespace=namespace)

    async def serves(self, resource: Resource) -> bool:
        """See the port."""
        return await self.inner.serves(resource)

    async def apply(self, manifest: Mapping[str, Any]) -> Object:
        """See the port."""
        self._check(manifest)
        return await self.inner.apply(manifest)

    async def apply_status(self, manifest: Mapping[str, Any]) -> Object:
        """See the port."""
        self._check(manifest)
        return await self.inner.apply_status(manifest)

    async def patch_status(self, patch: Mapping[str, Any]) -> Object:
        """See the port."""
        self._check(patch)
        return await self.inner.patch_status(patch)

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        """See the port."""
        self._check(manifest)
        return await self.inner.create(resource, manifest)

    async def replace(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        """See the port."""
        self._check(manifest)
        return await self.inner.replace(resource, manifest)

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """See the port."""
        self._check({"kind": resource.kind, "metadata": {"name": name}})
        await self.inner.delete(resource, namespace, name, uid)

    def _check(self, manifest: Mapping[str, Any]) -> None:
        if not self.is_held():
            raise LeaseLostError(f"{manifest['kind']} {manifest['metadata'].get('name', '')}: the lease has run out")
