"""A lease that one operator holds at a time, since kopf has no leader election.

Renewing is a read and a replace with the resource version; any error counts as a failed renewal. The holder
stops acting once the lease has expired by its own clock, whatever the API server says.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Any

from energylens.api.timestamp import micro_timestamp
from energylens.clock import Clock
from energylens.cluster.errors import ClusterError, ConflictError, NotFoundError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import LEASE
from energylens.records import dataclass

READ_SECONDS = 1.0
"""Longest time, s, between two reads of the Lease by a standby, which learns so late of a renewal or a release."""

Sleep = Callable[[float], Awaitable[None]]
Report = Callable[[str], None]
"""Function that receives why the lease cannot be read or written; "" if it can, even if another holder has it."""


def _unheard(problem: str) -> None:
    pass


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
    report: Report = _unheard
    _holder: str = field(default="", init=False)
    _seen_version: str = field(default="", init=False)
    _seen_at: float = field(default=0.0, init=False)
    _free_at: float = field(default=float("-inf"), init=False)
    """When the lease of another holder runs out unless it is renewed."""
    _held_until: float = field(default=float("-inf"), init=False)

    async def acquire(self) -> None:
        """Return once this process holds the lease; wait as long as another holder renews the lease.

        If a holder ends without releasing the lease, the successor takes over at most :data:`READ_SECONDS` after the
        lease expired, plus the time of two requests.
        """
        while not await self._try():
            pause = min(self.renew_seconds, READ_SECONDS)
            left = self._free_at - self.clock.monotonic()
            await self.sleep(min(pause, left) if left > 0 else pause)

    @property
    def is_held(self) -> bool:
        """Return whether, by this process's own clock, no other operator can hold the lease yet.

        After a pause of the process, this method notices the loss before :meth:`hold` does.
        """
        return self.clock.monotonic() < self._held_until

    async def hold(self) -> None:
        """Renew for ever; return when the lease is lost."""
        while True:
            # The process must end with the lease, even if the next renewal is due later.
            await self.sleep(max(0.0, min(self.renew_seconds, self._held_until - self.clock.monotonic())))
            started = self.clock.monotonic()
            try:
                # Not wait_for, which may start a task: kopf cancels every task born after it when it stops.
                async with asyncio.timeout(max(0.1, self._held_until - started)):
                    mine = await self._try()
            except TimeoutError:
                self.report(f"no answer within {self.clock.monotonic() - started:.0f} s")
                return
            if not mine and (not self.is_held or self._held_by_another()):
                return

    async def release(self) -> None:
        """Release the lease, so that the next operator need not wait; after an error, the next operator waits."""
        try:
            lease = await self.cluster.get(LEASE, self.namespace, self.name)
            if lease["spec"].get("holderIdentity") == self.identity:
                self._held_until = float("-inf")
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self.cluster.replace(LEASE, lease)
        except ClusterError:
            return

    def _held_by_another(self) -> bool:
        return self._holder not in ("", self.identity)

    async def _try(self) -> bool:
        started = self.clock.monotonic()
        try:
            mine = await self._take_or_create()
        except ConflictError:
            mine = False
        except ClusterError as error:
            self.report(str(error))
            return False
        self.report("")
        if mine:
            self._held_until = started + self.duration_seconds
        return mine

    async def _take_or_create(self) -> bool:
        try:
            lease = await self.cluster.get(LEASE, self.namespace, self.name)
        except NotFoundError:
            return await self._create()
        return await self._take(lease)

    async def _create(self) -> bool:
        manifest = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": self._spec({}),
        }
        await self.cluster.create(LEASE, manifest)
        return True

    async def _take(self, lease: dict[str, Any]) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        now = self.clock.monotonic()
        # Clocks of machines differ, so the age of a foreign lease counts from its last change that this process saw.
        version = f"{holder}/{lease['metadata'].get('resourceVersion')}"
        if version != self._seen_version:
            self._seen_version, self._seen_at = version, now
        self._holder = holder
        self._free_at = self._seen_at + float(spec.get("leaseDurationSeconds") or self.duration_seconds)
        if holder not in ("", self.identity) and now < self._free_at:
            return False
        lease["spec"] = self._spec(spec)
        await self.cluster.replace(LEASE, lease)
        self._holder = self.identity
        return True

    def _spec(self, old: dict[str, Any]) -> dict[str, Any]:
        now = micro_timestamp(self.clock.now())
        changed = old.get("holderIdentity") != self.identity
        return {
            "holderIdentity": self.identity,
            # Whole seconds in the Lease: others must not take over before this process stops to act.
            "leaseDurationSeconds": math.ceil(self.duration_seconds),
            "acquireTime": now if changed else old.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if changed and old else 0),
        }
