"""`--plot`: a picture of plans in a file, whose suffix gives the format."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from energylens.cli.errors import InputError
from energylens.cli.pictures.charts import check_matplotlib, panel_figure, plan_figure, svg, week_figure
from energylens.cli.pictures.page import charts, heading, page, paragraph, table
from energylens.cli.pictures.plan import Picture, picture
from energylens.cli.pictures.week import week_picture
from energylens.cli.text.plan import table_rows
from energylens.cli.text.provenance import Provenance
from energylens.cli.text.week import WEEK_HEADER, week_rows, week_text
from energylens.cli.text.what_if import NOTE, WhatIfs
from energylens.cli.text.what_if import table_rows as what_if_rows
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans.planning import problem_of, solution_of
from energylens.decide.preview import Preview
from energylens.planner.types import Feasible

SUFFIXES = (".png", ".svg", ".html")


def check_plot(path: Path, option: str = "--plot", suffixes: Sequence[str] = SUFFIXES) -> None:
    """Refuse a picture that cannot be drawn or written, before any planning.

    Raises:
        InputError: The suffix is not known, the file cannot be there, or matplotlib is missing.
    """
    if path.suffix not in suffixes:
        raise InputError(f"{option} {path}: the name must end in {', '.join(suffixes)}")
    folder = path.absolute().parent
    if path.is_dir():
        number = errno.EISDIR
    elif not folder.is_dir():
        number = errno.ENOENT
    else:
        number = 0 if os.access(path if path.exists() else folder, os.W_OK) else errno.EACCES
    if number:
        raise InputError(f"{option} {path}: {os.strerror(number)}")
    check_matplotlib(option)


def write_plot(path: Path, previews: Sequence[Preview], cluster: str, what_ifs: Sequence[WhatIfs] = ()) -> None:
    """Write the pictures of plans; a deployment without any candidate has no picture, and on a page only the reason.

    Args:
        path: The file to write; its suffix gives the format.
        previews: Answers for the deployments.
        cluster: Where the cluster was read from.
        what_ifs: Answers to ``--what-if`` for each of them, for pages; empty without the option.

    Raises:
        InputError: Nothing can be drawn, or the file cannot be written.
    """
    drawn = [found for preview in previews if (found := _picture(preview)) is not None]
    if not drawn:
        raise InputError(
            f"--plot {path}: no candidate can run the load of any deployment, so that there is nothing to draw"
        )
    if path.suffix == ".html":
        write_text(path, plan_page(previews, cluster, what_ifs), "--plot")
        return
    figure = plan_figure(drawn)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise InputError(f"--plot {path}: {error.strerror or error}") from error


def write_text(path: Path, text: str, option: str) -> None:
    """Write a file.

    Raises:
        InputError: It cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{option} {path}: {error.strerror or error}") from error


def _picture(preview: Preview) -> Picture | None:
    planning = preview.planning
    if planning.model is None or planning.result is None:
        return None
    problem = problem_of(preview.inputs, planning.model)
    if not problem.allowed_products:
        return None
    found = picture(preview.deployment.metadata.name, problem, solution_of(problem, planning))
    if found is None or planning.week is None:
        return found
    title = f"{found.title}, {planning.week.load.peak_text}"
    return replace(found, title=title, week=week_picture(found.title, planning.week))


def plan_page(previews: Sequence[Preview], cluster: str, what_ifs: Sequence[WhatIfs] = ()) -> str:
    """Return a page of plans: the message of each, its charts and its table of candidates.

    Args:
        previews: Answers for the deployments, one at least.
        cluster: Where the cluster was read from.
        what_ifs: Answers to ``--what-if`` for each of them; empty without the option.
    """
    body = [paragraph(_LEGEND, "muted")]
    predictors = []
    for number, preview in enumerate(previews):
        planning, drawn = preview.planning, _picture(preview)
        title = preview.deployment.metadata.name if drawn is None else drawn.title
        body += [heading(title), paragraph(planning.message, "" if planning.good else "bad")]
        if drawn is not None:
            predictors.append(drawn.predictor_version)
            body.append(
                charts(
                    (svg(panel_figure(drawn, panel), drawn.labels), f"Energy against {panel.name}")
                    for panel in drawn.panels
                )
            )
            body += _week(planning, drawn)
        if isinstance(planning.result, Feasible):
            header, *rows = table_rows(preview.deployment, planning.result.table)
            picked = next(i for i, row in enumerate(planning.result.table) if row["chosen"])
            body.append(table(header, rows, picked=picked))
        if what_ifs:
            head, *lines = what_if_rows(what_ifs[number])
            body += [heading("What if", 3), paragraph(NOTE, "muted"), table(head, lines)]
    # Each deployment is planned on the GPUs that earlier ones leave, but all have the same nodes.
    first = previews[0].inputs
    return page("EnergyLens plan", body, Provenance(first.now, cluster, first.snapshot).text(predictors))


def _week(planning: PlanChoice, found: Picture) -> list[str]:
    """Return the week of a schedule; nothing for a constant load."""
    if found.week is None or planning.schedule is None:
        return []
    return [
        heading("The week", 3),
        paragraph(week_text(planning.schedule)),
        charts([(svg(week_figure(found.week)), f"Load, replicas and power over the week ({found.week.zone})")]),
        table(WEEK_HEADER, week_rows(planning.schedule)),
        heading("The highest rate", 3),
    ]


_LEGEND = (
    "Each point is a way to serve the load. Filled: satisfies every constraint; hollow: on the frontier, but "
    "breaks one. "
    "The line to the right of a point ends at the latency with the safety margin, which objectives are checked with."
)
