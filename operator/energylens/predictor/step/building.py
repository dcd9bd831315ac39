"""From a model, a layout and the tokens of a step to the work of that step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from energylens.predictor.model.architecture import ModelSpec, MoeFfn
from energylens.predictor.model.einsum import ACTIVATION_BYTES, Einsum, Operand, Split
from energylens.predictor.model.lowering import AttentionReach, Lowered, Operation, lower
from energylens.predictor.step.kernels import (
    KERNEL_INDEX,
    aligned_rows,
    coarse_tiles,
    engine_path,
    fused_experts,
    has_other_kernels,
    is_tensorrt,
    kernel_class,
    tile_rows,
)
from energylens.predictor.step.messages import step_collectives
from energylens.predictor.step.moe import ExpertLoad, evenly_hit, expert_load, experts_hit
from energylens.predictor.step.moe_tables import ExpertLayer, MoeTables, expert_ratio, roofline_seconds
from energylens.predictor.step.routing import routing_skew
from energylens.predictor.step.work import (
    ClassLoad,
    LayerCounts,
    StepLoad,
    StepTokens,
    Work,
    graph_tokens,
)
from energylens.predictor.types import FloatArray, GpuSpec, Layouts
from energylens.records import dataclass

SORT_FREE_FAMILIES = frozenset({"gpt_oss", "nemotron_h"})
"""Families whose published generation_config.json sets neither top_p nor top_k, so that sampling needs no sort."""


SOFTMAX_FLOPS = {"blackwell": 540.0}
"""FLOPs of the matrix units in the time of one exponential and the surrounding softmax work, by architecture."""
OTHER_SOFTMAX_FLOPS = 270.0
"""The same for other architectures. Both come from the kernel tables of context attention (H100, H200, B200; heads of
64 and 128)."""
PROMPT_TILE = 400.0
"""Additional entries beyond the causal half that a prompt's query costs, as tiles are computed whole; from the same
tables, for prompts of 1,024 to 8,192 tokens."""


def eager_mixers(lowered: Lowered) -> int:
    """Return the mixers whose kernels are launched individually in every step.

    Chunked attention (Llama 4) rebuilds its metadata in each step, which CUDA graphs do not support; one such layer
    keeps vLLM from capturing the others.
    """
    return lowered.mixer_layers if lowered.chunked_layers else 0


def visible_tokens(reach: AttentionReach, context: FloatArray) -> FloatArray:
    """Return the cached entries that one query reads at a mean context length, shape of ``context``."""
    seen = context if reach.window is None else np.minimum(context, float(reach.window))
    if reach.compress_ratio > 1:
        seen = seen / reach.compress_ratio
    return seen if reach.top_k is None else np.minimum(seen, float(reach.top_k))


def build_work(model: ModelSpec, gpu: GpuSpec, layouts: Layouts, load: StepLoad, tables: MoeTables) -> Work:
    """Return the work of one step for every candidate.

    With pipeline parallelism the load is that of one micro-batch, and the work is that of all stages in turn.

    Args:
        model: The architecture.
        gpu: The GPU product, which selects the kernel tables.
        layouts: Candidates, shape (n,).
        load: Tokens per data-parallel rank and micro-batch, shape (n,).
        tables: Measured efficiency of grouped expert kernels.
    """
    lowered = lower(model)
    columns = _Columns.empty(len(lowered.operations), load.decode_tokens.shape[0])
    tokens = step_tokens(load, layouts.data_parallel.astype(np.float64))
    builder = _Builder(model, gpu, layouts, load, tokens, lowered, tables, columns)
    for i in range(len(lowered.operations)):
        builder.fill(i)
    return Work(
        **vars(columns),
        labels=tuple(op.einsum.label for op in lowered.operations),
        small_bytes=builder.small_bytes(),
        collectives=step_collectives(
            lowered, layouts, tokens, model.hidden, gpu, quantized_dispatch=load.quantized_dispatch
        ),
        layers=LayerCounts(
            lowered.mixer_layers,
            lowered.recurrent_layers,
            lowered.ffn_layers,
            lowered.moe_layers,
            lowered.latent_layers,
            eager_mixers(lowered),
            fused_experts(columns.kernel, gpu) * lowered.moe_layers,
        ),
        tokens=tokens.computed,
        sequences=tokens.sequences,
        logit_rows=None if load.queries == 1.0 else tokens.head,
        gpus=layouts.gpus.astype(np.float64),
        graph_tokens=graph_tokens(layouts, load.queries),
        sampled_vocab=float(model.vocab),
        sorts=0.0 if load.greedy or model.family in SORT_FREE_FAMILIES else 1.0,
    )


def step_tokens(load: StepLoad, ranks: FloatArray) -> StepTokens:
    """Return the tokens of a step by the computation they need.

    Args:
        load: Load of one data-parallel rank, shape (n,).
        ranks: Number of data-parallel ranks, shape (n,).
    """
    queries = load.decode_tokens * load.queries
    # Logits are needed for running sequences and for prompts that end in this step.
    ending = load.prefill_tokens / np.maximum(load.prefill_length, 1.0)
    # Experts process the tokens of all ranks, few of which have a prompt in the same step.
    together = load.prefill_tokens * ranks if load.all_prefill_tokens is None else load.all_prefill_tokens
    return StepTokens(
        queries=queries,
        computed=queries + load.prefill_tokens,
        sequences=load.decode_tokens + ending,
        head=queries + ending,
        routed=queries * ranks + together,
        padding=0.0 if load.padding_tokens is None else load.padding_tokens,
    )


@dataclass
class _Columns:
    """The arrays of `Work` with a row for each operation, under the same names: shape (k,) or (k, n)."""

    kernel: npt.NDArray[np.int64]
    launches: FloatArray
    flops: FloatArray
    weight_bytes: FloatArray
    cache_bytes: FloatArray
    activation_bytes: FloatArray
    prefill_attention_flops: FloatArray
    table_seconds: FloatArray
    imbalance: FloatArray
    weight_imbalance: FloatArray
    tile_flops: FloatArray
    aligned_flops: FloatArray
    padded_flops: FloatArray
    replaced: FloatArray
    coarse_tiles: FloatArray

    @classmethod
    def empty(cls, k: int, n: int) -> Self:
        """Return empty rows for k operations on n candidates."""
        names = cls.__dataclass_fields__
        rows: dict[str, Any] = dict(zip(names, np.zeros((len(names), k, n)), strict=True))
        rows |= {"kernel": np.zeros(k, dtype=np.int64), "launches": np.zeros(k)}
        rows["imbalance"] += 1.0
        rows["weight_imbalance"] += 1.0
        return cls(**rows)


class _Builder:
    """Fills in the work of one operation after another."""

    def __init__(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        load: StepLoad,
        tokens: StepTokens,
        lowered: Lowered,
        tables: MoeTables,
        columns: _Columns,
    ) -> None:
        self.model, self.gpu, self.layouts, self.load = model, gpu, layouts, load
        self.tokens, self.lowered, self.tables, self.columns = tokens, lowered, tables, columns
        self.tp, self.dp = layouts.tensor_parallel.astype(np.float64), layouts.data_parallel.astype(np.float64)
        # On Blackwell the decode kernel of latent attention computes all 128 heads, however few of them a GPU has.
        self.all_heads = lowered.latent_layers > 0 and gpu.architecture == "blackwell"
        self.softmax_flops = SOFTMAX_FLOPS.get(gpu.architecture, OTHER_SOFTMAX_FLOPS)
        self.skew = routing_skew(model)
        self._visible: dict[AttentionReach, tuple[FloatArray, FloatArray]] = {}
        self._shares: dict[int, FloatArray] = {}

    def fill(self, i: int) -> None:
        """Fill in row i."""
        op = self.lowered.operations[i]
        e = op.einsum
        self.columns.kernel[i] = KERNEL_INDEX[engine_path(kernel_class(e.kernel, e.quant), self.lowered, op)]
        self.columns.launches[i] = float(op.launches)
        if op.moe is not None:
            self._experts(i, op, op.moe)
        elif e.kernel == "attention":
            self._attention(i, op)
        elif e.kernel == "state":
            self._state(i, op)
        else:
            self._projection(i, op)

    def share(self, e: Einsum) -> FloatArray | float:
        if e.split is not Split.TENSOR or not e.parallel:
            return 1.0
        size = e.size_of[e.parallel]
        if size not in self._shares:
            self._shares[size] = e.share(self.tp)
        return self._shares[size]

    def visible(self, reach: AttentionReach) -> tuple[FloatArray, FloatArray]:
        """Entries that a decoding query reads, and that a prefill query reads on average (causal half)."""
        if reach not in self._visible:
            load = self.load
            if load.classes:
                # Windows shorten the long contexts of one class and not the short contexts of another.
                half = self._mean(reach, "prompt_tokens", lambda part: part.prefix + part.length / 2.0)
                decode = self._mean(reach, "running", lambda part: part.context)
            else:
                half = visible_tokens(reach, load.prefix_tokens + load.prefill_length / 2.0)
                decode = visible_tokens(reach, load.context_tokens)
            if reach.window is None and reach.top_k is None and reach.compress_ratio == 1:
                half = half + PROMPT_TILE
            self._visible[reach] = (decode, half)
        return self._visible[reach]

    def _mean(self, reach: AttentionReach, weight: str, tokens: Callable[[ClassLoad], float]) -> FloatArray:
        """Return the mean visible entries of ``tokens`` over classes, weighted by a share of each class."""
        ones = np.ones_like(self.load.context_tokens)
        return np.asarray(
            sum(getattr(part, weight) * visible_tokens(reach, ones * tokens(part)) for part in self.load.classes)
        )

    def _attention(self, i: int, op: Operation) -> None:
        to = self.columns
        for part in op.parts:
            e, reach, share = part.einsum, part.reach, self.share(part.einsum)
            per_token = e.flops_per_token * op.count
            decode, half = self.visible(reach)
            rows = 1.0 if self.all_heads and e.parallel == "h" else share
            to.flops[i] += per_token * rows * decode * self.tokens.queries
            softmax = reach.exponentials * self.softmax_flops * op.count
            each = (per_token * reach.prompt_flops + softmax) * share * half
            to.prefill_attention_flops[i] += each * self.load.prefill_tokens
            if e.operand is Operand.CACHE:
                self._cache(i, e, reach, op.count)

    def _cache(self, i: int, e: Einsum, reach: AttentionReach, count: int) -> None:
        """Add the bytes of the KV cache that an einsum reads in ``count`` layers."""
        # Entries that all heads share are on every GPU, and every GPU reads all of them.
        share = self.share(e) if e.parallel and e.parallel in e.operands[1] else 1.0
        width = self.model.kv_bytes_per_element * e.operand_elements * count
        decode, _ = self.visible(reach)
        # Tokens of one sequence that are verified together read its cache once.
        self.columns.cache_bytes[i] += width * share * decode * self.load.decode_tokens
        if self.load.prefix_tokens > 0.0:
            if self.load.classes:
                prefix = self._mean(reach, "prompts", lambda part: part.prefix)
            else:
                prefix = visible_tokens(reach, np.full_like(decode, self.load.prefix_tokens))
            self.columns.cache_bytes[i] += width * share * prefix * (self.tokens.sequences - self.load.decode_tokens)

    def _state(self, i: int, op: Operation) -> None:
        to = self.columns
        for part in op.parts:
            e, share = part.einsum, self.share(part.einsum)
            per_token = e.flops_per_token * op.count
            to.flops[i] += per_token * share * self.tokens.queries
            to.prefill_attention_flops[i] += per_token * share * self.load.prefill_tokens
            if e.operand is Operand.CACHE:
                # The state is read, updated and written back.
                width = 2.0 * e.quant.bytes_per_weight * e.operand_elements * op.count
                to.cache_bytes[i] += width * share * self.tokens.queries

    def _projection(self, i: int, op: Operation) -> None:
        to, first = self.columns, op.einsum
        tokens = self.tokens.head if first.label == "head" else self.tokens.computed
        # Merged einsums read the same input, once.
        split_input = first.parallel and first.parallel in first.operands[0]
        moved = first.input_elements * (self.share(first) if split_input else 1.0)
        flops: FloatArray | float = 0.0
        weights: FloatArray | float = 0.0
        for part in op.parts:
            e, share = part.einsum, self.share(part.einsum)
            flops = flops + e.flops_per_token * share
            weights = weights + e.operand_elements * e.quant.bytes_per_weight * share
            moved = moved + e.result_elements * (share if e.parallel and e.parallel in e.result else 1.0)
        to.flops[i] = op.count * flops * tokens
        to.weight_bytes[i] = op.count * weights
        to.activation_bytes[i] = ACTIVATION_BYTES * op.count * tokens * moved

    def _experts(self, i: int, op: Operation, moe: MoeFfn) -> None:
        to, kernel = self.columns, kernel_class("moe", op.einsum.quant)
        expert = self.load_of(op, moe)
        to.flops[i] = expert.flops * op.count
        to.weight_bytes[i] = expert.weight_bytes * op.count
        to.activation_bytes[i] = expert.activation_bytes * op.count
        per_row = expert.flops / np.maximum(expert.pairs, 1e-12) * op.count
        to.padded_flops[i] = per_row * self.tokens.padding
        if kernel == "moe:fp8_block" and self.lowered.latent_layers == 0:
            to.aligned_flops[i] = per_row * aligned_rows(expert, self.tokens.padding)
        else:
            large = coarse_tiles(expert) if kernel == "moe:bfloat16" else np.zeros_like(expert.pairs)
            to.tile_flops[i] = per_row * tile_rows(expert, 16.0 + 48.0 * large)
            # Full tiles lose nothing, because tuned tiles are large as well then.
            to.coarse_tiles[i] = large / (1.0 + expert.pairs / np.maximum(expert.hit, 1e-12) / 64.0)
        if is_tensorrt(to.kernel[i], self.gpu):
            to.tile_flops[i] = per_row * tile_rows(expert, np.full_like(expert.pairs, 64.0))
        else:
            to.table_seconds[i] = self.table_seconds(op, moe, expert)
        to.replaced[i] = has_other_kernels(to.kernel[i], self.gpu)
        tabled = (to.table_seconds[i] > 0.0) & (to.replaced[i] == 0.0)
        to.imbalance[i] = np.where(tabled, 1.0, expert.max_over_mean)
        to.weight_imbalance[i] = np.where(tabled, 1.0, expert.hit_max_over_mean)

    def load_of(self, op: Operation, moe: MoeFfn) -> ExpertLoad:
        """Return the load of the experts of one layer."""
        stage = self.tp * self.dp
        ep = np.minimum(self.layouts.expert_parallel.astype(np.float64), stage)
        bytes_per_weight = self.model.expert_quant.bytes_per_weight
        return expert_load(moe, op.width, bytes_per_weight, self.tokens.routed, ep, stage / ep, self.skew)

    def table_seconds(self, op: Operation, e: MoeFfn, expert: ExpertLoad) -> FloatArray:
        """Return the time from the kernel tables, shape (n,); zeros without a table."""
        gpu, kernel = self.gpu, kernel_class("moe", op.einsum.quant)
        ep, tp = expert.expert_parallel, expert.tensor_parallel
        # The time is that of the most loaded GPU.
        tokens = expert.tokens * expert.max_over_mean
        ratio = expert_ratio(self.tables, gpu, kernel, e, op.width, tokens, ep, tp)
        if ratio is None:
            return np.zeros_like(tokens)
        flops = gpu.flops_fp8 if op.einsum.quant.weight == "fp8" and gpu.flops_fp8 else gpu.flops_bf16
        layer = ExpertLayer(e.experts, e.top_k, op.width, e.intermediate, 3.0 if e.gated else 2.0)
        bytes_per_weight = op.einsum.quant.bytes_per_weight
        roof = roofline_seconds(layer, tokens, ep, tp, bytes_per_weight, gpu.memory_bandwidth, flops)
        # The tables deal tokens out to experts in turn. Randomly routed tokens share experts, above all popular ones,
        # and hit fewer.
        uneven = np.maximum(experts_hit(e.experts, e.top_k, tokens, self.skew) / ep, 1.0)
        even = np.maximum(evenly_hit(e.experts, e.top_k, tokens) / ep, 1.0)
        return ratio * roof * op.count * uneven / even

    def small_bytes(self) -> FloatArray:
        """Return the bytes moved by norms, rotary embeddings and activation functions, shape (n,)."""
        layers = self.lowered.mixer_layers + self.lowered.ffn_layers
        # Two norms with residual read and write four hidden vectors per layer part; activations and rotary about two.
        return 6.0 * ACTIVATION_BYTES * self.model.hidden * layers * self.tokens.computed
