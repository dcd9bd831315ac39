"""The plan for weights in a number format that the checkpoint does not have: a what-if, never a plan to adopt.

The format is that of the usual release (:func:`energylens.predictor.model.requantize.usual_release`); load, objectives,
GPUs and learned corrections stay the same. The operator refuses formats that cannot be loaded and never adopts a plan
from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from energylens.planner.engines import EngineSettings
from energylens.planner.engines.kernels import missing_kernels
from energylens.planner.search.problem import Problem, Solution, solve
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.requantize import FORMATS, usual_release, with_quantization
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass

SIXTEEN_BITS = "None"
ALL_FORMATS = (SIXTEEN_BITS, *FORMATS)
"""Formats as in ``spec.model.quantization``; ``None`` is 16 bits."""


@dataclass(frozen=True)
class WhatIf:
    """The best plan with weights in one format."""

    format: str
    """One of :data:`ALL_FORMATS`."""
    is_stored: bool
    """The checkpoint already has this format: the plan is the ordinary one."""
    converts: bool
    """Engines create this format while loading the checkpoint, with other scales than the usual release."""
    solution: Solution
    kernels: tuple[str, ...]
    """Missing hardware support for the format, one sentence for each GPU product."""

    @property
    def refused(self) -> str:
        """Why there is no plan: the last rule that removed candidates; "" if there is a plan."""
        left = self.solution.rejections
        return "" if self.solution.chosen is not None or not left else left[-1].message


def what_ifs(problem: Problem, checkpoint: ModelSpec, formats: Sequence[str]) -> tuple[WhatIf, ...]:
    """Return the best plan in each format.

    Args:
        problem: The planning problem.
        checkpoint: The model as stored.
        formats: Some of :data:`ALL_FORMATS`.

    Raises:
        UnsupportedQuantizationError: A format is unknown.
    """
    settings = EngineSettings.of(problem.spec.engine)
    return tuple(_what_if(problem, checkpoint, each, settings) for each in formats)


def stored_formats(model: ModelSpec) -> frozenset[str]:
    """Return the formats of :data:`ALL_FORMATS` in which a checkpoint stores weights."""
    quants = (model.attention_quant, model.ffn_quant, model.expert_quant)
    weights = {quant.weight for quant in quants} - {"bfloat16"}
    return frozenset(name for name, weight in FORMATS.items() if weight in weights) or frozenset({SIXTEEN_BITS})


def _what_if(problem: Problem, checkpoint: ModelSpec, wanted: str, settings: EngineSettings) -> WhatIf:
    held = stored_formats(checkpoint)
    model = checkpoint if wanted in held else usual_release(checkpoint, wanted)
    asked = replace(problem, model=settings.served(model))
    lacks = tuple(_lacks(asked.model, [problem.gpus[product] for product in problem.allowed_products], settings))
    converts = wanted == "FP8" and held == {SIXTEEN_BITS} and with_quantization(checkpoint, wanted) != checkpoint
    return WhatIf(wanted, wanted in held, converts, solve(asked), lacks)


def _lacks(model: ModelSpec, gpus: Sequence[GpuSpec], settings: EngineSettings) -> Iterator[str]:
    computed = {q.activation for q in (model.attention_quant, model.ffn_quant, model.expert_quant)}
    for gpu in gpus:
        missing = missing_kernels(model, gpu, settings)
        if missing:
            yield missing
        elif "nvfp4" in computed and gpu.flops_fp4 <= 0:
            yield f"{gpu.name} has no FP4 arithmetic: NVFP4 weights are unpacked to 16 bits"
        elif "fp8" in computed and gpu.flops_fp8 <= 0:
            yield f"{gpu.name} has no FP8 arithmetic: FP8 weights are unpacked to 16 bits"
