"""A lease that runs out between the decision to write and the bytes: the server gets no request to act on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from tests.support.api_server import ApiServer, api_server

from energylens.cluster.connecting import connect
from energylens.cluster.errors import TransientError
from energylens.cluster.fence import FencedCluster, LeaseLostError
from energylens.cluster.resources import DEPLOYMENT, EVENT, NODE

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
