"""What one engine step has to do on the most loaded GPU: FLOPs, bytes and messages per operation.

Nothing here is calibrated; see :mod:`energylens.predictor.step.latency` for what the work costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energylens.predictor.model.architecture import ModelSpec, Quantization
from energylens.predictor.model.einsum import ACTIVATION_BYTES, Collective, Einsum, Operand, Split
from energylens.predictor.model.lowering import AttentionReach, Lowered, Operation, lower
from energylens.predictor.step.links import host_share, nvlink_island, stage_share
from energylens.predictor.step.moe import ExpertLoad, expert_load, experts_hit
from energylens.predictor.step.moe_tables import MoeTables, expert_ratio, roofline_seconds
from energylens.predictor.types import FloatArray, GpuSpec, Layouts

KERNELS = (
    "gemm:bfloat16",
    "gemm:fp8",
    "gemm:fp8_block",
    "gemm:int8",
    "gemm:8bit",
    "gemm:4bit",
    "gemm:fp4",
    "attention",
    "attention_latent",
    "attention_sparse",
    "state",
    "moe:bfloat16",
    "moe:fp8",
    "moe:fp8_block",
    "moe:fp8_block_latent",
    "moe:int8",
    "moe:8bit",
    "moe:4bit",
    "moe:fp4",
)
"""Kernel classes: the rows of the calibrated coefficients. ``8bit`` and ``4bit`` are weights that kernels turn into 16
bit to compute (on Blackwell 4 bit into 8), ``fp4`` computes in 4 bit."""
KERNEL_INDEX = {name: i for i, name in enumerate(KERNELS)}


SORT_FREE_FAMILIES = frozenset({"gpt_oss", "nemotron_h"})
"""Families whose published generation_config.json sets neither top_p nor top_k: sampling needs no sort then."""


LARGEST_GRAPH = 512.0
"""Tokens; vLLM captures no CUDA graph for a larger step."""
ROUTING_SKEW = 1.2
"""Standard deviation of the logarithm of an expert's popularity within one step."""
BALANCED_SKEW = 0.3
"""The same for DeepSeek V3 and its kin, trained to balance experts without an auxiliary loss (arXiv 2412.19437)."""


SOFTMAX_FLOPS = {"blackwell": 540.0}
"""FLOPs that the matrix units do in the time of one exponential and what softmax does around it, by architecture."""
OTHER_SOFTMAX_FLOPS = 270.0
"""The same elsewhere. Both from the kernel tables of context attention (H100, H200, B200; heads of 64 and 128)."""
PROMPT_TILE = 400.0
"""Entries beyond the causal half that a prompt's query costs, as tiles are computed whole: from the same tables, for
prompts of 1,024 to 8,192 tokens."""


def graph_tokens(layouts: Layouts) -> FloatArray:
    """Return the tokens of the largest step that vLLM captures a CUDA graph for: twice ``max_num_seqs``, bounded."""
    return np.asarray(np.minimum(2.0 * layouts.max_batch_size, LARGEST_GRAPH))


def kernel_class(kernel: str, quant: Quantization) -> str:
    """Return the kernel class of an einsum by how its weights are stored and scaled."""
    if kernel in ("attention", "state"):
        return kernel
    if quant.weight in ("fp8", "int8") and quant.activation == "bfloat16":
        return f"{kernel}:8bit"
    if quant.weight == "fp8":
        return f"{kernel}:fp8_block" if quant.scaling == "block" else f"{kernel}:fp8"
    if quant.weight == "nvfp4" and quant.activation == "nvfp4":
        return f"{kernel}:fp4"
    if quant.weight in ("mxfp4", "nvfp4", "int4"):
        return f"{kernel}:4bit"
    return f"{kernel}:{quant.weight}"


def _engine_path(kernel: str, lowered: Lowered, op: Operation) -> str:
    """Return the class of the kernels that engines run for an operation.

    DeepSeek's block-scaled experts run on other kernels than those of models with plain attention, and latent and
    sparse attention on kernels of their own.
    """
    if kernel == "attention":
        if op.reach.gathered or op.reach.top_k is not None or op.einsum.label.startswith("index"):
            return "attention_sparse"
        return "attention_latent" if lowered.latent_layers else kernel
    return f"{kernel}_latent" if kernel == "moe:fp8_block" and lowered.latent_layers else kernel


def coarse_tiles(expert: ExpertLoad) -> FloatArray:
    """Return 1 where a step has more tokens than a GPU has experts, shape (n,).

    Without tuned tile sizes for a shape vLLM 0.11 takes tiles of 16 x 32 up to that many tokens and of 64 x 64 beyond,
    whose rows are mostly padding. It ships none for the bfloat16 shapes of the models that are served most.
    """
    local = expert.experts / expert.expert_parallel
    return np.asarray(1.0 / (1.0 + (1.04 * local / np.maximum(expert.tokens, 1.0)) ** 48))


def tile_rows(expert: ExpertLoad, tile: FloatArray) -> FloatArray:
    """Return the rows that grouped experts compute on one GPU when each hit expert fills whole tiles, shape (n,)."""
    return np.maximum(expert.hit * tile, expert.pairs + expert.hit * (tile - 1.0) / 2.0)


def aligned_rows(expert: ExpertLoad) -> FloatArray:
    """Return the rows of a contiguous grouped kernel that aligns every local expert to 128 rows, shape (n,).

    vLLM 0.11 runs block-scaled FP8 experts so (DeepGEMM). It sizes the buffer before routing is known, for all pairs of
    the step whichever GPU holds their expert, and computes all of it.
    """
    local = expert.experts / expert.expert_parallel
    return np.asarray(expert.tokens * expert.top_k + 127.0 * local)


def eager_mixers(lowered: Lowered) -> int:
    """Return the mixers whose kernels are launched one by one in every step.

    Chunked attention (Llama 4) builds its metadata again in each step, which no CUDA graph can hold; one such layer
    keeps vLLM from capturing the others.
    """
    return lowered.mixer_layers if lowered.chunked_layers else 0


def _replaced(kernel: int, gpu: GpuSpec) -> bool:
    """Block-scaled FP8 experts on Blackwell: the tables hold Triton's kernels, engines of 2026 run TensorRT-LLM's."""
    return kernel == KERNEL_INDEX["moe:fp8_block"] and gpu.architecture == "blackwell"


def _tensorrt(kernel: int, gpu: GpuSpec) -> bool:
    """DeepSeek's experts on Blackwell run in TensorRT-LLM's kernels, which the kernel tables of vLLM do not hold."""
    return kernel == KERNEL_INDEX["moe:fp8_block_latent"] and gpu.architecture == "blackwell"


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
        gpu: The product, for the kernel tables that apply.
        layouts: Candidates, shape (n,).
        load: Tokens per data-parallel rank and micro-batch, shape (n,).
        tables: Measured efficiency of grouped expert kernels.
    """
    lowered = lower(model)
    n = load.decode_tokens.shape[0]
    tp = layouts.tensor_parallel.astype(np.float64)
    k = len(lowered.operations)
    flops, weight, cache, activation, prefill = (np.zeros((k, n)) for _ in range(5))
    builder = _Builder(model, layouts, load, tp, lowered, gpu)
    kernels, launches = [], np.zeros(k)
    table, imbalance, hits, coarse = np.zeros((k, n)), np.ones((k, n)), np.ones((k, n)), np.zeros((k, n))
    tiles, aligned, padded = np.zeros((k, n)), np.zeros((k, n)), np.zeros((k, n))
    replaced = np.zeros((k, n))
    for i, op in enumerate(lowered.operations):
        e = op.einsum
        kernels.append(KERNEL_INDEX[_engine_path(kernel_class(e.kernel, e.quant), lowered, op)])
        launches[i] = 0.0 if e.fused_with_next else float(op.count)
        if op.moe is not None:
            expert = builder.experts(op)
            flops[i] = expert.flops * op.count
            weight[i] = expert.weight_bytes * op.count
            activation[i] = expert.activation_bytes * op.count
            per_row = expert.flops / np.maximum(expert.pairs, 1e-12) * op.count
            if load.padding_tokens is not None:
                padded[i] = per_row * load.padding_tokens
            if kernel_class("moe", e.quant) == "moe:fp8_block" and lowered.latent_layers == 0:
                aligned[i] = per_row * aligned_rows(expert)
            else:
                large = coarse_tiles(expert) if kernel_class("moe", e.quant) == "moe:bfloat16" else np.zeros(n)
                tiles[i] = per_row * tile_rows(expert, 16.0 + 48.0 * large)
                # Full tiles are no loss: then tuned ones are large, too.
                coarse[i] = large / (1.0 + expert.pairs / np.maximum(expert.hit, 1e-12) / 64.0)
            if _tensorrt(kernels[-1], gpu):
                tiles[i] = per_row * tile_rows(expert, np.full(n, 64.0))
            else:
                table[i] = builder.table_seconds(op, expert, gpu, tables)
            replaced[i] = _replaced(kernels[-1], gpu)
            tabled = (table[i] > 0.0) & (replaced[i] == 0.0)
            imbalance[i] = np.where(tabled, 1.0, expert.max_over_mean)
            hits[i] = np.where(tabled, 1.0, expert.hit_max_over_mean)
            continue
        builder.einsum(op, flops[i], weight[i], cache[i], activation[i], prefill[i])
    return Work(
        kernel=np.array(kernels),
        labels=tuple(op.einsum.label for op in lowered.operations),
        launches=launches,
        flops=flops,
        weight_bytes=weight,
        cache_bytes=cache,
        activation_bytes=activation,
        prefill_attention_flops=prefill,
        table_seconds=table,
        imbalance=imbalance,
        weight_imbalance=hits,
        small_bytes=builder.small_bytes(lowered),
        collectives=builder.collectives(lowered, nvlink_island(gpu)),
        layers=LayerCounts(
            lowered.mixer_layers,
            lowered.recurrent_layers,
            lowered.ffn_layers,
            lowered.moe_layers,
            lowered.latent_layers,
            eager_mixers(lowered),
        ),
        tokens=builder.tokens,
        sequences=builder.sequences,
        logit_rows=None if load.queries == 1.0 else builder.head_tokens,
        gpus=layouts.gpus.astype(np.float64),
        graph_tokens=np.minimum(graph_tokens(layouts) * load.queries, LARGEST_GRAPH),
        sampled_vocab=float(model.vocab),
        sorts=0.0 if model.family in SORT_FREE_FAMILIES else 1.0,
        tile_flops=tiles,
        aligned_flops=aligned,
        padded_flops=padded,
        replaced=replaced,
        coarse_tiles=coarse,
    )


class _Builder:
    def __init__(
        self, model: ModelSpec, layouts: Layouts, load: StepLoad, tp: FloatArray, lowered: Lowered, gpu: GpuSpec
    ) -> None:
        self.model, self.layouts, self.load, self.tp = model, layouts, load, tp
        # Decoding latent attention on Blackwell runs in a kernel for all 128 heads, whatever share a GPU has of them.
        self.all_heads = lowered.latent_layers > 0 and gpu.architecture == "blackwell"
        self.softmax_flops = SOFTMAX_FLOPS.get(gpu.architecture, OTHER_SOFTMAX_FLOPS)
        self.dp = layouts.data_parallel.astype(np.float64)
        self.queries = load.decode_tokens * load.queries
        self.tokens = self.queries + load.prefill_tokens
        # Logits are needed for running sequences and for prompts that end in this step.
        ending = load.prefill_tokens / np.maximum(load.prefill_length, 1.0)
        self.sequences = load.decode_tokens + ending
        self.head_tokens = self.queries + ending
        together = load.prefill_tokens * self.dp if load.all_prefill_tokens is None else load.all_prefill_tokens
        # Experts see the tokens of all ranks, few of which have a prompt in the same step.
        self.routed = self.queries * self.dp + together
        self.padding = 0.0 if load.padding_tokens is None else load.padding_tokens
        self.skew = BALANCED_SKEW if model.family.startswith("deepseek") else ROUTING_SKEW
        self._visible: dict[AttentionReach, tuple[FloatArray, FloatArray]] = {}
        self._shares: dict[int, FloatArray] = {}

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
            half = visible_tokens(reach, self.load.prefix_tokens + self.load.prefill_length / 2.0)
            if reach.window is None and reach.top_k is None and reach.compress_ratio == 1:
                half = half + PROMPT_TILE
            self._visible[reach] = (visible_tokens(reach, self.load.context_tokens), half)
        return self._visible[reach]

    def einsum(
        self,
        op: Operation,
        flops: FloatArray,
        weight: FloatArray,
        cache: FloatArray,
        activation: FloatArray,
        prefill: FloatArray,
    ) -> None:
        e, share = op.einsum, self.share(op.einsum)
        per_token = e.flops_per_token * op.count
        if e.kernel == "attention":
            decode, half = self.visible(op.reach)
            rows = 1.0 if self.all_heads and e.parallel == "h" else share
            flops[:] = per_token * rows * decode * self.queries
            softmax = op.reach.exponentials * self.softmax_flops * op.count
            prefill[:] = (per_token * op.reach.prompt_flops + softmax) * share * half * self.load.prefill_tokens
            if e.operand is Operand.CACHE:
                width = self.model.kv_bytes_per_element * e.operand_elements * op.count
                # The tokens of one sequence that are verified together read its cache once.
                cache[:] = width * share * decode * self.load.decode_tokens
                if self.load.prefix_tokens > 0.0:
                    prefix = visible_tokens(op.reach, np.full_like(decode, self.load.prefix_tokens))
                    cache += width * share * prefix * (self.sequences - self.load.decode_tokens)
            return
        if e.kernel == "state":
            flops[:] = per_token * share * self.queries
            prefill[:] = per_token * share * self.load.prefill_tokens
            if e.operand is Operand.CACHE:
                # The state is read, updated and written back.
                width = 2.0 * e.quant.bytes_per_weight * e.operand_elements * op.count
                cache[:] = width * share * self.queries
            return
        tokens = self.head_tokens if e.label == "head" else self.tokens
        flops[:] = per_token * share * tokens
        weight[:] = e.operand_elements * e.quant.bytes_per_weight * op.count * share
        inputs = e.input_elements * (share if e.parallel in e.operands[0] and e.parallel else 1.0)
        outputs = e.result_elements * (share if e.parallel in e.result and e.parallel else 1.0)
        activation[:] = ACTIVATION_BYTES * op.count * tokens * (inputs + outputs)

    def experts(self, op: Operation) -> ExpertLoad:
        assert op.moe is not None
        stage = self.tp * self.dp
        ep = np.minimum(self.layouts.expert_parallel.astype(np.float64), stage)
        bytes_per_weight = self.model.expert_quant.bytes_per_weight
        return expert_load(op.moe, op.width, bytes_per_weight, self.routed, ep, stage / ep, self.skew)

    def table_seconds(self, op: Operation, expert: ExpertLoad, gpu: GpuSpec, tables: MoeTables) -> FloatArray:
        assert op.moe is not None
        kernel = kernel_class("moe", op.einsum.quant)
        ep, tp = expert.expert_parallel, expert.tensor_parallel
        # Time is that of the most loaded GPU.
        tokens = expert.tokens * expert.max_over_mean
        ratio = expert_ratio(tables, gpu, kernel, op.moe, op.width, tokens, ep, tp)
        if ratio is None:
            return np.zeros_like(tokens)
        flops = gpu.flops_fp8 if op.einsum.quant.weight == "fp8" and gpu.flops_fp8 else gpu.flops_bf16
        e = op.moe
        roof = roofline_seconds(
            e.experts, e.top_k, op.width, e.intermediate, 3.0 if e.gated else 2.0, tokens, ep, tp,
            op.einsum.quant.bytes_per_weight, gpu.memory_bandwidth, flops,
        )  # fmt: skip
        # The tables were measured with nearly even routing; real tokens share popular experts and hit fewer.
        uneven = np.maximum(experts_hit(e.experts, e.top_k, tokens, self.skew) / ep, 1.0)
        even = np.maximum(experts_hit(e.experts, e.top_k, tokens) / ep, 1.0)
        return ratio * roof * op.count * uneven / even

    def small_bytes(self, lowered: Lowered) -> FloatArray:
        # Two norms with residual read and write four hidden vectors per layer part; activations and rotary about two.
        per_token = 6.0 * ACTIVATION_BYTES * self.model.hidden * (lowered.mixer_layers + lowered.ffn_layers)
        return per_token * self.tokens

    def collectives(self, lowered: Lowered, island: int) -> CollectiveWork:
        kinds: list[Collective] = []
        counts: list[FloatArray] = []
        messages: list[FloatArray] = []
        groups: list[FloatArray] = []

        def add(kind: Collective, count: FloatArray | float, message: FloatArray, group: FloatArray) -> None:
            kinds.append(kind)
            counts.append(np.broadcast_to(np.asarray(count, dtype=np.float64), message.shape))
            messages.append(message)
            groups.append(group)

        one_rank = self.dp == 1
        for op in lowered.operations:
            e = op.einsum
            if op.moe is not None:
                hidden = ACTIVATION_BYTES * op.width * self.tokens
                # Experts over the tensor-parallel group of one rank: tokens are everywhere already, sums are not.
                add(Collective.ALL_REDUCE, op.count * one_rank, hidden, self.tp)
                # Data-parallel ranks gather the tokens of all before the experts, and scatter the sums after them.
                spread = np.where(one_rank, 1.0, self.tp * self.dp)
                gathered = ACTIVATION_BYTES * op.width * (self.routed + self.padding)
                add(Collective.ALL_TO_ALL, 2.0 * op.count * ~one_rank, gathered, spread)
            elif e.label.startswith("shared_"):
                continue  # summed together with the routed experts
            elif e.collective is Collective.ALL_REDUCE:
                message = ACTIVATION_BYTES * e.result_elements * self.tokens
                add(Collective.ALL_REDUCE, op.count, message, self.tp)
            elif e.collective is Collective.ALL_GATHER:
                add(Collective.ALL_GATHER, op.count, 2.0 * e.result_elements / self.tp * self.head_tokens, self.tp)
        if lowered.norm_layers:
            # Queries and keys each need the sum of squares over all heads of a token.
            add(Collective.ALL_REDUCE, float(lowered.norm_layers), 8.0 * self.tokens, self.tp)
        pp = self.layouts.pipeline_parallel.astype(np.float64)
        add(Collective.NONE, pp - 1.0, ACTIVATION_BYTES * self.model.hidden * self.tokens, np.where(pp > 1, 2.0, 1.0))
        shares = [
            stage_share(self.tp, pp, island) if kind is Collective.NONE else host_share(kind, group, island)
            for kind, group in zip(kinds, groups, strict=True)
        ]
        return CollectiveWork(tuple(kinds), np.stack(counts), np.stack(messages), np.stack(groups), np.stack(shares))
