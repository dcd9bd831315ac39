"""The HTTP side of Prometheus against a real server on loopback, TLS and tokens included."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from energylens.measure.prometheus_http import Access, PrometheusError, PrometheusHttp

SCALAR = {"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}, "warnings": ["half"]}


class Api:
    """Answers by the query's text and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.never = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        match request.query["query"]:
            case "time()":
                return web.json_response(SCALAR)
            case "bad":
                error = {"status": "error", "errorType": "bad_data", "error": "parse error:\n  unexpected"}
                return web.json_response(error, status=400)
            case "proxy":
                return web.Response(status=502, text="<html>")
            case "html":
                return web.Response(text="<html>")
            case "empty":
                return web.json_response({"status": "success"})
            case "large":
                return web.Response(text="x" * 5000)
            case "moved":
                return web.Response(status=302, headers={"Location": "/api/v1/query?query=time()"})
            case "hang":
                await self.never.wait()
        raise web.HTTPNotFound


@pytest.fixture
async def api():
    found = Api()
    app = web.Application()
    app.add_routes([web.get("/base/api/v1/query", found.answer)])
    async with TestServer(app) as server:
        found.url = str(server.make_url("/base"))  # type: ignore[attr-defined]
        yield found
        found.never.set()


async def asked(access: Access, expression: str = "time()", time: float | None = None):
    async with PrometheusHttp(access, timeout_seconds=0.3, max_bytes=4000) as http:
        return await http.query(expression, time)


async def test_an_answer_and_its_warnings(api) -> None:
    answer = await asked(Access(api.url + "/"), time=1700000000.1234)
    assert (answer.data["result"], answer.warnings) == ([1, "2"], ("half",))
    assert api.requests[0].query["time"] == "1700000000.123"
    assert "Authorization" not in api.requests[0].headers


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("bad", "refused the query: parse error: unexpected"),
        ("proxy", "answered with status 502"),
        ("html", "answered with status 200 and no JSON of the Prometheus API"),
        ("moved", "answered with status 302"),
        ("empty", "answered without data"),
        ("large", "answered with more than 4000 bytes"),
        ("hang", "no answer within 0.3 s"),
    ],
)
async def test_what_is_no_answer_says_why(api, expression, message) -> None:
    with pytest.raises(PrometheusError) as caught:
        await asked(Access(api.url), expression)
    assert str(caught.value).startswith(message)


async def test_the_token_is_read_at_each_request_since_it_is_rotated(api, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    access = Access(api.url, bearer_token_file=token, headers={"X-Scope-OrgID": "team"})
    async with PrometheusHttp(access) as http:
        await http.query("time()")
        token.write_text("two")
        await http.query("time()")
    assert [request.headers["Authorization"] for request in api.requests] == ["Bearer one", "Bearer two"]
    assert api.requests[0].headers["X-Scope-OrgID"] == "team"
    token.unlink()
    with pytest.raises(PrometheusError, match=r"bearerTokenFile=\S+/token: No such file"):
        await asked(access)


async def test_nothing_listens() -> None:
    with pytest.raises(PrometheusError, match="127"):
        await asked(Access(f"http://127.0.0.1:{unused_port()}"))


async def test_outside_of_its_block() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await PrometheusHttp(Access("http://127.0.0.1")).query("1")


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start.replace(year=2060))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "tls.crt", folder / "tls.key"
    chain.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return chain, private


async def test_only_the_given_authority_is_trusted(tmp_path: Path) -> None:
    chain, private = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, private)
    found = Api()
    app = web.Application()
    app.add_routes([web.get("/api/v1/query", found.answer)])
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    try:
        url = f"https://127.0.0.1:{server.port}"
        assert (await asked(Access(url, ca_file=chain))).data
        with pytest.raises(PrometheusError, match="certificate"):
            await asked(Access(url))
    finally:
        await server.close()


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.crt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PrometheusError, match=r"caFile=\S+/ca.crt: \S+"):
        await asked(Access("https://127.0.0.1", ca_file=path))
