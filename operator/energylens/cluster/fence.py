"""A cluster that accepts writes only while this process holds the lease.

A process that was paused or cut off may have lost its lease without noticing: its workers continue before the task that
renews the lease runs again, and their writes would undo the writes of the next holder. The lease is therefore checked
twice: before a write is prepared, and again immediately before its bytes are sent, since a process may be paused while
it waits for a connection. After that, the bytes belong to the kernel, which retransmits them for minutes over a broken
network, even after the process has ended with its lease. Connections are therefore reset when they are closed, which
drops unacknowledged bytes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp

from energylens.cluster.errors import ClusterError
from energylens.cluster.interceptor import Send, WriteInterceptor
from energylens.cluster.port import Object
from energylens.records import dataclass

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.connector import Connection

_LINGER_NOT = struct.pack("ii", 1, 0)
"""``struct linger`` of socket(7): on, for 0 seconds."""
_may_send: ContextVar[Callable[[], bool]] = ContextVar("may_send", default=lambda: True)


class LeaseLostError(ClusterError):
    """The lease has expired, so another operator may act."""


@dataclass
class FencedCluster(WriteInterceptor):
    """A :class:`~energylens.cluster.port.ClusterPort` in front of another one.

    Every write raises :class:`LeaseLostError` while ``is_held`` says no; reads go through.
    """

    is_held: Callable[[], bool]

    async def _write(self, manifest: Mapping[str, Any], send: Send) -> Object:
        lost = LeaseLostError(f"{manifest['kind']} {manifest['metadata'].get('name', '')}: the lease has run out")
        if not self.is_held():
            raise lost
        withheld = False

        def may_send() -> bool:
            nonlocal withheld
            withheld = not self.is_held()
            return not withheld

        token = _may_send.set(may_send)
        try:
            return await send()
        except ClusterError as error:
            if withheld:
                raise lost from error
            raise
        finally:
            _may_send.reset(token)


class FencedRequest(aiohttp.ClientRequest):
    """A request that aborts before its body is sent if the fenced cluster no longer allows the write.

    Every write has a body, and a server carries out no request without its whole body.
    """

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        """Send the body, or close the connection; the caller gets :class:`aiohttp.ClientOSError`."""
        _reset_when_closed(conn)
        if _may_send.get()():
            await super().write_bytes(writer, conn, content_length)
            return
        if conn.protocol is not None:
            conn.protocol.set_exception(aiohttp.ClientOSError(None, "not sent: the lease has run out"))
        conn.close()


def _reset_when_closed(connection: Connection) -> None:
    """Let the kernel drop unacknowledged bytes when the connection is closed, or the process ends."""
    opened = None if connection.transport is None else connection.transport.get_extra_info("socket")
    if opened is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
