"""The grid's carbon intensity by two services: Electricity Maps and WattTime, over HTTP.

Electricity Maps (API v3) has the average intensity of the electricity that a zone consumes, emissions of the life cycle
included, g of CO2 equivalent per kWh. WattTime (API v3, signal ``co2_moer``) has the marginal intensity of a region,
lb of CO2 per MWh: the emissions that one more MWh would cause. The two answer different questions, so figures name the
service and the kind.

Sources: the services' API references (docs.electricitymaps.com, docs.watttime.org).
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping
from datetime import MAXYEAR, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp

from energylens.budget.carbon import Forecast, ForecastError, hourly
from energylens.measure.scrape import MEBIBYTE, HttpSession
from energylens.records import dataclass
from energylens.tls import client_context

Service = Literal["electricitymaps", "watttime"]
Span = Literal["forecast", "history"]

GRAMS_PER_POUND = 453.59237
"""The international avoirdupois pound, exact."""
FREE_REGION = "CAISO_NORTH"
"""The region that WattTime opens to accounts without a subscription."""
ADDRESSES: Mapping[Service, str] = {
    "electricitymaps": "https://api.electricitymaps.com",
    "watttime": "https://api.watttime.org",
}
_TITLES: Mapping[Service, str] = {"electricitymaps": "Electricity Maps", "watttime": "WattTime"}
_KINDS: Mapping[Service, str] = {
    "electricitymaps": "average of consumption, life cycle",
    "watttime": "marginal, CO2 alone",
}
_PLACE = re.compile(r"[A-Za-z0-9_-]{1,40}")
_WATTTIME_UNITS = "lbs_co2_per_mwh"
_MAX_TEXT = 300
_MOST = 1e6
"""Upper bound of an answer's intensities; coal has about 1,000 g/kWh, or 2,200 lb/MWh."""


class GridError(Exception):
    """There is no usable intensity; the message is one line and holds no credentials."""


@dataclass(frozen=True)
class GridPlace:
    """A zone of Electricity Maps or a region of WattTime, and the hours to read."""

    service: Service
    place: str
    span: Span = "forecast"

    def __str__(self) -> str:
        return f"{self.service}:{self.place}" + (":history" if self.span == "history" else "")

    @property
    def text(self) -> str:
        """The source in words, for the foot of a table."""
        hours = "the last hours" if self.span == "history" else "the forecast"
        return f"{hours} of {_TITLES[self.service]} for {self.place} ({_KINDS[self.service]})"


@dataclass(frozen=True)
class GridCredentials:
    """Credentials of a service: a token of Electricity Maps, or user and password of WattTime."""

    secret: str
    user: str = ""


def grid_place(text: str) -> GridPlace | None:
    """Return the place of ``electricitymaps:ZONE``, ``electricitymaps:ZONE:history`` or ``watttime:REGION``.

    None if the text names neither service.

    Raises:
        GridError: The text names a service, and is wrong after that.
    """
    service, _, rest = text.partition(":")
    place, colon, span = rest.partition(":")
    if service == "electricitymaps":
        if not _PLACE.fullmatch(place) or (colon and span != "history"):
            raise GridError(
                f"{text!r} must be electricitymaps:ZONE or electricitymaps:ZONE:history, such as electricitymaps:DE"
            )
        return GridPlace("electricitymaps", place, "history" if colon else "forecast")
    if service == "watttime":
        if not _PLACE.fullmatch(place) or colon:
            raise GridError(f"{text!r} must be watttime:REGION, such as watttime:{FREE_REGION}")
        return GridPlace("watttime", place)
    return None


class GridHttp(HttpSession):
    """An HTTP session with a service, as an async context manager.

    It follows no redirects, which would leak the credentials, and uses the proxies of the environment, since the
    services are outside of most sites.
    """

    def __init__(
        self,
        address: str,
        credentials: GridCredentials,
        *,
        timeout_seconds: float = 15.0,
        max_bytes: int = 4 * MEBIBYTE,
    ) -> None:
        """Set the limits: seconds for a whole request, bytes of a decompressed body.

        Raises:
            GridError: The address would send the credentials in clear text to another machine.
        """
        super().__init__()
        _check_address(address)
        self._address = address.rstrip("/")
        self._credentials = credentials
        self._timeout = timeout_seconds
        self._max_bytes = max_bytes

    async def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            connector=aiohttp.TCPConnector(ssl=await asyncio.to_thread(client_context)),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,
        )

    async def read(self, place: GridPlace) -> Forecast:
        """Return the intensity of a place by hour, g/kWh.

        Raises:
            GridError: The service refuses, or its answer cannot be used.
            RuntimeError: outside of ``async with``.
        """
        try:
            if place.service == "electricitymaps":
                return await self._electricity_maps(place)
            return await self._watttime(place)
        except GridError as error:
            raise GridError(f"{_TITLES[place.service]}: {error}") from error

    async def _electricity_maps(self, place: GridPlace) -> Forecast:
        status, body, wait = await self._get(
            f"/v3/carbon-intensity/{place.span}", {"zone": place.place}, {"auth-token": self._credentials.secret}
        )
        if status in (401, 403):
            free = f"; a free token reads electricitymaps:{place.place}:history, if its zone is {place.place}"
            more = free if place.span == "forecast" else ""
            raise GridError(f"refused the token for the {place.span} of zone {place.place}{_said(status, body)}{more}")
        if status in (400, 404):
            raise GridError(f"has no {place.span} of zone {place.place}{_said(status, body)}")
        return electricity_maps_hours(_document(status, body, wait), place)

    async def _watttime(self, place: GridPlace) -> Forecast:
        pair = f"{self._credentials.user}:{self._credentials.secret}".encode()
        login = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        status, body, wait = await self._get("/login", {}, login)
        if status in (401, 403):
            raise GridError(f"refused the user {self._credentials.user!r} or the password{_said(status, body)}")
        token = _document(status, body, wait).get("token")
        # A token with other characters could forge headers.
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise GridError("answered the login without a token")
        query = {"region": place.place, "signal_type": "co2_moer"}
        status, body, wait = await self._get("/v3/forecast", query, {"Authorization": f"Bearer {token}"})
        if status in (401, 403):
            free = "" if place.place == FREE_REGION else f"; without a subscription, accounts read {FREE_REGION} only"
            raise GridError(f"refused the forecast of region {place.place}{_said(status, body)}{free}")
        if status in (400, 404, 422):
            raise GridError(f"has no forecast of region {place.place}{_said(status, body)}")
        return watttime_hours(_document(status, body, wait), place)

    async def _get(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> tuple[int, bytes, str]:
        """Return status, body and the header Retry-After of an answer."""
        session = self._session
        try:
            async with session.get(
                f"{self._address}{path}", params=dict(query), headers=dict(headers), allow_redirects=False
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_chunked(1 << 16):
                    body += chunk
                    if len(body) > self._max_bytes:
                        raise GridError(f"answered with more than {self._max_bytes} bytes")
                return response.status, bytes(body), response.headers.get("Retry-After", "")
        except TimeoutError as error:
            raise GridError(f"no answer within {self._timeout:g} s") from error
        except aiohttp.InvalidURL as error:
            raise GridError(f"{self._address!r} is not a URL") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise GridError(_one_line(str(error)) or type(error).__name__) from error


def electricity_maps_hours(document: Mapping[str, Any], place: GridPlace) -> Forecast:
    """Return the hours of an answer of ``/v3/carbon-intensity/forecast`` or ``/history``.

    Raises:
        GridError: The answer is of another zone, which the service chooses by the caller's address when it does not
            know the requested one; or the answer cannot be read.
    """
    if document.get("zone") != place.place:
        raise GridError(f"answered for zone {_shown(document.get('zone'))} instead of {place.place}")
    return _hours(document.get(place.span), place.span, "datetime", "carbonIntensity", 1.0)


def watttime_hours(document: Mapping[str, Any], place: GridPlace) -> Forecast:
    """Return the hours of an answer of ``/v3/forecast``, converted from lb/MWh to g/kWh.

    Raises:
        GridError: The answer is of another region, signal or unit, or cannot be read.
    """
    meta = document.get("meta")
    if not isinstance(meta, Mapping):
        raise GridError("answered without meta")
    for key, wanted in (("region", place.place), ("signal_type", "co2_moer"), ("units", _WATTTIME_UNITS)):
        if meta.get(key) != wanted:
            raise GridError(f"answered with {key} {_shown(meta.get(key))} instead of {wanted}")
    return _hours(document.get("data"), "data", "point_time", "value", GRAMS_PER_POUND / 1000.0)


def _hours(rows: object, name: str, time_key: str, value_key: str, factor: float) -> Forecast:
    if not isinstance(rows, list):
        raise GridError(f"answered without {name}")
    points = []
    for row in rows:
        if not isinstance(row, Mapping):
            raise GridError(f"answered with a row of {name} that is not an object: {_shown(row)}")
        time, value = _moment(row.get(time_key)), row.get(value_key)
        if time is None:
            raise GridError(f"answered with {time_key} {_shown(row.get(time_key))}, which is not a time with a zone")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MOST:
            raise GridError(
                f"answered with {value_key} {_shown(value)} at {row[time_key]}, no number from 0 to {_MOST:g}"
            )
        points.append((time, value * factor))
    try:
        return hourly(points)
    except ForecastError as error:
        raise GridError(f"the answer {error}") from error


def _moment(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    usable = found is not None and found.tzinfo is not None and 1 < found.year < MAXYEAR
    return found if usable else None


def _document(status: int, body: bytes, wait: str) -> Mapping[str, Any]:
    if status == 429:
        later = f"; retry after {_shown(wait)}" if wait else ""
        raise GridError(f"refused the request, because too many were made{_said(status, body)}{later}")
    if status != 200:
        raise GridError(f"answered with status {status}{_said(None, body)}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise GridError("answered with something that is not a JSON object")
    return document


def _said(status: int | None, body: bytes) -> str:
    """Return the status, and the service's own message if there is one."""
    number = "" if status is None else f" (status {status})"
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return number
    if isinstance(document, Mapping):
        for key in ("message", "error", "detail"):
            if isinstance(document.get(key), str) and document[key].strip():
                return f"{number}: {_one_line(document[key])}"
    return number


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise GridError(f"{address!r} is not a URL of http or https")
    if parts.scheme == "http" and host not in ("127.0.0.1", "::1", "localhost"):
        raise GridError(f"{address!r} would send credentials in clear text: use https")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MAX_TEXT]


def _shown(value: object) -> str:
    return _one_line(repr(value))[:80]
