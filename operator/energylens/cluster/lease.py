"""A lease that one operator holds at a time: kopf has no leader election of its own.

Renewing is a read and a replace with the resource version; any error counts as a failed renewal, and the holder stops
acting when its own clock says that the lease ran out, whatever the API server says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from energylens.clock import Clock
from energylens.cluster.errors import ClusterError, ConflictError, NotFoundError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import LEASE

Sleep = Callable[[float], Awaitable[None]]


@dataclass
class LeaseGuard:
    """Acquires and renews one Lease object."""

    cluster: ClusterPort
    clock: Clock
    namespace: str
    name: str
    identity: str
    duration_seconds: float = 15.0
    renew_seconds: float = 5.0
    sleep: Sleep = asyncio.sleep
    _holder: str = field(default="", init=False)
    _seen_version: str = field(default="", init=False)
    _seen_at: float = field(default=0.0, init=False)

    async def acquire(self) -> None:
        """Return when the lease is ours; wait as long as another holder renews it."""
        while not await self._try():
            await self.sleep(self.renew_seconds)

    async def hold(self) -> None:
        """Renew for ever; return when the lease is lost."""
        deadline = self.clock.monotonic() + self.duration_seconds
        while True:
            await self.sleep(self.renew_seconds)
            started = self.clock.monotonic()
            try:
                # Not wait_for, which may start a task: kopf cancels every task born after it when it stops.
                async with asyncio.timeout(max(0.1, deadline - started)):
                    mine = await self._try()
            except TimeoutError:
                return
            if mine:
                deadline = started + self.duration_seconds
            elif self.clock.monotonic() >= deadline or self._held_by_another():
                return

    async def release(self) -> None:
        """Give the lease back, so that the next operator need not wait; an error only costs that wait."""
        try:
            lease = await self.cluster.get(LEASE, self.namespace, self.name)
            if lease["spec"].get("holderIdentity") == self.identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self.cluster.replace(LEASE, lease)
        except ClusterError:
            return

    def _held_by_another(self) -> bool:
        return self._holder not in ("", self.identity)

    async def _try(self) -> bool:
        try:
            return await self._take(await self.cluster.get(LEASE, self.namespace, self.name))
        except NotFoundError:
            return await self._create()
        except ClusterError:
            return False

    async def _create(self) -> bool:
        manifest = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": self._spec({}),
        }
        try:
            await self.cluster.create(LEASE, manifest)
        except ClusterError:
            return False
        return True

    async def _take(self, lease: dict[str, Any]) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        now = self.clock.monotonic()
        # Clocks of machines differ, so a foreign lease counts from when this process saw it last change.
        version = f"{holder}/{lease['metadata'].get('resourceVersion')}"
        if version != self._seen_version:
            self._seen_version, self._seen_at = version, now
        self._holder = holder
        expired = now - self._seen_at >= float(spec.get("leaseDurationSeconds") or self.duration_seconds)
        if holder not in ("", self.identity) and not expired:
            return False
        lease["spec"] = self._spec(spec)
        try:
            await self.cluster.replace(LEASE, lease)
        except ConflictError:
            return False
        self._holder = self.identity
        return True

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = _micro_time(self.clock.now())
        changed = old.get("holderIdentity") != self.identity
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(self.duration_seconds),
            "acquireTime": now if changed else old.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if changed and old else 0),
        }


def _micro_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
