"""`energylens fleet`: many deployments planned together, within the power and the GPUs that they share."""

from __future__ import annotations

from pathlib import Path

import click

from energylens.cli.errors import INFEASIBLE, InputError, one_line_errors
from energylens.cli.inputs.fleet_solve import FleetResult, solve_fleet
from energylens.cli.inputs.options import FILES, OUTPUT, Source, source_options
from energylens.cli.inputs.rates import Rates, rates_options
from energylens.cli.text.fleet import as_object, report
from energylens.cli.text.provenance import Provenance
from energylens.cli.text.tables import dump
from energylens.cli.text.week import peak_notes
from energylens.clock import SystemClock
from energylens.planner.fleet.milp import SolverError


@click.command()
@FILES
@source_options
@click.option(
    "--budget-watts",
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum power of all deployments together, W. Budgets in the files and in the cluster count, too.",
)
@click.option("--report", "report_file", type=click.Path(path_type=Path), metavar="FILE", help="Write an HTML report.")
@rates_options
@OUTPUT
def fleet(
    files: tuple[Path, ...],
    source: Source,
    budget_watts: int | None,
    report_file: Path | None,
    rates: Rates,
    output: str,
) -> None:
    """Plan many LLMDeployments together, with the least total energy within the GPUs and watts that they share.

    The result is exact, while `energylens plan` gives each deployment the resources that earlier ones leave. Prints the
    cost of each objective and each budget or, if no joint plan exists, the constraints to relax. Exit code 0: a plan
    for all; 3: no plan; 2: bad input.
    """
    with one_line_errors(InputError, SolverError):
        if report_file is not None:
            from energylens.cli.pictures.plot import check_plot

            check_plot(report_file, "--report", (".html",))
        asked, world = source.read(files)
        found = solve_fleet(asked, world, budget_watts)
        if report_file is not None:
            predictors = [part.problem.predictor.version for part in found.deployments]
            made = Provenance(SystemClock().now(), source.cluster_text, world.snapshot).text(predictors)
            _write(report_file, found, made, rates)
    for note in peak_notes(asked):
        click.echo(note, err=True)
    if output == "table":
        click.echo(report(found, rates))
    else:
        click.echo(dump([as_object(found, rates)], output), nl=False)
    if not found.holds:
        raise SystemExit(INFEASIBLE)


def _write(path: Path, found: FleetResult, made: str, rates: Rates) -> None:
    from energylens.cli.pictures.fleet_page import fleet_page
    from energylens.cli.pictures.plot import write_text

    write_text(path, fleet_page(found, made, rates), "--report")
    click.echo(f"wrote {path}", err=True)
