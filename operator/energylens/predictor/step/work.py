"""Work of one engine step on the most loaded GPU: FLOPs, bytes and messages per operation.

Nothing here is calibrated; :mod:`energylens.predictor.step.latency` computes the time of the work, and
:mod:`energylens.predictor.step.building` derives the work from a model.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from energylens.predictor.model.einsum import Collective
from energylens.predictor.types import FloatArray, IntArray, Layouts
from energylens.records import dataclass

LARGEST_GRAPH = 512.0
"""Tokens of the largest step for which vLLM captures a CUDA graph unless an argument says so."""


def graph_tokens(layouts: Layouts, queries: float = 1.0) -> FloatArray:
    """Return the tokens of the largest step for which vLLM captures a CUDA graph, shape (n,).

    Where the layouts state none, these are twice ``max_num_seqs``, bounded.

    Args:
        layouts: Candidates, shape (n,).
        queries: Tokens that are computed for each running sequence.
    """
    default = np.minimum(2.0 * queries * layouts.max_batch_size, LARGEST_GRAPH)
    return np.where(layouts.graph_tokens > 0, layouts.graph_tokens, default)


@dataclass(frozen=True)
class ClassLoad:
    """Context of the sequences of one class in a step, tokens."""

    running: float
    """Share of the decoding sequences."""
    prompts: float
    """Share of the prompts that end in the step."""
    prompt_tokens: float
    """Share of the computed prompt tokens."""
    context: float
    """Mean context of a decoding sequence."""
    length: float
    """Mean computed prompt."""
    prefix: float
    """Cached tokens before the prompt."""


@dataclass(frozen=True)
class StepLoad:
    """Tokens of one step on one data-parallel rank and pipeline stage, arrays of shape (n,)."""

    decode_tokens: FloatArray
    """Running sequences, one token each."""
    context_tokens: FloatArray
    """Mean context length of the running sequences."""
    prefill_tokens: FloatArray
    prefill_length: FloatArray
    """Mean prompt length, with which prefill attention grows."""
    queries: float = 1.0
    """Tokens that are computed for each running sequence: more than one if drafts are verified."""
    prefix_tokens: float = 0.0
    """Cached tokens before each prompt, to which its tokens attend."""
    all_prefill_tokens: FloatArray | None = None
    """Prompt tokens of all ranks that step together; None if each rank has as many as this one."""
    padding_tokens: FloatArray | None = None
    """Rows that pad the other ranks to this rank's length, all routed to the same experts; None for none."""
    classes: tuple[ClassLoad, ...] = ()
    """Context of each class, if sequences have different shapes. Empty if all attend to the means above."""
    greedy: bool = False
    """Whether each sequence takes its most likely token, which needs no sort of the logits."""
    quantized_dispatch: bool = False
    """Whether data-parallel ranks send tokens to experts in the number format in which these compute."""


def joined(decode: StepLoad, mixed: StepLoad) -> StepLoad:
    """Return the loads of both kinds of steps of n candidates as those of 2 n candidates, first those that only decode.

    Args:
        decode: Load without prompts, for which prefix tokens have no effect.
        mixed: Load of the same sequences with prompts, with the prompt tokens and the padding of all ranks.
    """
    assert mixed.all_prefill_tokens is not None
    assert mixed.padding_tokens is not None
    none = np.zeros_like(mixed.prefill_tokens)
    return replace(
        mixed,
        decode_tokens=np.concatenate([decode.decode_tokens, mixed.decode_tokens]),
        context_tokens=np.concatenate([decode.context_tokens, mixed.context_tokens]),
        prefill_tokens=np.concatenate([decode.prefill_tokens, mixed.prefill_tokens]),
        prefill_length=np.concatenate([decode.prefill_length, mixed.prefill_length]),
        all_prefill_tokens=np.concatenate([none, mixed.all_prefill_tokens]),
        padding_tokens=np.concatenate([none, mixed.padding_tokens]),
    )


@dataclass(frozen=True)
class StepTokens:
    """Tokens of one step by the computation they need, arrays of shape (n,)."""

    queries: FloatArray
    """Tokens of running sequences, including verified drafts."""
    computed: FloatArray
    """Tokens of running sequences and prompts."""
    sequences: FloatArray
    """Sequences that sample a token: running ones, and prompts that end in this step."""
    head: FloatArray
    """Tokens whose logits are needed."""
    routed: FloatArray
    """Tokens of all data-parallel ranks, which experts process."""
    padding: FloatArray | float
    """Rows that pad the other ranks."""


@dataclass(frozen=True)
class Work:
    """Work of one step per operation (k of them) and candidate (n), on one GPU.

    Arrays have shape (k, n); ``kernel`` and ``launches`` have shape (k,). FLOPs and bytes are totals over the layers.
    """

    kernel: npt.NDArray[np.int64]
    labels: tuple[str, ...]
    launches: FloatArray
    """Kernel launches per step."""
    flops: FloatArray
    weight_bytes: FloatArray
    cache_bytes: FloatArray
    activation_bytes: FloatArray
    prefill_attention_flops: FloatArray
    table_seconds: FloatArray
    """Time from the kernel tables, or 0 without a table."""
    imbalance: FloatArray
    """Ratio of the pairs on the most loaded GPU to the mean, 1 if a table includes it; affects time, not energy."""
    weight_imbalance: FloatArray
    """Ratio of the weights that the most loaded GPU reads to the mean."""
    small_bytes: FloatArray
    """Bytes that norms, rotary embeddings and activation functions move, shape (n,)."""
    collectives: CollectiveWork
    layers: LayerCounts
    tokens: FloatArray
    """Tokens of the step, decode and prefill, shape (n,)."""
    sequences: FloatArray
    """Sequences that sample a token, shape (n,)."""
    gpus: FloatArray
    """GPUs of the replica, shape (n,)."""
    graph_tokens: FloatArray
    """Tokens of the largest step with a captured CUDA graph, shape (n,)."""
    sampled_vocab: FloatArray | float
    sorts: FloatArray | float
    """1 if sampling sorts the logits (top-p or top-k), otherwise 0."""
    tile_flops: FloatArray
    """FLOPs of grouped experts on all rows of their tiles, including padding, shape (k, n)."""
    aligned_flops: FloatArray
    """The same if every expert gets whole tiles, with or without tokens: block-scaled FP8, shape (k, n)."""
    padded_flops: FloatArray
    """FLOPs of one expert on the rows that pad data-parallel ranks, shape (k, n); these ranks wait for its GPU."""
    replaced: FloatArray
    """1 if an engine may run other kernels than those in the tables, shape (k, n)."""
    coarse_tiles: FloatArray
    """1 if grouped 16-bit experts run in large, nearly empty tiles, otherwise 0, shape (k, n)."""
    logit_rows: FloatArray | None = None
    """Tokens whose logits are sampled or verified, shape (n,); None for one per sequence."""
    drafts: tuple[tuple[Work, float], ...] = ()
    """Work of a draft model, and how often it is repeated in sequence."""


@dataclass(frozen=True)
class CollectiveWork:
    """Collectives of one step: arrays of shape (c, n), ``kind`` of length c."""

    kind: tuple[Collective, ...]
    count: FloatArray
    message_bytes: FloatArray
    """Bytes that each GPU contributes."""
    group: FloatArray
    """Number of participating GPUs; 1 means that nothing is sent."""
    host_share: FloatArray
    """Share of each GPU's bytes that leave its NVLink island over the host link; 0 if the group fits into one island.
    """
    network_share: FloatArray | None = None
    """Part of that share that continues over a network of known speed; None if no speed is known."""
    node_gpus: int | IntArray = 1
    """GPUs that share the network, a number or shape (n,)."""


@dataclass(frozen=True)
class LayerCounts:
    """Layers of a model by the kernels that they launch; arrays over runs when fitting."""

    mixers: FloatArray | float
    recurrent: FloatArray | float
    ffns: FloatArray | float
    moes: FloatArray | float
    latent: FloatArray | float
    eager: FloatArray | float
    """Mixers that no CUDA graph covers, even in a step that only decodes."""
    fused: FloatArray | float = 0.0
    """Layers of ``moes`` whose routed experts are a single kernel, including routing and activation."""
