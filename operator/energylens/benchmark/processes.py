"""The client in several processes, because one interpreter reads only about ten thousand stream events per second."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from energylens.benchmark.client import Client, ServerUnderTest
from energylens.benchmark.points import Point
from energylens.benchmark.statistics import Trace
from energylens.records import dataclass

LOOPS_OF_A_PROCESS = 48
_CHECK_SECONDS = 1.0
"""Seconds between two checks that the parent process lives."""


class ClientFailedError(RuntimeError):
    """A process of the client ended unexpectedly; the message is one line."""


@dataclass
class RunningLoad:
    """A load that runs in other processes."""

    _ended: Synchronized[int]
    _stop: Any
    _processes: list[tuple[SpawnProcess, Connection]] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """Number of closed loops whose first request has ended; for arrivals, of requests that have ended."""
        return int(self._ended.value)

    def check(self) -> None:
        """Check that every process is still running.

        Raises:
            ClientFailedError: A process has ended.
        """
        for process, _ in self._processes:
            if process.exitcode is not None:
                raise ClientFailedError(f"a process of the client ended with code {process.exitcode}")

    def stop(self) -> list[Trace]:
        """Stop the load and return the observations of all processes.

        Raises:
            ClientFailedError: A process returned nothing.
        """
        self._stop.set()
        traces: list[Trace] = []
        for process, connection in self._processes:
            try:
                traces += connection.recv()
            except EOFError as error:
                process.join(timeout=10)
                raise ClientFailedError(f"a process of the client ended with code {process.exitcode}") from error
        return traces


def processes_for(point: Point, cpus: int) -> int:
    """Return the number of processes for a load: one for every 48 closed loops, at most one for each CPU."""
    wanted = -(-int(point.level) // LOOPS_OF_A_PROCESS) if point.kind == "closed" else min(cpus, 4)
    return max(1, min(wanted, cpus))


@contextmanager
def running(target: ServerUnderTest, point: Point, seed: int) -> Iterator[RunningLoad]:
    """Run a load in separate processes, which end with the block.

    Args:
        target: The server.
        point: The load.
        seed: Seed of the prompts; each process derives its own.
    """
    context = multiprocessing.get_context("spawn")
    load = RunningLoad(context.Value("i", 0), context.Event())
    count = processes_for(point, os.cpu_count() or 1)
    try:
        for number in range(count):
            share = point.level / count
            if point.kind == "closed":
                share = int(point.level) // count + (number < int(point.level) % count)
            receiver, sender = context.Pipe(duplex=False)
            arguments = (target, point, seed + number, share, load._ended, load._stop, sender)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            sender.close()
            load._processes.append((process, receiver))
        yield load
    finally:
        load._stop.set()
        for process, connection in load._processes:
            process.join(timeout=10)
            if process.is_alive():
                process.terminate()
                process.join(timeout=10)
            connection.close()


def _serve(
    target: ServerUnderTest,
    point: Point,
    seed: int,
    share: float,
    ended: Synchronized[int],
    stop: Any,
    answer: Connection,
) -> None:
    def count() -> None:
        with ended.get_lock():
            ended.value += 1

    async def run() -> list[Trace]:
        over = asyncio.Event()

        def wait() -> None:
            parent = multiprocessing.parent_process()
            # A killed parent stops no load, which would go on for ever.
            while not stop.wait(_CHECK_SECONDS) and parent is not None and parent.is_alive():
                pass

        async def look() -> None:
            await asyncio.to_thread(wait)
            over.set()

        looking = asyncio.create_task(look())
        found = await Client(target, point, seed, count, time.monotonic).run(share, over)
        await looking
        return found

    found = asyncio.run(run())
    # Nobody reads the answer if the parent is gone.
    with suppress(BrokenPipeError):
        answer.send(found)
    answer.close()
