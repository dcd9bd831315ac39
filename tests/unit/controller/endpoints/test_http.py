"""The page of metrics over HTTP: whole, and never an answer to another question."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from energylens.controller.endpoints.http import application
from energylens.controller.endpoints.metrics import Metrics


async def test_head_gets_no_page_and_leaves_the_connection_to_others() -> None:
    found = Metrics()
    whole = b"".join([part async for part in found.page()])
    async with TestClient(TestServer(application(found.page, lambda: "", lambda: ""))) as client:
        for _ in range(2):
            async with client.head("/metrics") as answer:
                assert (answer.status, await answer.read()) == (200, b"")
            async with client.get("/metrics") as answer:
                assert answer.headers["Content-Type"].startswith("text/plain")
                assert await answer.read() == whole


async def test_half_a_page_is_not_taken_for_a_whole_one() -> None:
    async def page() -> AsyncIterator[bytes]:
        yield b"a 1\n"
        raise RuntimeError("a defect")

    async with TestClient(TestServer(application(page, lambda: "", lambda: ""))) as client:
        with pytest.raises(aiohttp.ClientError):
            async with client.get("/metrics") as answer:
                await answer.read()
