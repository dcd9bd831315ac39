"""``energylens calibrate``: fit the predictor's coefficients to measured runs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from energylens.cli.commands.calibrate_run import run_command


@click.group()
def calibrate() -> None:
    """Measure an engine under known loads, and fit the predictor's coefficients to measured runs."""


calibrate.add_command(run_command)


@calibrate.command("fit")
@click.option(
    "--runs",
    "runs_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV with the columns of the shipped runs; default: the shipped runs.",
)
@click.option("--add-shipped", is_flag=True, help="Fit to the shipped runs and to those of --runs.")
@click.option(
    "--kernels",
    "kernel_directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with *-moe_perf.parquet kernel tables; default: the shipped curves.",
)
@click.option(
    "--out", "out_file", type=click.Path(path_type=Path, dir_okay=False), required=True, help="JSON file to write."
)
@click.option(
    "--curves-out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --kernels: JSON file to write the curves to.",
)
def fit_command(
    runs_file: Path | None, add_shipped: bool, kernel_directory: Path | None, out_file: Path, curves_out: Path | None
) -> None:
    """Fit the constants and the residual, and write the coefficient file.

    Deterministic: the same runs and tables give the same file. A site has few runs, such as those of `energylens drift
    --runs`. With --add-shipped, the fit uses the shipped runs, too, and the site's runs determine how its GPUs, engine
    and models deviate. Use the file with `energylens --coefficients FILE ...`.
    """
    from energylens.calibration.fit import FitError
    from energylens.calibration.procedure import CalibrationError, calibrate_files
    from energylens.calibration.runs import RunsError

    try:
        outcome = calibrate_files(runs_file, kernel_directory, add_shipped)
    except (RunsError, FitError, CalibrationError) as error:
        raise click.UsageError(str(error)) from error
    try:
        out_file.write_text(json.dumps(outcome.document, indent=1) + "\n", encoding="utf-8")
        if curves_out is not None:
            outcome.write_curves(curves_out)
    except OSError as error:
        raise click.UsageError(f"cannot write: {error}") from error
    for line in outcome.summary():
        click.echo(line)
    click.echo(f"wrote {out_file}")
