"""Charts of a fleet's report, in the page's colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energylens.cli.inputs.fleet_solve import BUDGET, FleetResult
from energylens.cli.pictures.charts import blank, dress
from energylens.cli.pictures.colours import PAGE, Colours
from energylens.cli.text.fleet import chosen, teams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TEAMS = 16
MOST_PRICES = 12
_WIDTH = 5.6
_BAR_SHARE = 1.2
"""Length of the horizontal axis as a multiple of the longest bar, which leaves room for its total."""
_AXIS_CHARACTERS = 60
"""Characters of a segment's name that fit along the whole axis: 4 inches at 8 points, half a point wide per point."""
_FEWEST_CHARACTERS = 4


def teams_figure(found: FleetResult, colours: Colours = PAGE) -> tuple[Figure, list[str]]:
    """Return watts by team, a segment per deployment, and a text for each segment."""
    shown = list(teams(chosen(found)).items())[:MOST_TEAMS]
    figure = blank((_WIDTH, 1.3 + 0.5 * max(4, len(shown))), colours)
    axes = figure.subplots()
    tips: list[str] = []
    most = max(sum(part.watts for part in parts) for _, parts in shown)
    for at, (_, parts) in enumerate(shown):
        start = 0.0
        for number, part in enumerate(sorted(parts, key=lambda part: -part.watts)):
            # Fills are light enough for the names on them to be read in both of the page's colour schemes.
            bars = axes.barh(
                at, part.watts, left=start, height=0.62, color=colours.series[at % 6], alpha=0.5 - 0.2 * (number % 2),
                edgecolor=colours.surface, linewidth=1.5,
            )  # fmt: skip
            bars[0].set_gid(f"tip-{len(tips)}")
            name = _fitted(part.deployment.name.rpartition("/")[2], part.watts / (_BAR_SHARE * most))
            axes.text(start + part.watts / 2, at, name, va="center", ha="center", fontsize=8, color=colours.ink)
            tips.append(f"{part.deployment.name}: {part.watts:.0f} W, {part.text}")
            start += part.watts
        axes.text(start + 0.015 * most, at, f"{start:,.0f} W", va="center", fontsize=9, color=colours.ink)
    axes.invert_yaxis()
    axes.set_xlim(0, _BAR_SHARE * most)
    dress(axes, "W", colours)
    axes.set_yticks(range(len(shown)), [team for team, _ in shown])
    axes.tick_params(axis="y", colors=colours.ink, labelsize=9.5, length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    return figure, tips


def _fitted(name: str, share: float) -> str:
    """Return a name cut to the length of its segment; "" if hardly any letter fits."""
    room = int(share * _AXIS_CHARACTERS)
    if len(name) <= room:
        return name
    return f"{name[: room - 1]}…" if room > _FEWEST_CHARACTERS else ""


def frontier_figure(found: FleetResult, colours: Colours = PAGE) -> Figure:
    """Return the fleet's power against how far all latency objectives are tightened or relaxed."""
    known = [(100 * factor, watts) for factor, watts in found.frontier if watts is not None]
    figure = blank((_WIDTH, 4.0), colours)
    axes = figure.subplots()
    factors, watts = zip(*known, strict=True)
    axes.plot(
        factors, watts, "o-", color=colours.series[0], drawstyle="steps-post", linewidth=1.8, markersize=5, zorder=3,
        label="least power",
    )  # fmt: skip
    lost = [100 * factor for factor, value in found.frontier if value is None]
    if lost:
        axes.axvspan(min(lost) * 0.96, max(lost) * 1.03, color=colours.bad, alpha=0.08, linewidth=0)
        axes.annotate(
            "no plan", ((min(lost) * max(lost)) ** 0.5, 0.5), xycoords=("data", "axes fraction"), rotation=90,
            va="center", ha="center", fontsize=9, color=colours.bad,
        )  # fmt: skip
    axes.axvline(100, color=colours.muted, linestyle=(0, (2, 3)), linewidth=1.2, label="objectives as they are")
    for limit in found.limits:
        if limit.name == BUDGET:
            axes.axhline(
                limit.watts,
                color=colours.bad,
                linestyle=(0, (5, 3)),
                linewidth=1.3,
                label=f"{BUDGET} {limit.watts:,.0f}",
            )
    axes.set_xscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.08 * (high - low), high + 0.1 * (high - low))
    axes.set_ylabel("W", color=colours.ink)
    dress(axes, "latency objectives, % of what is asked", colours)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False, labelcolor=colours.ink)
    return figure


def prices_figure(found: FleetResult, colours: Colours = PAGE) -> Figure:
    """Return the watts saved without each objective, and with it relaxed by a tenth."""
    shown = found.prices[:MOST_PRICES]
    figure = blank((_WIDTH, 1.5 + 0.5 * max(3, len(shown))), colours)
    axes = figure.subplots()
    most = max(price.watts for price in shown)
    for at, price in enumerate(shown):
        axes.barh(at, price.watts, height=0.6, color=colours.series[0], alpha=0.35, linewidth=0)
        axes.barh(at, max(0.0, price.marginal_watts), height=0.6, color=colours.series[0], linewidth=0)
        axes.text(price.watts + 0.015 * most, at, f"{price.watts:,.0f}", va="center", fontsize=9, color=colours.ink)
    names = {
        "ttftMilliseconds": "TTFT",
        "itlMilliseconds": "ITL",
        "tpotMilliseconds": "TPOT",
        "endToEndMilliseconds": "E2E",
        "joulesPerOutputToken": "J/token",
    }
    labels = [f"{p.deployment}\n{names[p.field.rpartition('.')[2]]} {p.value}" for p in shown]
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * most)
    axes.barh([0], [0], color=colours.series[0], label="at 10 % more")
    axes.barh([0], [0], color=colours.series[0], alpha=0.35, label="without it")
    dress(axes, "W saved", colours)
    axes.set_yticks(range(len(shown)), labels)
    axes.tick_params(axis="y", colors=colours.ink, labelsize=8, length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False, labelcolor=colours.ink)
    return figure
