"""The model and the GPU of a run, looked up in the package's data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from energylens.data import (
    PartitionedGpuError,
    UnknownGpuError,
    UnknownModelError,
    find_gpu,
    known_models,
    load_model,
)
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.requantize import UnsupportedQuantizationError, usual_release, with_quantization
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass
from energylens.runs.types import Run

_REQUEST = {
    "bfloat16": "None",
    "fp8": "FP8",
    "int8": "INT8",
    "mxfp4": "MXFP4",
    "nvfp4": "NVFP4",
    "int4": "INT4",
}
"""A run's ``weight_precision`` as the quantization that a deployment would ask for."""


@dataclass(frozen=True)
class Resolved:
    """The objects that a run refers to by name; ``error`` says why the run cannot be predicted."""

    model: ModelSpec | None
    gpu: GpuSpec | None
    error: str = ""
    what_if: str = ""
    """The number format that the checkpoint named does not have, as releases in it usually are; "" for its own."""


def resolver(models: Mapping[str, ModelSpec] | None = None) -> Callable[[Run], Resolved]:
    """Return a function that looks up a run's model and GPU; ``models`` come before the catalogue."""
    own = {name.lower(): model for name, model in (models or {}).items()}

    def resolve(run: Run) -> Resolved:
        try:
            gpu = find_gpu(run.gpu_model)
        except (UnknownGpuError, PartitionedGpuError) as error:
            return Resolved(None, None, f"gpu_model: {error}")
        try:
            model = own.get(run.model_id.lower()) or load_model(run.model_id)
        except UnknownModelError as error:
            quantized = _quantized(run.model_id, run.weight_precision)
            if quantized is not None:
                return Resolved(quantized[0], gpu, what_if=quantized[1])
            hint = f"; nearest known: {', '.join(error.nearest)}" if error.nearest else ""
            return Resolved(None, None, f"model_id={run.model_id!r} is not in the catalogue{hint}")
        if run.weight_precision is None or run.weight_precision == weight_precision(model):
            return Resolved(model, gpu)
        released = _release(run.model_id, run.weight_precision)
        if released is not None and run.model_id.lower() not in own:
            return Resolved(released, gpu)
        wanted = _REQUEST[run.weight_precision]
        try:
            return Resolved(with_quantization(model, wanted), gpu)
        except UnsupportedQuantizationError:
            # A run did run: the engine loaded a release of the model in that format.
            return Resolved(usual_release(model, wanted), gpu, what_if=_shown(wanted))

    return resolve


_SUFFIXES = {"fp8": ("FP8", "MXFP8"), "mxfp4": ("MXFP4",), "nvfp4": ("NVFP4", "FP4")}
"""How publishers name a release in a format, the model's own publisher before NVIDIA."""


def _release(model_id: str, precision: str) -> ModelSpec | None:
    """Return the release of a model in a format, as its publisher or NVIDIA made it; None where none is known."""
    publisher, _, name = model_id.rpartition("/")
    for suffix in _SUFFIXES.get(precision, ()):
        for source in dict.fromkeys((publisher, "nvidia")):
            try:
                model = load_model(f"{source}/{name}-{suffix}")
            except UnknownModelError:
                continue
            if weight_precision(model) == precision:
                return model
    return None


def _shown(requested: str) -> str:
    """Return a requested format for readers: 16 bits are not "None"."""
    return "bfloat16" if requested == "None" else requested


_NAMED_FORMATS = {
    "bf16": "bfloat16",
    "fp8-dynamic": "fp8",
    "fp8": "fp8",
    "nvfp4": "nvfp4",
    "fp4": "nvfp4",
    "mxfp4": "mxfp4",
    "awq": "int4",
    "awq-4bit": "int4",
    "awq-int4": "int4",
    "int4": "int4",
    "gptq-int4": "int4",
    "quantized.w4a16": "int4",
    "quantized.w8a8": "int8",
    "int8": "int8",
}
"""Ends of a release's name, in lower case -> the number format of most of its weights."""


def _quantized(model_id: str, precision: str | None) -> tuple[ModelSpec, str] | None:
    """Return an unknown release of a known model in the format in its name, as usual releases are, and the format.

    None if the name states no format or another than the run, or if no model of the catalogue has the rest of the name.
    """
    publisher, _, name = model_id.lower().rpartition("/")
    for end, named in _NAMED_FORMATS.items():
        if not name.endswith("-" + end):
            continue
        rest = name.removesuffix("-" + end)
        bases = [
            known
            for known in known_models()
            if known.lower().rpartition("/")[2] in (rest, f"{rest}-bf16") and precision in (None, named)
        ]
        # The publisher's own model comes before a namesake.
        bases.sort(key=lambda known: known.lower().rpartition("/")[0] != publisher)
        if bases:
            wanted = _REQUEST[named]
            return replace(usual_release(load_model(bases[0]), wanted), name=model_id), _shown(wanted)
    return None


def weight_precision(model: ModelSpec) -> str:
    """Return the format of most weights: of the experts where there are any, else of the feed-forward parts."""
    return (model.expert_quant if model.is_moe else model.ffn_quant).weight
