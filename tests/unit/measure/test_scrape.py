"""HTTP faults against a real server on loopback; each becomes a value that says what happened."""

from __future__ import annotations

import asyncio
import gzip

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from tests.unit.measure.builders import POD, FakeClock

from energylens.measure.engines import EngineScraper, EngineTarget
from energylens.measure.scrape import HttpScraper, Page, TargetFailure
from energylens.measure.source import DcgmExporterSource


@pytest.fixture
async def server():
    never = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    async def drop(request: web.Request) -> web.Response:
        request.transport.close()
        return web.Response()

    answers = {
        "/ok": lambda: web.Response(text="DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL{UUID=\"A\"} 5\n"),
        "/zipped": lambda: web.Response(
            body=gzip.compress(b"x" * 5000), headers={"Content-Encoding": "gzip", "Content-Type": "text/plain"}
        ),
        "/large": lambda: web.Response(text="x" * 2000),
        "/binary": lambda: web.Response(body=b"\xff\xfe\x00"),
        "/broken": lambda: web.Response(text='DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL{UUID="A} 5\n'),
        "/power-only": lambda: web.Response(text='DCGM_FI_DEV_POWER_USAGE{UUID="A"} 5\n'),
        "/blank": lambda: web.Response(text='DCGM_FI_DEV_POWER_USAGE{UUID="A"} 9223372036854775794\n'),
        "/error": lambda: web.Response(status=503),
        "/moved": lambda: web.Response(status=302, headers={"Location": "/ok"}),
        "/engine": lambda: web.Response(text="vllm:generation_tokens_total 7\n"),
        "/broken-engine": lambda: web.Response(text="vllm:generation_tokens_total seven\n"),
    }  # fmt: skip

    async def answer(request: web.Request) -> web.Response:
        if request.path not in answers:
            raise web.HTTPNotFound
        return answers[request.path]()

    app = web.Application()
    app.router.add_get("/hang", hang)
    app.router.add_get("/drop", drop)
    app.router.add_get("/{name}", answer)
    server = TestServer(app)
    await server.start_server()
    yield server
    never.set()
    await server.close()


@pytest.fixture
async def http():
    async with HttpScraper(FakeClock(77.0), timeout_seconds=2.0, max_bytes=1000) as scraper:
        yield scraper


async def test_a_page_and_when_it_was_read(server, http):
    page = await http.fetch(str(server.make_url("/ok")))
    assert isinstance(page, Page)
    assert (page.time, page.text[:4]) == (77.0, "DCGM")


@pytest.mark.parametrize(
    ("path", "reason", "message"),
    [
        ("/error", "HTTPStatus", "503"),
        ("/missing", "HTTPStatus", "404"),
        ("/moved", "HTTPStatus", "302"),
        ("/large", "TooLarge", "1000 bytes"),
        ("/zipped", "TooLarge", "1000 bytes"),
        ("/binary", "NotText", "UTF-8"),
        ("/drop", "Unreachable", "disconnected"),
    ],
)
async def test_faults_of_a_target(server, http, path, reason, message):
    url = str(server.make_url(path))
    failure = await http.fetch(url)
    assert isinstance(failure, TargetFailure)
    assert (failure.target, failure.reason) == (url, reason)
    assert message in failure.message


async def test_a_target_that_never_answers(server):
    async with HttpScraper(FakeClock(), timeout_seconds=0.01) as http:
        failure = await http.fetch(str(server.make_url("/hang")))
    assert (failure.reason, failure.message) == ("Timeout", "no answer within 0.01 s")


@pytest.mark.parametrize("url", ["not a url", "http://", "ftp://127.0.0.1/x", "/metrics"])
async def test_what_is_no_url(http, url):
    failure = await http.fetch(url)
    assert (failure.target, failure.reason) == (url, "Unreachable")
    assert failure.message


async def test_nobody_listens(http):
    failure = await http.fetch(f"http://127.0.0.1:{unused_port()}/metrics")
    assert failure.reason == "Unreachable"


async def test_outside_of_its_block():
    with pytest.raises(RuntimeError, match="async with"):
        await HttpScraper(FakeClock()).fetch("http://127.0.0.1/")


async def test_a_source_reads_every_target_and_hides_no_failure(server, http):
    paths = ["/ok", "/error", "/broken", "/power-only", "/blank"]
    source = DcgmExporterSource(http, lambda: [str(server.make_url(path)) for path in paths])
    reading = await source.read()
    assert [(gpu.uuid, gpu.energy_joules, gpu.source) for gpu in reading.observations] == [
        ("A", 5.0, "dcgm-exporter"),
        ("A", None, "dcgm-exporter"),
    ]
    failures = [(failure.target.rsplit("/", 1)[1], failure.reason) for failure in reading.failures]
    assert failures == [
        ("error", "HTTPStatus"),
        ("broken", "Malformed"),
        ("power-only", "NoEnergyCounter"),
        ("blank", "NoEnergyCounter"),
    ]
    assert len(reading.rejected) == 1


async def test_engines_are_read_and_no_failure_is_hidden(server, http):
    paths = ["/engine", "/ok", "/broken-engine", "/error"]
    targets = [EngineTarget(POD, str(server.make_url(path))) for path in paths]
    observed, failures = await EngineScraper(http).read(targets)
    assert [(seen.pod, seen.generation_tokens, seen.time) for seen in observed] == [(POD, 7, 77.0)]
    assert [failure.reason for failure in failures] == ["NoEngineMetrics", "Malformed", "HTTPStatus"]
