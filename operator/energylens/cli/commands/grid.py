"""`energylens grid`: a service's carbon intensity as the forecast that EnergyBudgets read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from energylens.budget.carbon import Forecast, csv_of
from energylens.cli.errors import InputError, one_line_errors
from energylens.cli.inputs.grid import intensity, place_of
from energylens.cli.pictures.plot import write_text
from energylens.cli.text.tables import dump
from energylens.clock import SystemClock
from energylens.measure.grid import GridPlace

DATA_KEY = "forecast.csv"
"""The default of spec.carbon.forecastConfigMapRef.key."""


@click.command()
@click.argument("source", metavar="SERVICE:PLACE")
@click.option(
    "-o", "--output", type=click.Choice(["csv", "configmap"]), default="csv", show_default=True, help="Output format."
)
@click.option("--name", default="grid", show_default=True, metavar="NAME", help="Name of the ConfigMap.")
@click.option("-n", "--namespace", metavar="NAME", help="Namespace of the ConfigMap. Default: none is written.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write a file instead of standard output.")
def grid(source: str, output: str, name: str, namespace: str | None, out: Path | None) -> None:
    """Print the carbon intensity of a grid by hour, g of CO2 equivalent per kWh.

    SERVICE:PLACE is electricitymaps:ZONE (the forecast), electricitymaps:ZONE:history (the last day) or
    watttime:REGION (the forecast; marginal intensity).

    Electricity Maps needs a token in ELECTRICITYMAPS_TOKEN, WattTime an account in WATTTIME_USER and
    WATTTIME_PASSWORD; ELECTRICITYMAPS_TOKEN_FILE and WATTTIME_PASSWORD_FILE name files instead. Answers are kept for
    half an hour in the user's cache folder.
    """
    with one_line_errors(InputError):
        place = place_of(source)
        if place is None:
            raise InputError(
                f"{source!r} names no service: must be electricitymaps:ZONE, electricitymaps:ZONE:history or "
                "watttime:REGION"
            )
        if output == "configmap" and place.span != "forecast":
            raise InputError(f"{place} covers the past only: a budget needs a forecast, electricitymaps:{place.place}")
        found = intensity(place, os.environ, SystemClock().now())
        text = csv_of(found) if output == "csv" else dump([config_map(found, place, name, namespace)], "yaml")
        if out is not None:
            write_text(out, text, "--out")
    if out is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"wrote {out}", err=True)


def config_map(found: Forecast, place: GridPlace, name: str, namespace: str | None) -> dict[str, Any]:
    """Return the ConfigMap that ``spec.carbon.forecastConfigMapRef`` names."""
    where = {} if namespace is None else {"namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, **where, "annotations": {"energylens.dev/source": place.text}},
        "data": {DATA_KEY: csv_of(found)},
    }
