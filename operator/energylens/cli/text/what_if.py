"""Plans with weights in formats other than the checkpoint's, for people and for programs, marked as what-ifs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from energylens.api.llmdeployment import Alternative
from energylens.api.quantity import format_milli
from energylens.cli.errors import InputError
from energylens.cli.text.tables import columns
from energylens.data import load_model
from energylens.data.catalogue import releases_of
from energylens.decide.deployment.observed.served import ModelProblemError, model_of
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.decide.deployment.plans.planning import problem_of
from energylens.decide.preview import Preview
from energylens.decide.reasons import Reason
from energylens.planner.explain.whatif import ALL_FORMATS, SIXTEEN_BITS, WhatIf, stored_formats, what_ifs
from energylens.planner.search import describe
from energylens.planner.search.frontier import figures
from energylens.planner.search.problem import Solution, solve
from energylens.records import dataclass

NOTE = (
    "What if the weights were in another format, as such releases are usually made? The operator plans the checkpoint "
    "that spec.model names, and refuses formats that cannot be loaded; the accuracy of the model's "
    "answers is not considered."
)
HEADER = ("FORMAT", "J/TOKEN", "ENERGY", "GPUS", "PLAN", "WATTS", "TTFT MS", "ITL MS", "TPOT MS", "E2E MS", "NEEDS")
_EVERY = "all"
_SHOWN_RELEASES = 3


@dataclass(frozen=True)
class WhatIfs:
    """The answers for one deployment."""

    model: str
    """Model as in ``spec.model.name``."""
    planned: Solution | None
    """Solution for the checkpoint's own format; None if nothing could be planned."""
    answers: tuple[WhatIf, ...]
    label: str = "as planned"
    """Label of the checkpoint's row."""


def parse_formats(text: str) -> tuple[str, ...]:
    """Return the formats that ``--what-if`` names, without duplicates.

    Raises:
        InputError: A format is not known.
    """
    known = {name.lower(): name for name in ALL_FORMATS}
    found: dict[str, None] = {}
    for part in (word.strip() for word in text.split(",")):
        if part.lower() == _EVERY:
            return ALL_FORMATS
        if part.lower() not in known:
            raise InputError(f"--what-if {part!r}: must be {', '.join(ALL_FORMATS)} or {_EVERY}")
        found[known[part.lower()]] = None
    return tuple(found)


def answers_for(preview: Preview, formats: Sequence[str]) -> WhatIfs:
    """Return the answers for a deployment; none where its model is not known or no GPU is allowed."""
    name, inputs, checkpoint = preview.deployment.spec.model.name, preview.inputs, preview.planning.model
    label = WhatIfs.label
    if checkpoint is None and preview.planning.reason is Reason.MODEL_UNSUPPORTED:
        # The format cannot be loaded; the user asks what it would save.
        inputs, label = _as_stored(inputs), "as stored"
        try:
            checkpoint = model_of(inputs.deployment, inputs.config)
        except ModelProblemError:
            return WhatIfs(name, None, ())
    problem = None if checkpoint is None else problem_of(inputs, checkpoint)
    if problem is None or checkpoint is None or not problem.allowed_products:
        return WhatIfs(name, None, ())
    return WhatIfs(name, solve(problem), what_ifs(problem, checkpoint, formats), label)


def _as_stored(inputs: Inputs) -> Inputs:
    """Return the inputs for the checkpoint in its own number format."""
    spec = inputs.deployment.spec
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"quantization": None})})
    return replace(inputs, deployment=inputs.deployment.model_copy(update={"spec": spec}))


def table_rows(found: WhatIfs) -> list[tuple[str, ...]]:
    """Return the heading and a row of cells for the checkpoint and each format."""
    if found.planned is None:
        return []
    rows = [HEADER, (found.label, *_cells(found.planned, found.planned, ""), "")]
    return rows + [
        (answer.format, *_cells(answer.solution, found.planned, answer.refused), needs(found, answer))
        for answer in found.answers
    ]


def report(found: WhatIfs) -> list[str]:
    """Return the answers as lines."""
    if found.planned is None:
        return ["", "  --what-if: there is no plan, see above"]
    lines = ["", f"  {NOTE}", *columns(table_rows(found))]
    lacks = dict.fromkeys(f"{answer.format}: {text}" for answer in found.answers for text in answer.kernels)
    return [*lines, *(f"  {text}" for text in lacks)]


def as_objects(found: WhatIfs) -> list[dict[str, Any]]:
    """Return the answers for programs; each names its format and says that it is a what-if."""
    return [_object(found, answer) for answer in found.answers]


def needs(found: WhatIfs, answer: WhatIf) -> str:
    """Return the checkpoint that the user would have to serve to get a what-if's figures."""
    if answer.is_stored:
        return "nothing: the checkpoint is in this format"
    wanted = "16 bits" if answer.format == SIXTEEN_BITS else answer.format
    known = releases(found.model, answer.format)
    text = f"a release of {found.model} in {wanted}"
    if known:
        more = len(known) - _SHOWN_RELEASES
        text += f", such as {', '.join(known[:_SHOWN_RELEASES])}" + (f" and {more} more" if more > 0 else "")
    if answer.converts:
        text += f"; engines also convert while loading: spec.model.quantization={answer.format}"
    return text


def releases(model: str, wanted: str) -> tuple[str, ...]:
    """Return the catalogue's ids of a model in a format."""
    return tuple(name for name in releases_of(model) if wanted in stored_formats(load_model(name)))


def _cells(solution: Solution, planned: Solution, refused: str) -> tuple[str, ...]:
    i, rows = solution.chosen, solution.rows
    if i is None:
        return ("-", "-", "-", f"no plan: {refused}" if refused else "no plan", "-", "-", "-", "-", "-")
    energy = float(rows.joules_per_output_token[i])
    change = _change(energy, planned)
    return (
        f"{energy:.3g}",
        "-" if change is None else f"{change:+.0f} %",
        str(int(rows.gpus[i])),
        describe.candidate(rows, i),
        f"{rows.power_watts[i]:.0f}",
        *(str(describe.up(float(each[i]))) for each in (rows.ttft_ms, rows.itl_ms, rows.tpot_ms, rows.end_to_end_ms)),
    )


def _change(energy: float, planned: Solution) -> float | None:
    """Return the difference in energy from the plan, in percent; None without a plan, and for the plan itself."""
    if planned.chosen is None:
        return None
    change = 100.0 * (energy / float(planned.rows.joules_per_output_token[planned.chosen]) - 1.0)
    return change if abs(change) >= 1e-9 else None


def _object(found: WhatIfs, answer: WhatIf) -> dict[str, Any]:
    assert found.planned is not None
    i, rows = answer.solution.chosen, answer.solution.rows
    shown: dict[str, Any] = {"whatIf": not answer.is_stored, "format": answer.format, "needs": needs(found, answer)}
    if known := releases(found.model, answer.format):
        shown["releases"] = list(known)
    if answer.kernels:
        shown["kernels"] = list(answer.kernels)
    if i is None:
        return {**shown, "message": f"no plan: {answer.refused}" if answer.refused else "no plan"}
    change = _change(float(rows.joules_per_output_token[i]), found.planned)
    wire = Alternative(**figures(rows, i), reason="").model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude={"reason"}
    )
    extra = {} if change is None else {"energyChangePercent": round(change)}
    low, high = (format_milli(float(each[i])) for each in (rows.joules_low, rows.joules_high))
    return {**shown, **extra, "plan": {**wire, "joulesPerOutputTokenLow": low, "joulesPerOutputTokenHigh": high}}
