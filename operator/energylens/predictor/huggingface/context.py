"""The longest context of a model, as the engines derive it from a ``config.json``.

vLLM 0.33 (config/model.py, ``_get_and_verify_max_len``) and SGLang 0.5.23 (utils/hf_transformers/common.py,
``get_context_length``) agree: linear and dynamic position scaling multiply the context; for Llama 3, YaRN and LongRoPE
``max_position_embeddings`` already includes the scaling. Up to 0.29 vLLM multiplied YaRN's original context by its
factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from energylens.predictor.huggingface.fields import Fields
from energylens.records import dataclass

_COUNTED_ALREADY = ("default", "su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "mrope")
_LONGEST = 1 << 31


@dataclass(frozen=True)
class Context:
    """Tokens of the longest request of a model."""

    longest: int
    start: int | None
    """Context that vLLM uses by default if that is shorter."""
    yarn: int | None
    """The longest context up to vLLM 0.29 if that differs."""


def read_context(fields: Fields, family: str) -> Context:
    """Return the context in a config.json.

    Raises:
        UnsupportedConfigError: The context is missing or out of range.
    """
    names = ("max_position_embeddings", "model_max_length", "seq_length")
    longest = fields.integer(*names, high=_LONGEST)
    original = fields.optional_integer("original_max_position_embeddings", high=_LONGEST)
    start, yarn = None, None
    for scaling in _scalings(fields.get("rope_scaling", "rope_parameters")):
        kind = scaling.get("rope_type") or scaling.get("type")
        if kind == "longrope":
            start = original if original is not None and original < longest else None
        elif kind == "yarn":
            # The transformers library fills in missing fields of the scaling (modeling_rope_utils.py, 5.24).
            trained = scaling.get("original_max_position_embeddings", original or longest)
            if isinstance(trained, int) and not isinstance(trained, bool) and 0 < trained <= _LONGEST:
                yarn = min(_LONGEST, int(trained * _factor(scaling.get("factor"))))
        elif kind is not None and kind not in _COUNTED_ALREADY and family != "gemma3":
            longest = min(_LONGEST, int(longest * _factor(scaling.get("factor"))))
            break
    return Context(longest, start, None if yarn == longest or family == "gemma3" else yarn)


def _scalings(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the position scalings: one, or one for each kind of layer."""
    if isinstance(value, dict):
        nested = [entry for entry in value.values() if isinstance(entry, dict)]
        yield from nested or [value]


def _factor(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 1 <= value <= 4096 else 1.0
