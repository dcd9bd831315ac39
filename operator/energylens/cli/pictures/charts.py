"""Charts by matplotlib: in fixed colours for files, or in a page's own colours, for light and dark pages."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from energylens.cli.errors import InputError
from energylens.cli.pictures.colours import FILE, MARKS, NAMES, PAGE, Colours
from energylens.cli.pictures.plan import Panel, Picture
from energylens.cli.pictures.product_style import product_style
from energylens.cli.pictures.week import WeekPicture, draw_week

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase


def check_matplotlib(option: str) -> None:
    """Say what to install before any long work is done.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError(f"{option} needs matplotlib: pip install 'energylens[plot]'") from error


def plan_figure(pictures: Sequence[Picture], colours: Colours = FILE) -> Figure:
    """Return energy against ITL and TTFT (and TPOT where it is bounded), a row of panels per deployment."""
    most = max((len(picture.panels) for picture in pictures), default=2)
    parts: list[tuple[Picture, WeekPicture | None]] = []
    for picture in pictures:
        parts += [(picture, None), *([] if picture.week is None else [(picture, picture.week)])]
    figure = blank((5.5 * most, 4.9 * len(parts)), colours)
    rows = figure.subfigures(len(parts), 1, squeeze=False)[:, 0]
    for part, (picture, week) in zip(rows, parts, strict=True):
        part.set_facecolor(colours.surface)
        if week is not None:
            part.suptitle(week.title, color=colours.ink, fontsize=11.5, x=0.01, ha="left")
            draw_week(part, week, colours)
            continue
        part.suptitle(f"{picture.title}\n{picture.subtitle}", color=colours.ink, fontsize=11.5, x=0.01, ha="left")
        axes = part.subplots(1, len(picture.panels), sharey=True)
        for number, panel in enumerate(picture.panels):
            draw_panel(axes[number], picture, panel, colours)
        axes[0].set_ylabel("J per output token", color=colours.ink)
        _legend(part, axes, colours, columns=7)
    return figure


def week_figure(week: WeekPicture, colours: Colours = PAGE) -> Figure:
    """Return the week of a schedule as a figure of its own."""
    figure = blank((5.6, 4.7), colours)
    draw_week(figure, week, colours)
    return figure


def panel_figure(picture: Picture, panel: Panel, colours: Colours = PAGE) -> Figure:
    """Return one panel as a figure of its own, for pages that put two side by side where there is room."""
    figure = blank((5.6, 4.7), colours)
    axes = figure.subplots()
    draw_panel(axes, picture, panel, colours)
    axes.set_ylabel("J per output token", color=colours.ink)
    _legend(figure, [axes], colours, columns=4)
    return figure


def draw_panel(axes: Axes, picture: Picture, panel: Panel, colours: Colours) -> None:
    """Draw candidates, the frontier, the objective with the range that violates it, and the chosen plan."""
    axes.set(xscale="log", yscale="log")
    shown = np.zeros(len(picture.joules), dtype=bool)
    shown[panel.frontier] = True
    for number, product in enumerate(picture.products):
        style = product_style(product)
        colour, marker = colours.series[style.colour], style.marker
        mine = picture.product == number
        if not mine.any():
            continue
        cloud = mine & ~shown
        axes.scatter(
            panel.latency_ms[cloud], picture.joules[cloud], s=9, marker=marker, color=colour, alpha=0.28, linewidths=0
        )
        for holds in (True, False):
            part = np.flatnonzero(mine & shown & (picture.allowed == holds))
            for i in part:
                artist = axes.scatter(
                    panel.latency_ms[i : i + 1],
                    picture.joules[i : i + 1],
                    s=34,
                    marker=marker,
                    facecolor=colour if holds else colours.surface,
                    edgecolor=colour,
                    linewidths=1.3,
                    zorder=3,
                )
                artist.set_gid(f"tip-{i}")
        axes.scatter([], [], s=34, marker=marker, color=colour, label=product.removeprefix("NVIDIA-"))
    _frontier(axes, picture, panel, colours)
    _limits(axes, picture, panel, colours)
    if picture.chosen is not None:
        _pick(axes, picture, panel, colours)
    dress(axes, f"{panel.name}, ms", colours)


def _legend(figure: FigureBase, axes: Iterable[Axes], colours: Colours, columns: int) -> None:
    """Put one legend for all axes below them, where it hides no point."""
    found: dict[str, Artist] = {}
    for one in axes:
        handles, labels = one.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(
        list(found.values()), list(found), loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False,
        labelcolor=colours.ink, columnspacing=1.4, handletextpad=0.5,
    )  # fmt: skip


def _frontier(axes: Axes, picture: Picture, panel: Panel, colours: Colours) -> None:
    front = panel.frontier
    axes.plot(
        panel.latency_ms[front], picture.joules[front], color=colours.muted, alpha=0.45, linewidth=1.6, zorder=2,
        drawstyle="steps-post", label="frontier",
    )  # fmt: skip
    for i in front:
        ends = [panel.latency_ms[i], panel.upper_ms[i]]
        if np.isfinite(ends).all():
            axes.plot(ends, [picture.joules[i]] * 2, color=colours.muted, linewidth=0.9, zorder=2)
            axes.plot(ends[1:], [picture.joules[i]], "|", color=colours.muted, markersize=7, zorder=2)
    axes.plot([], [], "|-", color=colours.muted, linewidth=0.9, markersize=7, label="safety margin")


def _limits(axes: Axes, picture: Picture, panel: Panel, colours: Colours) -> None:
    front, limit = panel.frontier, panel.limit_ms
    low, high = panel.latency_ms.min() / 1.2, panel.latency_ms.max() * 1.2
    seen = [float(np.nanmax(panel.upper_ms[front])), *([] if limit is None else [1.3 * limit])]
    axes.set_xlim(min(low, *seen) if limit is None else min(low, limit / 1.3), min(max(high, *seen), 4 * max(seen)))
    if limit is not None:
        axes.axvspan(limit, axes.get_xlim()[1], color=colours.bad, alpha=0.07, linewidth=0, zorder=0)
        axes.axvline(limit, color=colours.bad, linestyle=(0, (5, 3)), linewidth=1.2, label="objective")
        axes.annotate(
            f"{limit:,} ms", (limit, 0.0), xycoords=("data", "axes fraction"), xytext=(4, 5),
            textcoords="offset points", color=colours.bad, fontsize=8.5,
        )  # fmt: skip
    if picture.joules_limit is not None:
        axes.axhline(
            picture.joules_limit, color=colours.bad, linestyle=(0, (1, 2)), linewidth=1.4,
            label=f"objective {picture.joules_limit:.3g} J",
        )  # fmt: skip


def _pick(axes: Axes, picture: Picture, panel: Panel, colours: Colours) -> None:
    i = picture.chosen
    assert i is not None
    x, upper, y = panel.latency_ms[i], panel.upper_ms[i], picture.joules[i]
    axes.plot([x, upper], [y, y], color=colours.ink, linewidth=1.6, zorder=4)
    artist = axes.scatter(
        [x], [y], s=190, marker="*", facecolor=colours.ink, edgecolor=colours.surface, linewidths=1.0, zorder=5,
        label="the plan",
    )  # fmt: skip
    artist.set_gid(f"tip-{i}")


def blank(size: tuple[float, float], colours: Colours) -> Figure:
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained", facecolor=colours.surface)


def dress(axes: Axes, label: str, colours: Colours) -> None:
    """Set the colours and ticks of axes, and the label of the horizontal axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_facecolor(colours.surface)
    axes.set_xlabel(label, color=colours.ink)
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            low, high = axis.get_view_interval()
            subs = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
            axis.set_major_locator(LogLocator(base=10, subs=subs))
            axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.tick_params(which="both", colors=colours.muted, labelsize=8.5)
    axes.grid(True, which="major", color=colours.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colours.muted)


def svg(figure: Figure, tips: Sequence[str] = ()) -> str:
    """Return a figure in the page's colours as an SVG element that takes the width it is given.

    Args:
        figure: Drawn in :data:`PAGE`.
        tips: Texts shown over the artists whose id is ``tip-0``, ``tip-1`` and so on.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    # Text stays text: it takes the page's font and can be found and read out.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "energylens", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg class="chart" role="img" viewBox="\1">', text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for mark, name in zip(MARKS, NAMES, strict=True):
        text = text.replace(mark, f"var(--{name})")
    for number, tip in enumerate(tips):
        text = text.replace(f'<g id="tip-{number}">', f"<g><title>{_escaped(tip)}</title>")
    return text


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
