"""Memory: weights, KV cache and recurrent state of the most loaded GPU."""

from __future__ import annotations

import numpy as np

from energylens.predictor.model.architecture import (
    Attention,
    CompressedAttention,
    GatedDeltaNet,
    LatentAttention,
    Mamba2,
    ModelSpec,
)
from energylens.predictor.model.parameters import (
    embedding_parameters,
    index_cache_bytes,
    kv_cache_bytes,
    mixer_parameters,
    routed_expert_parameters,
    shared_ffn_parameters,
    state_bytes_per_sequence,
    weight_bytes,
)
from energylens.predictor.types import FloatArray, GpuSpec, Layouts, Memory, Workload

ENGINE_BYTES = 1.5e9
"""Context, workspaces, graphs and communication buffers per GPU."""
ACTIVATION_TOKENS = 8192.0
"""Tokens of the largest batched step, which sizes the activations."""

FULL_CACHE = 1.1
"""Sequences in a full KV cache over those of :attr:`Memory.max_concurrency`, which is cautious. Chosen among 1.0 to
1.35 by the errors of the eleven ML.ENERGY v3 runs with more sequences than fit; 1.1 to 1.2 differ little."""


def memory(
    model: ModelSpec,
    gpu: GpuSpec,
    layouts: Layouts,
    workload: Workload,
    utilization: float,
    *,
    step_tokens: int | None = None,
    fixed_cache_bytes: float | None = None,
    longest_request: int | None = None,
    draft: ModelSpec | None = None,
) -> Memory:
    """Return what a GPU holds for every candidate.

    Args:
        model: The architecture.
        gpu: The product.
        layouts: Candidates, shape (n,).
        workload: Mean request.
        utilization: Share of the GPU's memory that the engine may use (vLLM's ``--gpu-memory-utilization``).
        step_tokens: Tokens of the largest step, which size the activations; None for :data:`ACTIVATION_TOKENS`.
        fixed_cache_bytes: KV cache of a GPU where it is fixed instead of what ``utilization`` leaves.
        longest_request: Tokens of a request for which the cache must have room at the start; None for the workload's.
        draft: A model that drafts tokens, held beside it on every stage's GPUs.
    """
    tp = layouts.tensor_parallel.astype(np.float64)
    pp = layouts.pipeline_parallel.astype(np.float64)
    dp = layouts.data_parallel.astype(np.float64)
    dense = sum(
        g.count
        * (
            mixer_parameters(g.mixer, model.hidden) * model.attention_quant.bytes_per_weight
            + shared_ffn_parameters(g.ffn, model.hidden) * model.ffn_quant.bytes_per_weight
        )
        for g in model.layers
    )
    experts = model.expert_quant.bytes_per_weight * sum(
        g.count * routed_expert_parameters(g.ffn, model.hidden) for g in model.layers
    )
    ends = embedding_parameters(model) * model.head_quant.bytes_per_weight + model.extra_weight_bytes
    # Experts are split over all GPUs of the replica, by expert or by slice; the rest over tensor-parallel ranks.
    weights = dense / (tp * pp) + experts / (tp * dp * pp) + ends / tp / np.minimum(pp, 2.0)
    full = workload.input_tokens + workload.output_tokens
    share = kv_share(model, tp) / pp
    index = index_cache_bytes(model)
    # Every rank holds the indexer's keys, which have one head.
    per_token = (kv_cache_bytes(model, full) / full - index) * share + index / pp
    state = state_bytes_per_sequence(model) / (tp * pp)
    drafted = np.zeros_like(per_token)
    if draft is not None:
        weights = weights + drafting_bytes(model, draft) / tp
        drafted = kv_cache_bytes(draft, full) / full * kv_share(draft, tp)
        per_token = per_token + drafted
    width = max([model.hidden * 2.0] + [3.0 * _ffn_width(g.ffn) for g in model.layers])
    reserved = ENGINE_BYTES + (step_tokens or ACTIVATION_TOKENS) * (width / tp + 2.0 * model.hidden) * 2.0
    room = gpu.memory_bytes * utilization - weights - reserved
    if fixed_cache_bytes is not None:
        # The share is not looked at then; what is asked for and not there ends the start.
        room = np.where(gpu.memory_bytes - weights - reserved >= fixed_cache_bytes, fixed_cache_bytes, 0.0)
    # What is verified at once has its places in the cache, accepted or not.
    ahead = workload.verified - 1.0
    shared = workload.shared_prefix
    middle = workload.input_tokens - shared + workload.output_tokens / 2.0 + ahead
    per_sequence = per_token * middle + state
    most = max(full, longest_request or 0.0) + ahead
    longest = kv_cache_bytes(model, most) * share + state + drafted * most
    fits = room >= longest
    # A stage of the pipeline holds the cache of all micro-batches in flight, so the whole cache is shared by b.
    running = np.where(fits, dp * np.maximum(room - per_token * shared, 0.0) / per_sequence, 0.0)
    tokens = np.where(room > 0, np.maximum(room, 0.0) / np.maximum(per_token + state / full, 1.0), 0.0)
    return Memory(
        weight_bytes=weights,
        reserved_bytes=np.broadcast_to(reserved, weights.shape).astype(np.float64),
        kv_bytes_per_token=per_token,
        state_bytes_per_sequence=state,
        kv_capacity_tokens=tokens,
        max_concurrency=running,
        fits=fits,
    )


def drafting_bytes(model: ModelSpec, draft: ModelSpec) -> float:
    """Return the weights that a draft holds beside its target: one in the target's format uses its embeddings."""
    shared = draft.hidden == model.hidden and draft.vocab == model.vocab
    return weight_bytes(draft) - shared * embedding_parameters(draft) * draft.head_quant.bytes_per_weight


def resident_sequences(
    concurrency: FloatArray, layouts: Layouts, held: Memory, full_cache: float = FULL_CACHE
) -> FloatArray:
    """Return how many of ``concurrency`` requests in flight are decoded at a time, shape (n,); the others wait.

    The engine preempts what its KV cache has no room for, and starts no more than ``max_batch_size`` on a rank.

    Args:
        concurrency: Requests in flight, shape (n,).
        layouts: Candidates, shape (n,).
        held: Their memory.
        full_cache: Of the engine's profile: sequences in a full KV cache over those of `Memory.max_concurrency`.
    """
    most = np.minimum(layouts.max_batch_size * layouts.data_parallel, full_cache * held.max_concurrency)
    return np.asarray(np.minimum(concurrency, most))


def _ffn_width(ffn: object) -> float:
    return float(getattr(ffn, "intermediate", 0))


def kv_share(model: ModelSpec, tp: FloatArray) -> FloatArray:
    """Return the part of the KV cache that one tensor-parallel rank holds, shape of ``tp``.

    KV heads beyond the group's size are split, fewer are replicated; a latent cache has one head.
    """
    heads = 1
    for group in model.layers:
        if isinstance(group.mixer, Attention):
            heads = max(heads, group.mixer.kv_heads)
        elif isinstance(group.mixer, LatentAttention | CompressedAttention | Mamba2 | GatedDeltaNet):
            continue
    size = float(heads)
    return np.asarray(np.ceil(size / np.minimum(tp, size)) / size)
