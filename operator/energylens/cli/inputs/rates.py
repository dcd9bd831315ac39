"""Conversion of energy into money and carbon, and the options of commands that print energy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from energylens.budget.carbon import ForecastError, parse_forecast
from energylens.cli.inputs.decorated import with_options

_Command = TypeVar("_Command", bound=Callable[..., Any])

HOURS_PER_MONTH = 730.0
"""Hours of an average month."""
_JOULES_PER_KILOWATT_HOUR = 3.6e6


@dataclass(frozen=True)
class Rates:
    """Prices of GPU energy; None for a price that was not stated."""

    price: float | None = None
    """Price of a kWh, in any currency."""
    pue: float = 1.0
    """Energy of the site over the energy of its machines."""
    grams: float | None = None
    """CO2 equivalent per kWh, g."""
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
        if self.grams is not None:
            found["kilogramsCO2"] = site * self.grams / 1000.0
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
        if self.pue == 1.0:
            return "energy of the GPUs alone, without hosts and cooling (--pue)"
        return f"energy of the GPUs times a PUE of {self.pue:g}, without their hosts"


NO_RATES = Rates()
"""Rates without money or carbon."""


def grid_grams(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return g/kWh of a number, or the mean of a forecast in a file; the callback of --grid.

    Raises:
        click.BadParameter: The value is neither.
    """
    if value is None:
        return None
    try:
        grams = float(value)
    except ValueError:
        return _mean_of(Path(value))
    if not (math.isfinite(grams) and grams >= 0):
        raise click.BadParameter(f"{value!r} is no number of grams from 0 on")
    return grams


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
    def wrapped(*, price: float | None, pue: float, grid: float | None, host_watts: float | None, **rest: Any) -> Any:
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
            callback=grid_grams,
            metavar="GRAMS|FILE",
            help="CO2 equivalent of a kWh, g; or a forecast as EnergyBudgets read it, whose mean is taken.",
        ),
        click.option(
            "--host-watts",
            type=click.FloatRange(min=0),
            metavar="WATTS",
            help="Power of the hosts per GPU held, W; shown apart from the GPUs' power.",
        ),
    )
    return with_options(wrapped, options)
