"""Carbon intensity of a place by a service: credentials from the environment, answers kept for half an hour."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from energylens.budget.carbon import Forecast, ForecastError, csv_of, parse_forecast
from energylens.cli.errors import InputError
from energylens.measure.grid import ADDRESSES, GridCredentials, GridError, GridHttp, GridPlace, grid_place

KEPT = timedelta(minutes=30)
"""Age up to which a kept answer is used; both services publish new values at least once an hour."""
_FUTURE = timedelta(seconds=5)
"""Clocks of file systems may be ahead by this much."""
TIMEOUT_SECONDS = 15.0


def place_of(text: str) -> GridPlace | None:
    """Return the place that a value of --grid names; None if the value names no service.

    Raises:
        InputError: The value names a service, and is wrong after that.
    """
    try:
        return grid_place(text)
    except GridError as error:
        raise InputError(str(error)) from error


def intensity(place: GridPlace, environment: Mapping[str, str], now: datetime) -> Forecast:
    """Return the intensity of a place by hour, kept or read now.

    Args:
        place: The place.
        environment: Variables of the process: credentials, addresses, and the folder of kept answers.
        now: The present.

    Raises:
        InputError: Credentials are missing, or the service gives no usable answer.
    """
    address = environment.get(f"{place.service.upper()}_URL") or ADDRESSES[place.service]
    credentials = _credentials(place, environment)
    path = _kept_at(place, address, credentials, environment)
    kept = _read_kept(path, now)
    if kept is not None:
        return kept
    try:
        found = asyncio.run(_read(place, address, credentials))
    except GridError as error:
        raise InputError(str(error)) from error
    # Keeping is a courtesy to the service; a folder that cannot be written costs a request each time.
    with suppress(OSError):
        _keep(path, found)
    return found


async def _read(place: GridPlace, address: str, credentials: GridCredentials) -> Forecast:
    async with GridHttp(address, credentials, timeout_seconds=TIMEOUT_SECONDS) as http:
        return await http.read(place)


def _credentials(place: GridPlace, environment: Mapping[str, str]) -> GridCredentials:
    if place.service == "electricitymaps":
        return GridCredentials(_secret("ELECTRICITYMAPS_TOKEN", environment, place))
    user = environment.get("WATTTIME_USER", "").strip()
    if not user or ":" in user:
        raise InputError(f"{place} needs the user of an account, without a colon, in WATTTIME_USER")
    return GridCredentials(_secret("WATTTIME_PASSWORD", environment, place), user)


def _secret(name: str, environment: Mapping[str, str], place: GridPlace) -> str:
    """Return a secret: a variable's value, or the first line of the file that the variable with _FILE names."""
    source, secret = name, environment.get(name, "")
    if file := environment.get(f"{name}_FILE"):
        source = f"{name}_FILE={file}"
        try:
            secret = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise InputError(f"{source}: {reason}") from error
    secret = secret.strip()
    if not secret:
        raise InputError(f"{place} needs {name}, or {name}_FILE with the path of a file that holds it")
    if not secret.isprintable():
        raise InputError(f"{source}: has more than one line or characters that cannot be printed")
    return secret


def _kept_at(place: GridPlace, address: str, credentials: GridCredentials, environment: Mapping[str, str]) -> Path:
    """Return the file of a kept answer; other credentials may not read the same places, and have other files."""
    root = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or tempfile.gettempdir()) / ".cache"
    source = "\0".join((address, credentials.user, credentials.secret))
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    return Path(root) / "energylens" / "grid" / f"{str(place).replace(':', '-')}-{digest}.csv"


def _read_kept(path: Path, now: datetime) -> Forecast | None:
    """Return a kept answer; None if there is none, or it is old or damaged."""
    try:
        age = now - datetime.fromtimestamp(path.stat().st_mtime, UTC)
        if not -_FUTURE <= age <= KEPT:
            return None
        return parse_forecast(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ForecastError):
        return None


def _keep(path: Path, found: Forecast) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Another process may read the file at any moment.
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
        try:
            file.write(csv_of(found))
            file.close()
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink()
            raise
