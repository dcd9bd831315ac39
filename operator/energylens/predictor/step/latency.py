"""The duration of one engine step: roofline per operation, collectives, launches, host.

Roofline: Williams et al., CACM 2009, with measured efficiencies and a soft corner between memory and compute limits.
Mixture-of-experts kernels take their curve from measured tables instead. The host terms follow from how vLLM captures
CUDA graphs: pure decode steps up to a token limit replay one graph, steps that also prefill replay pieces of a graph
between eagerly launched attention, and larger steps launch every kernel from the host.
"""

from __future__ import annotations

import numpy as np

from energylens.predictor.model.einsum import Collective
from energylens.predictor.step.kernels import KERNEL_INDEX
from energylens.predictor.step.links import host_link_factor, host_link_floor
from energylens.predictor.step.rates import Constants, DataSheet, KernelRates, per_operation
from energylens.predictor.step.work import CollectiveWork, Work
from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass

FRONTEND_SOFT = 4.0
LATENT = KERNEL_INDEX["moe:fp8_block_latent"]
SOFT = 4.0
"""Exponent of the soft maximum of memory and compute time: 1 adds them, infinity takes the larger."""


FULL_LINK_SHARE = 16.0 / 132.0
"""Share of the SMs with which collectives reach the link's bandwidth: 16 of an H100's 132 (NCCL's default channels)."""


@dataclass(frozen=True)
class Overlap:
    """Overlap of collectives with kernels, Megatron style."""

    stages: int
    """Parts into which a step's tokens are divided; 1 means no overlap."""
    sm_share: float
    """Share of the SMs that collectives occupy meanwhile, between 0 and 1."""

    def __post_init__(self) -> None:
        if self.stages < 1:
            raise ValueError(f"overlap stages must be at least 1, not {self.stages}")
        if not 0.0 < self.sm_share < 1.0:
            raise ValueError(f"overlap sm_share must be between 0 and 1, not {self.sm_share}")


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step, arrays of shape (n,)."""

    operations: FloatArray
    """Time per operation, shape (k, n)."""
    kernels: FloatArray
    """All GPU kernels, including small ones, without collectives."""
    collectives: FloatArray
    launch: FloatArray
    """Host time to launch kernels outside of CUDA graphs; it is hidden if the kernels take longer."""
    host: FloatArray
    """Scheduling and input preparation, which add to the GPU's time."""
    sampler: FloatArray
    """Sorting the logits for top-p sampling, on the GPU after the model."""
    total: FloatArray

    @property
    def busy(self) -> FloatArray:
        """Time during which the GPU runs anything."""
        return self.kernels + self.collectives + self.sampler


def soft_maximum(a: FloatArray, b: FloatArray, exponent: float = SOFT) -> FloatArray:
    """Return ``(a^p + b^p)^(1/p)``, elementwise, for non-negative input."""
    larger, smaller = np.maximum(a, b), np.minimum(a, b)
    ratio = smaller / np.maximum(larger, 1e-30)
    if exponent == 4.0:
        # Products and roots take a fifth of the time of a general power, which took a sixth of the planning time.
        square = ratio * ratio
        return np.asarray(larger * np.sqrt(np.sqrt(1.0 + square * square)))
    if exponent == 3.0:
        return np.asarray(larger * np.cbrt(1.0 + ratio * ratio * ratio))
    return np.asarray(larger * (1.0 + ratio**exponent) ** (1.0 / exponent))


def operation_seconds(work: Work, rates: KernelRates, c: Constants) -> FloatArray:
    """Return the kernel time of every operation over all layers, shape (k, n)."""
    pick = work.kernel
    bandwidth = per_operation(rates.bandwidth, pick)
    memory = (work.weight_bytes * work.weight_imbalance + work.activation_bytes * work.imbalance) / bandwidth
    memory += work.cache_bytes / per_operation(rates.cache_bandwidth, pick)
    compute = work.flops * work.imbalance / per_operation(rates.flops, pick)
    seconds = soft_maximum(memory, compute)
    seconds = np.where(
        (pick if pick.ndim == 2 else pick[:, None]) == LATENT,
        seconds * per_operation(rates.table_factor, pick),
        seconds,
    )
    measured = work.table_seconds > 0.0
    if measured.any():
        tabled = work.table_seconds * per_operation(rates.table_factor, pick)
        tabled = tabled * (1.0 + c["coarse_tiles"] * work.coarse_tiles)
        share = np.where(work.replaced > 0.0, c["table_kernels"], 1.0)
        seconds = np.where(measured, share * tabled + (1.0 - share) * seconds, seconds)
    seconds += work.prefill_attention_flops / per_operation(rates.prefill_flops, pick)
    launches = work.launches if work.launches.ndim == 2 else work.launches[:, None]
    aligned = c["moe_aligned_flops"] * per_operation(rates.flops, pick) / c["moe_flops"]
    seconds += c["aligned_rows"] * work.aligned_flops / aligned
    seconds += padded_seconds(work, rates, c)
    return np.asarray(seconds + launches * per_operation(rates.launch, pick))


def padded_seconds(work: Work, rates: KernelRates, c: Constants) -> FloatArray:
    """Return the time of rows that pad data-parallel ranks on the GPU of their experts, shape (k, n).

    All padding rows go to the same experts, and an expert with many rows runs like a dense product. An aligned buffer
    already holds these rows on every GPU.
    """
    apart = np.where(work.aligned_flops > 0.0, 1.0 - c["aligned_rows"], 1.0)
    return np.asarray(apart * work.padded_flops / per_operation(rates.dense_flops, work.kernel))


def collective_seconds(work: CollectiveWork, c: Constants, sheet: DataSheet) -> FloatArray:
    """Return the time of all collectives of a step, shape (n,).

    All-reduce: a floor per group size plus the bytes of a bandwidth-optimal schedule, 2 (g-1)/g of the message (Thakur
    et al., IJHPCA 2005). All-gather and all-to-all move (g-1)/g. Bytes that leave an NVLink island use the host link,
    and bytes that leave a node use the network, if its speed is known.
    """
    kinds, group, share = np.array(work.kind, dtype=object)[:, None], work.group, work.host_share
    handed = kinds == Collective.NONE
    # All rows at once: the arrays are so short that the number of calls decides.
    ring = np.where(kinds == Collective.ALL_REDUCE, 2.0, 1.0) * (group - 1.0) / group
    moved = work.message_bytes * np.where(handed, 1.0, ring)
    near = moved / (c["link_bandwidth"] * sheet.link_bandwidth)
    seconds = reduce_floor(c, group) + (1.0 - share) * near
    if share.any():
        wired = 0.0 if work.network_share is None else work.network_share
        far = moved / (c["link_bandwidth"] * host_link_factor(group) * sheet.host_link_bandwidth)
        crossing = np.where(handed, share, share > 0.0)
        seconds += crossing * host_link_floor(group) + np.maximum(share - wired, 0.0) * far
    if work.network_share is not None:
        for row, kind in enumerate(work.kind):
            passing = _network_seconds(kind, moved[row], group[row], work.node_gpus, c, sheet)
            seconds[row] += work.network_share[row] * passing
    return np.asarray(np.where(group > 1, work.count * seconds, 0.0).sum(axis=0))


def _network_seconds(
    kind: Collective, moved: FloatArray, group: FloatArray, node_gpus: int | IntArray, c: Constants, sheet: DataSheet
) -> FloatArray:
    """Return the time in which the bytes that each GPU moves pass the network of its node, shape of ``moved``.

    A ring passes all of its bytes through each node once, however many GPUs the node has; all-to-all sends the bytes of
    every GPU of the node. On the way the bytes pass PCIe: of one GPU, or of all GPUs that NVLink connects, each with an
    adapter. The network is assumed to reach the same share of its peak as links between GPUs; no run has measured that.
    """
    here = np.minimum(group, node_gpus)
    each = here if kind is Collective.ALL_TO_ALL else 1.0
    joined = np.not_equal(sheet.link_bandwidth, sheet.host_link_bandwidth) & (kind is not Collective.NONE)
    host = sheet.host_link_bandwidth * np.where(joined | (kind is Collective.ALL_TO_ALL), here, 1.0)
    return np.asarray(each * moved / (c["link_bandwidth"] * np.minimum(sheet.network_bandwidth, host)))


def reduce_floor(c: Constants, group: FloatArray) -> FloatArray:
    """Return the latency floor of a collective, s: measured at 2, 4 and 8 GPUs, log-linear in between."""
    steps = np.log2(np.maximum(group, 2.0))
    two, four, eight = (np.asarray(c[f"reduce_floor_{g}_us"]) for g in (2, 4, 8))
    low = two + (four - two) * np.clip(steps - 1.0, 0.0, 1.0)
    return np.asarray(1e-6 * (low + (eight - four) * np.maximum(steps - 2.0, 0.0)))


def overlapped(kernels: FloatArray, collectives: FloatArray, compute: FloatArray, overlap: Overlap) -> FloatArray:
    """Return the time of kernels and collectives that overlap, shape (n,).

    The batch is divided into stages: the first stage's kernels and the last stage's collectives run alone; in between,
    a stage's collectives run beside the next stage's kernels. Meanwhile the collectives occupy a share of the SMs,
    which slows the arithmetic; with too few SMs they do not reach the link's bandwidth (arXiv 2605.14249, section 3;
    Megatron-LM).

    Args:
        kernels: Seconds of all kernels on all SMs, shape (n,).
        collectives: Seconds of all collectives at full bandwidth, shape (n,).
        compute: Share of ``kernels`` that arithmetic limits, shape (n,).
        overlap: Stages and SM share.
    """
    slowed = kernels * (1.0 + compute * (1.0 / (1.0 - overlap.sm_share) - 1.0))
    starved = collectives * max(1.0, FULL_LINK_SHARE / overlap.sm_share)
    alone = 1.0 / overlap.stages
    apart = kernels + collectives
    staged = alone * apart + (1.0 - alone) * np.maximum(slowed, starved)
    return np.where(collectives > 0.0, staged, kernels)


def step_time(
    work: Work,
    rates: KernelRates,
    c: Constants,
    sheet: DataSheet,
    mixed: bool | BoolArray,
    overlap: Overlap | None = None,
) -> StepTime:
    """Return the time of one step for every candidate.

    Args:
        work: Work of the step.
        rates: Kernel rates of the GPU product.
        c: Constants of the GPU product and the engine.
        sheet: Peaks of the GPU product.
        mixed: Whether the step also prefills, for all candidates or of shape (n,).
        overlap: How the engine overlaps collectives with kernels; None if they run one after the other, as in vLLM.
    """
    operations = operation_seconds(work, rates, c)
    layers = work.layers
    small = (
        layers.mixers + layers.ffns + c["small_moe_weight"] * layers.moes + c["small_state_weight"] * layers.recurrent
    )
    kernels = operations.sum(axis=0) + small * c["small_kernel_us"] * 1e-6
    kernels = kernels + work.small_bytes / (c["small_bandwidth"] * sheet.bandwidth)
    collectives = collective_seconds(work.collectives, c, sheet)
    attention = layers.mixers * c["launch_mixer_us"] + layers.recurrent * c["launch_state_us"]
    attention = attention + layers.latent * c["launch_latent_us"]
    others = (layers.moes - layers.fused) * c["launch_moe_us"] + layers.fused * c["launch_fused_us"]
    others = others + layers.ffns * c["launch_ffn_us"]
    ungraphed = 1.0 / (1.0 + (1.03 * work.graph_tokens / np.maximum(work.tokens, 1.0)) ** 32)
    # Steps above the graph limit launch all kernels of a layer individually. Mixed steps launch only attention
    # individually, between graph pieces with the other kernels.
    pieces = c["piecewise_share"] * mixed
    launch = 1e-6 * (attention * (pieces + (1.0 - pieces) * ungraphed) + others * ungraphed)
    several = work.gpus > 1
    host = 1e-3 * c["host_step_ms"] * np.where(several, c["host_multi"], 1.0)
    host = host + 1e-6 * work.sequences * c["host_sequence_us"]
    rows = work.sequences if work.logit_rows is None else work.logit_rows
    logits = 1e-6 * rows * work.sampled_vocab / 128_256.0
    sampler = logits * (c["sampler_us"] + c["sampler_sort_us"] * work.sorts)
    host = host + 1e-3 * c["host_prefill_ms"] * mixed
    gpu = kernels + collectives
    if overlap is not None:
        arithmetic = (work.flops / per_operation(rates.flops, work.kernel)).sum(axis=0)
        gpu = overlapped(kernels, collectives, np.minimum(arithmetic / kernels, 1.0), overlap)
    launch = launch + 1e-6 * layers.eager * c["eager_mixer_us"]
    total = soft_maximum(gpu, launch + np.zeros_like(gpu), 3.0) + host + sampler
    for draft, passes in work.drafts:
        # The host prepares a step once for all of its passes.
        one = step_time(draft, rates, c, sheet, mixed=False)
        kernels, collectives = kernels + passes * one.kernels, collectives + passes * one.collectives
        launch, sampler = launch + passes * one.launch, sampler + passes * one.sampler
        total = total + passes * (soft_maximum(one.kernels + one.collectives, one.launch, 3.0) + one.sampler)
    total = soft_maximum(total, 1e-6 * work.sequences * c["frontend_us"], FRONTEND_SOFT)
    return StepTime(operations, kernels, collectives, launch, host, sampler, total)
