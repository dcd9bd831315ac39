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
from energylens.predictor.requests import running_shares
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
    degrees = layouts.tensor_parallel, layouts.pipeline_parallel, layouts.data_parallel
    tp, pp, dp = (degree.astype(np.float64) for degree in degrees)
    weights = _weights(model, tp, pp, dp)
    share = kv_share(model, tp) / pp
    state = state_bytes_per_sequence(model) / (tp * pp)
    if draft is not None:
        weights = weights + drafting_bytes(model, draft) / tp
    reserved = _reserved(model, tp, step_tokens or ACTIVATION_TOKENS)
    room = _room(gpu, utilization, weights, reserved, fixed_cache_bytes)
    # What is verified at once has its places in the cache, accepted or not.
    ahead = workload.verified - 1.0
    full = sum(
        part * (each.input_tokens + each.output_tokens)
        for part, each in zip(running_shares(workload.parts), workload.parts, strict=True)
    )
    per_token, middle, shared = _cached(model, draft, workload, tp, pp)
    per_sequence = per_token * middle + state
    most = max(workload.longest_request, longest_request or 0.0) + ahead
    longest = kv_cache_bytes(model, most) * share + state
    if draft is not None:
        longest = longest + kv_cache_bytes(draft, full) / full * kv_share(draft, tp) * most
    fits = room >= longest
    # A stage of the pipeline holds the cache of all micro-batches in flight, so the whole cache is shared by b.
    running = np.where(fits, dp * np.maximum(room - shared, 0.0) / per_sequence, 0.0)
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


def _weights(model: ModelSpec, tp: FloatArray, pp: FloatArray, dp: FloatArray) -> FloatArray:
    """Return the bytes of weights on a GPU by the degrees of parallelism, shape of each."""
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
    return np.asarray(dense / (tp * pp) + experts / (tp * dp * pp) + ends / tp / np.minimum(pp, 2.0))


def _reserved(model: ModelSpec, tp: FloatArray, step_tokens: float) -> FloatArray:
    """Return the bytes of a GPU beside weights and cache, shape of ``tp``: the engine's own, and activations."""
    width = max([model.hidden * 2.0] + [3.0 * _ffn_width(g.ffn) for g in model.layers])
    return np.asarray(ENGINE_BYTES + step_tokens * (width / tp + 2.0 * model.hidden) * 2.0)


def _room(
    gpu: GpuSpec, utilization: float, weights: FloatArray, reserved: FloatArray, fixed_cache_bytes: float | None
) -> FloatArray:
    """Return the bytes of a GPU that are left for the cache, shape of ``weights``; below 0 where none is."""
    if fixed_cache_bytes is None:
        return np.asarray(gpu.memory_bytes * utilization - weights - reserved)
    # The share is ignored then; what is asked for and not there ends the start.
    return np.where(gpu.memory_bytes - weights - reserved >= fixed_cache_bytes, fixed_cache_bytes, 0.0)


def _cached(
    model: ModelSpec, draft: ModelSpec | None, workload: Workload, tp: FloatArray, pp: FloatArray
) -> tuple[FloatArray, float, FloatArray]:
    """Return what sequences hold in the cache: bytes of a token, tokens of one in mid-life, bytes of their prefixes.

    Bytes are of one GPU, shape (n,). Each class has a prefix of its own, which the cache holds once.
    """
    share, index, parts = kv_share(model, tp) / pp, index_cache_bytes(model), workload.parts
    held, prefixes, middle = np.zeros_like(tp), np.zeros_like(tp), 0.0
    for running, part in zip(running_shares(parts), parts, strict=True):
        length = part.input_tokens + part.output_tokens
        # Every rank holds the indexer's keys, which have one head.
        each = (kv_cache_bytes(model, length) / length - index) * share + index / pp
        if draft is not None:
            each = each + kv_cache_bytes(draft, length) / length * kv_share(draft, tp)
        tokens = part.input_tokens - part.shared_prefix + part.age + workload.verified - 1.0
        held, middle = held + running * tokens * each, middle + running * tokens
        prefixes = prefixes + part.shared_prefix * each
    return held / middle, middle, prefixes


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
