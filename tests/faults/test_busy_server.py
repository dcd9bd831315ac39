"""An API server that asks for a pause gets it from every request, whoever sends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.api_server import api_server
from tests.support.faulty_proxy import Answer, faulty_proxy

from energylens.cluster.client import MOST_PAUSE_SECONDS, connect
from energylens.cluster.errors import BusyError, NotFoundError
from energylens.cluster.resources import LEASE, NODE, POD


@pytest.mark.parametrize(("asked", "kept"), [("7", 7.0), ("100000", MOST_PAUSE_SECONDS), ("", 1.0)])
async def test_requests_after_a_429_wait_as_long_as_the_server_said(tmp_path: Path, asked: str, kept: float) -> None:
    headers = {"Retry-After": asked} if asked else {}
    busy = Answer(lambda call: call.resource == "nodes", times=1, status=429, headers=headers)
    with api_server() as server, faulty_proxy(server.url, faults=[busy]) as proxy:
        server.url = proxy.url
        async with await connect(server.kubeconfig(tmp_path)) as client:
            waited: list[float] = []

            async def sleep(seconds: float) -> None:
                waited.append(seconds)

            client.sleep = sleep
            await client.list_identities(POD)
            assert waited == []
            with pytest.raises(BusyError) as caught:
                await client.list_identities(NODE)
            assert caught.value.retry_after_seconds >= kept
            await client.list_identities(POD)
            (seconds,) = waited
            assert kept - 0.9 < seconds <= kept
            # Who renews a lease late loses it.
            with pytest.raises(NotFoundError):
                await client.get(LEASE, "system", "one")
            assert len(waited) == 1
