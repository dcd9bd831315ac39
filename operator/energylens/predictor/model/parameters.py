"""Parameter counts and resident bytes of a model, derived from its shapes.

Norms, biases and attention sinks are ignored; they are below 0.1 % of any model.
"""

from __future__ import annotations

from energylens.predictor.model.architecture import (
    Attention,
    CompressedAttention,
    DenseFfn,
    FeedForward,
    GatedDeltaNet,
    LatentAttention,
    LayerGroup,
    Mamba2,
    Mixer,
    ModelSpec,
    MoeFfn,
)


def mixer_parameters(mixer: Mixer | None, hidden: int) -> int:
    """Return the weights of a mixer's matrices."""
    if mixer is None:
        return 0
    if isinstance(mixer, Attention):
        return _attention_parameters(mixer, hidden)
    if isinstance(mixer, LatentAttention):
        return _latent_parameters(mixer, hidden)
    if isinstance(mixer, CompressedAttention):
        return _compressed_parameters(mixer, hidden)
    if isinstance(mixer, Mamba2):
        inner = mixer.heads * mixer.head_dim
        convolved = inner + 2 * mixer.groups * mixer.state_size
        return hidden * (inner + convolved + mixer.heads) + convolved * mixer.conv_kernel + inner * hidden
    keys, values = mixer.k_heads * mixer.k_dim, mixer.v_heads * mixer.v_dim
    convolved = 2 * keys + values
    return hidden * (convolved + values + 2 * mixer.v_heads) + convolved * mixer.conv_kernel + values * hidden


def _attention_parameters(a: Attention, hidden: int) -> int:
    value_dim = a.v_head_dim or a.head_dim
    queries = a.heads * a.head_dim * (2 if a.output_gate else 1)
    values = 0 if a.shared_kv or a.shared_kv_projection else a.kv_heads * value_dim
    index = a.index_heads * a.index_head_dim + (a.index_head_dim if a.index_heads else 0)
    return hidden * (queries + a.kv_heads * a.head_dim + values + index) + a.heads * value_dim * hidden


def _latent_parameters(a: LatentAttention, hidden: int) -> int:
    queries = a.heads * (a.qk_nope_head_dim + a.qk_rope_head_dim)
    outputs = a.heads * a.v_head_dim
    total = hidden * queries if a.q_lora_rank is None else a.q_lora_rank * (hidden + queries)
    total += hidden * (a.kv_lora_rank + a.qk_rope_head_dim)
    total += a.kv_lora_rank * a.heads * (a.qk_nope_head_dim + a.v_head_dim)
    total += outputs * hidden * (2 if a.output_gate else 1)
    if a.index_heads:
        # The indexer computes its queries from the compressed query, its key and head weights from the hidden state.
        total += (a.q_lora_rank or hidden) * a.index_heads * a.index_head_dim + hidden * (
            a.index_head_dim + a.index_heads
        )
    return total


def _compressed_parameters(a: CompressedAttention, hidden: int) -> int:
    total = a.q_lora_rank * (hidden + a.heads * a.head_dim) + hidden * a.head_dim
    total += a.o_lora_rank * (a.heads * a.head_dim + a.o_groups * hidden)
    # A compressor projects keys and gates; with an indexer it has two overlapping sets, and the indexer a smaller pair.
    if a.compress_ratio:
        total += hidden * a.head_dim * (4 if a.index_heads else 2)
    if a.index_heads:
        total += hidden * (4 * a.index_head_dim + a.index_heads) + a.q_lora_rank * a.index_heads * a.index_head_dim
    return total


def routed_expert_parameters(ffn: FeedForward | None, hidden: int) -> int:
    """Return the weights of all routed experts of one layer."""
    if not isinstance(ffn, MoeFfn):
        return 0
    return ffn.experts * (3 if ffn.gated else 2) * (ffn.latent or hidden) * ffn.intermediate


def shared_ffn_parameters(ffn: FeedForward | None, hidden: int) -> int:
    """Return the feed-forward weights of one layer that every token uses: dense, shared experts, router, latents."""
    if ffn is None:
        return 0
    matrices = 3 if ffn.gated else 2
    if isinstance(ffn, DenseFfn):
        return matrices * hidden * ffn.intermediate
    total = matrices * hidden * ffn.shared_intermediate + hidden * ffn.experts
    return total + (2 * hidden * ffn.latent if ffn.latent else 0)


def embedding_parameters(model: ModelSpec) -> int:
    """Return the weights of the embedding and the output head; once if they are tied."""
    return model.vocab * model.hidden * (1 if model.tied_embeddings else 2)


def parameter_count(model: ModelSpec) -> int:
    """Return the parameters of the text part of a model."""
    return embedding_parameters(model) + sum(
        group.count
        * (
            mixer_parameters(group.mixer, model.hidden)
            + shared_ffn_parameters(group.ffn, model.hidden)
            + routed_expert_parameters(group.ffn, model.hidden)
        )
        for group in model.layers
    )


def served_parameter_count(model: ModelSpec) -> int:
    """Return the parameters that an engine loads: the text part, and 16-bit parts besides it, such as an encoder."""
    return parameter_count(model) + round(model.extra_weight_bytes / 2)


def active_parameter_count(model: ModelSpec) -> int:
    """Return the parameters that one token uses: all but the routed experts to which it is not sent."""
    idle = 0
    for group in model.layers:
        if isinstance(group.ffn, MoeFfn):
            one = routed_expert_parameters(group.ffn, model.hidden) // group.ffn.experts
            idle += group.count * one * (group.ffn.experts - group.ffn.top_k)
    return parameter_count(model) - idle


def weight_bytes(model: ModelSpec) -> float:
    """Return the bytes of all weights that an engine loads, including vision encoders, over all GPUs together.

    Routers stay in 16 bits in every published quantisation.
    """
    total = embedding_parameters(model) * model.head_quant.bytes_per_weight + model.extra_weight_bytes
    for group in model.layers:
        router = model.hidden * group.ffn.experts if isinstance(group.ffn, MoeFfn) else 0
        total += group.count * (
            mixer_parameters(group.mixer, model.hidden) * model.attention_quant.bytes_per_weight
            + (shared_ffn_parameters(group.ffn, model.hidden) - router) * model.ffn_quant.bytes_per_weight
            + router * 2.0
            + routed_expert_parameters(group.ffn, model.hidden) * model.expert_quant.bytes_per_weight
        )
    return total


def cached_elements(mixer: Mixer | None, context: float) -> float:
    """Return the KV cache elements that one layer keeps for a sequence of ``context`` tokens.

    Latent attention caches the compressed vector and one rotary key; an indexer caches one key per token. Recurrent
    mixers cache none.
    """
    if isinstance(mixer, Attention):
        per_token = mixer.kv_heads * mixer.head_dim
        if not mixer.shared_kv:
            per_token += mixer.kv_heads * (mixer.v_head_dim or mixer.head_dim)
        tokens = context if mixer.window is None else min(context, mixer.window)
        return tokens * (per_token + (mixer.index_head_dim if mixer.index_heads else 0))
    if isinstance(mixer, LatentAttention):
        index = mixer.index_head_dim if mixer.index_heads else 0
        return context * (mixer.kv_lora_rank + mixer.qk_rope_head_dim + index)
    if isinstance(mixer, CompressedAttention):
        total = min(context, mixer.window) * mixer.head_dim
        if mixer.compress_ratio:
            index = mixer.index_head_dim if mixer.index_heads else 0
            total += context / mixer.compress_ratio * (mixer.head_dim + index)
        return total
    return 0.0


def kv_cache_bytes(model: ModelSpec, context: float) -> float:
    """Return the KV cache bytes of a sequence of ``context`` tokens over all layers and GPUs, without replication."""
    return model.kv_bytes_per_element * sum(g.count * cached_elements(g.mixer, context) for g in model.layers)


def index_cache_bytes(model: ModelSpec) -> float:
    """Return the part of a token's KV cache bytes that holds the indexer's keys beside grouped-query attention."""
    keys = sum(
        g.count * g.mixer.index_head_dim
        for g in model.layers
        if isinstance(g.mixer, Attention) and g.mixer.index_heads and g.mixer.window is None
    )
    return model.kv_bytes_per_element * keys


def kv_bytes_per_token(model: ModelSpec) -> float:
    """Return the KV cache bytes of a token while every window still contains it."""
    return kv_cache_bytes(model, 1.0)


def state_bytes_per_sequence(model: ModelSpec) -> float:
    """Return the bytes of recurrent and convolution state of a sequence, independent of its length."""
    return sum(group.count * _state_bytes(group) for group in model.layers)


def _state_bytes(group: LayerGroup) -> float:
    mixer = group.mixer
    if isinstance(mixer, Mamba2):
        state = mixer.heads * mixer.head_dim * mixer.state_size
        convolved = mixer.heads * mixer.head_dim + 2 * mixer.groups * mixer.state_size
    elif isinstance(mixer, GatedDeltaNet):
        state = mixer.v_heads * mixer.k_dim * mixer.v_dim
        convolved = 2 * mixer.k_heads * mixer.k_dim + mixer.v_heads * mixer.v_dim
    else:
        return 0.0
    return state * mixer.state_bytes_per_element + convolved * (mixer.conv_kernel - 1) * 2.0
