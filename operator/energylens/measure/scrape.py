"""Reading metrics pages over HTTP. Every fault of a target becomes a value that names the target and the fault."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Literal, Protocol, Self

import aiohttp

from energylens.clock import Clock
from energylens.records import dataclass
from energylens.tls import client_context

FailureReason = Literal[
    "Timeout",
    "Unreachable",
    "HTTPStatus",
    "TooLarge",
    "NotText",
    "Malformed",
    "NoEnergyCounter",
    "NoEngineMetrics",
    "Prometheus",
    "NVML",
    "Defect",
]
"""Why a target returned nothing; ``Defect`` means an internal error."""
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class TargetFailure:
    """A target that returned no usable answer."""

    target: str
    """Its URL."""
    reason: FailureReason
    message: str

    def __str__(self) -> str:
        return f"{self.target}: {self.message}"


@dataclass(frozen=True)
class Page:
    """The body of a target's answer."""

    target: str
    text: str
    time: float
    """Time at which the answer began, in seconds since the Unix epoch."""


class Scraper(Protocol):
    """Fetches pages; the only network access of measuring."""

    async def fetch(self, url: str) -> Page | TargetFailure:
        """Return the page at ``url``, or why there is none; faults of the target raise nothing."""
        ...


class HttpSession(ABC):
    """An aiohttp session as an async context manager."""

    def __init__(self) -> None:
        """Create the object without opening a session."""
        self._opened: aiohttp.ClientSession | None = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            raise RuntimeError(f"{type(self).__name__} is used outside of its async with block")
        return self._opened

    @abstractmethod
    async def _open(self) -> aiohttp.ClientSession: ...

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._opened = await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None


class HttpScraper(HttpSession):
    """An aiohttp session with limits, as an async context manager.

    It follows no redirects and ignores proxy settings.
    """

    def __init__(
        self, clock: Clock, *, timeout_seconds: float = 5.0, max_bytes: int = 8 * MEBIBYTE, max_concurrency: int = 32
    ) -> None:
        """Set the limits: seconds for a whole request, bytes of a decompressed body, requests in flight."""
        super().__init__()
        self._clock = clock
        self._timeout = timeout_seconds
        self._max_bytes = max_bytes
        self._slots = asyncio.Semaphore(max_concurrency)

    async def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            connector=aiohttp.TCPConnector(ssl=await asyncio.to_thread(client_context)),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def fetch(self, url: str) -> Page | TargetFailure:
        """Return the page at ``url`` or why there is none.

        Raises:
            RuntimeError: outside of ``async with``.
        """
        session = self._session
        async with self._slots:
            try:
                return await self._get(session, url)
            except TimeoutError:
                return TargetFailure(url, "Timeout", f"no answer within {self._timeout:g} s")
            except aiohttp.InvalidURL:
                return TargetFailure(url, "Unreachable", "not a URL")
            except aiohttp.ClientError as error:
                return TargetFailure(url, "Unreachable", str(error) or type(error).__name__)

    async def _get(self, session: aiohttp.ClientSession, url: str) -> Page | TargetFailure:
        async with session.get(url, allow_redirects=False) as response:
            time = self._clock.now().timestamp()
            if response.status != 200:
                return TargetFailure(url, "HTTPStatus", f"answered with status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                body += chunk
                if len(body) > self._max_bytes:
                    return TargetFailure(url, "TooLarge", f"answered with more than {self._max_bytes} bytes")
        try:
            return Page(url, body.decode("utf-8"), time)
        except UnicodeDecodeError:
            return TargetFailure(url, "NotText", "answered with something that is not UTF-8 text")
