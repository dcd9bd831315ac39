"""Plots of a report: predicted against measured values with intervals, and errors by group. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from energylens.accuracy.errors import Errors, clean
from energylens.accuracy.evaluate import QUANTITIES, Predicted, measured_arrays
from energylens.predictor.types import FloatArray
from energylens.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "itl": ("Median ITL", "ms"),
    "tpot": ("Time per output token", "ms"),
    "ttft": ("Time to first token", "ms"),
    "throughput": ("Output throughput", "tokens/s"),
    "power": ("Power", "W"),
    "energy": ("Energy per output token", "J"),
}
# Okabe and Ito (2008): distinguishable with any colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_SPLITS = ("GPU count", "layout", "task", "model")


class PlotError(RuntimeError):
    """Plots cannot be drawn or written; the message says what to do."""


def check_matplotlib() -> None:
    """Raise PlotError if matplotlib is not installed, before any long work is done."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PlotError("--plot needs matplotlib: pip install 'energylens[plot]'") from error


def write_plots(
    directory: Path, runs: Sequence[Run], predicted: Predicted, errors: Sequence[Errors], basis: str
) -> list[Path]:
    """Write PNG files into a directory, which is created if it is missing, and return their paths.

    Args:
        directory: The directory.
        runs: The n runs with their measured values.
        predicted: Predictions of the same n runs.
        errors: The table from :func:`energylens.accuracy.errors.error_table`.
        basis: One line below each title that says to which runs the predictions were fitted.

    Raises:
        PlotError: Matplotlib is missing, or a file cannot be written.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = measured_arrays(runs)
    written = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for quantity in (name for name in QUANTITIES if np.isfinite(measured[name]).any()):
            figure = Figure(figsize=(7.2, 7.0), layout="constrained")
            FigureCanvasAgg(figure)
            _scatter(figure.add_subplot(), quantity, runs, measured, predicted, basis)
            written.append(directory / f"predicted-vs-measured-{quantity}.png")
            figure.savefig(written[-1], dpi=150)
        figure = _bars(errors, basis)
        written.append(directory / "error-by-group.png")
        figure.savefig(written[-1], dpi=150)
    except OSError as error:
        raise PlotError(f"--plot: cannot write {error.filename or directory}: {error.strerror or error}") from error
    return written


def _scatter(
    axes: Axes,
    quantity: str,
    runs: Sequence[Run],
    measured: Mapping[str, FloatArray],
    predicted: Predicted,
    basis: str,
) -> None:
    truth, value, ends = measured[quantity], predicted.values[quantity], predicted.intervals[quantity]
    good, usable = clean(runs), predicted.ok & np.isfinite(truth)
    gpu = np.array([run.gpu_model for run in runs])
    for colour, name in zip(_COLOURS * (1 + len(set(gpu)) // len(_COLOURS)), sorted(set(gpu)), strict=False):
        for kind, kept in (("", good), (", host-bound or data parallel", ~good)):
            part = usable & kept & (gpu == name)
            if not part.any():
                continue
            error = np.abs(np.stack([value[part] - ends.low[part], ends.high[part] - value[part]]))
            axes.errorbar(
                truth[part],
                value[part],
                yerr=error,
                fmt="o" if not kind else "x",
                markersize=4 if not kind else 5,
                color=(colour, 0.8),
                ecolor=(colour, 0.25),
                elinewidth=0.9,
                markeredgewidth=0.0 if not kind else 1.2,
                label=f"{name}{kind} ({part.sum()})",
            )
    shown = np.concatenate([truth[usable], ends.low[usable], ends.high[usable]])
    if len(shown):
        span = np.array([shown.min() / 1.15, shown.max() * 1.15])
        axes.plot(span, span, color="0.25", linewidth=1.0, zorder=1.5)
        axes.fill_between(span, span * 0.8, span * 1.2, color="0.9", zorder=-1, label="within 20 %", linewidth=0)
        axes.set(xlim=span, ylim=span)
    axes.set(xscale="log", yscale="log", aspect="equal")
    _plain_ticks(axes)
    label, unit = LABELS[quantity]
    inside = good & usable
    mape = 100 * float(np.mean(np.abs(value[inside] / truth[inside] - 1))) if inside.any() else float("nan")
    axes.set_xlabel(f"measured, {unit}")
    axes.set_ylabel(f"predicted with 80 % interval, {unit}")
    axes.set_title(
        f"{label}: mean absolute error {mape:.1f} % of {inside.sum()} clean runs", fontsize=12, loc="left", pad=22
    )
    axes.text(0, 1.015, basis, transform=axes.transAxes, fontsize=8.5, color="0.35")
    axes.grid(True, which="major", color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    if len(shown):
        axes.legend(fontsize=8.5, frameon=False, loc="upper left")


def _plain_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axis.set_minor_formatter(NullFormatter())


def _bars(errors: Sequence[Errors], basis: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(by, [part for part in errors if part.by == by and not part.with_host_bound]) for by in _SPLITS]
    heights = [len(parts) + 1.6 for _, parts in panels]
    figure = Figure(figsize=(9.0, 1.2 + 0.27 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"Energy per output token: absolute percentage error of clean runs\n{basis}", fontsize=11)
    shown = [at for _, parts in panels for part in parts for at in (part.mean["energy"], part.median["energy"])]
    most = max((at for at in shown if at > 0), default=1.0)
    grid = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)
    for axes, (by, parts) in zip(grid[:, 0], panels, strict=True):
        ordered = sorted(parts, key=lambda part: part.name, reverse=True)
        y = np.arange(len(ordered))
        mean = [part.mean["energy"] for part in ordered]
        axes.barh(y, mean, height=0.66, color="#9ecae1", label="mean")
        axes.plot([part.median["energy"] for part in ordered], y, "|", color="#08306b", ms=11, mew=2.2, label="median")
        for at, part in zip(y, ordered, strict=True):
            axes.text(
                1.0,
                at,
                _numbers(part),
                transform=axes.get_yaxis_transform(),
                va="center",
                ha="right",
                fontsize=8,
                color="0.3",
            )
        axes.set_yticks(y, [part.name.rpartition("/")[2] for part in ordered], fontsize=8.5)
        axes.set(xlim=(0, most * 1.34), ylim=(-0.7, len(ordered) - 0.3))
        axes.set_title(f"by {by}", fontsize=9.5, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="x", labelsize=8)
    grid[0, 0].legend(fontsize=8.5, frameon=False, loc="lower right", ncols=2, bbox_to_anchor=(1.0, 1.0))
    grid[-1, 0].set_xlabel("percent")
    return figure


def _numbers(part: Errors) -> str:
    if not np.isfinite(part.mean["energy"]):
        return "no prediction"
    return f"{part.mean['energy']:.1f} / {part.median['energy']:.1f} %, {part.runs} runs"
