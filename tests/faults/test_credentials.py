"""Tokens and authorities are replaced while the operator runs: it reads them again where they come from."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from kubernetes.aio.config import incluster_config
from tests.support.api_server import api_server
from tests.support.certificates import without_key_identifiers

from energylens.cluster.connecting import connect
from energylens.cluster.errors import TransientError, UnauthorizedError, UntrustedError
from energylens.cluster.resources import NODE, POD


async def test_a_new_token_in_the_kubeconfig_is_used_when_the_old_one_is_refused(tmp_path: Path) -> None:
    with api_server(token="first") as server:
        async with await connect(server.kubeconfig(tmp_path, token="first")) as client:
            told: list[str] = []
            client.on_renewal = lambda: told.append("renewed")
            await client.list_identities(NODE)
            server.token = "second"
            server.kubeconfig(tmp_path, token="second")
            await asyncio.gather(*(client.list_identities(kind) for kind in (NODE, POD, NODE, POD)))
            assert told == ["renewed"]


@pytest.mark.parametrize("gone", [False, True])
async def test_credentials_that_nobody_replaced_are_refused(tmp_path: Path, gone: bool) -> None:
    with api_server(token="first") as server:
        path = server.kubeconfig(tmp_path, token="first")
        async with await connect(path) as client:
            server.token = "second"
            if gone:
                path.unlink()
            with pytest.raises(UnauthorizedError):
                await client.list_identities(NODE)
            server.kubeconfig(tmp_path, token="second")
            await client.list_identities(NODE)


async def test_a_new_authority_in_the_kubeconfig_is_trusted(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    former, present = without_key_identifiers(old), without_key_identifiers(new)
    with api_server(present.context()) as server:
        path = server.kubeconfig(tmp_path, **{"certificate-authority": str(former.authority)})
        async with await connect(path) as client:
            with pytest.raises(UntrustedError, match="certificate is not trusted"):
                await client.list_identities(NODE)
            server.kubeconfig(tmp_path, **{"certificate-authority": str(present.authority)})
            await client.list_identities(NODE)


async def test_in_a_pod_the_token_and_the_authority_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    token, authority = tmp_path / "token", tmp_path / "authority"
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    made = without_key_identifiers(tmp_path)
    token.write_text("first")
    authority.write_bytes(without_key_identifiers(other).authority.read_bytes())
    with api_server(made.context(), token="first") as server:
        address = urlsplit(server.url)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(address.hostname))
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
        async with await connect(None) as client:
            with pytest.raises(UntrustedError):
                await client.list_identities(NODE)
            authority.write_bytes(made.authority.read_bytes())
            await client.list_identities(NODE)
            token.write_text("second")
            server.token = "second"
            await client.list_identities(NODE)


async def test_an_entry_of_netrc_does_not_replace_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with api_server(token="first") as server:
        async with await connect(server.kubeconfig(tmp_path, token="first")) as client:
            await client.list_identities(NODE)


async def test_the_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with api_server(token="first") as server:
        path = server.kubeconfig(tmp_path, token="first", server="http://api.invalid")
        monkeypatch.setenv("http_proxy", server.url)
        async with await connect(path) as client:
            await client.list_identities(NODE)
        monkeypatch.setenv("no_proxy", "api.invalid")
        async with await connect(path) as client:
            with pytest.raises(TransientError):
                await client.list_identities(NODE)
