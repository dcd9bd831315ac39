"""An API server that asks for a pause gets it from every request, whoever sends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.api_server import api_server
from tests.support.faulty_proxy import Answer, faulty_proxy

from energylens.cluster.connecting import connect
from energylens.cluster.errors import MOST_PAUSE_SECONDS, BusyError, NotFoundError
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


async def test_a_shorter_pause_asked_for_later_ends_no_longer_one(tmp_path: Path) -> None:
    faults = [
        Answer(lambda call: call.resource == "nodes", times=1, status=429, headers={"Retry-After": "30"}),
        Answer(lambda call: call.resource == "leases", times=1, status=429, headers={"Retry-After": "1"}),
    ]
    with api_server() as server, faulty_proxy(server.url, faults=faults) as proxy:
        server.url = proxy.url
        async with await connect(server.kubeconfig(tmp_path)) as client:
            waited: list[float] = []

            async def sleep(seconds: float) -> None:
                waited.append(seconds)

            client.sleep = sleep
            with pytest.raises(BusyError):
                await client.list_identities(NODE)
            with pytest.raises(BusyError):
                await client.get(LEASE, "system", "one")
            await client.list_identities(POD)
            (seconds,) = waited
            assert seconds > 20.0
