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
from energylens.predictor.prediction import Memory
from energylens.predictor.requests import running_shares
from energylens.predictor.types import FloatArray, GpuSpec, Layouts, Workload

ENGINE_BYTES = 1.5e9
"""Bytes of context, workspaces, graphs and communication buffers per GPU."""
ACTIVATION_TOKENS = 8192.0
"""Tokens of the largest step, which size the activations."""

FULL_CACHE = 1.1
"""Ratio of the sequences in a full KV cache to :attr:`Memory.max_concurrency`, which is conservative. Chosen among 1.0
to 1.35 by the errors of the eleven ML.ENERGY v3 runs with more sequences than fit; 1.1 to 1.2 differ little."""


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
    """Return the memory of a GPU for every candidate.

    Args:
        model: The architecture.
        gpu: The product.
        layouts: Candidates, shape (n,).
        workload: The mean request.
        utilization: Share of the GPU's memory that the engine may use (vLLM's ``--gpu-memory-utilization``).
        step_tokens: Tokens of the largest step if the layout sets none, which size the activations; None for
            :data:`ACTIVATION_TOKENS`.
        fixed_cache_bytes: KV cache of a GPU if it is fixed; None for the memory that ``utilization`` leaves.
        longest_request: Tokens of a request for which the cache must have room at start-up; None for the workload's.
        draft: A draft model, stored on the GPUs of every stage as well.
    """
    degrees = layouts.tensor_parallel, layouts.pipeline_parallel, layouts.data_parallel
    tp, pp, dp = (degree.astype(np.float64) for degree in degrees)
    weights = _weights(model, tp, pp, dp)
    share = kv_share(model, tp) / pp
    state = state_bytes_per_sequence(model) / (tp * pp)
    if draft is not None:
        weights = weights + drafting_bytes(model, draft) / tp
    given = layouts.max_batched_tokens
    reserved = _reserved(model, tp, np.where(given > 0, given, step_tokens or ACTIVATION_TOKENS))
    room = _room(gpu, utilization, weights, reserved, fixed_cache_bytes)
    # Tokens that are verified together occupy the cache whether they are accepted or not.
    ahead = workload.verified - 1.0
    full = _mean_length(workload)
    per_token, middle, shared = _cached(model, draft, workload, tp, pp)
    per_sequence = per_token * middle + state
    most = max(workload.longest_request, longest_request or 0.0) + ahead
    longest = kv_cache_bytes(model, most) * share + state
    if draft is not None:
        longest = longest + kv_cache_bytes(draft, full) / full * kv_share(draft, tp) * most
    fits = room >= longest
    # A pipeline stage holds the cache of all micro-batches in flight, so they share the whole cache.
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


def _mean_length(workload: Workload) -> float:
    """Return the mean final length over the running sequences, tokens."""
    parts = workload.parts
    shares = running_shares(parts)
    return sum(share * (each.input_tokens + each.output_tokens) for share, each in zip(shares, parts, strict=True))


def _weights(model: ModelSpec, tp: FloatArray, pp: FloatArray, dp: FloatArray) -> FloatArray:
    """Return the bytes of weights on a GPU by degree of parallelism, shape of each."""
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
    # Experts are split over all GPUs of the replica, by expert or by slice; other weights over tensor-parallel ranks.
    return np.asarray(dense / (tp * pp) + experts / (tp * dp * pp) + ends / tp / np.minimum(pp, 2.0))


def _reserved(model: ModelSpec, tp: FloatArray, step_tokens: FloatArray) -> FloatArray:
    """Return the bytes of a GPU besides weights and cache, shape of ``tp``: the engine's own, and activations."""
    width = max([model.hidden * 2.0] + [3.0 * _ffn_width(g.ffn) for g in model.layers])
    return np.asarray(ENGINE_BYTES + step_tokens * (width / tp + 2.0 * model.hidden) * 2.0)


def _room(
    gpu: GpuSpec, utilization: float, weights: FloatArray, reserved: FloatArray, fixed_cache_bytes: float | None
) -> FloatArray:
    """Return the bytes of a GPU that are left for the cache, shape of ``weights``; negative if there is no room."""
    if fixed_cache_bytes is None:
        return np.asarray(gpu.memory_bytes * utilization - weights - reserved)
    # With a fixed cache the share is ignored, and the engine exits at start-up if the cache does not fit.
    return np.where(gpu.memory_bytes - weights - reserved >= fixed_cache_bytes, fixed_cache_bytes, 0.0)


def _cached(
    model: ModelSpec, draft: ModelSpec | None, workload: Workload, tp: FloatArray, pp: FloatArray
) -> tuple[FloatArray, float, FloatArray]:
    """Return what sequences hold in the cache: bytes per token, tokens in mid-life, and bytes of prefixes.

    Bytes are for one GPU, shape (n,). Each class has its own prefix, which the cache holds once.
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
    """Return the weights that a draft stores besides its target; in the target's format it shares the embeddings."""
    shared = draft.hidden == model.hidden and draft.vocab == model.vocab
    return weight_bytes(draft) - shared * embedding_parameters(draft) * draft.head_quant.bytes_per_weight


def resident_sequences(
    concurrency: FloatArray, layouts: Layouts, held: Memory, full_cache: float = FULL_CACHE
) -> FloatArray:
    """Return how many of ``concurrency`` requests in flight are decoded at once, shape (n,); the others wait.

    The engine preempts requests for which its KV cache has no room, and runs at most ``max_batch_size`` on a rank.

    Args:
        concurrency: Requests in flight, shape (n,).
        layouts: Candidates, shape (n,).
        held: Memory of the candidates.
        full_cache: Ratio of the sequences in a full KV cache to `Memory.max_concurrency`, from the engine's profile.
    """
    most = np.minimum(layouts.max_batch_size * layouts.data_parallel, full_cache * held.max_concurrency)
    return np.asarray(np.minimum(concurrency, most))


def _ffn_width(ffn: object) -> float:
    return float(getattr(ffn, "intermediate", 0))


def kv_share(model: ModelSpec, tp: FloatArray) -> FloatArray:
    """Return the part of the KV cache that one tensor-parallel rank holds, shape of ``tp``.

    KV heads are split if there are at least as many as ranks, otherwise replicated; a latent cache has one head.
    """
    heads = 1
    for group in model.layers:
        if isinstance(group.mixer, Attention):
            heads = max(heads, group.mixer.kv_heads)
        elif isinstance(group.mixer, LatentAttention | CompressedAttention | Mamba2 | GatedDeltaNet):
            continue
    size = float(heads)
    return np.asarray(np.ceil(size / np.minimum(tp, size)) / size)
