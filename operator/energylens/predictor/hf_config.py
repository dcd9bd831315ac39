"""A ``config.json`` of the Hugging Face hub in, a :class:`ModelSpec` out. Pure: the caller does the reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energylens.predictor.architecture import DenseFfn, FeedForward, LayerGroup, Mixer, ModelSpec
from energylens.predictor.hf_families import (
    FAMILY_OF_ARCHITECTURE,
    HARMLESS_FIELDS,
    KNOWN_FAMILIES,
    SHAPE_MARKS,
    SHAPE_PREFIXES,
)
from energylens.predictor.hf_ffn import read_dense, read_expert_count, read_ffns, read_gated, read_moe
from energylens.predictor.hf_fields import MAX_LAYERS, Fields, UnsupportedConfigError
from energylens.predictor.hf_mixers import read_attention, read_head_dim, read_mamba2, read_mixers
from energylens.predictor.hf_quantization import read_quantization

__all__ = ["KNOWN_FAMILIES", "UnsupportedConfigError", "model_from_config"]

TEXT_CONFIGS = ("text_config", "llm_config", "language_config")
TIED_BY_DEFAULT = ("gemma", "gemma2", "gemma3", "gemma4", "cohere", "cohere2")
DEFAULT_VOCAB = {"gemma3": 262_208}
DEFAULT_CONTEXT = {"gemma3": 131_072}


def model_from_config(config: Mapping[str, Any], name: str) -> ModelSpec:
    """Return the architecture that a ``config.json`` describes; of a multimodal model its text part.

    A ``model_type`` that is not known by name works when its fields have a known shape. The quantisation is read from
    ``quantization_config``, or from the ``quantization`` object of NVIDIA's ``hf_quant_config.json`` where the caller
    put that in under the same key.

    Args:
        config: The parsed file.
        name: Name of the model, for messages and :attr:`ModelSpec.name`.

    Raises:
        UnsupportedConfigError: A field is missing, out of range or describes a shape that is not known. The message
            names the field, its value and what is allowed.
    """
    if not isinstance(config, Mapping):
        raise UnsupportedConfigError(name, "the document", config, "a JSON object")
    outer = Fields(config, name)
    fields = _text_fields(outer)
    family = _family(outer, fields)
    known = family in KNOWN_FAMILIES
    hidden = fields.integer("hidden_size")
    per_layer = _read_layers(fields, family, hidden, known)
    _reject_unmodelled(fields)
    groups: dict[tuple[Mixer | None, FeedForward | None], int] = {}
    for layer in per_layer:
        groups[layer] = groups.get(layer, 0) + 1
    quant = read_quantization(outer, fields, per_layer, family)
    tied = fields.get("tie_word_embeddings")
    holder = fields if tied is not None else outer
    model = ModelSpec(
        name=name,
        family=family,
        hidden=hidden,
        vocab=fields.integer("vocab_size", default=DEFAULT_VOCAB.get(family)),
        layers=tuple(LayerGroup(count, mixer, ffn) for (mixer, ffn), count in groups.items()),
        tied_embeddings=holder.boolean("tie_word_embeddings", default=family in TIED_BY_DEFAULT),
        max_position=fields.integer(
            "max_position_embeddings",
            "model_max_length",
            "seq_length",
            default=DEFAULT_CONTEXT.get(family),
            high=1 << 31,
        ),
        attention_quant=quant.attention,
        ffn_quant=quant.ffn,
        expert_quant=quant.experts,
        head_quant=quant.head,
        kv_bytes_per_element=quant.kv_bytes,
        extra_weight_bytes=_vision_bytes(outer),
    )
    if not known:
        # Last, when every field that is understood has been read.
        _reject_unknown_shapes(fields, family)
    return model


def _text_fields(outer: Fields) -> Fields:
    thinker = outer.child("thinker_config")
    for holder in (thinker, outer):
        nested = holder.child(*TEXT_CONFIGS) if holder is not None else None
        if nested is not None:
            return nested
    return outer


def _family(outer: Fields, fields: Fields) -> str:
    family = fields.text("model_type") or outer.text("model_type")
    if family:
        return family.removesuffix("_text")
    for architecture in outer.array("architectures") or []:
        if isinstance(architecture, str) and architecture in FAMILY_OF_ARCHITECTURE:
            return FAMILY_OF_ARCHITECTURE[architecture]
    raise outer.error(
        "model_type", "a string such as llama or qwen3_moe (or architectures with one of the known classes)"
    )


Layer = tuple[Mixer | None, FeedForward | None]


def _read_layers(fields: Fields, family: str, hidden: int, known: bool) -> list[Layer]:
    if fields.get("hybrid_override_pattern", "layers_block_type") is not None:
        return _hybrid_layers(fields, family, hidden)
    if fields.get("block_configs") is not None:
        return _searched_layers(fields, hidden)
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    mixers = read_mixers(fields, family, layers, hidden)
    ffns = read_ffns(fields, family, layers, known)
    return list(zip(mixers, ffns, strict=True))


def _hybrid_layers(fields: Fields, family: str, hidden: int) -> list[Layer]:
    """Nemotron-H: each layer is one of Mamba-2 (M), attention (*), dense (-) or expert (E) feed-forward."""
    words = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
    kinds = fields.array("layers_block_type")
    if kinds is not None:
        for kind in kinds:
            if not isinstance(kind, str) or kind not in words:
                raise fields.error("layers_block_type", "a list of " + ", ".join(words), kind)
        pattern = "".join(words[kind] for kind in kinds)
    else:
        pattern = fields.text("hybrid_override_pattern")
        unknown = sorted(set(pattern) - set(words.values()))
        if unknown:
            raise fields.error("hybrid_override_pattern", "the letters M * - E", unknown[0])
    if not 1 <= len(pattern) <= MAX_LAYERS:
        raise fields.error("hybrid_override_pattern", f"1 to {MAX_LAYERS} layers", pattern)
    expected = fields.optional_integer("num_hidden_layers", high=MAX_LAYERS)
    if expected is not None and expected != len(pattern):
        raise fields.error("num_hidden_layers", f"{len(pattern)}, the length of the layer pattern", expected)
    gated = read_gated(fields, family)
    layer_of: dict[str, Layer] = {}
    if "M" in pattern:
        layer_of["M"] = (read_mamba2(fields), None)
    if "*" in pattern:
        layer_of["*"] = (read_attention(fields, hidden), None)
    if "-" in pattern:
        layer_of["-"] = (None, read_dense(fields, gated))
    if "E" in pattern:
        experts = read_expert_count(fields)
        if experts is None:
            raise fields.error("n_routed_experts", "an integer above 1, since some layers are of type E (moe)")
        layer_of["E"] = (None, read_moe(fields, family, experts, gated))
    return [layer_of[letter] for letter in pattern]


def _searched_layers(fields: Fields, hidden: int) -> list[Layer]:
    """Llama-Nemotron: neural architecture search gave each layer its own attention and feed-forward, or none."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    heads = fields.integer("num_attention_heads")
    blocks = fields.array("block_configs") or []
    if len(blocks) != layers:
        raise fields.error("block_configs", f"one entry for each of the {layers} layers", blocks)
    head_dim = read_head_dim(fields, hidden, heads)
    out: list[Layer] = []
    for i, block in enumerate(blocks):
        if not isinstance(block, Mapping):
            raise fields.error(f"block_configs[{i}]", "an object with attention and ffn", block)
        parts = Fields(block, fields.model, f"{fields.path}block_configs[{i}].")
        attention, ffn = parts.child("attention"), parts.child("ffn")
        if attention is None or ffn is None:
            raise parts.error("attention and ffn", "objects")
        for part in (attention, ffn):
            if part.boolean("replace_with_linear"):
                raise part.error("replace_with_linear", "false", True)
        mixer: Mixer | None = None
        if not attention.boolean("no_op"):
            group = attention.integer("n_heads_in_group", high=heads)
            if heads % group:
                raise attention.error("n_heads_in_group", f"a divisor of the {heads} attention heads", group)
            mixer = read_attention(
                Fields(
                    {"num_attention_heads": heads, "num_key_value_heads": heads // group, "head_dim": head_dim},
                    fields.model,
                ),
                hidden,
            )
        out.append((mixer, None if ffn.boolean("no_op") else DenseFfn(_searched_width(ffn, hidden))))
    return out


def _searched_width(ffn: Fields, hidden: int) -> int:
    """Two thirds of ``ffn_mult`` times hidden, twice, rounded up to a multiple of 256 (the model's own rule)."""
    multiplier = ffn.get("ffn_mult")
    if isinstance(multiplier, bool) or not isinstance(multiplier, int | float) or not 0 < multiplier <= 64:
        raise ffn.error("ffn_mult", "a number above 0 and at most 64", multiplier)
    return -(-int(2 * multiplier * hidden / 3) // 256) * 256


def _reject_unmodelled(fields: Fields) -> None:
    """Refuse known features whose weights or cache nothing here describes."""
    for field in ("hidden_size_per_layer_input", "num_kv_shared_layers"):
        value = fields.integer(field, default=0, low=0)
        if value:
            raise fields.error(field, "0 (per-layer embeddings and shared KV layers are not modelled)", value)
    kinds = fields.array("attn_type_list")
    if kinds is not None and any(kind != 1 for kind in kinds):
        raise fields.error("attn_type_list", "all 1 (softmax attention; lightning attention is not modelled)", kinds)
    if fields.boolean("is_encoder_decoder"):
        raise fields.error("is_encoder_decoder", "false (decoder-only models)", True)


def _reject_unknown_shapes(fields: Fields, family: str) -> None:
    for field, value in fields.values.items():
        if field in fields.used or field in HARMLESS_FIELDS or value in (None, False, 0, [], {}, ""):
            continue
        if isinstance(value, str | bool) or field.endswith(("_token_id", "_eps", "_theta", "_std", "_range", "_coef")):
            continue
        if field.startswith(SHAPE_PREFIXES) or any(mark in field for mark in SHAPE_MARKS):
            raise fields.error(
                field,
                f"absent, as neither the model_type {family!r} nor this field is known; remove the field when it "
                f"changes no weight shape, or use one of the known types: {', '.join(sorted(KNOWN_FAMILIES))}",
                value,
            )


def _vision_bytes(outer: Fields) -> float:
    """BF16 bytes of a vision transformer's layers, which an engine loads beside the text part.

    Counts the four attention and two feed-forward matrices per layer; patch embedding and projector are a few percent
    of that. 0 where ``vision_config`` is absent or of another kind of encoder.
    """
    vision = outer.child("vision_config")
    if vision is None:
        return 0.0
    numbers = []
    for names in (("hidden_size",), ("num_hidden_layers", "depth"), ("intermediate_size",)):
        value = vision.get(*names)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 1 << 20:
            return 0.0
        numbers.append(value)
    hidden, layers, intermediate = numbers
    return 2.0 * layers * (4 * hidden * hidden + 2 * hidden * intermediate)
