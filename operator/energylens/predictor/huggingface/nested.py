"""Defaults of the nested text part of a multimodal ``config.json``.

The transformers library omits the fields of a nested configuration that equal the defaults of its class
(``PreTrainedConfig.to_diff_dict``): the ``text_config`` of LLaVA 1.5 lacks even the hidden size. The values are those
of the configuration classes of transformers 5.24.0.
"""

from __future__ import annotations

from collections.abc import Mapping


def _text(
    hidden: int,
    intermediate: int | None,
    layers: int,
    heads: int,
    kv_heads: int | None,
    head_dim: int | None,
    vocab: int,
    context: int,
    **more: int | bool,
) -> Mapping[str, int | bool]:
    values = {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
        "max_position_embeddings": context,
    }
    return {name: value for name, value in values.items() if value is not None} | more


def _experts(name: str, width: int, count: int, chosen: int | None) -> dict[str, int | bool]:
    """Return the fields of routed experts; ``name`` is the family's field for their number."""
    values = {"moe_intermediate_size": width, name: count, "num_experts_per_tok": chosen}
    return {field: value for field, value in values.items() if value is not None}


_NO_WINDOW: Mapping[str, int | bool] = {"use_sliding_window": False}
_EVERY_LAYER: Mapping[str, int | bool] = {"decoder_sparse_step": 1}
_LINEAR: Mapping[str, int | bool] = {
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}
_LATENT: Mapping[str, int | bool] = {
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
_QWEN2_MOE = {**_experts("num_experts", 1408, 60, 4), **_EVERY_LAYER}
_QWEN3_MOE = {**_experts("num_experts", 768, 128, 8), **_EVERY_LAYER}

# fmt: off
NESTED_DEFAULTS: dict[str, Mapping[str, int | bool]] = {
    "llama": _text(4096, 11008, 32, 32, None, None, 32000, 2048),
    "mistral": _text(4096, 14336, 32, 32, 8, None, 32000, 131072, sliding_window=4096),
    "ministral3": _text(4096, 14336, 34, 32, 8, 128, 131072, 262144),
    "mixtral": _text(4096, 14336, 32, 32, 8, None, 32000, 131072, num_local_experts=8, num_experts_per_tok=2),
    "gemma": _text(3072, 24576, 28, 16, 16, 256, 256000, 8192),
    "gemma2": _text(2304, 9216, 26, 8, 4, 256, 256000, 8192, sliding_window=4096),
    "gemma3": _text(2304, 9216, 26, 8, 4, 256, 262208, 131072, sliding_window=4096),
    "gemma4": _text(2304, 9216, 30, 8, 4, 256, 262144, 131072, sliding_window=512, hidden_size_per_layer_input=256),
    "qwen2": _text(4096, 22016, 32, 32, 32, None, 151936, 32768, **_NO_WINDOW),
    "qwen2_moe": _text(2048, 5632, 24, 16, 16, None, 151936, 32768, **_NO_WINDOW, **_QWEN2_MOE,
                       shared_expert_intermediate_size=5632),
    "qwen3": _text(4096, 22016, 32, 32, 32, 128, 151936, 32768, **_NO_WINDOW),
    "qwen3_moe": _text(2048, 6144, 24, 32, 4, None, 151936, 32768, **_NO_WINDOW, **_QWEN3_MOE),
    "qwen2_vl": _text(8192, 29568, 80, 64, 8, None, 152064, 32768, **_NO_WINDOW),
    "qwen2_5_vl": _text(8192, 29568, 80, 64, 8, None, 152064, 32768, **_NO_WINDOW),
    "qwen2_5_omni": _text(3584, 18944, 28, 28, 4, None, 152064, 32768, **_NO_WINDOW),
    "qwen3_vl": _text(4096, 22016, 32, 32, 32, 128, 151936, 128000),
    "qwen3_vl_moe": _text(2048, 5632, 24, 16, 16, None, 151936, 128000, **_QWEN2_MOE),
    "qwen3_omni_moe": _text(2048, 18944, 28, 28, 4, None, 3584, 32768, **_QWEN3_MOE),
    "qwen3_5": _text(4096, 12288, 32, 16, 4, 256, 248320, 32768, **_LINEAR),
    "qwen3_5_moe": _text(2048, None, 40, 16, 2, 256, 248320, 32768, **_experts("num_experts", 512, 256, 8), **_LINEAR,
                         shared_expert_intermediate_size=512),
    "llama4": _text(5120, 8192, 48, 40, 8, 128, 202048, 131072, num_local_experts=16, num_experts_per_tok=1,
                    intermediate_size_mlp=16384, interleave_moe_layer_step=1, attention_chunk_size=8192),
    "phi3": _text(3072, 8192, 32, 32, None, None, 32064, 4096),
    "phi": _text(2048, 8192, 24, 32, None, None, 51200, 2048),
    "cohere": _text(8192, 22528, 40, 64, None, None, 256000, 8192),
    "cohere2": _text(8192, 22528, 40, 64, None, None, 256000, 8192, sliding_window=4096),
    "glm": _text(4096, 13696, 40, 32, 2, 128, 151552, 131072),
    "glm4": _text(4096, 13696, 40, 32, 2, 128, 151552, 131072),
    "glm4v": _text(4096, 13696, 40, 32, 2, None, 151552, 32768),
    "glm4v_moe": _text(4096, 10944, 46, 96, 8, None, 151424, 65536, **_experts("n_routed_experts", 1408, 128, 8),
                       n_shared_experts=1, first_k_dense_replace=1),
    "deepseek_v2": _text(4096, 11008, 32, 32, None, None, 102400, 2048, **_LATENT,
                         **_experts("n_routed_experts", 1407, 64, None), n_shared_experts=2, first_k_dense_replace=0),
    "deepseek_v3": _text(7168, 18432, 61, 128, 128, None, 129280, 4096, **_LATENT,
                         **_experts("n_routed_experts", 2048, 256, 8), n_shared_experts=1, first_k_dense_replace=3),
    "smollm3": _text(2048, 11008, 36, 16, 4, None, 128256, 32768, **_NO_WINDOW),
    "granite": _text(4096, 11008, 32, 32, None, None, 32000, 2048),
    "exaone4": _text(4096, 16384, 32, 32, 32, None, 102400, 2048, sliding_window=4096),
}
# fmt: on
"""Family -> field -> value."""

NESTED_FAMILIES = {
    "aya_vision": "cohere2",
    "cohere2_vision": "cohere2",
    "idefics2": "mistral",
    "idefics3": "llama",
    "internvl": "qwen2",
    "kimi_k25": "deepseek_v3",
    "llava": "llama",
    "llava_next": "llama",
    "llava_onevision": "qwen2",
    "mistral3": "mistral",
    "paligemma": "gemma",
    "qwen2_audio": "qwen2",
    "smolvlm": "llama",
    "voxtral": "llama",
}
"""Outer ``model_type`` -> ``model_type`` of a nested text part that has none."""
