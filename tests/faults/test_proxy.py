"""The proxy that breaks requests and watches: each fault does what it says, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.support.api_calls import Call, call_of
from tests.support.faulty_proxy import (
    Answer,
    Cut,
    Delay,
    Events,
    Fault,
    FaultyProxy,
    Hold,
    LoseAnswer,
    StaleList,
    Withhold,
    faulty_proxy,
)

PATH = "/apis/energylens.dev/v1alpha1/namespaces/team/llmdeployments"


@pytest.mark.parametrize(
    ("method", "path", "call"),
    [
        ("GET", PATH, Call("list", "llmdeployments", "team")),
        ("GET", f"{PATH}?watch=true", Call("watch", "llmdeployments", "team")),
        ("PATCH", f"{PATH}/a/status", Call("patch", "llmdeployments", "team", "a", "status")),
        ("GET", "/api/v1/nodes/n", Call("get", "nodes", "", "n")),
        ("GET", "/api/v1/namespaces/team", Call("get", "namespaces", "", "team")),
        ("PUT", "/api/v1/namespaces/team/finalize", Call("update", "namespaces", "", "team", "finalize")),
        ("DELETE", "/api/v1/namespaces/team/pods/p", Call("delete", "pods", "team", "p")),
        ("GET", "/apis/apps/v1", Call("get")),
        ("GET", "/version", Call("get")),
    ],
)
def test_a_request_is_read_from_its_url(method: str, path: str, call: Call) -> None:
    bare, _, query = path.partition("?")
    assert call_of(method, bare, dict(part.split("=") for part in query.split("&") if part)) == call


def test_leases_and_questions_about_rights_are_no_writes() -> None:
    assert not Call("update", "leases").is_write
    assert not Call("create", "selfsubjectaccessreviews").is_write
    assert Call("create", "events").is_write
    assert not Call("list", "events").is_write


class Upstream:
    """Counts what it was asked, and sends what a test puts into the watch."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.refusal = 0
        """Status of the answers to watches; 0 for streams."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "true" and self.refusal:
            return web.json_response({"kind": "Status", "code": self.refusal}, status=self.refusal)
        if request.query.get("watch") == "true":
            response = web.StreamResponse()
            await response.prepare(request)
            while (line := await self.lines.get()) is not None:
                await response.write(line)
            return response
        self.done.append(request.method)
        return web.json_response({"asked": len(self.done), "body": (await request.read()).decode()})

    def say(self, kind: str, version: int) -> None:
        event = {"type": kind, "object": {"metadata": {"resourceVersion": str(version)}}}
        self.lines.put_nowait(json.dumps(event).encode() + b"\n")


@pytest.fixture
async def upstream() -> AsyncIterator[tuple[Upstream, str]]:
    found, app = Upstream(), web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    server = TestServer(app)
    await server.start_server()
    yield found, f"http://127.0.0.1:{server.port}"
    found.lines.put_nowait(None)
    await server.close()


@contextmanager
def broken(
    url: str, *faults: Fault, events: Events | None = None, bookmark_seconds: float = 0.0
) -> Iterator[FaultyProxy]:
    given = [] if events is None else [events]
    with faulty_proxy(url, faults=list(faults), events=given, bookmark_seconds=bookmark_seconds) as proxy:
        yield proxy


async def ask(proxy: FaultyProxy, method: str = "PATCH", seconds: float = 5.0) -> tuple[int, dict[str, object]]:
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.request(method, proxy.url + PATH, data=b"x" if method != "GET" else None) as answer,
    ):
        return answer.status, await answer.json()


def writes(call: Call) -> bool:
    return call.is_write


async def test_without_faults_it_passes_everything_on(upstream: tuple[Upstream, str]) -> None:
    with broken(upstream[1]) as proxy:
        assert await ask(proxy) == (200, {"asked": 1, "body": "x"})
        assert proxy.calls == [Call("patch", "llmdeployments", "team")]


async def test_an_answer_of_the_proxy_reaches_no_server(upstream: tuple[Upstream, str]) -> None:
    fault = Answer(writes, after=1, times=1, status=429, headers={"Retry-After": "2"})
    with broken(upstream[1], fault) as proxy:
        assert [(await ask(proxy))[0] for _ in range(3)] == [200, 429, 200]
        assert (await ask(proxy, "GET"))[0] == 200
    assert (fault.seen, fault.fired) == (3, 1)
    assert upstream[0].done == ["PATCH", "PATCH", "GET"]


async def test_every_other_request_can_be_hit(upstream: tuple[Upstream, str]) -> None:
    with broken(upstream[1], Answer(writes, every=2, status=503)) as proxy:
        assert [(await ask(proxy))[0] for _ in range(4)] == [200, 503, 200, 503]


async def test_a_share_of_the_requests_can_be_hit_at_random(upstream: tuple[Upstream, str]) -> None:
    with broken(upstream[1], Answer(writes, share=0.5, status=503)) as proxy:
        statuses = [(await ask(proxy))[0] for _ in range(20)]
    assert {200, 503} == {*statuses}
    assert statuses != [200, 503] * 10


@pytest.mark.parametrize(("kind", "done"), [(Cut, []), (LoseAnswer, ["PATCH"])])
async def test_a_cut_before_or_after_the_server_did_it(
    upstream: tuple[Upstream, str], kind: type[Fault], done: list[str]
) -> None:
    with broken(upstream[1], kind(writes)) as proxy:
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask(proxy)
        assert upstream[0].done == done


async def test_something_can_happen_between_the_write_and_its_answer(upstream: tuple[Upstream, str]) -> None:
    told: list[list[str]] = []
    fault = LoseAnswer(writes, then=lambda: told.append(list(upstream[0].done)))
    with broken(upstream[1], fault) as proxy, pytest.raises(aiohttp.ClientConnectionError):
        await ask(proxy)
    assert told == [["PATCH"]]


async def test_an_answer_can_be_withheld(upstream: tuple[Upstream, str]) -> None:
    with broken(upstream[1], Withhold(writes)) as proxy, pytest.raises(TimeoutError):
        await ask(proxy, seconds=0.2)
    assert upstream[0].done == ["PATCH"]


async def test_a_delay_is_a_delay(upstream: tuple[Upstream, str]) -> None:
    with broken(upstream[1], Delay(writes, seconds=0.2)) as proxy:
        with pytest.raises(TimeoutError):
            await ask(proxy, seconds=0.05)
        proxy.heal()
        assert (await ask(proxy))[0] == 200


async def test_a_request_is_held_until_it_is_released(upstream: tuple[Upstream, str]) -> None:
    fault = Hold(writes)
    with broken(upstream[1], fault) as proxy:
        with pytest.raises(TimeoutError):
            await ask(proxy, seconds=0.1)
        assert upstream[0].done == []
        await asyncio.to_thread(proxy.release, fault)
        assert (await ask(proxy))[0] == 200


async def test_a_stale_list_is_the_last_one_before_the_fault(upstream: tuple[Upstream, str]) -> None:
    with broken(upstream[1]) as proxy:
        assert (await ask(proxy, "GET"))[1]["asked"] == 1
        assert (await ask(proxy, "GET"))[1]["asked"] == 2
        proxy.faults.append(StaleList(lambda call: call.verb == "list"))
        assert (await ask(proxy, "GET"))[1]["asked"] == 2
        proxy.heal()
        assert (await ask(proxy, "GET"))[1]["asked"] == 3


async def heard(proxy: FaultyProxy, count: int) -> list[tuple[str, str]]:
    """Return the first events of a watch."""
    found: list[tuple[str, str]] = []
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{proxy.url}{PATH}?watch=true&resourceVersion=7") as answer,
    ):
        async for line in answer.content:
            event = json.loads(line)
            found.append((event["type"], event["object"]["metadata"]["resourceVersion"]))
            if len(found) == count:
                return found
    return found


def everything(call: Call) -> bool:
    return True


async def test_a_watch_comes_as_it_is(upstream: tuple[Upstream, str]) -> None:
    with broken(upstream[1]) as proxy:
        for version in (8, 9):
            upstream[0].say("ADDED", version)
        assert await heard(proxy, 2) == [("ADDED", "8"), ("ADDED", "9")]


async def test_a_refused_watch_is_answered_as_the_server_did(upstream: tuple[Upstream, str]) -> None:
    upstream[0].refusal = 403
    with broken(upstream[1]) as proxy:
        async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}{PATH}?watch=true") as answer:
            assert (answer.status, await answer.json()) == (403, {"kind": "Status", "code": 403})
        assert proxy.statuses[403] == 1


async def test_late_events_keep_their_order(upstream: tuple[Upstream, str]) -> None:
    events = Events(everything, seconds=0.1)
    with broken(upstream[1], events=events) as proxy:
        for version in range(8, 12):
            upstream[0].say("MODIFIED", version)
        assert [version for _, version in await heard(proxy, 4)] == ["8", "9", "10", "11"]
    assert events.fired == 4


async def test_reordered_events_all_come_and_bookmarks_last(upstream: tuple[Upstream, str]) -> None:
    with broken(upstream[1], events=Events(everything, window=0.2)) as proxy:
        for version in range(10, 20):
            upstream[0].say("MODIFIED", version)
        upstream[0].say("BOOKMARK", 20)
        versions = [version for _, version in await heard(proxy, 11)]
        assert sorted(versions[:-1]) == [str(version) for version in range(10, 20)]
        assert versions[:-1] != sorted(versions[:-1])
        assert versions[-1] == "20"


async def test_dropped_events_never_come_but_bookmarks_do(upstream: tuple[Upstream, str]) -> None:
    events = Events(everything, drop=1.0)
    with broken(upstream[1], events=events) as proxy:
        upstream[0].say("MODIFIED", 8)
        upstream[0].say("BOOKMARK", 9)
        assert await heard(proxy, 1) == [("BOOKMARK", "9")]
    assert events.fired == 1


async def test_events_about_other_objects_come_as_they_are(upstream: tuple[Upstream, str]) -> None:
    events = Events(everything, drop=1.0, about=lambda body: body["metadata"]["resourceVersion"] == "8")
    with broken(upstream[1], events=events) as proxy:
        for version in (8, 9):
            upstream[0].say("MODIFIED", version)
        assert await heard(proxy, 1) == [("MODIFIED", "9")]
    assert events.fired == 1


async def test_faults_are_armed_for_a_while_beside_others(upstream: tuple[Upstream, str]) -> None:
    first, second = Answer(writes, status=500), Answer(writes, status=500)
    with broken(upstream[1], first) as proxy:
        with proxy.broken([second], [Events(everything)]):
            assert proxy.faults == [first, second]
            assert len(proxy.events) == 1
        assert [fault is first for fault in proxy.faults] == [True]
        assert proxy.events == []


async def test_a_watch_is_cut_after_some_events(upstream: tuple[Upstream, str]) -> None:
    with broken(upstream[1], events=Events(everything, cut_after=2)) as proxy:
        for version in (8, 9, 10):
            upstream[0].say("ADDED", version)
        with pytest.raises(aiohttp.ClientPayloadError):
            await heard(proxy, 3)


async def test_all_watches_are_cut(upstream: tuple[Upstream, str]) -> None:
    with broken(upstream[1]) as proxy:
        upstream[0].say("ADDED", 8)
        async with aiohttp.ClientSession() as session, session.get(f"{proxy.url}{PATH}?watch=true") as answer:
            assert await answer.content.readline()
            await asyncio.to_thread(proxy.cut_watches)
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.readline()


async def test_connections_are_cut_and_open_again(upstream: tuple[Upstream, str]) -> None:
    with broken(upstream[1]) as proxy:
        async with aiohttp.ClientSession() as session:
            async with session.get(proxy.url + PATH) as answer:
                assert await answer.json()
            await asyncio.to_thread(proxy.cut_connections)
            async with session.get(proxy.url + PATH) as answer:
                assert (await answer.json())["asked"] == 2
        assert proxy.statuses == {200: 2}


async def test_a_silent_watch_stays_open_and_brings_no_bookmark(upstream: tuple[Upstream, str]) -> None:
    with broken(upstream[1], events=Events(everything, silent=True), bookmark_seconds=0.02) as proxy:
        upstream[0].say("ADDED", 8)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await heard(proxy, 1)


@pytest.mark.parametrize(("said", "version"), [((), "7"), ((8,), "8")])
async def test_the_proxy_sends_bookmarks_of_its_own(
    upstream: tuple[Upstream, str], said: tuple[int, ...], version: str
) -> None:
    with broken(upstream[1], bookmark_seconds=0.02) as proxy:
        for number in said:
            upstream[0].say("ADDED", number)
        found = await heard(proxy, 2 + len(said))
        assert found[-2:] == [("BOOKMARK", version)] * 2
