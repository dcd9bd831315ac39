"""A proxy in front of an API server that breaks the requests and the watch events that its faults choose.

The operator's whole connection goes through it, kopf's watches as well as our own client, so that faults are those of
the wire: status codes, cut connections, late, missing and reordered events. What the server did stays done.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from tests.support.api_calls import Call, call_of

Object = dict[str, Any]
Matches = Callable[[Call], bool]
SKIPPED_HEADERS = frozenset(("host", "connection", "transfer-encoding", "content-length", "content-encoding"))
"""Headers that belong to one connection, or that the libraries set anew."""


@dataclass
class Fault:
    """What happens to requests that match: to each ``every``-th after the first ``after``, ``times`` times."""

    matches: Matches
    after: int = 0
    times: float = float("inf")
    every: int = 1
    share: float = 1.0
    """Of those, at random: a fault in step with the client's own retries would hit the same request for ever."""
    draw: random.Random = field(default_factory=lambda: random.Random(0), compare=False)
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)
    at: list[float] = field(default_factory=list, init=False)
    """When each request that matches came, in seconds of one clock."""

    def strikes(self, call: Call) -> bool:
        """Return whether this request is hit; counts it."""
        if not self.matches(call):
            return False
        self.seen += 1
        self.at.append(time.monotonic())
        number = self.seen - self.after
        if number < 1 or number % self.every or self.fired >= self.times or self.draw.random() >= self.share:
            return False
        self.fired += 1
        return True


@dataclass
class Answer(Fault):
    """The proxy answers, and the server never hears of the request."""

    status: int = 500
    reason: str = "InternalError"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Cut(Fault):
    """The connection is cut before the server hears of the request."""


@dataclass
class LoseAnswer(Fault):
    """The server does what it is asked, and the client's connection is cut before the answer."""

    then: Callable[[], None] = lambda: None
    """Called before the cut: such as the death of the client."""


@dataclass
class Withhold(Fault):
    """The server does what it is asked, and the client hears nothing until its time is up."""


@dataclass
class Delay(Fault):
    """The server hears of the request later."""

    seconds: float = 1.0


@dataclass
class Hold(Fault):
    """The server hears of the request once it is released; see :meth:`FaultyProxy.release`."""

    released: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class StaleList(Fault):
    """A list is answered as it was when it was last asked for before the fault was armed."""


@dataclass
class Events:
    """What happens to the watch events of the resources that match."""

    matches: Matches
    """Of the watch, not of its events."""
    seconds: float = 0.0
    """Every event comes so much later."""
    window: float = 0.0
    """Events within so many seconds come in another order; a bookmark comes after what was before it."""
    drop: float = 0.0
    """The share of the events that never come; bookmarks do."""
    cut_after: int = 0
    """The connection is cut after so many events; 0: never."""
    silent: bool = False
    """The connection stays open, and nothing comes, not even a bookmark."""
    about: Callable[[Object], bool] = lambda body: True
    """Of the object of an event: others come as they are; a bookmark is about all."""
    fired: int = field(default=0, init=False)


@dataclass
class FaultyProxy:
    """The proxy; faults may be armed and taken away from any thread while it runs."""

    upstream: str
    """URL of the API server."""
    upstream_tls: ssl.SSLContext | None = None
    tls: ssl.SSLContext | None = None
    """With which the proxy is connected to; a certificate that is loaded later holds for later connections."""
    faults: list[Fault] = field(default_factory=list)
    events: list[Events] = field(default_factory=list)
    bookmark_seconds: float = 0.0
    """How often a healthy watch gets a bookmark of the proxy's, besides those of the server each minute; 0: never."""
    url: str = ""
    seed: int = 0
    calls: list[Call] = field(default_factory=list)
    """Requests in the order in which they came."""
    statuses: Counter[int] = field(default_factory=Counter)
    """How often the server answered what; 410 also where a watch says so in an event."""
    _lists: dict[str, tuple[dict[str, str], bytes]] = field(default_factory=dict, init=False)
    _watches: set[asyncio.Task[Any]] = field(default_factory=set, init=False)
    _transports: weakref.WeakSet[asyncio.Transport] = field(default_factory=weakref.WeakSet, init=False)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop, init=False)
    _arming: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def heal(self) -> None:
        """Take all faults away."""
        self.faults, self.events = [], []

    @contextmanager
    def broken(self, faults: Sequence[Fault] = (), events: Sequence[Events] = ()) -> Iterator[None]:
        """Arm faults for a while, beside those that others have armed."""
        with self._arming:
            self.faults, self.events = [*self.faults, *faults], [*self.events, *events]
        try:
            yield
        finally:
            with self._arming:
                # By identity: equal faults of others stay.
                self.faults = [fault for fault in self.faults if not any(fault is ours for ours in faults)]
                self.events = [event for event in self.events if not any(event is ours for ours in events)]

    def release(self, held: Hold) -> None:
        """Let go what is held, and hold nothing from now on."""
        self._at_once(held.released.set)

    def cut_watches(self) -> None:
        """Cut every watch that is open."""

        def cut() -> None:
            for task in self._watches:
                task.cancel()

        self._at_once(cut)

    def cut_connections(self) -> None:
        """Cut every connection, those that are idle as well."""

        def cut() -> None:
            for transport in list(self._transports):
                transport.abort()

        self._at_once(cut)

    def _at_once(self, cut: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            cut()
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait(10)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        call = call_of(request.method, request.path, request.query)
        self.calls.append(call)
        if request.transport is not None:
            self._transports.add(request.transport)
        struck = [fault for fault in self.faults if fault.strikes(call)]
        for fault in struck:
            match fault:
                case Answer():
                    return _status(fault)
                case Cut():
                    return _cut(request)
                case Delay():
                    await asyncio.sleep(fault.seconds)
                case Hold():
                    await fault.released.wait()
        try:
            return await self._passed(request, call, struck)
        except aiohttp.ClientConnectionError:
            # What the client would see of a server that is gone.
            return _cut(request)

    async def _passed(self, request: web.Request, call: Call, struck: list[Fault]) -> web.StreamResponse:
        if call.verb == "watch":
            return await self._watch(request, call)
        question = request.path_qs + request.headers.get("Accept", "")
        if question in self._lists and any(isinstance(fault, StaleList) for fault in struck):
            return web.Response(headers=self._lists[question][0], body=self._lists[question][1])
        status, headers, body = await self._forward(request)
        if call.verb == "list" and status == 200:
            self._lists[question] = headers, body
        for fault in struck:
            match fault:
                case LoseAnswer():
                    fault.then()
                    return _cut(request)
                case Withhold():
                    await asyncio.sleep(3600)
        return web.Response(status=status, headers=headers, body=body)

    async def _forward(self, request: web.Request) -> tuple[int, dict[str, str], bytes]:
        async with self._session.request(
            request.method,
            self.upstream + request.path_qs,
            headers=_passed_on(request.headers),
            data=await request.read() or None,
            ssl=self._tls,
        ) as answer:
            self.statuses[answer.status] += 1
            return answer.status, _passed_on(answer.headers), await answer.read()

    async def _watch(self, request: web.Request, call: Call) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        async with self._session.get(
            self.upstream + request.path_qs, headers=_passed_on(request.headers), ssl=self._tls
        ) as upstream:
            self.statuses[upstream.status] += 1
            headers = _passed_on(upstream.headers)
            if upstream.status != 200:
                # A refusal, such as that of an API server that is still starting, is no stream of events.
                return web.Response(status=upstream.status, headers=headers, body=await upstream.read())
            response = web.StreamResponse(status=upstream.status, headers=headers)
            await response.prepare(request)
            self._watches.add(task)
            try:
                async for line in self._spoilt(call, upstream.content, request.query.get("resourceVersion", "")):
                    await response.write(line)
            except (asyncio.CancelledError, ConnectionError, aiohttp.ClientError, _CutError):
                return _cut(request)
            finally:
                self._watches.discard(task)
            return response

    async def _spoilt(self, call: Call, lines: aiohttp.StreamReader, since: str) -> AsyncIterator[bytes]:
        """Give the lines of a watch as the faults of the moment leave them."""
        loop, passed = asyncio.get_running_loop(), 0
        last = _bookmark({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": since}}})
        held: list[tuple[float, bytes]] = []
        """Lines with the time when they are due."""
        reading = asyncio.ensure_future(lines.readline())
        next_bookmark = loop.time() + self.bookmark_seconds
        try:
            while True:
                due = [held[0][0] - loop.time()] if held else []
                if self.bookmark_seconds:
                    due.append(next_bookmark - loop.time())
                await asyncio.wait({reading}, timeout=max(0.0, min(due)) if due else None)
                spoils = [spoil for spoil in self.events if spoil.matches(call)]
                silent = [spoil for spoil in spoils if spoil.silent]
                if reading.done():
                    line = reading.result()
                    if not line:
                        return
                    reading = asyncio.ensure_future(lines.readline())
                    event = json.loads(line)
                    bookmark = event["type"] == "BOOKMARK"
                    if event["type"] == "ERROR":
                        self.statuses[int(event["object"].get("code", 0))] += 1
                    last = _bookmark(event) or last
                    for spoil in silent:
                        spoil.fired += 1
                    concerned = [spoil for spoil in spoils if bookmark or spoil.about(event["object"])]
                    if not silent and not self._is_dropped(bookmark, concerned):
                        self._hold(held, line, loop.time(), bookmark, concerned)
                while held and held[0][0] <= loop.time():
                    yield held.pop(0)[1]
                    passed += 1
                    for spoil in spoils:
                        if spoil.cut_after and passed >= spoil.cut_after:
                            spoil.fired += 1
                            raise _CutError
                if self.bookmark_seconds and loop.time() >= next_bookmark:
                    next_bookmark = loop.time() + self.bookmark_seconds
                    if last and not silent and not held:
                        yield last.encode()
        finally:
            reading.cancel()

    def _is_dropped(self, bookmark: bool, spoils: list[Events]) -> bool:
        for spoil in spoils:
            if not bookmark and spoil.drop and self._random.random() < spoil.drop:
                spoil.fired += 1
                return True
        return False

    def _hold(
        self, held: list[tuple[float, bytes]], line: bytes, now: float, bookmark: bool, spoils: list[Events]
    ) -> None:
        """Put a line where its time is; without a window lines keep their order."""
        windows = any(spoil.window for spoil in spoils)
        due = now if windows or not held else max(now, held[-1][0])
        for spoil in spoils:
            spoil.fired += bool(spoil.seconds or spoil.window)
            due += spoil.seconds + (spoil.window if bookmark else self._random.random() * spoil.window)
        held.append((due, line))
        held.sort(key=lambda entry: entry[0])

    async def _serve(self) -> web.AppRunner:
        self._tls: ssl.SSLContext | bool = self.upstream_tls if self.upstream_tls is not None else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            # Of one line, which is one object.
            read_bufsize=4 * 1024**2,
        )
        # kopf and our client send bodies below 2 MiB; the server of the real thing takes 3 MiB.
        app = web.Application(client_max_size=4 * 1024**2)
        app.router.add_route("*", "/{path:.*}", self.answer)
        # A client that gives up ends its request here too, as on the real server.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"{'http' if self.tls is None else 'https'}://127.0.0.1:{port}"
        return runner


class _CutError(Exception):
    """The connection is to be cut."""


@contextmanager
def faulty_proxy(
    upstream: str, upstream_tls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None, **given: Any
) -> Iterator[FaultyProxy]:
    """Run a proxy on a free port of loopback, in a thread and a loop of its own.

    Args:
        upstream: URL of the API server.
        upstream_tls: With which the proxy connects to the server.
        tls: With which it is connected to; None for plain HTTP.
        given: Fields of the proxy.
    """
    proxy = FaultyProxy(upstream, upstream_tls, tls, **given)
    loop = proxy._loop
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait_for(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    async def stop(runner: web.AppRunner) -> None:
        for task in proxy._watches:
            task.cancel()
        await runner.cleanup()
        await proxy._session.close()
        # TLS connections to the server close in the background.
        await asyncio.sleep(0.05)

    runner = wait_for(proxy._serve())
    try:
        yield proxy
    finally:
        wait_for(stop(runner))
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in SKIPPED_HEADERS}


def _status(fault: Answer) -> web.Response:
    body = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": fault.status, "reason": fault.reason,
        "message": f"the proxy answers {fault.status}",
    }  # fmt: skip
    return web.json_response(body, status=fault.status, headers=dict(fault.headers))


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _bookmark(event: Object) -> str:
    """Return a bookmark as the server would send one after an event; "" where it names no version."""
    body = event["object"]
    version = (body.get("metadata") or {}).get("resourceVersion")
    if not version or event["type"] == "ERROR":
        return ""
    kept = {"apiVersion": body.get("apiVersion"), "kind": body.get("kind"), "metadata": {"resourceVersion": version}}
    return json.dumps({"type": "BOOKMARK", "object": kept}) + "\n"
