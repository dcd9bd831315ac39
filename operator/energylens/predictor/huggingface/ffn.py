"""Feed-forward part of each layer, dense or mixture of experts, from a ``config.json``."""

from __future__ import annotations

from energylens.predictor.huggingface.families import FAMILIES
from energylens.predictor.huggingface.fields import MAX_LAYERS, Fields
from energylens.predictor.model.architecture import DenseFfn, FeedForward, MoeFfn

GATED_ACTIVATIONS = ("silu", "swish", "swiglu", "swigluoai", "situ")
MAX_EXPERTS = 1 << 16


def read_ffns(fields: Fields, family: str, layers: int) -> list[FeedForward | None]:
    """Return the feed-forward part of each of ``layers`` layers.

    Raises:
        UnsupportedConfigError: A field is missing, out of range or of an unknown kind.
    """
    gated = read_gated(fields, family)
    experts = read_expert_count(fields)
    if experts is None or (family == "gemma4" and not fields.boolean("enable_moe_block")):
        return [read_dense(fields, gated)] * layers
    moe = read_moe(fields, family, experts, gated)
    sparse = _sparse_layers(fields, layers)
    dense = None if all(sparse) else read_dense(fields, gated)
    return [moe if is_sparse else dense for is_sparse in sparse]


def read_gated(fields: Fields, family: str) -> bool:
    """Return whether feed-forward networks have a gate matrix (three matrices) or not (two).

    Raises:
        UnsupportedConfigError: The family is unknown and the activation is ambiguous.
    """
    names = ("mlp_hidden_act", "hidden_act", "hidden_activation")
    activation = fields.text(*names)
    if family in FAMILIES:
        return FAMILIES[family].gated
    if activation in GATED_ACTIVATIONS:
        return True
    # BitNet uses a gate with relu2, Nemotron does not.
    raise fields.error(
        fields.present(*names) if activation else "hidden_act",
        f"{', '.join(GATED_ACTIVATIONS)} (three matrices) for a model_type that is not known by name; with gelu, "
        "relu and relu2 the number of matrices is ambiguous",
        activation or None,
    )


def read_expert_count(fields: Fields) -> int | None:
    """Return the number of routed experts, or None for a dense model."""
    experts = fields.optional_integer(
        "n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts", low=0, high=MAX_EXPERTS
    )
    return experts if experts is not None and experts > 1 else None


def read_dense(fields: Fields, gated: bool) -> DenseFfn:
    """Return a dense feed-forward network."""
    # In Llama 4 and MiniMax M3 the width of dense layers differs from that of experts.
    return DenseFfn(fields.integer("intermediate_size_mlp", "dense_intermediate_size", "intermediate_size"), gated)


def read_moe(fields: Fields, family: str, experts: int, gated: bool) -> MoeFfn:
    """Return a mixture of experts with its shared part.

    Raises:
        UnsupportedConfigError: A field is missing or out of range, such as more experts per token than experts.
    """
    names = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "experts_per_token", "moe_top_k")
    top_k = fields.integer(*names, high=experts)
    # Mixtral, Llama 4, gpt-oss and MiniMax M2 use the generic name for an expert's width.
    intermediate = fields.integer("moe_intermediate_size", "expert_intermediate_size", "intermediate_size")
    return MoeFfn(
        experts,
        top_k,
        intermediate,
        gated,
        shared_intermediate=_shared_intermediate(fields, family, intermediate),
        latent=fields.optional_integer("moe_latent_size", "routed_expert_hidden_size"),
    )


def _shared_intermediate(fields: Fields, family: str, expert: int) -> int:
    count = fields.optional_integer("n_shared_experts", "num_shared_experts", low=0, high=MAX_EXPERTS)
    # Llama 4 has one shared expert with the width of routed experts; Gemma 4 runs a dense network beside the experts.
    if family in ("llama4", "gemma4"):
        return fields.integer("intermediate_size")
    width = fields.optional_integer(
        "moe_shared_expert_intermediate_size",
        "shared_expert_intermediate_size",
        "share_expert_dim",
        "share_expert_dims",
        "shared_intermediate_size",
        low=0,
    )
    if width is not None:
        return width * (1 if count is None else count)
    return expert * (count or 0)


def _sparse_layers(fields: Fields, layers: int) -> list[bool]:
    """Return which layers route tokens to experts."""
    kinds = fields.per_layer("mlp_layer_types", layers=layers, choices=("dense", "sparse", "moe", "hash_moe"))
    if kinds is not None:
        return [kind != "dense" for kind in kinds]
    listed = _listed_layers(fields, layers, "moe_layers", "moe_layers_enum")
    if listed is not None:
        return [i in listed for i in range(layers)]
    if isinstance(fields.get("moe_layer_freq"), list):
        flags = fields.per_layer("moe_layer_freq", layers=layers, choices=(0, 1)) or []
        return [bool(flag) for flag in flags]
    first = fields.integer("first_k_dense_replace", default=0, low=0, high=MAX_LAYERS)
    frequency = fields.integer("moe_layer_freq", default=1, high=MAX_LAYERS)
    # Qwen and Llama 4 count layers from one, DeepSeek from zero.
    step = fields.integer("decoder_sparse_step", "interleave_moe_layer_step", default=1, high=MAX_LAYERS)
    dense_only = _listed_layers(fields, layers, "mlp_only_layers") or set()
    return [i >= first and i % frequency == 0 and (i + 1) % step == 0 and i not in dense_only for i in range(layers)]


def _listed_layers(fields: Fields, layers: int, *names: str) -> set[int] | None:
    value = fields.get(*names)
    if value is None:
        return None
    entries = value.split(",") if isinstance(value, str) else value
    allowed = f"layer numbers from 0 to {layers - 1}"
    if not isinstance(entries, list):
        raise fields.error(names[0], allowed, value)
    numbers = set()
    for entry in entries:
        text = str(entry).strip()
        if isinstance(entry, bool) or not text.isascii() or not text.isdigit():
            raise fields.error(names[0], allowed, entry)
        # Numbers past the last layer belong to multi-token prediction modules.
        numbers.add(int(text[:9]))
    return numbers
