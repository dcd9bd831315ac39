"""From a ``config.json`` of the Hugging Face hub to a :class:`ModelSpec`. Pure: the caller reads the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energylens.predictor.huggingface.architectures import read_architecture
from energylens.predictor.huggingface.context import read_context
from energylens.predictor.huggingface.conventions import apply_conventions, position_parameters
from energylens.predictor.huggingface.families import FAMILIES, FAMILY_OF_ARCHITECTURE, KNOWN_FAMILIES, SAME_FAMILY
from energylens.predictor.huggingface.ffn import read_ffns
from energylens.predictor.huggingface.fields import MAX_LAYERS, Fields, UnsupportedConfigError
from energylens.predictor.huggingface.layers import Layer, read_mamba_hybrid, read_nemotron_hybrid, read_searched_layers
from energylens.predictor.huggingface.mixers import read_mixers
from energylens.predictor.huggingface.nested import NESTED_FAMILIES
from energylens.predictor.huggingface.quantization import read_quantization
from energylens.predictor.huggingface.towers import TEXT_PARTS, read_towers, tower_parameters
from energylens.predictor.huggingface.unknown import reject_foreign_fields, reject_unknown_fields
from energylens.predictor.model.architecture import FeedForward, LayerGroup, Mixer, ModelSpec

__all__ = ["KNOWN_FAMILIES", "UnsupportedConfigError", "model_from_config"]


def model_from_config(config: Mapping[str, Any], name: str) -> ModelSpec:
    """Return the architecture that a ``config.json`` describes; for a multimodal model, its text part.

    A ``model_type`` that is not known by name works if its fields have a known shape. The quantisation is read from
    ``quantization_config``, or from the ``quantization`` object of NVIDIA's ``hf_quant_config.json`` if the caller
    inserted it under the same key.

    Args:
        config: The parsed file.
        name: Name of the model, for messages and :attr:`ModelSpec.name`.

    Raises:
        UnsupportedConfigError: A field is missing, out of range or describes an unknown shape. The message names the
            field, its value and what is allowed.
    """
    if not isinstance(config, Mapping):
        raise UnsupportedConfigError(name, "the document", config, "a JSON object")
    outer = Fields(config, name)
    fields = _text_fields(outer)
    family = _family(outer, fields)
    apply_conventions(outer, fields, family)
    hidden = fields.integer("hidden_size")
    per_layer = _read_layers(fields, family, hidden)
    groups: dict[tuple[Mixer | None, FeedForward | None], int] = {}
    for layer in per_layer:
        groups[layer] = groups.get(layer, 0) + 1
    quant = read_quantization(outer, fields, per_layer, family)
    beside = tower_parameters(outer, fields) + position_parameters(fields, family)
    context = read_context(fields, family)
    model = ModelSpec(
        name=name,
        family=family,
        hidden=hidden,
        vocab=fields.integer("vocab_size"),
        layers=tuple(LayerGroup(count, mixer, ffn) for (mixer, ffn), count in groups.items()),
        tied_embeddings=_tied(outer, fields, family),
        max_position=context.longest,
        start_position=context.start,
        yarn_position=context.yarn,
        attention_quant=quant.attention,
        ffn_quant=quant.ffn,
        expert_quant=quant.experts,
        head_quant=quant.head,
        kv_bytes_per_element=quant.kv_bytes,
        extra_weight_bytes=2.0 * beside,
        quant_method=quant.method,
        architecture=read_architecture(outer),
        towers=read_towers(outer),
    )
    # This check comes last, when every understood field has been read.
    if family in KNOWN_FAMILIES:
        reject_foreign_fields(fields, family)
    else:
        reject_unknown_fields(fields, family)
    return model


def _tied(outer: Fields, fields: Fields, family: str) -> bool:
    said = [
        holder.boolean("tie_word_embeddings")
        for holder in (fields, outer.child("thinker_config"), outer)
        if holder is not None and holder.get("tie_word_embeddings") is not None
    ]
    if said:
        # If the parts of a file contradict each other, as in resaved files of Qwen3-VL and Mistral Small 3.1, the
        # checkpoint has its own head.
        return all(said)
    if family not in FAMILIES:
        # Configuration classes differ in their defaults.
        raise fields.error("tie_word_embeddings", f"true or false, as the model_type {family!r} is not known by name")
    return FAMILIES[family].tied


def _text_fields(outer: Fields) -> Fields:
    thinker = outer.child("thinker_config")
    for holder in (thinker, outer):
        nested = holder.child(*TEXT_PARTS) if holder is not None else None
        if nested is not None:
            return nested
    return outer


def _family(outer: Fields, fields: Fields) -> str:
    whole = outer.text("model_type")
    family = fields.text("model_type") or (NESTED_FAMILIES.get(whole, whole) if fields is not outer else whole)
    if family:
        family = family.removesuffix("_text")
        return SAME_FAMILY.get(family, family)
    for architecture in outer.array("architectures") or []:
        if isinstance(architecture, str) and architecture in FAMILY_OF_ARCHITECTURE:
            return FAMILY_OF_ARCHITECTURE[architecture]
    raise outer.error(
        "model_type", "a string such as llama or qwen3_moe (or architectures with one of the known classes)"
    )


def _read_layers(fields: Fields, family: str, hidden: int) -> list[Layer]:
    if family in ("granitemoehybrid", "bamba"):
        return read_mamba_hybrid(fields, family, hidden)
    if fields.get("hybrid_override_pattern", "layers_block_type") is not None:
        return read_nemotron_hybrid(fields, family, hidden)
    if fields.get("block_configs") is not None:
        return read_searched_layers(fields, hidden)
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    mixers = read_mixers(fields, family, layers, hidden)
    ffns = read_ffns(fields, family, layers)
    return list(zip(mixers, ffns, strict=True))
