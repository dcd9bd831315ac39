"""A lease that runs out between the decision to write and the bytes: the server gets no request to act on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from tests.support.api_server import ApiServer, api_server
from tests.support.certificates import without_key_identifiers
from tests.support.cut_network import wire

from energylens.cluster.connecting import connect
from energylens.cluster.errors import TransientError
from energylens.cluster.fence import FencedCluster, LeaseLostError
from energylens.cluster.resources import DEPLOYMENT, EVENT, NODE
from energylens_dev.devcluster import eventually

BODY = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "team", "name": "a"}, "status": {}}
WRITES: dict[str, Callable[[FencedCluster], Awaitable[object]]] = {
    "apply": lambda cluster: cluster.apply(BODY),
    "apply_status": lambda cluster: cluster.apply_status(BODY),
    "patch_status": lambda cluster: cluster.patch_status(BODY),
    "create": lambda cluster: cluster.create(EVENT, BODY | {"kind": "Event"}),
    "replace": lambda cluster: cluster.replace(DEPLOYMENT, BODY),
    "delete": lambda cluster: cluster.delete(DEPLOYMENT, "team", "a", "uid-2"),
}


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of the requests whose body came in whole."""
    methods: list[str] = []
    answer = ApiServer.answer

    async def note(self: ApiServer, request: web.Request) -> web.StreamResponse:
        await request.read()
        methods.append(request.method)
        return await answer(self, request) if request.method == "GET" else web.json_response({})

    monkeypatch.setattr(ApiServer, "answer", note)
    return methods


@pytest.mark.parametrize("verb", WRITES)
async def test_no_write_is_sent_whose_lease_ran_out_on_the_way(verb: str, received: list[str], tmp_path: Path) -> None:
    asked = 0

    def held_when_first_asked() -> bool:
        nonlocal asked
        asked += 1
        return asked == 1

    with api_server() as server:
        async with await connect(server.kubeconfig(tmp_path)) as client:
            with pytest.raises(LeaseLostError, match="the lease has run out"):
                await WRITES[verb](FencedCluster(client, held_when_first_asked))
            assert asked >= 2
            assert received == []
            # The connection that broke off does not stand in the way of the next write, nor does the fence.
            await WRITES[verb](FencedCluster(client, lambda: True))
            await client.list_identities(NODE)
    assert received[1:] == ["GET"]


async def test_another_error_stays_what_it_is_while_the_lease_is_held(tmp_path: Path) -> None:
    with api_server() as server:
        path = server.kubeconfig(tmp_path)
    async with await connect(path) as client:
        with pytest.raises(TransientError, match="cannot connect"):
            await FencedCluster(client, lambda: True).apply(BODY)


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_a_write_in_a_cut_network_does_not_arrive_once_the_client_has_ended(
    tls: bool, received: list[str], tmp_path: Path
) -> None:
    made = without_key_identifiers(tmp_path) if tls else None
    trusted = {} if made is None else {"certificate-authority": str(made.authority)}
    with api_server(None if made is None else made.context()) as server:
        address = urlsplit(server.url)
        assert address.hostname is not None
        assert address.port is not None
        with wire((address.hostname, address.port)) as network:
            server.url = f"{address.scheme}://{address.hostname}:{network.port}"
            async with await connect(server.kubeconfig(tmp_path, **trusted)) as client:
                await client.list_identities(NODE)
                network.cut()
                write = asyncio.create_task(FencedCluster(client, lambda: True).apply(BODY))
                await asyncio.to_thread(eventually, lambda: network.held, interval=0.01)
            # The kernel would go on sending what the process has given it, for minutes after the process ended.
            network.mend()
            with pytest.raises(TransientError):
                await write
            await asyncio.to_thread(eventually, lambda: not network.held, interval=0.01)
            async with await connect(server.kubeconfig(tmp_path, **trusted)) as client:
                await client.list_identities(NODE)
    assert received == ["GET", "GET"]
