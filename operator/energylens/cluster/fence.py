"""A cluster that is written to only while the lease is held.

A process that stood still, or was cut off, may have lost its lease without knowing: its workers go on where they were,
before the task that renews the lease has had its turn. What they write then would undo what the next holder wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from energylens.cluster.errors import ClusterError
from energylens.cluster.interceptor import Send, WriteInterceptor
from energylens.cluster.port import Object


class LeaseLostError(ClusterError):
    """The lease has run out, so that another operator may act."""


@dataclass
class FencedCluster(WriteInterceptor):
    """A :class:`~energylens.cluster.port.ClusterPort` in front of another one.

    Every write raises :class:`LeaseLostError` while ``is_held`` says no; reads go through.
    """

    is_held: Callable[[], bool]

    async def _write(self, manifest: Mapping[str, Any], send: Send) -> Object:
        if not self.is_held():
            raise LeaseLostError(f"{manifest['kind']} {manifest['metadata'].get('name', '')}: the lease has run out")
        return await send()
