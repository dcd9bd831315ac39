"""`energylens accuracy`: predictions against measured runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from energylens.accuracy.evaluate import Predicted, Resolver, predict_runs
from energylens.accuracy.groups import model_groups
from energylens.accuracy.leave_out import LEAVE_OUT, Fold, LeaveOutError, folds, predict_left_out
from energylens.accuracy.plots import PlotError, check_matplotlib, write_plots
from energylens.accuracy.refit import Refits
from energylens.accuracy.report import as_object, report
from energylens.accuracy.tables import render
from energylens.api.words import counted
from energylens.calibration.fit import FitError
from energylens.calibration.procedure import shipped_latency_runs, shipped_runs
from energylens.cli.errors import one_line_errors
from energylens.cli.inputs.runs import predictor_for
from energylens.data import load_gpus
from energylens.data.predictor import load_coefficients, load_profiles
from energylens.runs import RowError, Run, RunsFileError, read_runs, resolver

MANY_ALIKE = 3
"""Most rows with the same reason that are reported one by one; more are reported in one line."""


@click.command()
@click.option(
    "--runs",
    "runs_files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="CSV of measured runs, with the columns of `energylens predict` and the measured ones; may be repeated. "
    "Latency tables of aiconfigurator are read, too. Default: the runs that the shipped coefficients were fitted on.",
)
@click.option(
    "--latency-runs",
    is_flag=True,
    help="Judge TTFT and TPOT on the shipped latency runs, which name exact engine versions and have no power.",
)
@click.option(
    "--leave-out",
    type=click.Choice(LEAVE_OUT),
    help="Refit without one of these at a time and judge the rows left out: models with their siblings, a fifth of the "
    "layouts, a number of GPUs of one type, a GPU type, an engine, a task, or a fifth of the runs. Takes minutes.",
)
@click.option(
    "--after-windows",
    "windows",
    type=click.IntRange(1, 20),
    multiple=True,
    metavar="N",
    help="Replay sites: N runs of a model on a GPU type enter the operator's correction as measured windows, and the "
    "model's other runs are judged. Starts from predictions with the model left out, or from those of --leave-out. "
    "May be repeated.",
)
@click.option("--plot", "plot_directory", type=click.Path(path_type=Path), metavar="DIR", help="Write PNG files there.")
@click.option("-o", "output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def accuracy(
    runs_files: tuple[Path, ...],
    latency_runs: bool,
    leave_out: str | None,
    windows: tuple[int, ...],
    plot_directory: Path | None,
    output: str,
) -> None:
    """Compare predictions with measured runs: errors, interval coverage, and the cost of plans picked by them."""
    with one_line_errors(RunsFileError, PlotError, LeaveOutError, FitError):
        if plot_directory is not None:
            check_matplotlib()
        runs = [*_read(runs_files, latency_runs), *(shipped_latency_runs() if latency_runs else ())]
        resolve = resolver()
        if windows and leave_out is None and _basis(runs)[1]:
            # The fit has seen these windows, so each model is predicted by a fit without its windows.
            leave_out = "model"
        if leave_out is None:
            predicted = predict_runs(runs, resolve, predictor_for)
            basis, in_sample = _basis(runs)
        else:
            predicted = _left_out(runs, leave_out, resolve)
            of = counted(len(runs), "run")
            basis = f"Left out: each {leave_out} is predicted by coefficients fitted without it ({of})."
            in_sample = False
        node_gpus = _node_gpus(runs, resolve)
        judged = report(
            runs,
            predicted,
            node_gpus,
            basis=basis,
            coefficients=load_coefficients().version,
            in_sample=in_sample,
            windows=tuple(dict.fromkeys(windows)),
        )
        click.echo(json.dumps(as_object(judged), indent=1) if output == "json" else render(judged))
        if plot_directory is not None:
            for path in write_plots(plot_directory, runs, predicted, judged.errors, basis):
                click.echo(f"wrote {path}", err=True)


def _read(files: Sequence[Path], others: bool) -> list[Run]:
    """Return the runs of files; without files the shipped ones unless there are ``others``."""
    if not files:
        return [] if others else list(shipped_runs())
    runs: list[Run] = []
    for path in files:
        table = read_runs(path, measured=True)
        for line in left_out_lines(path, table.errors):
            click.echo(line, err=True)
        runs += table.runs
    if not runs:
        raise RunsFileError(f"{', '.join(map(str, files))}: no run can be read")
    return runs


def left_out_lines(path: Path, errors: Sequence[RowError]) -> Iterator[str]:
    """Yield messages on the rows that cannot be read: a line for each row, or one for a reason that many rows share."""
    alike: dict[str, list[RowError]] = {}
    for error in errors:
        alike.setdefault(error.message, []).append(error)
    for message, rows in alike.items():
        if len(rows) > MANY_ALIKE:
            yield f"{path}: {len(rows)} lines, the first is {rows[0].row}, are left out: {message}"
        else:
            for row in rows:
                yield f"{path}: line {row.row} ({row.run_id or 'no run_id'}) is left out: {message}"


def _basis(runs: Sequence[Run]) -> tuple[str, bool]:
    coefficients = load_coefficients()
    fitted = set(coefficients.provenance.get("run_ids", ()))
    known = sum(run.run_id in fitted for run in runs)
    if known == 0:
        of = counted(len(runs), "run")
        return f"Out of sample: no run was used to fit coefficients {coefficients.version} ({of}).", False
    share = "these" if known == len(runs) else f"{known} of these"
    return (
        f"IN-SAMPLE: coefficients {coefficients.version} were fitted on {share} {len(runs)} runs. "
        "New models err more; see --leave-out.",
        True,
    )


def _left_out(runs: Sequence[Run], by: str, resolve: Resolver) -> Predicted:
    models = {run.model_id: found.model for run in runs if (found := resolve(run)).model is not None}
    groups = model_groups({name: model for name, model in models.items() if model is not None})
    parts = folds(runs, by, groups)
    gpus = {gpu.name: gpu for gpu in load_gpus().values()}
    coefficients = load_coefficients()
    known = coefficients.provenance
    start = dict(zip(known.get("parameters", ()), known.get("parameter_values_in_prior_deviations", ()), strict=True))
    refits = Refits(runs, resolve, gpus, coefficients.tables, load_profiles(), start)
    return predict_left_out(runs, parts, refits.to, resolve, _progress)


def _progress(number: int, count: int, fold: Fold) -> None:
    click.echo(f"refit {number} of {count}: without {fold.name} ({counted(len(fold.held_out), 'run')})", err=True)


def _node_gpus(runs: Sequence[Run], resolve: Resolver) -> dict[str, int]:
    found = {run.gpu_model: resolve(run).gpu for run in runs}
    return {name: 8 if gpu is None else gpu.max_gpus_per_node for name, gpu in found.items()}
