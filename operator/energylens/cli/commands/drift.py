"""`energylens drift`: predicted against measured for every LLMDeployment of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from energylens.api.words import counted
from energylens.cli.commands.status import read_deployments
from energylens.cli.errors import InputError, one_line_errors
from energylens.cli.inputs.drift_runs import runs_csv
from energylens.cli.inputs.live import ClusterAccess, cluster_options
from energylens.cli.text.drift import FIGURES, DriftRow, row_of
from energylens.cli.text.tables import columns, dump


@click.command()
@cluster_options
@click.option("-n", "--namespace", metavar="NAME", help="Only this namespace. Default: all namespaces.")
@click.option("--runs", "runs_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.csv",
              help="Write the measurements as a table of runs, for `energylens calibrate fit --runs`.")  # fmt: skip
@click.option("--plot", "plot_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png",
              help="Draw predicted against measured figures.")  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
def drift(
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    runs_file: Path | None,
    plot_file: Path | None,
    output: str,
) -> None:
    """Compare the predictions for all LLMDeployments with their measurements.

    Errors are (predicted - measured) / measured of the last window. Figures that were not measured are "-". The last
    column gives the reason, and the corrections that are in the predicted figures (onDrift: Recalibrate).
    """
    with one_line_errors(InputError):
        if plot_file is not None:
            from energylens.cli.pictures.charts import check_matplotlib

            check_matplotlib("--plot")
        deployments = read_deployments(ClusterAccess(kubeconfig, context, namespace, namespace is None), ())
        rows = [row_of(deployment) for deployment in deployments]
        if runs_file is not None:
            table = runs_csv(deployments)
            _write(runs_file, "--runs", table.text.encode())
            _say(f"{runs_file}: {counted(table.written, 'run')}", table.left_out)
        if plot_file is not None:
            from energylens.cli.pictures.drift import png

            _write(plot_file, "--plot", png(rows))
            _say(f"{plot_file}: {counted(sum(row.measured for row in rows), 'deployment')}", ())
    if output != "table":
        click.echo(dump([{"items": [row.as_object() for row in rows]}], output), nl=False)
    else:
        click.echo(table_of(rows))


def table_of(rows: list[DriftRow]) -> str:
    """Return the rows as a table, and the mean error of the rows that were measured at the planned load."""
    header = (
        "NAMESPACE",
        "NAME",
        "GPUS",
        "LAYOUT",
        "LOAD",
        "J/TOKEN",
        "MEASURED",
        *({"end_to_end": "E2E"}.get(name, name.upper()) for name in FIGURES),
        "",
    )
    lines = columns([header, *(row.cells() for row in rows)])
    comparable = [abs(row.errors["energy"]) for row in rows if row.comparable and row.errors.get("energy") is not None]
    if comparable:
        mean = sum(comparable) / len(comparable)
        lines.append(
            f"  mean error of the energy per token: {mean:.0f} % over {counted(len(comparable), 'deployment')}"
        )
    return "\n".join(lines)


def _write(path: Path, option: str, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"{option} {path}: {error.strerror or error}") from error


def _say(text: str, left_out: Any) -> None:
    click.echo(text, err=True)
    for line in left_out:
        click.echo(f"  left out: {line}", err=True)
