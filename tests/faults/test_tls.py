"""Certificates without key identifiers are accepted on every Python; whatever else is wrong with them is refused."""

from __future__ import annotations

import asyncio
import logging
import ssl
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
from tests.support.api_server import ApiServer, api_server
from tests.support.certificates import Served, without_key_identifiers

from energylens.clock import SystemClock
from energylens.cluster.connecting import connect, connect_as_user
from energylens.cluster.errors import TransientError
from energylens.cluster.resources import NODE
from energylens.controller.watching.heartbeat import Heartbeats
from energylens.controller.watching.login import Connection, in_cluster_server, log_in
from energylens.measure.prometheus_http import Access, PrometheusError, PrometheusHttp
from energylens.measure.scrape import HttpScraper, TargetFailure
from energylens_dev.devcluster.health import client_context as dev_context

NODES = "/api/v1/nodes"


@pytest.fixture(autouse=True)
def strict_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make contexts as Python 3.13 does, whatever this one does."""
    default = ssl.create_default_context

    def strict(*arguments: Any, **options: Any) -> ssl.SSLContext:
        context = default(*arguments, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)


async def kubernetes_client(server: ApiServer, made: Served, folder: Path) -> None:
    async with await connect(server.kubeconfig(folder, **{"certificate-authority": str(made.authority)})) as client:
        await client.list_identities(NODE)


async def command_line(server: ApiServer, made: Served, folder: Path) -> None:
    path = server.kubeconfig(folder, **{"certificate-authority": str(made.authority)})
    client, _ = await connect_as_user(path)
    async with client:
        await client.list_identities(NODE)


async def kopf_watches(server: ApiServer, made: Served, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        path = server.kubeconfig(folder, **{"certificate-authority": str(made.authority)})
        patch.setenv("KUBECONFIG", str(path))
        beats = Heartbeats(SystemClock())
        info = await log_in(path, beats, logger=logging.getLogger(), settings=kopf.OperatorSettings())
    try:
        assert isinstance(info, Connection)
        assert info.credentials.token == "secret"
        async with info.aiohttp_session.get(f"{info.server}{NODES}") as answer:
            assert answer.status == 200
    finally:
        await beats.close_sessions()


async def prometheus(server: ApiServer, made: Served, folder: Path) -> None:
    server.pages["/api/v1/query"] = {"status": "success", "data": {"resultType": "vector", "result": []}}
    async with PrometheusHttp(Access(server.url, ca_file=made.authority)) as api:
        assert (await api.query("up")).data


async def development_cluster(server: ApiServer, made: Served, folder: Path) -> None:
    await asyncio.to_thread(_get, f"{server.url}{NODES}", dev_context(made.authority, made.certificate, made.key))


def _get(url: str, context: ssl.SSLContext) -> None:
    with urllib.request.urlopen(url, context=context) as answer:
        assert answer.status == 200


Client = Callable[[ApiServer, Served, Path], Awaitable[None]]
CLIENTS = [kubernetes_client, command_line, kopf_watches, prometheus, development_cluster]


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_client_takes_a_chain_without_key_identifiers(client: Client, tmp_path: Path) -> None:
    made = without_key_identifiers(tmp_path)
    with api_server(made.context()) as server:
        await client(server, made, tmp_path)
        with pytest.raises(urllib.error.URLError, match="Key Identifier"):
            await asyncio.to_thread(
                _get, f"{server.url}{NODES}", ssl.create_default_context(cafile=str(made.authority))
            )


@pytest.mark.parametrize("fault", ["another authority", "another host", "expired"])
@pytest.mark.parametrize("client", CLIENTS)
async def test_every_client_refuses_what_else_is_wrong(client: Client, fault: str, tmp_path: Path) -> None:
    faults: dict[str, dict[str, Any]] = {"another host": {"address": "127.0.0.9"}, "expired": {"valid_until": 2021}}
    made = without_key_identifiers(tmp_path, **faults.get(fault, {}))
    context = made.context()
    if fault == "another authority":
        made = without_key_identifiers(tmp_path)
    refusals = (TransientError, aiohttp.ClientError, PrometheusError, urllib.error.URLError)
    with api_server(context) as server, pytest.raises(refusals, match=r"(?i)certificate"):
        await client(server, made, tmp_path)


async def test_scrapes_trust_the_system_s_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = without_key_identifiers(tmp_path)
    with api_server(made.context()) as server:
        async with HttpScraper(SystemClock()) as http:
            assert isinstance(await http.fetch(f"{server.url}{NODES}"), TargetFailure)
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
        async with HttpScraper(SystemClock()) as http:
            assert not isinstance(await http.fetch(f"{server.url}{NODES}"), TargetFailure)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}, "https://10.0.0.1:443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, "https://[fd00::1]:443"),
        ({"KUBERNETES_SERVICE_HOST": "api.example", "KUBERNETES_SERVICE_PORT": "6443"}, "https://api.example:6443"),
        ({}, None),
    ],
)
def test_in_a_pod_kopf_goes_where_the_kubelet_says(environ: dict[str, str], url: str | None) -> None:
    assert in_cluster_server(environ) == url
