"""Refuse fields that may define an unknown shape, since a guessed shape would give wrong sizes silently."""

from __future__ import annotations

from energylens.predictor.huggingface.families import KNOWN_FAMILIES
from energylens.predictor.huggingface.fields import Fields

HARMLESS_FIELDS = frozenset(
    """
_attn_implementation _attn_implementation_internal _commit_hash _name_or_path add_cross_attention alibi_bias_max
apply_residual_connection_post_layernorm architectures attention_bias attention_multiplier attention_out_bias
attention_softmax_in_fp32 attn_implementation attn_logit_softcapping attn_res_block_size attn_scale
attn_temperature_tuning auto_map aux_loss_alpha bad_words_ids begin_suppress_tokens bf16 bias chunk_size
chunk_size_feed_forward clip_qkv compression_config conv_bias cross_attention_hidden_size debug dim_model_base
diversity_penalty do_sample dtype early_stopping embedding_initializer_range enable_bias encoder_no_repeat_ngram_size
ep_size exponential_decay_length_penalty finetuning_task first_k_dense_replace floor_scale forced_bos_token_id
forced_eos_token_id fp16 fp32 fp8 full_attn_alpha_factor full_attn_beta_factor generation_config hidden_act
hidden_activation id2label index_skip_topk_offset index_topk_freq index_topk_pattern init_device init_method
initializer_range is_composition is_decoder is_encoder_decoder is_moe keys_to_ignore_at_inference label2id language
layer_norm_elementwise_affine layer_norm_eps layer_norm_epsilon layerdrop layernorm_epsilon length_penalty
linear_attn_alpha_factor linear_attn_beta_factor lm_head_bias logit_scale logits_scaling logn_list max_length
max_sequence_length max_window_layers min_length mlp_alpha_factor mlp_beta_factor mlp_bias model_type moe_layer_freq
moe_renormalize moe_router_dtype moe_router_enable_expert_bias moe_router_scaling_factor moe_shared_expert_overlap
mtp_hybrid_override_pattern mtp_layers_block_type mtp_num_hidden_layers mtp_transformer_layers mup_enabled n_group
no_bias no_repeat_ngram_size norm_eps norm_head norm_topk_prob norm_type num_beam_groups num_beams num_expert_group
num_experts_per_tok num_hash_layers num_hidden_layers num_key_value_heads num_labels num_logits_to_keep
num_mtp_modules num_nextn_predict_layers num_return_sequences onnx_safe original_max_position_embeddings
output_attentions output_hidden_states output_router_logits output_scores partial_rotary_factor
position_embedding_type post_layer_norm prefix pretraining_tp problem_type projectors_bias pruned_heads qk_head_dim
qk_layernorm qk_norm qk_norm_type qkv_bias quantization quantization_config query_pre_attn_scalar
remove_invalid_values reorder_and_upcast_attn repetition_penalty rescale_prenorm_residual residual_in_fp32 return_dict
return_dict_in_generate rms_norm rmsnorm rope_dim rotary_dim route_scale routed_scaling_factor router_bias
scale_attention_softmax_in_fp32 scale_attn_by_inverse_layer_idx scale_attn_weights scale_depth scale_emb score_func
score_function scoring_func sep_token_id seq_aux seq_length slow_but_exact softmax_in_fp32 softmax_scale
suppress_tokens swa_rope_theta swiglu_alpha swiglu_limit swiglu_limits task_specific_params temperature text_model
tf_legacy_loss tie_encoder_decoder tie_word_embeddings time_step_rank tokenizer_class top_k top_p topk_group
topk_method torch_dtype torchscript transformers_version typical_p unsloth_fixed unsloth_version use_bfloat16 use_bias
use_cache use_cache_kernel use_cache_quantization use_conv_bias use_dynamic_ntk use_flash_attention use_flash_attn
use_gemma_norm use_layernorm_kernel use_logn_attn use_mamba_kernels use_moe_router_bias use_mup use_parallel_residual
use_qk_layernorm use_qk_norm use_qkv_bias use_rmsnorm use_rope use_routing_bias use_scaled_rope use_sliding_window
vocab_size_per_layer z_loss_coefficient zero_initialization
""".split()  # noqa: SIM905
)
"""Fields that change no relevant shape: training, generation, numerics, positions, prediction modules."""
HARMLESS_ENDS = (
    "_coef",
    "_coeff",
    "_dropout",
    "_eps",
    "_epsilon",
    "_jitter_noise",
    "_multiplier",
    "_pdrop",
    "_prob",
    "_range",
    "_softcapping",
    "_std",
    "_theta",
    "_token_id",
    "_token_ids",
    "_token_index",
    "_version",
)
HARMLESS_STARTS = ("rope_", "rotary_", "dropout", "original_", "time_step_")
NEGATIVE_MARKS = ("glu", "gate")
"""Parts of flag names whose false value also matters: it says that a network has no gate."""

KV_FIELDS = (
    "multi_query",
    "multi_query_attention",
    "multi_query_group_num",
    "num_kv_heads",
    "n_head_kv",
    "n_kv_heads",
    "kv_n_heads",
    "num_query_groups",
    "num_key_value_groups",
)
"""Fields that set the number of KV heads in some family."""
PART_FIELDS = ("attn_config", "ffn_config", "kv_channels", "ffn_hidden_size", "ffn_dim", "n_inner", "mlp_ratio")
"""Fields that set other shapes in some family."""


def reject_unknown_fields(fields: Fields, family: str) -> None:
    """Refuse, in an unknown family, every field that was not read and is not known to be harmless.

    Raises:
        UnsupportedConfigError: There is such a field; the message names the field.
    """
    for field, value in fields.values.items():
        if field in fields.used or field in HARMLESS_FIELDS or field.endswith(HARMLESS_ENDS):
            continue
        if field.startswith(HARMLESS_STARTS) or (field.endswith("dropout") and not isinstance(value, bool)):
            continue
        off = value in (None, False, 0, [], {}, "")
        if off and not (value is False and any(mark in field for mark in NEGATIVE_MARKS)):
            continue
        raise fields.error(
            field,
            f"absent, as neither the model_type {family!r} nor this field is known; remove the field if it "
            f"changes no weight shape, or use one of the {len(KNOWN_FAMILIES)} known types (docs/models.md)",
            value,
        )


def reject_foreign_fields(fields: Fields, family: str) -> None:
    """Refuse, in a known family, the shape fields of other families that were not read.

    Raises:
        UnsupportedConfigError: Such a field contradicts the shape that was read; the message names the field.
    """
    heads = fields.get("num_attention_heads")
    kv_heads = fields.get("num_key_value_heads") or heads
    same: dict[str, tuple[object, ...]] = {
        **dict.fromkeys(KV_FIELDS, (kv_heads,)),
        "multi_query": (kv_heads == 1,),
        "multi_query_attention": (kv_heads != heads,),
        "num_key_value_groups": (heads // kv_heads,) if isinstance(heads, int) and isinstance(kv_heads, int) else (),
        **dict.fromkeys(("ffn_hidden_size", "ffn_dim", "n_inner"), (fields.get("intermediate_size"),)),
        "kv_channels": (fields.get("head_dim"), _head_width(fields)),
    }
    for field in (*KV_FIELDS, *PART_FIELDS):
        value = fields.values.get(field)
        if field in fields.used or value in (None, False, 0, [], {}, "") or value in same.get(field, ()):
            continue
        raise fields.error(field, f"absent, as the model_type {family!r} does not have it", value)


def _head_width(fields: Fields) -> object:
    hidden, heads = fields.get("hidden_size"), fields.get("num_attention_heads")
    return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads else None
