"""Gives memory back that Python, asyncio and the C library keep for speed that the operator does not need.

A search for a plan needs tens of megabytes for half a second, and there are thousands of watched objects between which
its memory lies. glibc keeps what is free between two objects until it is told otherwise, and one arena for each thread.
kopf leaves some 30 objects that refer to each other for each event of a watch, which wait for the garbage collector.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from asyncio import sslproto
from collections.abc import Awaitable, Callable

GIVE_BACK_SECONDS = 10.0
"""Pause between two returns of free memory; each takes some milliseconds."""
TLS_BYTES = 64 * 1024
"""Read buffer of a TLS connection. asyncio gives each 256 KiB: with 32 workers and 14 watches, 11 MiB."""
ARENAS, MMAP_BYTES = 1, 256 * 1024
"""Arenas of all threads together, of which one at a time runs Python; and the size from which a block is mapped on its
own, and unmapped when it is freed. By default glibc raises that size up to 32 MiB."""
GARBAGE = 10_000
"""Objects after which young garbage is collected. The commands wait for 50,000, and mostly end before."""
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
"""Options of mallopt(3)."""


def keep_little() -> None:
    """Let the process keep little free memory; call it before other threads and connections are made.

    C libraries other than glibc have no such options, and keep what they keep.
    """
    # Modules stay for ever: no collection need go through them.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)
    # The class has no public setting. Each connection makes its buffer of this size when it is opened.
    sslproto.SSLProtocol.max_size = TLS_BYTES
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
        mallopt(_M_MMAP_THRESHOLD, MMAP_BYTES)


def give_back() -> None:
    """Return free memory to the kernel, where the C library can (malloc_trim(3))."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


async def giving_back(sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Collect all garbage and return free memory every so often until cancelled."""
    while True:
        await sleep(GIVE_BACK_SECONDS)
        gc.collect()
        give_back()
