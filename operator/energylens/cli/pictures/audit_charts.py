"""The chart of an audit's page: power now and with the plan, in the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from energylens.audit.assessment import Assessment
from energylens.cli.pictures.charts import blank, dress
from energylens.cli.pictures.colours import PAGE, Colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_MODELS = 24
_WIDTH = 7.0
_LONGEST_NAME = 34


def power_figure(found: Sequence[Assessment], colours: Colours = PAGE) -> Figure:
    """Return the power of each model now and with its plan, the highest first.

    Args:
        found: Models whose power is known.
        colours: Of the page.
    """
    shown = sorted(found, key=lambda each: -(each.now.watts if each.now is not None else 0.0))[:MOST_MODELS]
    figure = blank((_WIDTH, 1.2 + 0.62 * max(3, len(shown))), colours)
    axes = figure.subplots()
    for at, each in enumerate(shown):
        if each.now is not None:
            hatch = "" if each.now.is_measured else "//"
            axes.barh(at - 0.19, each.now.watts, height=0.34, color=colours.muted, alpha=0.55, hatch=hatch, linewidth=0)
        if each.then is not None and each.verdict in ("Saves", "WithinError"):
            axes.barh(at + 0.19, each.then.watts, height=0.34, color=colours.series[2], alpha=0.75, linewidth=0)
            axes.plot([each.then.low, each.then.high], [at + 0.19] * 2, color=colours.ink, linewidth=1.2)
    axes.barh([0], [0], color=colours.muted, alpha=0.55, label="now")
    axes.barh([0], [0], color=colours.series[2], alpha=0.75, label="with the plan")
    if any(each.now is not None and not each.now.is_measured for each in shown):
        axes.barh([0], [0], color=colours.muted, alpha=0.55, hatch="//", label="now, predicted or idle draw")
    axes.invert_yaxis()
    dress(axes, "mean power, W", colours)
    names = [f"{each.served.owner.namespace}/{each.served.owner.name}" for each in shown]
    axes.set_yticks(range(len(shown)), [_short(name) for name in names])
    axes.tick_params(axis="y", colors=colours.ink, labelsize=9, length=0)
    axes.grid(False, axis="y")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8.5, frameon=False, labelcolor=colours.ink)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
