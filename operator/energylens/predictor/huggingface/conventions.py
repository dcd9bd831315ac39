"""Families whose ``config.json`` uses other field names, or omits values that the modelling code supplies.

Each rule follows the configuration and modelling code of transformers 5.24.0; the rules of ChatGLM and Qwen follow the
code that the publishers ship with the checkpoints (``modeling_chatglm.py``, ``modeling_qwen.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from energylens.predictor.huggingface.families import FAMILIES, UNMODELLED_FAMILIES
from energylens.predictor.huggingface.fields import MAX_SIZE, Fields
from energylens.predictor.huggingface.nested import NESTED_DEFAULTS

_GPT2 = {
    "hidden_size": ("n_embd",),
    "num_hidden_layers": ("n_layer",),
    "num_attention_heads": ("n_head",),
    "intermediate_size": ("n_inner",),
    "max_position_embeddings": ("n_positions", "n_ctx"),
}
_MOSAIC = {
    "hidden_size": ("d_model",),
    "num_hidden_layers": ("n_layers",),
    "num_attention_heads": ("n_heads",),
    "max_position_embeddings": ("max_seq_len",),
}

SPELLINGS: dict[str, Mapping[str, tuple[str, ...]]] = {
    "bloom": {
        "hidden_size": ("hidden_size", "n_embed"),
        "num_hidden_layers": ("n_layer", "num_hidden_layers"),
        "num_attention_heads": ("n_head", "num_attention_heads"),
        "max_position_embeddings": ("seq_length",),
    },
    "chatglm": {
        "num_hidden_layers": ("num_layers",),
        "intermediate_size": ("ffn_hidden_size",),
        "head_dim": ("kv_channels",),
        "vocab_size": ("padded_vocab_size", "vocab_size"),
        "max_position_embeddings": ("seq_length",),
    },
    "dbrx": _MOSAIC,
    "exaone": {"num_hidden_layers": ("num_layers", "num_hidden_layers")},
    "falcon": {
        "hidden_size": ("hidden_size", "n_embed"),
        "num_hidden_layers": ("num_hidden_layers", "n_layer"),
        "num_attention_heads": ("num_attention_heads", "n_head"),
    },
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gptj": _GPT2,
    "mpt": _MOSAIC,
    "opt": {"intermediate_size": ("ffn_dim",)},
    "qwen": {"head_dim": ("kv_channels",)},
}
"""Family -> usual name of a field -> the names in its files."""


def apply_conventions(outer: Fields, fields: Fields, family: str) -> None:
    """Make ``fields`` answer to the usual field names, with the defaults and computed values of the family.

    Raises:
        UnsupportedConfigError: The family, or a feature of it, is not modelled.
    """
    for holder, name in ((outer, outer.text("model_type").removesuffix("_text")), (fields, family)):
        if name in UNMODELLED_FAMILIES:
            reason = f"a family whose layers are modelled (not modelled: {UNMODELLED_FAMILIES[name]})"
            raise holder.error("model_type", reason, name)
    known = FAMILIES.get(family)
    defaults: Mapping[str, Any] = known.defaults if known is not None else {}
    if fields is not outer:
        defaults = {**defaults, **NESTED_DEFAULTS.get(family, {})}
    fields.understand(SPELLINGS.get(family, {}), defaults)
    reject_unmodelled(fields)
    if family in _DERIVED:
        fields.derive(_DERIVED[family](fields))


def reject_unmodelled(fields: Fields) -> None:
    """Refuse features whose weights or KV cache are not modelled, in any family.

    Raises:
        UnsupportedConfigError: Such a feature is enabled.
    """
    for field in ("hidden_size_per_layer_input", "num_kv_shared_layers"):
        value = fields.integer(field, default=0, low=0)
        if value:
            raise fields.error(field, "0 (per-layer embeddings and shared KV layers are not modelled)", value)
    kinds = fields.array("attn_type_list")
    if kinds is not None and any(kind != 1 for kind in kinds):
        raise fields.error("attn_type_list", "all 1 (softmax attention; lightning attention is not modelled)", kinds)
    for field, allowed in _SWITCHES.items():
        if fields.get(field) and fields.boolean(field):
            raise fields.error(field, f"false ({allowed})", True)
    for field, allowed in _PARTS.items():
        if fields.get(field):
            raise fields.error(field, f"absent ({allowed})", fields.get(field))


_SWITCHES = {
    "is_encoder_decoder": "decoder-only models",
    "position_encoding_2d": "the first ChatGLM is not modelled",
    "use_cla": "layers that share a KV cache are not modelled",
}
_PARTS = {
    "cross_attention_layers": "cross-attention is not modelled",
    "altup_num_inputs": "alternating updates are not modelled",
}


def position_parameters(fields: Fields, family: str) -> int:
    """Return the weights of the learned position table; 0 for families without one."""
    if family not in ("gpt2", "gpt_bigcode", "opt", "mpt"):
        return 0
    if family == "mpt":
        attention = fields.child("attn_config")
        if not fields.boolean("learned_pos_emb", default=True) or _flag(attention, "alibi", attention is None):
            return 0
        if _flag(attention, "rope", False):
            return 0
    # OPT's table has two more rows than positions.
    rows = fields.integer("max_position_embeddings", high=1 << 31) + (2 if family == "opt" else 0)
    return rows * fields.integer("hidden_size")


def _flag(fields: Fields | None, name: str, default: bool) -> bool:
    return default if fields is None else fields.boolean(name, default=default)


def _shape(fields: Fields) -> tuple[int, int]:
    return fields.integer("hidden_size"), fields.integer("num_attention_heads")


def _afmoe(fields: Fields) -> dict[str, int]:
    """Every layer's attention has a gate, and the first layers are dense."""
    first = fields.integer("num_dense_layers", low=0)
    every = fields.integer("global_attn_every_n_layers", default=4)
    return {"attn_output_gate": True, "first_k_dense_replace": first, "sliding_window_pattern": every}


def _four_times(fields: Fields) -> dict[str, int]:
    width = fields.optional_integer("intermediate_size")
    return {"intermediate_size": width or 4 * fields.integer("hidden_size", high=MAX_SIZE // 4)}


def _bigcode(fields: Fields) -> dict[str, int]:
    _, heads = _shape(fields)
    one = fields.boolean("multi_query", default=True)
    return {**_four_times(fields), "num_key_value_heads": 1 if one else heads}


def _falcon(fields: Fields) -> dict[str, int]:
    hidden, heads = _shape(fields)
    # Files from 2023 name the class instead of the flag.
    renewed = fields.boolean("new_decoder_architecture", default=fields.text("model_type") == "RefinedWeb")
    grouped = fields.integer("num_kv_heads", "n_head_kv", default=heads)
    single = fields.boolean("multi_query", default=True)
    kv_heads = grouped if renewed else 1 if single else heads
    return {"intermediate_size": fields.integer("ffn_hidden_size", default=4 * hidden), "num_key_value_heads": kv_heads}


def _chatglm(fields: Fields) -> dict[str, int]:
    _, heads = _shape(fields)
    groups = fields.integer("multi_query_group_num", default=1)
    return {"num_key_value_heads": groups if fields.boolean("multi_query_attention") else heads}


def _qwen(fields: Fields) -> dict[str, int]:
    # The width in the file covers gate and up projection together.
    width = fields.integer("intermediate_size", low=2)
    if width % 2:
        raise fields.error("intermediate_size", "an even number, twice the width of the network", width)
    _, heads = _shape(fields)
    return {"intermediate_size": width // 2, "num_key_value_heads": heads}


def _mpt(fields: Fields) -> dict[str, int]:
    hidden, heads = _shape(fields)
    attention = fields.child("attn_config")
    kind = "multihead_attention" if attention is None else attention.text("attn_type", default="multihead_attention")
    if attention is None or kind == "multihead_attention":
        kv_heads = heads
    elif kind == "multiquery_attention":
        kv_heads = 1
    elif kind == "grouped_query_attention":
        kv_heads = attention.integer("kv_n_heads")
    else:
        allowed = "multihead_attention, multiquery_attention or grouped_query_attention"
        raise attention.error("attn_type", allowed, kind)
    network = fields.child("ffn_config")
    if network is not None and network.text("ffn_type", default="mptmlp") != "mptmlp":
        raise network.error("ffn_type", "mptmlp (two matrices)", network.get("ffn_type"))
    times = fields.integer("expansion_ratio", default=4, high=64)
    return {"intermediate_size": times * hidden, "num_key_value_heads": kv_heads}


def _dbrx(fields: Fields) -> dict[str, int]:
    attention, network = fields.child("attn_config"), fields.child("ffn_config")
    if attention is None or network is None:
        missing = "attn_config" if attention is None else "ffn_config"
        raise fields.error(missing, "an object")
    experts = network.integer("moe_num_experts", default=4)
    return {
        "num_key_value_heads": attention.integer("kv_n_heads", default=1),
        "num_local_experts": experts,
        "num_experts_per_tok": network.integer("moe_top_k", default=1, high=experts),
        "moe_intermediate_size": network.integer("ffn_hidden_size", default=3584),
    }


def _ernie(fields: Fields) -> dict[str, int]:
    layers, last = fields.integer("num_hidden_layers"), fields.integer("moe_layer_end_index", default=-1, low=-1)
    if last not in (-1, layers - 1):
        raise fields.error("moe_layer_end_index", f"-1 or {layers - 1}, the last layer", last)
    if fields.integer("moe_layer_interval", default=1) != 1:
        raise fields.error("moe_layer_interval", "1", fields.get("moe_layer_interval"))
    return {
        "num_experts_per_tok": fields.integer("moe_k", default=6),
        "n_shared_experts": fields.integer("moe_num_shared_experts", default=2, low=0),
        "first_k_dense_replace": fields.integer("moe_layer_start_index", default=1, low=0),
    }


def _hunyuan(fields: Fields) -> dict[str, int]:
    """Each number may be a list with one for each layer."""
    names = {
        "moe_topk": "num_experts_per_tok",
        "moe_intermediate_size": "moe_intermediate_size",
        "num_shared_expert": "n_shared_experts",
    }
    derived: dict[str, int] = {}
    for name, usual in names.items():
        value = fields.get(name)
        values = value if isinstance(value, list) else [value]
        if any(each != values[0] for each in values):
            raise fields.error(name, "the same number for each layer", value)
        if values and values[0] is not None:
            derived[usual] = Fields({name: values[0]}, fields.model, fields.path).integer(name, low=0)
    if "moe_intermediate_size" not in derived:
        derived["moe_intermediate_size"] = fields.integer("intermediate_size")
    return derived


def _minicpm3(fields: Fields) -> dict[str, int]:
    # The published file has no v_head_dim; vLLM (models/minicpm3.py) and SGLang compute the value width.
    hidden, heads = _shape(fields)
    return {"v_head_dim": fields.integer("v_head_dim", default=hidden // heads)}


def _opt(fields: Fields) -> dict[str, int]:
    hidden, _ = _shape(fields)
    width = fields.optional_integer("word_embed_proj_dim")
    if width not in (None, hidden):
        raise fields.error("word_embed_proj_dim", f"hidden_size {hidden} (narrower embeddings are not modelled)", width)
    return {}


def _all_heads(fields: Fields) -> dict[str, int]:
    return {"num_key_value_heads": fields.integer("num_attention_heads")}


def _four_times_all_heads(fields: Fields) -> dict[str, int]:
    return {**_four_times(fields), **_all_heads(fields)}


_DERIVED: dict[str, Callable[[Fields], dict[str, int]]] = {
    "afmoe": _afmoe,
    "bloom": lambda fields: {"intermediate_size": 4 * fields.integer("hidden_size"), **_all_heads(fields)},
    "chatglm": _chatglm,
    "dbrx": _dbrx,
    "ernie4_5_moe": _ernie,
    "falcon": _falcon,
    "gpt2": _four_times_all_heads,
    "gpt_bigcode": _bigcode,
    "gpt_neox": _all_heads,
    "gptj": _four_times_all_heads,
    "hunyuan_v1_moe": _hunyuan,
    "minicpm3": _minicpm3,
    "mpt": _mpt,
    "opt": _opt,
    "persimmon": _all_heads,
    "qwen": _qwen,
}
"""Family -> function that computes fields with the usual names from the family's own fields."""
