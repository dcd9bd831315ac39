"""`energylens diff`: how another spec or another cluster changes the plan, and the costs or savings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from energylens.cli.errors import INFEASIBLE, InputError, one_line_errors
from energylens.cli.inputs.options import INVENTORY_HELP, OUTPUT, Source, live_options
from energylens.cli.inputs.previews import previews
from energylens.cli.text.diff import BothSides, Side, as_object, compare, report
from energylens.cli.text.tables import dump
from energylens.decide.preview import Preview


@click.command()
@click.argument("specs", nargs=-1, type=click.Path(path_type=Path), metavar="[A B]")
@click.option(
    "-f",
    "--filename",
    "files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="LLMDeployments to compare on two inventories, instead of A and B; may be repeated.",
)
@click.option(
    "--inventory",
    "inventories",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help=f"Given once: the cluster of A and B. Given twice: the clusters to compare. {INVENTORY_HELP}",
)
@live_options
@OUTPUT
def diff(
    specs: tuple[Path, ...],
    files: tuple[Path, ...],
    inventories: tuple[Path, ...],
    source: Source,
    output: str,
) -> None:
    """Compare the plans of two specs on one cluster (A B), or of one spec on two inventories (-f).

    A and B are files or folders of LLMDeployments, which are matched by namespace and name. Exit code 0: every
    deployment has a plan on both sides; 3: at least one has none; 2: bad input.
    """
    with one_line_errors(InputError):
        found = compare(*_sides(specs, files, inventories, source))
    click.echo(report(found) if output == "table" else dump([as_object(found)], output), nl=output == "table")
    if not all(side.planning.good for pair in found.pairs for side in _present(pair)):
        raise SystemExit(INFEASIBLE)


def _present(pair: BothSides) -> tuple[Preview, ...]:
    return tuple(side for side in (pair.a, pair.b) if side is not None)


def _sides(
    specs: tuple[Path, ...],
    files: tuple[Path, ...],
    inventories: tuple[Path, ...],
    source: Source,
) -> tuple[Side, Side]:
    if specs and files:
        raise InputError("A B compares two specs and -f one spec on two inventories: give one of them")
    if specs:
        if len(specs) != 2 or len(inventories) > 1:
            raise InputError("two specs are compared on one cluster: give A and B, and at most one --inventory")
        one = replace(source, inventory=inventories[0] if inventories else None)
        pairs = [(str(path), one.read((path,))) for path in specs]
    else:
        if not files or len(inventories) != 2:
            raise InputError("give two specs A B, or one with -f and two --inventory to compare")
        pairs = [(str(path), replace(source, inventory=path).read(files)) for path in inventories]
    first, second = (Side(name, world, previews(asked, world)) for name, (asked, world) in pairs)
    return first, second
