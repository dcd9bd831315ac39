"""The burn-down of budgets: energy left over the period, the even rate beside it, and the forecast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from energylens.api.timestamp import moment_of
from energylens.cli.errors import InputError
from energylens.cli.pictures.charts import blank, dress
from energylens.cli.pictures.colours import FILE, Colours
from energylens.cli.pictures.plot import check_plot
from energylens.cli.text.budgets import Budget, name_of
from energylens.records import dataclass

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".svg")


@dataclass(frozen=True)
class BurnDown:
    """One budget's period; energies in Wh."""

    title: str
    start: datetime
    end: datetime
    allowed: float
    points: tuple[tuple[datetime, float], ...]
    """Times and the energy left at each, oldest first; the last time is now."""
    gone: datetime | None
    """When the energy runs out at the burn rate; None if not in this period."""
    left_at_end: float
    """Energy left at the end of the period at the burn rate; 0 if it runs out."""
    zone: ZoneInfo


def burn_down(budget: Budget) -> BurnDown | None:
    """Return the burn-down of a budget; None where it has no limit of energy, or nothing was counted yet."""
    status = budget.status
    if status.period_start is None or status.reset_time is None or status.remaining_watt_hours is None:
        return None
    start, end = datetime.fromisoformat(status.period_start), datetime.fromisoformat(status.reset_time)
    used = float(status.used_watt_hours or 0)
    allowed = used + status.remaining_watt_hours
    points = [(datetime.fromisoformat(point.time), float(point.used_watt_hours)) for point in status.history]
    until = [datetime.fromisoformat(entry.accounted_until) for entry in status.ledger]
    now = max([start, *until, *(time for time, _ in points)])
    points = [point for point in points if point[0] < now]
    first = points[0] if points else (now, used)
    # Energy used before the first point was used at an unknown time since the period began.
    begun = [(start, 0.0)] if first[0] > start else []
    lines = [(time, allowed - wh) for time, wh in (*begun, *points, (now, used))]
    gone = moment_of(status.exhaustion_time)
    hours = (end - now).total_seconds() / 3600.0
    left = 0.0 if gone is not None else max(0.0, allowed - used - (status.burn_rate_watts or 0) * hours)
    title = f"{name_of(budget)}: {status.used or ''}, {status.forecast or ''}"
    return BurnDown(title, start, end, allowed, tuple(lines), gone, left, ZoneInfo(budget.spec.time_zone))


def check_burn_down(path: Path) -> None:
    """Refuse a picture that cannot be drawn, before any file is read.

    Raises:
        InputError: The suffix is not known, or matplotlib is missing.
    """
    check_plot(path, suffixes=_SUFFIXES)


def write_burn_down(path: Path, budgets: Sequence[Budget]) -> None:
    """Write the burn-downs of budgets, one below the other; those without a limit of energy are left out.

    Raises:
        InputError: Nothing can be drawn, or the file cannot be written.
    """
    drawn = [found for budget in budgets if (found := burn_down(budget)) is not None]
    if not drawn:
        raise InputError(f"--plot {path}: no budget has a limit of energy of which something was counted")
    figure = burn_down_figure(drawn)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise InputError(f"--plot {path}: {error.strerror or error}") from error


def burn_down_figure(drawn: Sequence[BurnDown], colours: Colours = FILE) -> Figure:
    """Return the burn-downs one below the other."""
    figure = blank((9.0, 3.4 * len(drawn)), colours)
    for axes, found in zip(figure.subplots(len(drawn), 1, squeeze=False)[:, 0], drawn, strict=True):
        _draw(axes, found, colours)
    return figure


def _draw(axes: Axes, found: BurnDown, colours: Colours) -> None:
    scale, unit = (1000.0, "kWh") if found.allowed >= 10_000 else (1.0, "Wh")

    def hours(moment: datetime) -> float:
        return (moment - found.start).total_seconds() / 3600.0

    times, left = [hours(time) for time, _ in found.points], [wh / scale for _, wh in found.points]
    end = hours(found.end)
    blue, orange = colours.series[0], colours.series[1]
    axes.plot([0.0, end], [found.allowed / scale, 0.0], color=colours.muted, linewidth=1.0, label="even rate")
    axes.fill_between(times, left, color=blue, alpha=0.12, linewidth=0)
    axes.plot(times, left, color=blue, linewidth=2.0, label="left")
    axes.plot(times[-1:], left[-1:], "o", color=blue, markersize=5)
    target = (hours(found.gone), 0.0) if found.gone is not None else (end, found.left_at_end / scale)
    if target[0] > times[-1]:
        line = (0, (4, 2))
        axes.plot([times[-1], target[0]], [left[-1], target[1]], color=orange, linestyle=line, label="at the burn rate")
    dress(axes, "", colours)
    axes.set_xlim(0.0, end)
    axes.set_ylim(0.0, found.allowed / scale * 1.04)
    axes.set_ylabel(f"{unit} left", color=colours.ink)
    axes.set_title(found.title, color=colours.ink, fontsize=10.5, loc="left")
    ticks = list(_ticks(found))
    axes.set_xticks([hours(tick) for tick, _ in ticks], [text for _, text in ticks])
    axes.set_xlabel(found.zone.key, color=colours.muted, fontsize=9, loc="right")
    axes.legend(loc="upper right", frameon=False, fontsize=9, labelcolor=colours.ink)


_TICKS = (
    (2.0, timedelta(minutes=10), "%H:%M"),
    (30.0, timedelta(hours=3), "%H:%M"),
    (200.0, timedelta(days=1), "%a %d"),
)
"""Longest period in hours, time between two ticks, and how they are written."""


def _ticks(found: BurnDown) -> Iterator[tuple[datetime, str]]:
    """Yield the times of the ticks, in the budget's time zone."""
    length = (found.end - found.start).total_seconds() / 3600.0
    step, form = next(((s, f) for most, s, f in _TICKS if length <= most), (timedelta(days=5), "%d %b"))
    local = found.start.astimezone(found.zone)
    while local.astimezone(UTC) < found.end:
        yield local.astimezone(UTC), local.strftime(form)
        # Steps of wall-clock time, so that ticks stay at midnight when the clocks change.
        local += step
