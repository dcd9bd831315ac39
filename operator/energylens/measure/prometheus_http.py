"""The Prometheus HTTP API: authentication, TLS, limits, and the messages of its errors.

Any implementation of ``/api/v1/query`` works: Prometheus, Thanos, Mimir, VictoriaMetrics.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from energylens.measure.scrape import MEBIBYTE, HttpSession
from energylens.records import dataclass
from energylens.tls import client_context


class PrometheusError(Exception):
    """There is no usable answer; the message is one line without the URL."""


@dataclass(frozen=True)
class QueryData:
    """The ``data`` of a successful answer."""

    data: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    """Warnings, such as a Thanos store that did not answer: existing data may be missing."""


class Prometheus(Protocol):
    """A service that evaluates PromQL at one instant."""

    @property
    def url(self) -> str:
        """Base URL, for messages."""
        ...

    async def query(self, expression: str, time: float | None = None) -> QueryData:
        """Evaluate at ``time``, in seconds since the Unix epoch by the server's clock; None means now.

        Raises:
            PrometheusError: there is no usable answer.
        """
        ...


@dataclass(frozen=True)
class Access:
    """How to reach the API."""

    url: str
    """Base URL, without /api/v1."""
    bearer_token_file: Path | None = None
    """Function that reads the token before each request, since tokens are rotated."""
    ca_file: Path | None = None
    """PEM file of the authorities to trust instead of the system's."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of each request, such as X-Scope-OrgID."""


class PrometheusHttp(HttpSession):
    """An HTTP session with one API, as an async context manager.

    It follows no redirects, which would leak the token.
    """

    def __init__(self, access: Access, *, timeout_seconds: float = 15.0, max_bytes: int = 64 * MEBIBYTE) -> None:
        """Set the limits: seconds for a whole request, bytes of a decompressed body."""
        super().__init__()
        self._access = access
        self._timeout = timeout_seconds
        self._max_bytes = max_bytes

    @property
    def url(self) -> str:
        """Base URL."""
        return self._access.url.rstrip("/")

    async def _open(self) -> aiohttp.ClientSession:
        """Return a session.

        Raises:
            PrometheusError: the CA file cannot be used.
        """
        ca_file = self._access.ca_file
        try:
            trust = await asyncio.to_thread(client_context, None if ca_file is None else str(ca_file))
        except OSError as error:  # ssl.SSLError is one
            raise PrometheusError(f"caFile={ca_file}: {error.strerror or error}") from error
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            connector=aiohttp.TCPConnector(ssl=trust),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=dict(self._access.headers),
        )

    async def query(self, expression: str, time: float | None = None) -> QueryData:
        """Evaluate an expression; see `Prometheus.query`.

        Raises:
            PrometheusError: there is no usable answer.
            RuntimeError: outside of ``async with``.
        """
        session = self._session
        parameters = {"query": expression} | ({} if time is None else {"time": f"{time:.3f}"})
        try:
            async with session.get(
                f"{self.url}/api/v1/query",
                params=parameters,
                headers=await asyncio.to_thread(self._authorization),
                allow_redirects=False,
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_chunked(1 << 16):
                    body += chunk
                    if len(body) > self._max_bytes:
                        raise PrometheusError(f"answered with more than {self._max_bytes} bytes")
        except TimeoutError as error:
            raise PrometheusError(f"no answer within {self._timeout:g} s") from error
        except aiohttp.InvalidURL as error:
            raise PrometheusError("not a URL") from error
        except aiohttp.ClientError as error:
            raise PrometheusError(str(error) or type(error).__name__) from error
        return await asyncio.to_thread(_answer, response.status, bytes(body))

    def _authorization(self) -> dict[str, str]:
        path = self._access.bearer_token_file
        if path is None:
            return {}
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise PrometheusError(f"bearerTokenFile={path}: {reason}") from error
        return {"Authorization": f"Bearer {token}"}


def _answer(status: int, body: bytes) -> QueryData:
    """Return the content of an answer; errors of the API have a text in JSON, errors of a proxy do not."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or "status" not in document:
        wanted = "" if status != 200 else " and no JSON of the Prometheus API"
        raise PrometheusError(f"answered with status {status}{wanted}")
    if document["status"] != "success":
        text = " ".join(str(document.get("error") or document.get("errorType") or "no reason given").split())
        raise PrometheusError(f"refused the query: {text[:500]}")
    data = document.get("data")
    if not isinstance(data, dict):
        raise PrometheusError("answered without data")
    return QueryData(data, tuple(str(warning) for warning in document.get("warnings") or ()))
