"""`energylens explain`: why a plan was chosen, and why another plan was not."""

from __future__ import annotations

import math
import re
from pathlib import Path

import click

from energylens.api.llmdeployment import Overrides
from energylens.cli.errors import INFEASIBLE, InputError, one_line_errors
from energylens.cli.inputs.options import FILES, OUTPUT, WHAT_IF, Source, source_options
from energylens.cli.inputs.previews import previews
from energylens.cli.text.explain import Explained, as_object, report
from energylens.cli.text.tables import dump
from energylens.cli.text.what_if import answers_for, as_objects, parse_formats
from energylens.cli.text.what_if import report as what_if_report
from energylens.data import find_gpu
from energylens.decide.deployment.plans.planning import problem_of, solution_of
from energylens.decide.preview import Preview
from energylens.planner.explain.whynot import Choice, why_not
from energylens.planner.search.problem import Problem

_OVERRIDES = {
    "tp": "tensor_parallel",
    "pp": "pipeline_parallel",
    "ep": "expert_parallel",
    "dp": "data_parallel",
    "replicas": "replicas",
    "batch": "max_batch_size",
    "tokens": "max_batched_tokens",
}
_KEYS = (*_OVERRIDES, "gpu", "cap")
_LAYOUT = re.compile(r"(TP|PP|EP|DP)[0-9]+(-(TP|PP|EP|DP)[0-9]+)*", re.IGNORECASE)


@click.command()
@FILES
@source_options
@click.option(
    "--why",
    metavar="KEY=VALUE[,...]",
    help="Explain why no plan with these values was chosen: tp, pp, ep, dp, replicas, batch, tokens (of a step), gpu, "
    "or cap in W per GPU (cap=none: the product's limit). A layout as plans print it, such as TP8-PP2, stands for "
    "tp=8,pp=2. Example: tp=4,gpu=H100. The planner chooses the other values.",
)
@WHAT_IF
@OUTPUT
def explain(
    files: tuple[Path, ...],
    source: Source,
    why: str | None,
    what_if: str | None,
    output: str,
) -> None:
    """Show where the plan's energy goes and the cost of each constraint, or why another plan was not chosen.

    Exit code 0: every deployment has a plan; 3: at least one has none; 2: bad input.
    """
    with one_line_errors(InputError):
        choice = None if why is None else parse_choice(why)
        formats = () if what_if is None else parse_formats(what_if)
        explained = [_explain(found, choice) for found in previews(*source.read(files))]
    whats = [answers_for(one.preview, formats) for one in explained] if formats else []
    if output == "table":
        texts = [report(one) for one in explained]
        for number, answers in enumerate(whats):
            texts[number] = "\n".join([texts[number], *what_if_report(answers)])
        click.echo("\n\n".join(texts))
    else:
        documents = [as_object(one) for one in explained]
        for document, answers in zip(documents, whats, strict=False):
            document["whatIf"] = as_objects(answers)
        click.echo(dump(documents, output), nl=False)
    if not all(one.preview.planning.good for one in explained):
        raise SystemExit(INFEASIBLE)


def parse_choice(text: str) -> Choice:
    """Return the plan that ``--why`` describes.

    Raises:
        InputError: A key is unknown or given twice, or a value is not allowed.
    """
    values: dict[str, str] = {}
    for part in text.split(","):
        for key, value in _pairs(part.strip()):
            if key in values:
                raise InputError(f"--why: {key} appears twice")
            values[key] = value
    counts = {_OVERRIDES[key]: _whole(key, value) for key, value in values.items() if key in _OVERRIDES}
    product = None
    if "gpu" in values:
        try:
            product = find_gpu(values["gpu"]).product
        except LookupError as error:
            raise InputError(f"--why gpu={values['gpu']}: {error.args[0]}") from error
    cap = values.get("cap")
    watts = None if cap is None else math.nan if cap.lower() == "none" else float(_whole("cap", cap))
    return Choice(product, Overrides().model_copy(update=counts), watts)


def _pairs(part: str) -> list[tuple[str, str]]:
    """Return the keys and values of ``KEY=VALUE``, or of a layout as `describe_layout` prints it."""
    if _LAYOUT.fullmatch(part):
        return [(size[:2].lower(), size[2:]) for size in part.split("-")]
    key, equals, value = (word.strip() for word in part.partition("="))
    if not equals or key not in _KEYS:
        raise InputError(
            f"--why {part!r}: must be KEY=VALUE with KEY one of {', '.join(_KEYS)}, or a layout such as TP8-PP2"
        )
    return [(key, value)]


def _whole(key: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise InputError(f"--why {key}={value}: must be a whole number of at least 1")
    return int(value)


def _explain(preview: Preview, choice: Choice | None) -> Explained:
    planning = preview.planning
    problem: Problem | None = None
    if planning.model is not None and planning.result is not None:
        problem = problem_of(preview.inputs, planning.model)
    if problem is None or not problem.allowed_products:
        return Explained(preview)
    if choice is not None:
        return Explained(preview, problem, answer=why_not(problem, choice))
    return Explained(preview, problem, solution=solution_of(problem, planning))
