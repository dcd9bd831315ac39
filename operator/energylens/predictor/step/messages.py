"""The communication of one engine step: which collectives a replica runs, how often and with how many bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from energylens.predictor.model.einsum import ACTIVATION_BYTES, Collective
from energylens.predictor.model.lowering import Lowered
from energylens.predictor.step.links import host_share, node_size, nvlink_island, stage_share
from energylens.predictor.step.work import CollectiveWork, StepTokens
from energylens.predictor.types import FloatArray, GpuSpec, IntArray, Layouts


class _Messages:
    """The collectives of one step, collected one by one."""

    def __init__(self, candidates: int) -> None:
        """Begin without any, for n candidates."""
        self.candidates = candidates
        self.kinds: list[Collective] = []
        self.counts: list[FloatArray | float] = []
        self.bytes: list[FloatArray] = []
        self.groups: list[FloatArray] = []

    def add(self, kind: Collective, count: FloatArray | float, message: FloatArray, group: FloatArray) -> None:
        """Add a collective that runs ``count`` times with ``message`` bytes per GPU over ``group`` GPUs."""
        self.kinds.append(kind)
        self.counts.append(count)
        self.bytes.append(message)
        self.groups.append(group)

    def rows(self, values: Sequence[FloatArray | float]) -> FloatArray:
        """Return a value of each collective as rows, shape (c, n)."""
        out = np.empty((len(values), self.candidates))
        for row, value in zip(out, values, strict=True):
            row[:] = value
        return out

    def beyond(self, size: IntArray, layouts: Layouts) -> FloatArray:
        """Return the share of each collective's bytes that leaves ``size`` neighbouring GPUs, (n,); shape (c, n)."""
        if (layouts.gpus <= size).all():
            return np.zeros((len(self.kinds), len(layouts)))
        tp, pp = (each.astype(np.float64) for each in (layouts.tensor_parallel, layouts.pipeline_parallel))
        return self.rows(
            [
                stage_share(tp, pp, size) if kind is Collective.NONE else host_share(kind, group, size)
                for kind, group in zip(self.kinds, self.groups, strict=True)
            ]
        )


def step_collectives(
    lowered: Lowered,
    layouts: Layouts,
    tokens: StepTokens,
    hidden: int,
    gpu: GpuSpec,
    *,
    quantized_dispatch: bool = False,
) -> CollectiveWork:
    """Return the collectives of one step on n candidates.

    Args:
        lowered: The operations of a step.
        layouts: Candidates, shape (n,).
        tokens: Tokens of the step by the computation they need.
        hidden: Width of the model.
        gpu: The GPU product with its links.
        quantized_dispatch: Whether ranks send tokens to experts in the number format in which these compute.
    """
    tp, dp = layouts.tensor_parallel.astype(np.float64), layouts.data_parallel.astype(np.float64)
    found = _Messages(len(layouts))
    one_rank = dp == 1
    for op in lowered.operations:
        # Of merged einsums the last one decides; none of them sums over a split rank.
        e = op.parts[-1].einsum
        if op.moe is not None:
            message = ACTIVATION_BYTES * op.width * tokens.computed
            # Experts over the tensor-parallel group of one rank: all GPUs already have the tokens, but the sums must be
            # combined.
            found.add(Collective.ALL_REDUCE, op.count * one_rank, message, tp)
            # Data-parallel ranks gather all tokens before the experts and scatter the sums after them.
            spread = np.where(one_rank, 1.0, tp * dp)
            sent = e.quant.bytes_per_activation if quantized_dispatch else ACTIVATION_BYTES
            gathered = 0.5 * (sent + ACTIVATION_BYTES) * op.width * (tokens.routed + tokens.padding)
            found.add(Collective.ALL_TO_ALL, 2.0 * op.count * ~one_rank, gathered, spread)
        elif e.label.startswith("shared_"):
            continue  # summed together with the routed experts
        elif e.collective is Collective.ALL_REDUCE:
            message = ACTIVATION_BYTES * e.result_elements * tokens.computed
            found.add(Collective.ALL_REDUCE, op.count, message, tp)
        elif e.collective is Collective.ALL_GATHER:
            found.add(Collective.ALL_GATHER, op.count, 2.0 * e.result_elements / tp * tokens.head, tp)
    if lowered.norm_layers:
        # Queries and keys each need the sum of squares over all heads of a token.
        found.add(Collective.ALL_REDUCE, float(lowered.norm_layers), 8.0 * tokens.computed, tp)
    pp = layouts.pipeline_parallel.astype(np.float64)
    found.add(Collective.NONE, pp - 1.0, ACTIVATION_BYTES * hidden * tokens.computed, np.where(pp > 1, 2.0, 1.0))
    known, size = gpu.network_bandwidth > 0.0, node_size(gpu, layouts)
    return CollectiveWork(
        tuple(found.kinds),
        found.rows(found.counts),
        found.rows(found.bytes),
        found.rows(found.groups),
        found.beyond(nvlink_island(gpu, layouts), layouts),
        found.beyond(size, layouts) if known else None,
        size,
    )
