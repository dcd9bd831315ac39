"""Intercepts the writes to a cluster; reads pass through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from energylens.cluster.port import ClusterPort, Identity, Object
from energylens.cluster.resources import Resource
from energylens.records import dataclass

Send = Callable[[], Awaitable[Object]]
"""Function that performs a write and returns its answer."""


@dataclass
class WriteInterceptor(ABC):
    """A :class:`~energylens.cluster.port.ClusterPort` in front of another one; every write passes :meth:`_write`."""

    inner: ClusterPort

    @abstractmethod
    async def _write(self, manifest: Mapping[str, Any], send: Send) -> Object:
        """Carry out a write, or raise.

        Args:
            manifest: What is written, at least its kind and its metadata.
            send: Carries it out.
        """

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

    async def list_identities(
        self, resource: Resource, *, namespace: str | None = None, label_selector: str = ""
    ) -> dict[tuple[str, str], Identity]:
        """See the port."""
        return await self.inner.list_identities(resource, namespace=namespace, label_selector=label_selector)

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """See the port."""
        return await self.inner.get(resource, namespace, name)

    async def may_list(self, resource: Resource, *, namespace: str | None = None) -> None:
        """See the port."""
        await self.inner.may_list(resource, namespace=namespace)

    async def may(self, verb: str, resource: Resource, subresource: str = "", *, namespace: str | None = None) -> bool:
        """See the port."""
        return await self.inner.may(verb, resource, subresource, namespace=namespace)

    async def serves(self, resource: Resource) -> bool:
        """See the port."""
        return await self.inner.serves(resource)

    async def apply(self, manifest: Mapping[str, Any]) -> Object:
        """See the port."""
        return await self._write(manifest, lambda: self.inner.apply(manifest))

    async def apply_status(self, manifest: Mapping[str, Any]) -> Object:
        """See the port."""
        return await self._write(manifest, lambda: self.inner.apply_status(manifest))

    async def patch_status(self, patch: Mapping[str, Any]) -> Object:
        """See the port."""
        return await self._write(patch, lambda: self.inner.patch_status(patch))

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        """See the port."""
        return await self._write(manifest, lambda: self.inner.create(resource, manifest))

    async def replace(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        """See the port."""
        return await self._write(manifest, lambda: self.inner.replace(resource, manifest))

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """See the port."""

        async def send() -> Object:
            await self.inner.delete(resource, namespace, name, uid)
            return {}

        await self._write({"kind": resource.kind, "metadata": {"namespace": namespace, "name": name}}, send)
