"""Attention and recurrent mixers of each layer, from a ``config.json``.

The rules follow the configuration classes of the transformers library (version 5.23) and the modelling code that the
publishers ship with a checkpoint.
"""

from __future__ import annotations

from energylens.predictor.huggingface.families import FAMILIES, Family
from energylens.predictor.huggingface.fields import MAX_LAYERS, Fields
from energylens.predictor.model.architecture import (
    Attention,
    CompressedAttention,
    GatedDeltaNet,
    LatentAttention,
    Mamba2,
    Mixer,
)

LAYER_TYPES = ("full_attention", "sliding_attention", "chunked_attention", "linear_attention", "minimax_m3_sparse")
SSM_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "auto": 2.0}


def read_mixers(fields: Fields, family: str, layers: int, hidden: int) -> list[Mixer]:
    """Return the mixer of each of ``layers`` layers.

    Raises:
        UnsupportedConfigError: A field is missing, out of range or of an unknown kind.
    """
    if fields.get("compress_ratios") is not None:
        return _compressed(fields, layers)
    if fields.get("linear_attn_config") is not None:
        return _kimi_linear(fields, layers)
    if fields.get("kv_lora_rank") is not None:
        return _latent_layers(fields, layers)
    if fields.get("hybrid_layer_pattern") is not None:
        return _mimo_v2(fields, layers)
    return _attention_layers(fields, family, layers, hidden)


def read_head_dim(fields: Fields, hidden: int, heads: int) -> int:
    """Return the width of an attention head: from the file, the family's default, or hidden / heads."""
    given = fields.optional_integer("head_dim", "attention_head_dim")
    if given is not None:
        return given
    if hidden % heads:
        raise fields.error("head_dim", f"given, since hidden_size {hidden} is no multiple of {heads} heads")
    return hidden // heads


def read_attention(fields: Fields, hidden: int) -> Attention:
    """Return the full-attention layer that the plain fields describe."""
    heads = fields.integer("num_attention_heads")
    kv_heads = fields.integer("num_attention_groups", "num_key_value_heads", default=heads)
    _check_groups(fields, heads, kv_heads)
    head_dim = read_head_dim(fields, hidden, heads)
    value_dim = fields.optional_integer("v_head_dim")
    return Attention(
        heads,
        kv_heads,
        head_dim,
        v_head_dim=None if value_dim == head_dim else value_dim,
        output_gate=fields.boolean("attn_output_gate", "attention_output_gate"),
        norm_over_heads=fields.boolean("use_qk_norm") and fields.get("qk_norm_type") == "per_layer",
    )


def read_mamba2(fields: Fields) -> Mamba2:
    """Return the Mamba-2 mixer from the fields of Nemotron-H."""
    return Mamba2(
        heads=fields.integer("mamba_num_heads"),
        head_dim=fields.integer("mamba_head_dim"),
        state_size=fields.integer("ssm_state_size"),
        groups=fields.integer("n_groups"),
        conv_kernel=fields.integer("conv_kernel", high=64),
        state_bytes_per_element=_state_bytes(fields, "mamba_ssm_cache_dtype"),
    )


def _state_bytes(fields: Fields, name: str) -> float:
    """Return the bytes of one element of a recurrent state, from the field with its number format."""
    dtype = fields.text(name, default="auto")
    if dtype not in SSM_BYTES:
        raise fields.error(name, ", ".join(SSM_BYTES), dtype)
    return SSM_BYTES[dtype]


def _check_groups(fields: Fields, heads: int, kv_heads: int, name: str = "num_key_value_heads") -> None:
    if heads % kv_heads:
        raise fields.error(name, f"a divisor of the {heads} attention heads", kv_heads)


def _window(fields: Fields, *names: str) -> int | None:
    return fields.optional_integer(*(names or ("sliding_window", "sliding_window_size")))


def _attention_layers(fields: Fields, family: str, layers: int, hidden: int) -> list[Mixer]:
    known = FAMILIES.get(family, Family())
    if family in ("qwen3_5", "qwen3_5_moe", "qwen3_next") and fields.get("attn_output_gate") is None:
        # Both families always have a gate; only Qwen3.5 writes the flag.
        full = _with(read_attention(fields, hidden), output_gate=True)
    else:
        full = read_attention(fields, hidden)
    kinds = _layer_kinds(fields, family, layers, known)
    by_kind: dict[str, Mixer] = {}
    for kind in dict.fromkeys(kinds):
        if kind == "full_attention":
            by_kind[kind] = _global_attention(fields, full)
        elif kind == "sliding_attention":
            window = _window(fields)
            if window is None:
                raise fields.error("sliding_window", "an integer, since some layers are sliding_attention")
            by_kind[kind] = _with(_sliding_heads(fields, full), window=window)
        elif kind == "chunked_attention":
            chunk = fields.integer("attention_chunk_size", default=8192)
            by_kind[kind] = _with(full, window=chunk, chunked=True)
        elif kind == "minimax_m3_sparse":
            by_kind[kind] = _block_sparse(fields, full)
        else:
            by_kind[kind] = _gated_delta(fields)
    return [by_kind[kind] for kind in kinds]


def _with(attention: Attention, **changes: object) -> Attention:
    values = {name: getattr(attention, name) for name in attention.__dataclass_fields__}
    return Attention(**{**values, **changes})


def _global_attention(fields: Fields, full: Attention) -> Attention:
    """Return Gemma 4's full attention, whose heads have their own shape."""
    head_dim = fields.optional_integer("global_head_dim")
    kv_heads = fields.optional_integer("num_global_key_value_heads")
    if kv_heads is not None:
        _check_groups(fields, full.heads, kv_heads, "num_global_key_value_heads")
    return _with(
        full,
        head_dim=head_dim or full.head_dim,
        kv_heads=kv_heads or full.kv_heads,
        shared_kv_projection=fields.boolean("attention_k_eq_v"),
    )


def _sliding_heads(fields: Fields, full: Attention) -> Attention:
    """Return the head counts of the sliding layers of Step 3.5 and 3.7, which differ from those of the other layers."""
    other = fields.child("attention_other_setting")
    heads = fields.optional_integer("num_sliding_attention_heads")
    if other is not None:
        heads = heads or other.integer("num_attention_heads")
    if heads is None:
        return full
    _check_groups(fields, heads, full.kv_heads)
    return _with(full, heads=heads)


def _block_sparse(fields: Fields, full: Attention) -> Attention:
    sparse = fields.child("sparse_attention_config") or fields
    return _with(
        full,
        top_k_tokens=sparse.integer("sparse_topk_blocks", "index_topk_blocks")
        * sparse.integer("sparse_block_size", "index_block_size"),
        index_heads=sparse.integer("sparse_num_index_heads", "index_n_heads"),
        index_head_dim=sparse.integer("sparse_index_dim", "index_head_dim"),
    )


def _gated_delta(fields: Fields) -> GatedDeltaNet:
    return GatedDeltaNet(
        k_heads=fields.integer("linear_num_key_heads"),
        v_heads=fields.integer("linear_num_value_heads"),
        k_dim=fields.integer("linear_key_head_dim"),
        v_dim=fields.integer("linear_value_head_dim"),
        conv_kernel=fields.integer("linear_conv_kernel_dim", high=64),
        state_bytes_per_element=_state_bytes(fields, "mamba_ssm_dtype"),
    )


def _layer_kinds(fields: Fields, family: str, layers: int, known: Family) -> list[str]:
    given = fields.per_layer("layer_types", layers=layers, choices=LAYER_TYPES)
    interval = fields.optional_integer("full_attention_interval", high=MAX_LAYERS)
    if given is not None:
        return given
    sparse = fields.child("sparse_attention_config")
    if sparse is not None:
        flags = sparse.per_layer("sparse_attention_freq", layers=layers, choices=(0, 1)) or [1] * layers
        return ["minimax_m3_sparse" if flag else "full_attention" for flag in flags]
    if interval is not None or family == "qwen3_next":
        step = interval or 4
        return ["linear_attention" if (i + 1) % step else "full_attention" for i in range(layers)]
    if family == "llama4":
        rope = (
            fields.per_layer("no_rope_layers", layers=layers, choices=(0, 1)) if fields.get("no_rope_layers") else None
        )
        step = fields.integer("no_rope_layer_interval", default=4, high=MAX_LAYERS)
        chunked = rope if rope is not None else [int((i + 1) % step != 0) for i in range(layers)]
        return ["chunked_attention" if flag else "full_attention" for flag in chunked]
    return _sliding_kinds(fields, layers, known)


def _sliding_kinds(fields: Fields, layers: int, known: Family) -> list[str]:
    if _window(fields) is None or not fields.boolean("use_sliding_window", default=True):
        return ["full_attention"] * layers
    pattern = fields.optional_integer("sliding_window_pattern", "_sliding_window_pattern", high=MAX_LAYERS)
    pattern = pattern or known.sliding_pattern
    if pattern is not None:
        return ["sliding_attention" if (i + 1) % pattern else "full_attention" for i in range(layers)]
    first = fields.optional_integer("max_window_layers", low=0, high=MAX_LAYERS)
    if first is not None:
        return ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]
    if known.all_layers_slide:
        return ["sliding_attention"] * layers
    raise fields.error(
        "layer_types",
        "sliding_attention or full_attention for each layer (or sliding_window_pattern), since sliding_window is set",
    )


def _latent(fields: Fields) -> LatentAttention:
    # Files also have a head width and a number of KV heads beside the latent widths, which define no shape.
    fields.get("head_dim", "num_key_value_heads")
    top_k = fields.optional_integer("index_topk")
    return LatentAttention(
        heads=fields.integer("num_attention_heads"),
        q_lora_rank=fields.optional_integer("q_lora_rank"),
        kv_lora_rank=fields.integer("kv_lora_rank"),
        qk_nope_head_dim=fields.integer("qk_nope_head_dim"),
        qk_rope_head_dim=fields.integer("qk_rope_head_dim"),
        v_head_dim=fields.integer("v_head_dim"),
        top_k_tokens=top_k,
        index_heads=0 if top_k is None else fields.integer("index_n_heads"),
        index_head_dim=0 if top_k is None else fields.integer("index_head_dim"),
        output_gate=fields.boolean("mla_use_output_gate"),
    )


def _latent_layers(fields: Fields, layers: int) -> list[Mixer]:
    sparse = ("deepseek_sparse_attention", "indexed_attention")
    fields.per_layer("layer_types", layers=layers, choices=("full_attention", *sparse))
    full = _latent(fields)
    kinds = fields.per_layer("indexer_types", layers=layers, choices=("full", "shared"))
    if kinds is None:
        return [full] * layers
    values = {name: getattr(full, name) for name in full.__dataclass_fields__}
    shared = LatentAttention(**{**values, "index_heads": 0, "index_head_dim": 0})
    return [full if kind == "full" else shared for kind in kinds]


def _kimi_linear(fields: Fields, layers: int) -> list[Mixer]:
    linear = fields.child("linear_attn_config")
    if linear is None:
        raise fields.error("linear_attn_config", "an object")
    heads = linear.integer("num_heads")
    width = linear.integer("head_dim")
    delta = GatedDeltaNet(
        heads, heads, width, width, linear.integer("short_conv_kernel_size", high=64), state_bytes_per_element=4.0
    )
    full = linear.array("full_attn_layers") or []
    for number in full:
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= layers:
            raise linear.error("full_attn_layers", f"layer numbers from 1 to {layers}", number)
    latent = _latent(fields) if full else None
    return [latent if latent is not None and i + 1 in full else delta for i in range(layers)]


def _mimo_v2(fields: Fields, layers: int) -> list[Mixer]:
    flags = fields.per_layer("hybrid_layer_pattern", layers=layers, choices=(0, 1)) or []
    hidden = fields.integer("hidden_size")
    full = read_attention(fields, hidden)
    heads = fields.integer("swa_num_attention_heads", default=full.heads)
    kv_heads = fields.integer("swa_num_key_value_heads", default=full.kv_heads)
    _check_groups(fields, heads, kv_heads, "swa_num_key_value_heads")
    window = _window(fields)
    if window is None and any(flags):
        raise fields.error("sliding_window", "an integer, since hybrid_layer_pattern has sliding layers")
    head_dim = fields.integer("swa_head_dim", default=full.head_dim)
    value_dim = fields.optional_integer("swa_v_head_dim") or full.v_head_dim
    sliding = Attention(heads, kv_heads, head_dim, v_head_dim=value_dim, window=window)
    return [sliding if flag else full for flag in flags]


def _compressed(fields: Fields, layers: int) -> list[Mixer]:
    ratios = fields.per_layer("compress_ratios", layers=layers, choices=(0, 4, 128)) or []
    heads = fields.integer("num_attention_heads")
    kv_heads = fields.integer("num_key_value_heads", default=1)
    if kv_heads != 1:
        raise fields.error("num_key_value_heads", "1, since compress_ratios belong to multi-query attention", kv_heads)
    # The head width includes the rotary part.
    head_dim = fields.integer("head_dim", low=fields.integer("qk_rope_head_dim", default=1))
    groups = fields.integer("o_groups")
    if heads % groups:
        raise fields.error("o_groups", f"a divisor of the {heads} attention heads", groups)
    window = fields.integer("sliding_window")
    top_k = fields.integer("index_topk")
    index_heads = fields.integer("index_n_heads")
    index_head_dim = fields.integer("index_head_dim")
    q_rank = fields.integer("q_lora_rank")
    o_rank = fields.integer("o_lora_rank")

    def layer(ratio: int) -> CompressedAttention:
        # The indexer selects entries in lightly compressed layers; heavily compressed layers read every entry.
        indexed = ratio == 4
        return CompressedAttention(
            heads,
            head_dim,
            q_rank,
            o_rank,
            groups,
            window,
            ratio,
            top_k_entries=top_k if indexed else None,
            index_heads=index_heads if indexed else 0,
            index_head_dim=index_head_dim if indexed else 0,
        )

    by_ratio = {ratio: layer(ratio) for ratio in set(ratios)}
    return [by_ratio[ratio] for ratio in ratios]
