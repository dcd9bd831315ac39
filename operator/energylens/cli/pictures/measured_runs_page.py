"""Measured runs beside their predictions as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from statistics import fmean
from typing import TYPE_CHECKING

from energylens import __version__
from energylens.cli.pictures.charts import blank, dress, svg
from energylens.cli.pictures.colours import PAGE, Colours
from energylens.cli.pictures.page import charts, heading, page, paragraph, table, tiles
from energylens.cli.text.measured_runs import FIGURES, Compared, table_rows
from energylens.clock import SystemClock

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measured_runs_page(compared: Sequence[Compared], engine: str) -> str:
    """Return the page.

    Args:
        compared: The rows.
        engine: Such as ``vllm==0.26.0``.
    """
    shown = [
        (f"{fmean(errors):.0f} %", f"mean error of {title.partition(',')[0]}")
        for quantity, (title, _) in FIGURES.items()
        if (errors := [abs(error) for each in compared if (error := each.error_percent(quantity)) is not None])
    ]
    drawn = [
        (svg(agreement_figure(compared, quantity)), f"{title}: a point per load; on the line both agree.")
        for quantity, (title, _) in FIGURES.items()
        if any(each.error_percent(quantity) is not None for each in compared)
    ]
    header, *rows = table_rows(compared)
    model = compared[0].run.model_id if compared else "nothing"
    gpu = compared[0].run.gpu_model if compared else ""
    body = [
        paragraph(f"{model} on {gpu}, {engine}", "muted"),
        tiles(shown),
        charts(drawn),
        heading("Loads: measured / predicted (error)"),
        table([header[0].capitalize(), *header[1:]], rows),
        *(paragraph(f"{each.run.run_id}: no prediction: {each.error}", "bad") for each in compared if each.error),
    ]
    made = f"Made {SystemClock().now().astimezone(UTC):%Y-%m-%d %H:%M} UTC by energylens {__version__}."
    return page("EnergyLens measured runs", body, made)


def agreement_figure(compared: Sequence[Compared], quantity: str, colours: Colours = PAGE) -> Figure:
    """Return predicted against measured of one quantity, on logarithmic axes."""
    points = [
        (each.measured[quantity] or 0.0, each.predicted[quantity])
        for each in compared
        if each.error_percent(quantity) is not None
    ]
    figure = blank((4.2, 3.9), colours)
    axes = figure.subplots()
    values = [value for point in points for value in point]
    ends = [min(values) / 1.4, max(values) * 1.4]
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.plot(ends, ends, color=colours.muted, linewidth=1.2)
    found, expected = zip(*points, strict=True)
    axes.scatter(found, expected, s=40, color=colours.series[0], zorder=3)
    dress(axes, f"measured {FIGURES[quantity][0]}", colours)
    axes.set_ylabel("predicted", color=colours.ink)
    return figure
