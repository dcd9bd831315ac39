"""The network between one operator and the API server, which a test cuts and mends: TCP, whatever is said over it.

A cut network loses packets, and TCP sends them again: what one side has sent, and has not dropped since, arrives once
the network is mended, also when the sender's process has ended meanwhile. A sender that resets its connection drops
what it has sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from energylens_dev.devcluster.ports import LOOPBACK

_CHUNK = 65536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Wire:
    """The network on the way to one address; both directions are open at first."""

    port: int
    """Where the operator connects to, on loopback."""
    upstream: tuple[str, int]
    _listening: socket.socket
    _loop: asyncio.AbstractEventLoop
    _requests: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _answers: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    held: int = field(default=0, init=False)
    """How many connections have sent what the cut network holds back, in either direction."""

    def cut(self, *, answers: bool = True) -> None:
        """Let nothing through; with ``answers`` false, what the API server sends still arrives."""
        self._at_once(self._requests.clear)
        if answers:
            self._at_once(self._answers.clear)

    def mend(self) -> None:
        """Let everything through, also what was sent meanwhile."""
        self._at_once(self._requests.set)
        self._at_once(self._answers.set)

    def _at_once(self, change: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(10)

    async def _accept(self) -> None:
        self._requests.set()
        self._answers.set()
        while True:
            client, _ = await self._loop.sock_accept(self._listening)
            client.setblocking(False)
            self._start(self._connect(client))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: socket.socket) -> None:
        server = socket.socket()
        server.setblocking(False)
        try:
            await self._loop.sock_connect(server, self.upstream)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(client, server, self._requests))
                both.create_task(self._pump(server, client, self._answers))
        except* OSError:
            # Of one side: the other one is told so.
            for side in (client, server):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        finally:
            client.close()
            server.close()

    async def _pump(self, sender: socket.socket, receiver: socket.socket, is_open: asyncio.Event) -> None:
        while True:
            sent = await self._loop.sock_recv(sender, _CHUNK)
            if not is_open.is_set():
                self.held += 1
                try:
                    await is_open.wait()
                finally:
                    self.held -= 1
                if _is_reset(sender):
                    raise ConnectionResetError
            if not sent:
                with contextlib.suppress(OSError):
                    receiver.shutdown(socket.SHUT_WR)
                return
            await self._loop.sock_sendall(receiver, sent)


def _is_reset(side: socket.socket) -> bool:
    """Return whether the peer has reset the connection, and not only ended it."""
    poll = select.poll()
    poll.register(side, 0)
    return bool(poll.poll(0))


@contextmanager
def wire(upstream: tuple[str, int]) -> Iterator[Wire]:
    """Run a network to an address, in a thread and a loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    with socket.create_server((LOOPBACK, 0)) as listening:
        listening.setblocking(False)
        made = Wire(listening.getsockname()[1], upstream, listening, loop)
        accepting = asyncio.run_coroutine_threadsafe(made._accept(), loop)
        try:
            yield made
        finally:

            async def stop() -> None:
                accepting.cancel()
                for task in made._tasks:
                    task.cancel()
                await asyncio.gather(*made._tasks, return_exceptions=True)

            asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
