"""The time of the last data of each watch: an API server sends at least a bookmark every minute.

kopf opens another watch when nothing came for 70 s and says nothing about it, also where that watch brings nothing
either. So what arrives is noted where it arrives, in the responses of kopf's session.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import aiohttp
from yarl import URL

from energylens.clock import Clock

_GONE = 410
"""Answer to a page of a list whose first pages the API server no longer has: lists that take longer than some minutes.
kopf would end, and with it all watches. After a list that broke off kopf lists that one kind again, so kopf is told
that it broke off."""


class Heartbeats:
    """The watches by URL path, and the time of their last data."""

    def __init__(self, clock: Clock) -> None:
        """Begin without a watch."""
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._began = clock.monotonic()
        self._lists: dict[str, int] = {}
        """How often each list was begun, by URL path."""
        self._sessions: list[aiohttp.ClientSession] = []

    def asked(self, path: str) -> None:
        """Record that a watch is opened; a watch that follows a silent one keeps its time of last data."""
        self._heard.setdefault(path, self._clock.monotonic())

    def heard(self, path: str) -> None:
        """Record data from a watch."""
        self._heard[path] = self._clock.monotonic()

    def failed(self, path: str) -> None:
        """Record that a watch cannot be opened: its silence has a cause that a restart by the kubelet cannot remove."""
        self._heard.pop(path, None)
        self._began = self._clock.monotonic()

    def clear(self) -> None:
        """Forget all watches and lists, because others begin."""
        self._heard.clear()
        self._lists.clear()
        self._began = self._clock.monotonic()

    def listed(self, path: str) -> None:
        """Record that the list before a watch is begun."""
        self._lists[path] = self._lists.get(path, 0) + 1

    @property
    def has_listed_again(self) -> bool:
        """Whether a list was made twice: nothing tells what went between a list that broke off and the next one."""
        return any(count > 1 for count in self._lists.values())

    def excuse(self, since: float) -> None:
        """Count no silence from ``since`` until now, monotonic s: it had a cause that a restart would not remove.

        A watch that was silent before goes on from there, so that a problem that comes and goes hides no dead watch.
        """
        now = self._clock.monotonic()
        self._heard = {path: min(now, at + now - max(at, since)) for path, at in self._heard.items()}
        self._began += now - max(self._began, since)

    def longest(self) -> tuple[str, float]:
        """Return the watch that has been silent for longest, such as ``/api/v1/nodes``, and for how many seconds.

        While there is no watch the path is "", and the seconds count from when one could have been opened.
        """
        now = self._clock.monotonic()
        if not self._heard:
            return "", now - self._began
        path = min(self._heard, key=self._heard.__getitem__)
        return path, now - self._heard[path]

    def session(self, **arguments: Any) -> aiohttp.ClientSession:
        """Return an HTTP session for kopf that records its watches; call it in the event loop that uses the session.

        ``arguments`` are those of :class:`aiohttp.ClientSession`.
        """
        made = _heard_session(self, **arguments)
        self._sessions.append(made)
        return cast(aiohttp.ClientSession, _KeptOpen(made))

    async def close_sessions(self) -> None:
        """Close the sessions; kopf has ended."""
        while self._sessions:
            await self._sessions.pop().close()


class _KeptOpen:
    """A session that kopf cannot close.

    kopf closes it before its watches have ended, which then log in again and wait for an answer for ever.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def close(self) -> None:
        """Do nothing; see :meth:`Heartbeats.close_sessions`."""


class _HeardContent:
    """The body of a response that records its chunks."""

    def __init__(self, content: aiohttp.StreamReader, heard: Callable[[], None]) -> None:
        self._content = content
        self._note = heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Yield chunks as the body does."""
        async for chunk in self._content.iter_chunked(size):
            self._note()
            yield chunk


def _heard_session(heartbeats: Heartbeats, **arguments: Any) -> aiohttp.ClientSession:
    class HeardResponse(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            response = await super().start(connection)
            if _is_watch(self.url):
                path = self.url.path
                if self.status >= 300:
                    heartbeats.failed(path)
                content = _HeardContent(self.content, lambda: heartbeats.heard(path))
                self.content = cast(aiohttp.StreamReader, content)
            elif self.status == _GONE and self.url.query.get("continue"):
                raise aiohttp.ClientPayloadError(f"{self.url.path}: the list was compacted between two pages")
            return response

    async def started(session: Any, context: Any, request: aiohttp.TraceRequestStartParams) -> None:
        query = request.url.query
        if _is_watch(request.url):
            heartbeats.asked(request.url.path)
        elif "limit" in query and "continue" not in query:
            heartbeats.listed(request.url.path)

    async def failed(session: Any, context: Any, request: aiohttp.TraceRequestExceptionParams) -> None:
        # kopf abandons a watch without any answer by cancellation or time-out.
        if _is_watch(request.url) and isinstance(request.exception, aiohttp.ClientConnectionError):
            heartbeats.failed(request.url.path)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(started)
    trace.on_request_exception.append(failed)
    return aiohttp.ClientSession(response_class=HeardResponse, trace_configs=[trace], **arguments)


def _is_watch(url: URL) -> bool:
    return url.query.get("watch") == "true"
