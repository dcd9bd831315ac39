"""How reliable a plan's prediction is, as a grade and in words."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from energylens.api.llmdeployment import Confidence, Engine, describe_layout
from energylens.planner.engines.versions import NAMES, display, version_of
from energylens.predictor.fitted.evidence import Evidence
from energylens.predictor.fitted.features import ENGINE, LAYOUT, MODEL, NOTHING
from energylens.predictor.fitted.profiles import parse_version
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import FloatArray, GpuSpec, Layouts, Workload

GRADES: tuple[Confidence, ...] = ("Measured", "Interpolated", "Interpolated", "Extrapolated")
"""Grade by the index of the nearest measurement."""
CAPPED = "no run had a power cap"
DRAFTED = "no run drafted tokens"
APART = "no run had separate prefill and decode"
STEPPED = "no run had steps of {} tokens"


@runtime_checkable
class Witness(Protocol):
    """A predictor that can report which measurements are near a candidate."""

    def evidence(
        self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload, running: FloatArray
    ) -> Evidence:
        """Return the measurements near one candidate."""
        ...


def confidence_of(
    witness: object,
    nearest: int,
    engine: Engine,
    model: ModelSpec,
    gpu: GpuSpec,
    layouts: Layouts,
    workload: Workload,
    running: float,
    *,
    apart: bool = False,
) -> tuple[Confidence, str]:
    """Return the grade of a candidate and its reason, as one clause.

    Args:
        witness: The predictor; a test double that is not a `Witness` gives no reason.
        nearest: The candidate's nearest measurement, an index into `energylens.predictor.fitted.features.NEAREST`.
        engine: The deployment's engine, whose version counts.
        model: The model as served.
        gpu: The candidate's GPU product.
        layouts: The candidate's layout, shape (1,).
        workload: Mean request.
        running: Sequences that run at once in one replica.
        apart: Whether prefill runs on separate replicas.
    """
    capped = bool(np.isfinite(layouts.power_cap_watts).any())
    stepped = [STEPPED.format(tokens) for tokens in layouts.max_batched_tokens.tolist() if tokens]
    unmeasured = [APART] * apart + [CAPPED] * capped + [DRAFTED] * (workload.speculation is not None)
    if not isinstance(witness, Witness):
        return GRADES[max(nearest, MODEL if stepped else nearest)], "; ".join([*unmeasured, *stepped])
    found = witness.evidence(model, gpu, layouts, workload, np.array([max(running, 1.0)]))
    words = [*unmeasured, *_near(found, engine, gpu, layouts, running), *stepped]
    other = _other_version(found, engine, told="; ".join(words))
    if unmeasured or found.nearest == NOTHING:
        return "Extrapolated", "; ".join([*words, *other])
    if found.nearest == LAYOUT:
        if other or stepped:
            return "Interpolated", "; ".join([*other, *stepped])
        return "Measured", words[0]
    return "Interpolated", "; ".join([*words, *other])


def _near(found: Evidence, engine: Engine, gpu: GpuSpec, layouts: Layouts, running: float) -> list[str]:
    name = NAMES[engine.type]
    under = name if found.versions is None else f"{name} {_span(found.versions)}"
    if gpu.name not in found.products:
        others = f", {_list(found.products)} were" if found.products else ""
        return [f"{gpu.name} was not measured with {under}{others}"]
    if found.nearest == LAYOUT:
        return [f"this model was measured in this layout on {gpu.name} with {under}"]
    if found.nearest == MODEL:
        return [_model_known(found, gpu, layouts, running)]
    if not found.split:
        return [f"no replica was measured with {_split(layouts)}"]
    if found.nearest == ENGINE:
        if found.model_known:
            return [f"this model was measured with {under}, but no {found.kind} was on {gpu.name}"]
        if not found.kind_known:
            what = f"a {found.kind}" if found.before else "this model"
            return [f"{what} was measured with other versions of {name} only"]
        where = f"on {gpu.name}" if found.kind_here else "on other GPUs"
        return [f"this model was not measured with {under}; another {found.kind} was {where}"]
    if not found.kind_known:
        return [f"no {found.kind} was measured with {under}"]
    return [f"no run had {running:.0f} sequences running at once"]


def _model_known(found: Evidence, gpu: GpuSpec, layouts: Layouts, running: float) -> str:
    if found.loads is not None:
        low, high = found.loads
        return (
            f"this layout was measured with {low:.0f} to {high:.0f} sequences running at once, not with {running:.0f}"
        )
    if _degrees(layouts) in found.layouts:
        return "this layout was measured only with other prompt and output lengths"
    shown = _list([describe_layout(tensor=t, pipeline=p, expert=e, data=d) for t, p, e, d in found.layouts])
    if not shown:
        return f"this model was measured only on GPUs other than {gpu.name}, or in another number format"
    return f"this model was measured on {gpu.name} as {shown}, not as {_layout(layouts)}"


def _degrees(layouts: Layouts) -> tuple[int, int, int, int]:
    degrees = (layouts.tensor_parallel, layouts.pipeline_parallel, layouts.expert_parallel, layouts.data_parallel)
    tensor, pipeline, expert, data = (int(degree[0]) for degree in degrees)
    return tensor, pipeline, expert, data


def _layout(layouts: Layouts) -> str:
    tensor, pipeline, expert, data = _degrees(layouts)
    return describe_layout(tensor=tensor, pipeline=pipeline, expert=expert, data=data)


def _split(layouts: Layouts) -> str:
    parts = ["pipeline stages"] * bool(layouts.pipeline_parallel[0] > 1)
    parts += ["data-parallel ranks"] * bool(layouts.data_parallel[0] > 1)
    return " and ".join(parts) or "communication over a host link"


def _other_version(found: Evidence, engine: Engine, told: str) -> list[str]:
    """Return that the deployment's version lies outside the measured versions, or nothing."""
    version = version_of(engine)
    if found.versions is None or parse_version(found.versions[0]) <= version <= parse_version(found.versions[1]):
        return []
    text, span = f"{display(engine.type, version)} was not measured", _span(found.versions)
    return [text if span in told and found.nearest != LAYOUT else f"{text}, {span} of the same engine was"]


def _span(versions: tuple[str, str]) -> str:
    first, last = versions
    return first if first == last else f"{first} to {last}"


def _list(names: tuple[str, ...] | list[str], most: int = 4) -> str:
    shown = list(names[:most])
    return ", ".join([*shown, f"{len(names) - most} more"] if len(names) > most else shown)
