"""The known families (values of ``model_type``) with their defaults, and the rejected families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from energylens.records import dataclass


@dataclass(frozen=True)
class Family:
    """Defaults that the configuration class of a ``model_type`` supplies."""

    tied: bool = False
    """Whether embedding and output head are one matrix unless ``tie_word_embeddings`` says otherwise."""
    gated: bool = True
    """Whether feed-forward networks have three matrices instead of two."""
    defaults: Mapping[str, int] = field(default_factory=dict)
    """Fields that the file may omit."""
    sliding_pattern: int | None = None
    """Every n-th layer has full attention, the others see the window."""
    all_layers_slide: bool = False
    """Whether ``sliding_window`` alone means that every layer has that window."""


def _family(
    tied: bool = False,
    gated: bool = True,
    pattern: int | None = None,
    slide: bool = False,
    **defaults: int,
) -> Family:
    return Family(tied, gated, defaults, pattern, slide)


FAMILIES: dict[str, Family] = {
    "afmoe": _family(pattern=4, head_dim=128, num_dense_layers=1, num_shared_experts=2),
    "apertus": _family(gated=False),
    "arcee": _family(gated=False),
    "baichuan": _family(),
    "bailing_moe": _family(),
    "bailing_moe_v2": _family(),
    "bamba": _family(num_key_value_heads=8),
    "bitnet": _family(),
    "bloom": _family(tied=True, gated=False, max_position_embeddings=2048),
    "chatglm": _family(),
    "cohere": _family(tied=True),
    "cohere2": _family(tied=True, pattern=4),
    "cwm": _family(num_key_value_heads=8, head_dim=128),
    "dbrx": _family(),
    "deepseek": _family(),
    "deepseek_ref": _family(),
    "deepseek_v2": _family(),
    "deepseek_v3": _family(),
    "deepseek_v32": _family(),
    "deepseek_v4": _family(),
    "dots1": _family(),
    "ernie4_5": _family(tied=True, num_key_value_heads=2, head_dim=128),
    "ernie4_5_moe": _family(tied=True, num_key_value_heads=4),
    "exaone": _family(num_key_value_heads=8, max_position_embeddings=4096),
    "exaone4": _family(),
    "falcon": _family(tied=True, gated=False, max_position_embeddings=2048),
    "flex_olmo": _family(),
    "gemma": _family(tied=True, num_attention_heads=16, num_key_value_heads=16, head_dim=256),
    "gemma2": _family(tied=True, pattern=2, num_attention_heads=8, num_key_value_heads=4, head_dim=256),
    "gemma3": _family(
        tied=True,
        pattern=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        vocab_size=262_208,
        max_position_embeddings=131_072,
    ),
    "gemma4": _family(tied=True, pattern=6),
    "glm": _family(num_key_value_heads=2, head_dim=128),
    "glm4": _family(num_key_value_heads=2, head_dim=128),
    "glm4_moe": _family(num_key_value_heads=8),
    "glm4_moe_lite": _family(),
    "glm4v": _family(num_key_value_heads=2),
    "glm4v_moe": _family(num_key_value_heads=8),
    "glm_moe_dsa": _family(),
    "gpt2": _family(tied=True, gated=False),
    "gpt_bigcode": _family(tied=True, gated=False),
    "gpt_neox": _family(gated=False),
    "gpt_oss": _family(pattern=2, num_key_value_heads=8, head_dim=64),
    "gptj": _family(gated=False),
    "granite": _family(),
    "granitemoe": _family(),
    "granitemoehybrid": _family(),
    "granitemoeshared": _family(),
    "helium": _family(num_key_value_heads=20, head_dim=128),
    "hunyuan_v1_dense": _family(),
    "hunyuan_v1_moe": _family(),
    "hyperclovax": _family(),
    "internlm": _family(),
    "internlm2": _family(),
    "internlm3": _family(num_key_value_heads=2, head_dim=128),
    "iquestcoder": _family(num_key_value_heads=8, head_dim=128),
    "jais2": _family(gated=False),
    "kimi_k2": _family(),
    "kimi_linear": _family(),
    "llama": _family(),
    "llama4": _family(num_key_value_heads=8, head_dim=128),
    "mimo": _family(),
    "mimo_v2_flash": _family(),
    "minicpm": _family(tied=True),
    "minicpm3": _family(tied=True),
    "minimax_m2": _family(num_key_value_heads=8, head_dim=128),
    "minimax_m3": _family(num_key_value_heads=4, head_dim=128),
    "ministral": _family(slide=True, num_key_value_heads=8),
    "ministral3": _family(slide=True, num_key_value_heads=8, head_dim=128),
    "mistral": _family(slide=True, num_key_value_heads=8),
    "mistral3": _family(slide=True, num_key_value_heads=8),
    "mistral4": _family(),
    "mixtral": _family(slide=True, num_key_value_heads=8),
    "mpt": _family(tied=True, gated=False),
    "nemotron": _family(gated=False),
    "nemotron-nas": _family(),
    "nemotron_h": _family(gated=False, num_key_value_heads=8, head_dim=128),
    "olmo": _family(),
    "olmo2": _family(),
    "olmo3": _family(pattern=4),
    "olmoe": _family(),
    "opt": _family(tied=True, gated=False),
    "persimmon": _family(gated=False),
    "phi": _family(gated=False),
    "phi3": _family(slide=True),
    "phimoe": _family(slide=True, num_key_value_heads=8),
    "qwen": _family(),
    "qwen2": _family(num_key_value_heads=32),
    "qwen2_5_omni": _family(num_key_value_heads=4),
    "qwen2_5_vl": _family(num_key_value_heads=8),
    "qwen2_moe": _family(num_key_value_heads=16),
    "qwen2_vl": _family(num_key_value_heads=8),
    "qwen3": _family(num_key_value_heads=32, head_dim=128),
    "qwen3_5": _family(num_key_value_heads=4, head_dim=256),
    "qwen3_5_moe": _family(num_key_value_heads=2, head_dim=256),
    "qwen3_moe": _family(num_key_value_heads=4),
    "qwen3_next": _family(num_key_value_heads=2, head_dim=256),
    "qwen3_omni_moe": _family(num_key_value_heads=4),
    "qwen3_vl": _family(num_key_value_heads=32, head_dim=128),
    "qwen3_vl_moe": _family(num_key_value_heads=16),
    "seed_oss": _family(num_key_value_heads=8, head_dim=128),
    "smollm3": _family(tied=True, num_key_value_heads=4),
    "solar_open": _family(num_key_value_heads=8, head_dim=128),
    "stablelm": _family(num_key_value_heads=32),
    "starcoder2": _family(tied=True, gated=False, slide=True, num_key_value_heads=2),
    "step3p5": _family(num_key_value_heads=8, head_dim=128),
    "step3p7": _family(num_key_value_heads=8, head_dim=128),
    "youtu": _family(tied=True),
}
"""Known ``model_type`` -> its defaults.

Defaults are those of the configuration classes of transformers 5.24.0; for baichuan, bailing_moe, chatglm, deepseek,
deepseek_ref, internlm, internlm2, mimo, nemotron-nas and qwen, those of the class that the publisher ships with the
checkpoint.
"""

KNOWN_FAMILIES = frozenset(FAMILIES)
"""Values of ``model_type`` whose shape-defining fields are all understood."""

UNMODELLED_FAMILIES = {
    "albert": "layers without a causal mask: it embeds or classifies text and generates none",
    "arctic": "a dense network beside the experts",
    "bart": "an encoder beside the decoder",
    "bert": "layers without a causal mask: it embeds or classifies text and generates none",
    "blt": "byte patches",
    "deberta-v2": "layers without a causal mask: it embeds or classifies text and generates none",
    "deci": "a number of KV heads per layer",
    "diffusion_gemma": "tokens filled in by diffusion, not one after another",
    "distilbert": "layers without a causal mask: it embeds or classifies text and generates none",
    "Dream": "tokens filled in by diffusion, not one after another",
    "electra": "layers without a causal mask: it embeds or classifies text and generates none",
    "falcon_h1": "attention and Mamba-2 side by side in a layer",
    "falcon_mamba": "Mamba-1 layers",
    "gemma3n": "per-layer embeddings and layers that share a KV cache",
    "gpt_neo": "attention_types",
    "hunyuan": "layers that share a KV cache",
    "idefics": "cross-attention layers",
    "jamba": "Mamba-1 layers",
    "jetmoe": "a mixture of attention heads",
    "lfm2": "short convolutions as mixers",
    "lfm2_moe": "short convolutions as mixers",
    "llada": "tokens filled in by diffusion, not one after another",
    "llada2_moe": "tokens filled in by diffusion, not one after another",
    "llada_moe": "tokens filled in by diffusion, not one after another",
    "longcat_flash": "two attention blocks in a layer, and experts without weights",
    "m2m_100": "an encoder beside the decoder",
    "mamba": "Mamba-1 layers",
    "mamba2": "layers of nothing but Mamba-2",
    "marian": "an encoder beside the decoder",
    "mbart": "an encoder beside the decoder",
    "minimax": "lightning attention",
    "minimax_text_01": "lightning attention",
    "mllama": "cross-attention layers",
    "mllama_text_model": "cross-attention layers",
    "modernbert": "layers without a causal mask: it embeds or classifies text and generates none",
    "mpnet": "layers without a causal mask: it embeds or classifies text and generates none",
    "mt5": "an encoder beside the decoder",
    "nomic_bert": "layers without a causal mask: it embeds or classifies text and generates none",
    "openelm": "widths of their own per layer",
    "pegasus": "an encoder beside the decoder",
    "phi3small": "block-sparse attention",
    "phi4_multimodal": "adapters for images and speech",
    "phi4mm": "adapters for images and speech",
    "plamo2": "Mamba layers",
    "recurrent_gemma": "RG-LRU layers",
    "roberta": "layers without a causal mask: it embeds or classifies text and generates none",
    "rwkv": "RWKV layers",
    "sdar": "tokens filled in by diffusion, not one after another",
    "sdar_moe": "tokens filled in by diffusion, not one after another",
    "seamless_m4t": "an encoder beside the decoder",
    "t5": "an encoder beside the decoder",
    "ultravox": "a text model that is named, not described",
    "umt5": "an encoder beside the decoder",
    "whisper": "an encoder beside the decoder",
    "xlm-roberta": "layers without a causal mask: it embeds or classifies text and generates none",
    "xlstm": "xLSTM layers",
    "zamba": "Mamba-1 layers and shared attention",
    "zamba2": "shared attention blocks",
}
"""Families that are rejected by name -> the feature that is not modelled."""

SAME_FAMILY = {
    "RefinedWeb": "falcon",
    "RefinedWebModel": "falcon",
    "minimax_m3_vl": "minimax_m3",
    "stablelm_epoch": "stablelm",
}
"""Other spelling of a ``model_type`` -> the spelling used here."""

FAMILY_OF_ARCHITECTURE = {
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
    "Gemma3ForConditionalGeneration": "gemma3",
    "GptOssForCausalLM": "gpt_oss",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
}
"""Model class -> ``model_type``, for files that name only their class."""
