"""What is free goes back to the kernel, also between objects that stay."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import subprocess
import sys
from asyncio import sslproto

import pytest

from energylens.controller import memory

# Blocks of 8 kB, each of which lies before a block that stays: glibc gives nothing of that back by itself.
SPREAD = """
import ctypes, os, sys
from energylens.controller import memory
memory.keep_little()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
freed, kept = [], []
for number in range(4000):
    freed.append(bytes(8192 + number % 2))
    kept.append(bytes(600 + number % 2))
full = resident()
freed.clear()
before = resident()
memory.give_back()
print(full - before, before - resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_what_lies_between_objects_that_stay_is_given_back() -> None:
    ended = subprocess.run([sys.executable, "-c", SPREAD], capture_output=True, text=True, check=True, timeout=120)
    by_itself, given_back = map(int, ended.stdout.split())
    assert given_back > 10 * 2**20
    assert by_itself < 4 * 2**20


def test_connections_get_small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    # The class must have what is set, or the setting would be lost without a word.
    assert sslproto.SSLProtocol.max_size == 256 * 1024
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", 256 * 1024)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    before = gc.get_threshold()
    try:
        memory.keep_little()
        memory.give_back()
        assert sslproto.SSLProtocol.max_size == memory.TLS_BYTES
        assert gc.get_threshold()[0] == memory.GARBAGE
    finally:
        gc.set_threshold(*before)


async def test_memory_is_given_back_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: times.append("collected"))
    monkeypatch.setattr(memory, "give_back", lambda: times.append("back"))

    async def sleep(seconds: float) -> None:
        assert seconds == memory.GIVE_BACK_SECONDS
        times.append("slept")
        if times.count("slept") == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await memory.giving_back(sleep)
    assert times == ["slept", "collected", "back", "slept", "collected", "back", "slept"]
