"""A model in the number format that a deployment asks for (``spec.model.quantization``)."""

from __future__ import annotations

from dataclasses import replace

from energylens.predictor.model.architecture import ModelSpec, Quantization

FORMATS = {"FP8": "fp8", "INT8": "int8", "MXFP4": "mxfp4", "NVFP4": "nvfp4", "INT4": "int4"}
ON_LOAD = Quantization("fp8", "fp8", "per_tensor")
"""FP8 as engines convert a 16-bit checkpoint while loading: one scale per tensor (vLLM ``--quantization fp8``)."""

_USUAL: dict[str, Quantization] = {
    "FP8": Quantization("fp8", "fp8", "block"),
    "INT8": Quantization("int8", "int8", "per_channel"),
    "MXFP4": Quantization("mxfp4", "bfloat16", "group"),
    "NVFP4": Quantization("nvfp4", "nvfp4", "group"),
    "INT4": Quantization("int4", "bfloat16", "group"),
}
"""The form in which releases of a format are usually published: block-scaled FP8 (DeepSeek, Qwen), W8A8, MXFP4 as in
gpt-oss, NVFP4 by NVIDIA's recipe, and GPTQ or AWQ with groups of 128."""
_EXPERTS_ONLY = ("MXFP4",)
_ATTENTION_TOO = ("FP8", "INT8", "INT4")


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
        f"quantization {requested} cannot be made from {model.name}, whose weights are stored as {held}; ask for "
        f"{able}, or name a release that is stored as {requested}"
    )


def usual_release(model: ModelSpec, requested: str) -> ModelSpec:
    """Return the model as a release of it in a number format would usually be: a what-if, which nobody may publish.

    Experts and the other feed-forward parts take the format (MXFP4: experts alone, where there are any); attention
    takes FP8, INT8 and INT4, and is left in 16 bits beside NVFP4 and MXFP4, as most releases of NVIDIA and OpenAI do.

    Args:
        model: The model in any format.
        requested: A key of ``FORMATS``, or ``"None"`` for 16 bits.

    Raises:
        UnsupportedQuantizationError: The format is not known.
    """
    # How the release will say what it is cannot be known.
    model, plain = replace(model, quant_method=""), Quantization()
    if requested == "None":
        return replace(model, attention_quant=plain, ffn_quant=plain, expert_quant=plain)
    if requested not in _USUAL:
        raise UnsupportedQuantizationError(
            f"quantization {requested!r} is not known; allowed: None, {', '.join(FORMATS)}"
        )
    usual = _USUAL[requested]
    dense = plain if requested in _EXPERTS_ONLY and model.is_moe else usual
    attention = usual if requested in _ATTENTION_TOO else plain
    return replace(model, attention_quant=attention, ffn_quant=dense, expert_quant=usual if model.is_moe else plain)
