"""Groups of models that look equal to a predictor, so that a left-out model has no sibling among the fitted models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from energylens.predictor.model.architecture import ModelSpec, Quantization


def shape(model: ModelSpec) -> ModelSpec:
    """Return the model without the properties in which siblings differ: name, quantization, vocabulary, context length.

    Instruct, Thinking and Coder releases of one size, and a model and its FP8 release, have the same shape.
    """
    plain = Quantization()
    return replace(
        model,
        name="",
        family="",
        vocab=0,
        tied_embeddings=False,
        max_position=0,
        attention_quant=plain,
        ffn_quant=plain,
        expert_quant=plain,
        head_quant=plain,
        kv_bytes_per_element=0.0,
        extra_weight_bytes=0.0,
        quant_method="",
    )


def model_groups(models: Mapping[str, ModelSpec]) -> dict[str, str]:
    """Return the group name of each model id: the shortest id among the siblings, without its organisation."""
    siblings: dict[ModelSpec, list[str]] = defaultdict(list)
    for model_id, model in models.items():
        siblings[shape(model)].append(model_id)
    groups = {}
    for members in siblings.values():
        shortest = min(members, key=lambda model_id: (len(model_id), model_id)).rpartition("/")[2]
        name = shortest if len(members) == 1 else f"{shortest} and {len(members) - 1} more"
        groups.update(dict.fromkeys(members, name))
    return groups
