"""Work of one engine step on the most loaded GPU: FLOPs, bytes and messages per operation.

Nothing here is calibrated; see :mod:`energylens.predictor.step.latency` for what the work costs, and
:mod:`energylens.predictor.step.building` for how it follows from a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energylens.predictor.model.einsum import Collective
from energylens.predictor.types import FloatArray, Layouts

LARGEST_GRAPH = 512.0
"""Tokens; vLLM captures no CUDA graph for a larger step."""


def graph_tokens(layouts: Layouts) -> FloatArray:
    """Return the tokens of the largest step that vLLM captures a CUDA graph for: twice ``max_num_seqs``, bounded."""
    return np.asarray(np.minimum(2.0 * layouts.max_batch_size, LARGEST_GRAPH))


@dataclass(frozen=True)
class ClassLoad:
    """What sequences of one class attend to in a step, tokens."""

    running: float
    """Share of the sequences that decode."""
    prompts: float
    """Share of the prompts that end in the step."""
    prompt_tokens: float
    """Share of the prompt tokens that are computed."""
    context: float
    """Mean context of a sequence that decodes."""
    length: float
    """Mean computed prompt."""
    prefix: float
    """Cached tokens in front of it."""


@dataclass(frozen=True)
class StepLoad:
    """Tokens of one step on one data-parallel rank and pipeline stage, arrays of shape (n,)."""

    decode_tokens: FloatArray
    """Running sequences: one token each."""
    context_tokens: FloatArray
    """Mean context length of those sequences."""
    prefill_tokens: FloatArray
    prefill_length: FloatArray
    """Mean prompt length, over which prefill attention grows."""
    queries: float = 1.0
    """Tokens that are computed for each running sequence: more than one where drafted tokens are verified."""
    prefix_tokens: float = 0.0
    """Cached tokens in front of each prompt, which its tokens attend to."""
    all_prefill_tokens: FloatArray | None = None
    """Prompt tokens of all ranks that step together; None where each has as many as this one."""
    padding_tokens: FloatArray | None = None
    """Rows that pad the other ranks to this one's length, which all go to the same experts; None for none."""
    classes: tuple[ClassLoad, ...] = ()
    """Where sequences are of unlike shapes: what each class attends to. Empty: all attend to the means above."""


@dataclass(frozen=True)
class StepTokens:
    """Tokens of one step by what is computed of them, arrays of shape (n,)."""

    queries: FloatArray
    """Of running sequences, drafts that are verified included."""
    computed: FloatArray
    """The same and the prompts'."""
    sequences: FloatArray
    """Sequences that sample a token: those that run, and prompts that end in this step."""
    head: FloatArray
    """Tokens whose logits are needed."""
    routed: FloatArray
    """Tokens of all data-parallel ranks, which experts see."""
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
    """Time from the kernel tables where there is one, else 0."""
    imbalance: FloatArray
    """Pairs of the most loaded GPU over the mean, 1 where a table has it; time follows it, energy does not."""
    weight_imbalance: FloatArray
    """The same of the weights that it reads."""
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
    """Tokens of the largest step that a CUDA graph was captured for, shape (n,)."""
    sampled_vocab: FloatArray | float
    sorts: FloatArray | float
    """1 when sampling sorts the logits (top-p or top-k), else 0."""
    tile_flops: FloatArray
    """FLOPs of grouped experts on all rows of their tiles, padding included, shape (k, n)."""
    aligned_flops: FloatArray
    """The same where every expert gets whole tiles, with or without tokens: block-scaled FP8, shape (k, n)."""
    padded_flops: FloatArray
    """FLOPs of one expert on the rows that pad data-parallel ranks, shape (k, n): they wait for its GPU."""
    replaced: FloatArray
    """1 where an engine may run other kernels than the tables hold, shape (k, n)."""
    coarse_tiles: FloatArray
    """1 where grouped 16-bit experts run in large tiles that are nearly empty, 0 elsewhere, shape (k, n)."""
    logit_rows: FloatArray | None = None
    """Tokens whose logits are sampled from or verified, shape (n,); None: one for each sequence."""
    drafts: tuple[tuple[Work, float], ...] = ()
    """Work of a model that drafts tokens, and how many times it is done, one after the other."""


@dataclass(frozen=True)
class CollectiveWork:
    """Collectives of one step: arrays of shape (c, n), ``kind`` of length c."""

    kind: tuple[Collective, ...]
    count: FloatArray
    message_bytes: FloatArray
    """Bytes that each GPU contributes."""
    group: FloatArray
    """GPUs that take part; 1 means that nothing is sent."""
    host_share: FloatArray
    """Share of each GPU's bytes that leave its NVLink island over the host link; 0 where the group fits into one."""
    network_share: FloatArray | None = None
    """The part of it that goes on over a network of known speed; None where no speed is known."""
    node_gpus: int = 1
    """GPUs that share that network."""


@dataclass(frozen=True)
class LayerCounts:
    """Layers of a model by what they launch; arrays over runs when fitting."""

    mixers: FloatArray | float
    recurrent: FloatArray | float
    ffns: FloatArray | float
    moes: FloatArray | float
    latent: FloatArray | float
    eager: FloatArray | float
    """Mixers that no CUDA graph covers even in a step that only decodes."""
    fused: FloatArray | float = 0.0
    """Layers of ``moes`` whose routed experts are one kernel, routing and activation included."""
