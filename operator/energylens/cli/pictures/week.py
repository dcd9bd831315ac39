"""The week of a schedule as a picture: load, replicas, and power beside the power of the best constant plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from energylens.api.llmdeployment import WEEKDAYS
from energylens.api.quantity import parse_quantity
from energylens.cli.pictures.colours import Colours
from energylens.planner.search.week_load import HOURS
from energylens.planner.week.planning import WeekPlan
from energylens.predictor.types import FloatArray
from energylens.records import dataclass

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

_DAY = 24


@dataclass(frozen=True)
class WeekPicture:
    """One schedule; arrays of shape (168,), an hour each from Monday 0:00 on."""

    title: str
    zone: str
    requests_per_second: FloatArray
    replicas: FloatArray
    watts: FloatArray
    constant_watts: FloatArray | None
    """Of the best plan with a constant number of replicas; None where there is none."""
    saved_percent: float | None


def week_picture(title: str, found: WeekPlan) -> WeekPicture:
    """Return the picture of a planned week under a title."""
    constant = found.constant
    return WeekPicture(
        title=f"{title}: the week",
        zone=found.load.zone.key,
        requests_per_second=np.asarray([float(parse_quantity(rate)) for rate in found.load.rates]),
        replicas=_by_hour(found, found.replicas),
        watts=_by_hour(found, found.watts),
        constant_watts=None if constant is None else _by_hour(found, constant.watts),
        saved_percent=None if constant is None else 100.0 * (1.0 - found.joules / constant.joules),
    )


def draw_week(figure: FigureBase, week: WeekPicture, colours: Colours) -> None:
    """Draw the three figures of a week one below the other, with the days as grid lines."""
    rate, replicas, power = figure.subplots(3, 1, sharex=True, height_ratios=(1.0, 1.0, 1.6))
    blue, orange, green = colours.series[0], colours.series[1], colours.series[2]
    _steps(rate, week.requests_per_second, green, "requests/s", colours)
    _steps(replicas, week.replicas, blue, "replicas", colours)
    _steps(power, week.watts, blue, "W", colours, label="replicas by the hour")
    if week.constant_watts is not None:
        edges = np.arange(HOURS + 1)
        saved = f", {week.saved_percent:.0f} % saved" if week.saved_percent is not None else ""
        power.stairs(
            week.constant_watts, edges, color=orange, linewidth=1.6, label=f"best constant plan{saved}",
            baseline=None,
        )  # fmt: skip
        power.set_ylim(0.0, 1.32 * max(float(week.constant_watts.max()), float(week.watts.max())))
    power.legend(
        loc="upper left", ncols=2, frameon=False, fontsize=8.5, labelcolor=colours.ink, borderaxespad=0.1,
        columnspacing=1.2,
    )  # fmt: skip
    figure.align_ylabels()
    power.set_xlim(0.0, HOURS)
    power.set_xticks(np.arange(0, HOURS + 1, _DAY), [""] * (len(WEEKDAYS) + 1))
    power.set_xticks(np.arange(_DAY / 2, HOURS, _DAY), WEEKDAYS, minor=True)
    power.tick_params(axis="x", which="minor", length=0, colors=colours.muted, labelsize=8.5)
    power.set_xlabel(week.zone, color=colours.muted, fontsize=8.5, loc="right")


def _steps(axes: Axes, values: FloatArray, colour: str, what: str, colours: Colours, label: str | None = None) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    edges = np.arange(HOURS + 1)
    axes.stairs(values, edges, color=colour, fill=True, alpha=0.14)
    axes.stairs(values, edges, color=colour, linewidth=1.6, label=label, baseline=None)
    axes.set_ylim(0.0, 1.12 * float(values.max()))
    axes.set_facecolor(colours.surface)
    axes.set_ylabel(what, color=colours.ink, fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=what == "replicas"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.tick_params(which="major", colors=colours.muted, labelsize=8.5)
    axes.grid(True, which="major", color=colours.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colours.muted)


def _by_hour(found: WeekPlan, values: tuple[float, ...]) -> FloatArray:
    hours = np.empty(HOURS)
    for span, value in zip(found.load.spans, values, strict=True):
        hours[np.arange(span.start, span.start + span.hours) % HOURS] = value
    return hours
