"""`energylens plan`: the operator's plan, before anything is applied."""

from __future__ import annotations

from pathlib import Path

import click

from energylens.cli.errors import INFEASIBLE, InputError, one_line_errors
from energylens.cli.inputs.options import FILES, OUTPUT, WHAT_IF, Source, source_options
from energylens.cli.inputs.previews import previews
from energylens.cli.inputs.rates import Rates, rates_options
from energylens.cli.text.plan import report, with_status
from energylens.cli.text.tables import dump
from energylens.cli.text.what_if import answers_for, as_objects, parse_formats
from energylens.cli.text.what_if import report as what_if_report
from energylens.planner.inventory.nodes import unusable


@click.command()
@FILES
@source_options
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw energy against ITL and TTFT, and the week of a profile: .png, .svg, or .html with the table of "
    "candidates.",
)
@WHAT_IF
@rates_options
@OUTPUT
def plan(
    files: tuple[Path, ...],
    source: Source,
    plot: Path | None,
    what_if: str | None,
    rates: Rates,
    output: str,
) -> None:
    """Plan LLMDeployments as the operator would, for a live cluster or one described in a file.

    Several deployments are planned in their order, each on the GPUs and watts that earlier ones leave. Nothing is
    written to the cluster. Exit code 0: every deployment has a plan; 3: at least one has none; 2: bad input.
    """
    with one_line_errors(InputError):
        if plot is not None:
            from energylens.cli.pictures.plot import check_plot

            check_plot(plot)
        formats = () if what_if is None else parse_formats(what_if)
        deployments, world = source.read(files)
        found = previews(deployments, world)
    whats = [answers_for(preview, formats) for preview in found] if formats else []
    if output == "table":
        texts = [report(preview, rates) for preview in found]
        for number, answers in enumerate(whats):
            texts[number] = "\n".join([texts[number], *what_if_report(answers)])
        click.echo("\n\n".join(texts))
        left_out = unusable(world.snapshot.excluded)
        # The message of NoMatchingGPUs lists them already.
        if any(left_out not in preview.planning.message for preview in found):
            click.echo(f"nodes with GPUs {left_out.removeprefix('; ')}", err=True)
    else:
        documents = [with_status(preview, rates) for preview in found]
        for document, answers in zip(documents, whats, strict=False):
            document["whatIf"] = as_objects(answers)
        click.echo(dump(documents, output), nl=False)
    if plot is not None:
        from energylens.cli.pictures.plot import write_plot

        with one_line_errors(InputError):
            write_plot(plot, found, source.cluster_text, whats)
        click.echo(f"wrote {plot}", err=True)
    if not all(preview.planning.good for preview in found):
        raise SystemExit(INFEASIBLE)
