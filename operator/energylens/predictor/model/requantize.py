"""A model in the number format of ``spec.model.quantization``."""

from __future__ import annotations

from dataclasses import replace

from energylens.predictor.model.architecture import ModelSpec, Quantization

FORMATS = {"FP8": "fp8", "INT8": "int8", "MXFP4": "mxfp4", "NVFP4": "nvfp4", "INT4": "int4"}
ON_LOAD = Quantization("fp8", "fp8", "per_tensor")
"""FP8 as engines create it from a 16-bit checkpoint while loading: one scale per tensor (vLLM ``--quantization fp8``).
"""

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
    """The checkpoint cannot be served in the requested number format.

    The message names the formats that can be served.
    """


def with_quantization(model: ModelSpec, requested: str | None) -> ModelSpec:
    """Return the model as an engine serves it in the requested number format.

    Args:
        model: The checkpoint.
        requested: ``None`` (the checkpoint's format), ``"None"`` (16 bits), or one of ``FORMATS``.

    Raises:
        UnsupportedQuantizationError: The checkpoint has another format, and engines cannot convert it while loading.
    """
    if requested is None:
        return model
    stored = {q.weight for q in (model.attention_quant, model.ffn_quant, model.expert_quant)} - {"bfloat16"}
    if requested == "None" and not stored:
        return model
    if requested != "None" and requested not in FORMATS:
        raise UnsupportedQuantizationError(
            f"quantization {requested!r} is unknown; allowed: None, {', '.join(FORMATS)}"
        )
    if FORMATS.get(requested) in stored:
        return model
    if requested == "FP8" and not stored:
        return replace(model, attention_quant=ON_LOAD, ffn_quant=ON_LOAD, expert_quant=ON_LOAD)
    held = ", ".join(sorted(stored)) or "bfloat16"
    able = "leave spec.model.quantization unset" if stored else "use FP8, which engines can create while loading"
    raise UnsupportedQuantizationError(
        f"quantization {requested} cannot be created from {model.name}, whose weights are stored as {held}; "
        f"{able}, or name a release that is stored as {requested}"
    )


def usual_release(model: ModelSpec, requested: str) -> ModelSpec:
    """Return the model as a usual release in a number format: a what-if, which may never be published.

    Experts and other feed-forward parts use the format (MXFP4: only experts, if there are any). Attention uses FP8,
    INT8 and INT4 but stays in 16 bits beside NVFP4 and MXFP4, as in most releases of NVIDIA and OpenAI.

    Args:
        model: The model in any format.
        requested: A key of ``FORMATS``, or ``"None"`` for 16 bits.

    Raises:
        UnsupportedQuantizationError: The format is unknown.
    """
    # The quantisation method that such a release would name is unknown.
    model, plain = replace(model, quant_method=""), Quantization()
    if requested == "None":
        return replace(model, attention_quant=plain, ffn_quant=plain, expert_quant=plain)
    if requested not in _USUAL:
        raise UnsupportedQuantizationError(
            f"quantization {requested!r} is unknown; allowed: None, {', '.join(FORMATS)}"
        )
    usual = _USUAL[requested]
    dense = plain if requested in _EXPERTS_ONLY and model.is_moe else usual
    attention = usual if requested in _ATTENTION_TOO else plain
    return replace(model, attention_quant=attention, ffn_quant=dense, expert_quant=usual if model.is_moe else plain)
