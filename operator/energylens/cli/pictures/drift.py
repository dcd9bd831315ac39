"""Predicted against measured as a picture: a panel per figure, on the diagonal where both agree."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from energylens.cli.pictures.charts import blank, dress
from energylens.cli.pictures.colours import FILE, Colours
from energylens.cli.text.drift import FIGURES, DriftRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "energy": "J per output token",
    "power": "power, W",
    "itl": "ITL, ms",
    "tpot": "TPOT, ms",
    "ttft": "TTFT, ms",
    "end_to_end": "E2E, ms",
}
BAND = 0.15
"""The default of spec.validation.tolerancePercent."""
_PANELS = 3
"""Panels in a row."""
_PERFECT = "predicted = measured"
_BAND = f"within {BAND:.0%} (default of tolerancePercent)".replace("%", " %")


def png(rows: Sequence[DriftRow]) -> bytes:
    """Return the picture as a file; a figure that was not measured has an empty panel that says so."""
    figure = drift_figure(rows)
    figure.suptitle("Predicted against measured, last window", color=FILE.ink, fontsize=12, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def drift_figure(rows: Sequence[DriftRow], figures: Sequence[str] = FIGURES, colours: Colours = FILE) -> Figure:
    """Return a panel for each of the figures, three in a row, and the legend below them."""
    lines = -(-len(figures) // _PANELS)
    across = min(len(figures), _PANELS)
    figure = blank((0.5 + 5.0 * across, 4.8 * lines), colours)
    models = sorted({row.model for row in rows if row.measured})
    for axes, name in zip(figure.subplots(lines, across, squeeze=False).flat, figures, strict=False):
        points = [row for row in rows if row.found.get(name, 0) > 0 and row.predicted.get(name, 0) > 0]
        dress(axes, f"measured {NAMES[name]}", colours)
        axes.set_ylabel(f"predicted {NAMES[name]}", color=colours.ink)
        if not points:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=colours.muted)
            continue
        values = [row.found[name] for row in points] + [row.predicted[name] for row in points]
        ends = [min(values) / 1.5, max(values) * 1.5]
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        axes.plot(ends, ends, color=colours.muted, linewidth=1.2)
        low, high = ([e * (1 + sign * BAND) for e in ends] for sign in (-1, 1))
        axes.fill_between(ends, low, high, color=colours.grid)
        dress(axes, f"measured {NAMES[name]}", colours)
        for row in points:
            number = models.index(row.model) % len(colours.series) if row.model in models else None
            colour = colours.muted if number is None else colours.series[number]
            face = colour if row.comparable else "none"
            axes.scatter(row.found[name], row.predicted[name], s=46, facecolor=face, edgecolor=colour, zorder=3)
            axes.annotate(
                f"{row.namespace}/{row.name}", (row.found[name], row.predicted[name]), xytext=(6, 4),
                textcoords="offset points", fontsize=7.5, color=colours.muted,
            )  # fmt: skip
    _legend(figure, models, colours, columns=across)
    return figure


def _legend(figure: Figure, models: Sequence[str], colours: Colours, columns: int) -> None:
    """Add a legend of the models, the diagonal and the band below all panels, where it hides no point."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Line2D | Patch] = [
        Line2D([], [], marker="o", linestyle="", color=colours.series[number % len(colours.series)], label=model)
        for number, model in enumerate(models)
    ]
    handles += [
        Line2D(
            [], [], marker="o", linestyle="", color=colours.muted, markerfacecolor="none", label="load not comparable"
        ),
        Line2D([], [], color=colours.muted, linewidth=1.2, label=_PERFECT),
        Patch(color=colours.grid, label=_BAND),
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False, labelcolor=colours.ink
    )
