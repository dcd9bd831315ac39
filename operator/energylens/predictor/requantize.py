"""What a model becomes when a deployment asks for a number format of its own (``spec.model.quantization``)."""

from __future__ import annotations

from dataclasses import replace

from energylens.predictor.architecture import ModelSpec, Quantization

FORMATS = {"FP8": "fp8", "INT8": "int8", "MXFP4": "mxfp4", "NVFP4": "nvfp4", "INT4": "int4"}
ON_LOAD = Quantization("fp8", "fp8", "per_tensor")
"""What engines make of a 16-bit checkpoint while loading it: one scale per tensor (vLLM ``--quantization fp8``)."""


class UnsupportedQuantizationError(ValueError):
    """The checkpoint cannot be served in the number format asked for. The message says what it can be served in."""


def with_quantization(model: ModelSpec, requested: str | None) -> ModelSpec:
    """Return the model as an engine serves it when asked for a number format.

    Args:
        model: The checkpoint.
        requested: ``None`` (as the checkpoint is), ``"None"`` (16 bit), or one of ``FORMATS``.

    Raises:
        UnsupportedQuantizationError: The checkpoint is in another format, and engines cannot convert it while loading.
    """
    if requested is None:
        return model
    stored = {q.weight for q in (model.attention_quant, model.ffn_quant, model.expert_quant)} - {"bfloat16"}
    if requested == "None" and not stored:
        return model
    if requested != "None" and requested not in FORMATS:
        raise UnsupportedQuantizationError(
            f"quantization {requested!r} is not known; allowed: None, {', '.join(FORMATS)}"
        )
    if FORMATS.get(requested) in stored:
        return model
    if requested == "FP8" and not stored:
        return replace(model, attention_quant=ON_LOAD, ffn_quant=ON_LOAD, expert_quant=ON_LOAD)
    held = ", ".join(sorted(stored)) or "bfloat16"
    able = "FP8, which engines convert to while loading, or nothing" if not stored else "nothing"
    raise UnsupportedQuantizationError(
        f"quantization {requested} cannot be had from {model.name}, whose weights are stored as {held}; ask for "
        f"{able}, or name a release that is stored as {requested}"
    )
