"""Conversion of energy into money and carbon, and the options of commands that print energy."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from energylens.budget.carbon import ForecastError, parse_forecast
from energylens.cli.errors import InputError
from energylens.cli.inputs.decorated import with_options
from energylens.clock import SystemClock
from energylens.records import dataclass

_Command = TypeVar("_Command", bound=Callable[..., Any])

HOURS_PER_MONTH = 730.0
"""Hours of an average month."""
_JOULES_PER_KILOWATT_HOUR = 3.6e6


@dataclass(frozen=True)
class Grid:
    """Carbon intensity of the grid."""

    grams: float
    """CO2 equivalent per kWh, g."""
    source: str = ""
    """The service, its place and the hours, in words; empty for a figure that the user stated."""


@dataclass(frozen=True)
class Rates:
    """Prices of GPU energy; None for a price that was not stated."""

    price: float | None = None
    """Price of a kWh, in any currency."""
    pue: float = 1.0
    """Energy of the site over the energy of its machines."""
    grid: Grid | None = None
    host_watts: float | None = None
    """Power of the hosts, W per GPU that is held. It is shown apart from the GPUs' power, which is predicted or
    measured."""

    @property
    def is_stated(self) -> bool:
        """Whether the user stated any of the rates."""
        return self != NO_RATES

    def of(self, kilowatt_hours: float) -> dict[str, float]:
        """Return the site's kWh, the cost and the kg of CO2 equivalent of the machines' energy; only known figures."""
        site = kilowatt_hours * self.pue
        found = {"kilowattHours": site}
        if self.price is not None:
            found["money"] = site * self.price
        if self.grid is not None:
            found["kilogramsCO2"] = site * self.grid.grams / 1000.0
        return found

    def month(self, watts: float) -> dict[str, float]:
        """Return :meth:`of` a month at a mean power, W."""
        return self.of(watts * HOURS_PER_MONTH / 1000.0)

    def million_tokens(self, joules_per_output_token: float) -> dict[str, float]:
        """Return :meth:`of` a million output tokens."""
        return self.of(1e6 * joules_per_output_token / _JOULES_PER_KILOWATT_HOUR)

    @property
    def text(self) -> str:
        """Return a sentence on what the figures include and leave out."""
        energy = "energy of the GPUs alone, without hosts and cooling (--pue)"
        if self.pue != 1.0:
            energy = f"energy of the GPUs times a PUE of {self.pue:g}, without their hosts"
        if self.grid is None or not self.grid.source:
            return energy
        return f"{energy}; {self.grid.grams:.0f} g CO2e per kWh, the mean of {self.grid.source}"


NO_RATES = Rates()
"""Rates without money or carbon."""


def grid_of(ctx: click.Context, param: click.Parameter, value: str | None) -> Grid | None:
    """Return the intensity of a number, of a forecast in a file, or of a service's place; the callback of --grid.

    Raises:
        click.BadParameter: The value is none of them, or the service gives no usable answer.
    """
    if value is None:
        return None
    try:
        grams = float(value)
    except ValueError:
        return _of_service(value) or Grid(_mean_of(Path(value)))
    if not (math.isfinite(grams) and grams >= 0):
        raise click.BadParameter(f"{value!r} must be a number of grams, at least 0")
    return Grid(grams)


def _of_service(value: str) -> Grid | None:
    """Return the mean intensity of a place; None if the value names no service."""
    if value.partition(":")[0] not in ("electricitymaps", "watttime"):
        return None
    # The HTTP client takes longer to import than most commands to run.
    from energylens.cli.inputs.grid import intensity, place_of

    try:
        place = place_of(value)
        if place is None:
            return None
        found = intensity(place, os.environ, SystemClock().now())
    except InputError as error:
        raise click.BadParameter(str(error)) from error
    span = f"{found.times[0]:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC"
    return Grid(found.mean(found.times[0], found.end), f"{place.text}, {span}")


def _mean_of(path: Path) -> float:
    try:
        forecast = parse_forecast(path.read_text(encoding="utf-8"))
        return forecast.mean(forecast.times[0], forecast.end)
    except OSError as error:
        raise click.BadParameter(
            f"{str(path)!r} is neither a number of grams nor a forecast that can be read: {error.strerror}"
        ) from error
    except (UnicodeDecodeError, ForecastError) as error:
        why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise click.BadParameter(f"{path}: {why}") from error


def rates_options(command: _Command) -> Callable[..., Any]:
    """Add --price, --pue, --grid and --host-watts; the command takes them as ``rates``."""

    @wraps(command)
    def wrapped(*, price: float | None, pue: float, grid: Grid | None, host_watts: float | None, **rest: Any) -> Any:
        return command(rates=Rates(price, pue, grid, host_watts), **rest)

    options = (
        click.option("--price", type=click.FloatRange(min=0), help="Price of a kWh, in any currency."),
        click.option(
            "--pue",
            type=click.FloatRange(1, 5),
            default=1.0,
            show_default=True,
            help="Energy of the site over the energy of its machines.",
        ),
        click.option(
            "--grid",
            callback=grid_of,
            metavar="GRAMS|FILE|SERVICE:PLACE",
            help="CO2 equivalent of a kWh, g; or a file with a forecast as EnergyBudgets read it, or "
            "electricitymaps:ZONE, electricitymaps:ZONE:history (the last day) or watttime:REGION, whose mean is "
            "taken. The services need ELECTRICITYMAPS_TOKEN, or WATTTIME_USER and WATTTIME_PASSWORD; "
            "ELECTRICITYMAPS_TOKEN_FILE and WATTTIME_PASSWORD_FILE name files instead.",
        ),
        click.option(
            "--host-watts",
            type=click.FloatRange(min=0),
            metavar="WATTS",
            help="Power of the hosts per GPU held, W; shown apart from the GPUs' power.",
        ),
    )
    return with_options(wrapped, options)
