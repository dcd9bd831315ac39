"""The planning space: every way to place a model on the available GPUs, as arrays.

No heuristic prunes the space. The axes are:

* tensor parallel: every size up to the GPUs of a node that divides the attention heads;
* pipeline parallel: 1 to 8 stages;
* data parallel: every size that divides the experts, only for mixture-of-experts models, because engines run
  data-parallel ranks of a dense model as independent copies, which replicas already are;
* expert parallel: off, or over all tensor x data parallel GPUs (engines support no other size);
* max batch: powers of two up to 1024, the largest default of current engines;
* tokens per step: the engine's default; :mod:`energylens.planner.search.steps` tries others near the best plan;
* nodes per replica: one node if the replica fits into one, and the fewest nodes of each smaller size;
* replicas: as many as the nodes hold when nothing else runs on them.

In a large cluster ``most_gpus`` leaves out candidates with more GPUs, and
:func:`energylens.planner.search.reach.solve_within` proves that none of them could be chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from energylens.api.llmdeployment import Overrides, PowerCap
from energylens.planner.inventory.capacity import replicas_that_fit
from energylens.predictor.model.architecture import Attention, CompressedAttention, LatentAttention, ModelSpec, MoeFfn
from energylens.predictor.model.rules import splits_experts
from energylens.predictor.types import GpuSpec, IntArray, Layouts
from energylens.records import dataclass

BATCH_SIZES: tuple[int, ...] = tuple(2**i for i in range(11))
MAX_PIPELINE_STAGES = 8
POWER_CAP_STEPS = 6
"""Number of power caps to try when the planner chooses one, from the lowest to the default limit of the GPU."""


@dataclass(frozen=True)
class ProductSpace:
    """The layouts of one GPU product and how many replicas of each to try.

    Arrays have shape (m,), one element per layout; ``first`` to ``last`` replicas of each are candidates.
    """

    gpu: GpuSpec
    layouts: Layouts
    nodes_per_replica: IntArray
    first: IntArray
    last: IntArray

    @property
    def gpus_per_node(self) -> IntArray:
        """GPUs of a replica on each of its nodes, shape (m,)."""
        result: IntArray = self.layouts.gpus // self.nodes_per_replica
        return result

    def __len__(self) -> int:
        return int(np.maximum(0, self.last - self.first + 1).sum())

    def take(self, index: IntArray) -> ProductSpace:
        """Return the layouts of an index array of shape (k,)."""
        return replace(
            self,
            layouts=self.layouts.take(index),
            nodes_per_replica=self.nodes_per_replica[index],
            first=self.first[index],
            last=self.last[index],
        )

    def within(self, most: int) -> tuple[ProductSpace, int]:
        """Return at most ``most`` candidates, those with the fewest GPUs, and the GPUs up to which none is missing."""
        gpus, low, high = self.layouts.gpus, 0, int((self.layouts.gpus * self.last).max(initial=0))
        if len(self) <= most:
            return self, high
        while high - low > 1:
            middle = (low + high) // 2
            enough = len(replace(self, last=np.minimum(self.last, middle // gpus))) <= most
            low, high = (middle, high) if enough else (low, middle)
        fewer = replace(self, last=np.minimum(self.last, low // gpus))
        return fewer.take(np.flatnonzero(fewer.last >= fewer.first)), low

    def expand(self) -> tuple[IntArray, IntArray]:
        """Return the layout index and the replicas of every candidate, each of shape (n,)."""
        counts = np.maximum(0, self.last - self.first + 1)
        index = np.repeat(np.arange(len(self.layouts)), counts)
        offset = np.arange(index.size) - np.repeat(np.cumsum(counts) - counts, counts)
        return index, self.first[index] + offset


def attention_heads(model: ModelSpec) -> tuple[int, ...]:
    """Return the distinct numbers of attention heads of a model's layers, ascending; empty without attention."""
    mixers = (group.mixer for group in model.layers)
    return tuple(sorted({m.heads for m in mixers if isinstance(m, Attention | LatentAttention | CompressedAttention)}))


def tensor_parallel_sizes(model: ModelSpec, limit: int) -> tuple[int, ...]:
    """Return the tensor-parallel sizes up to ``limit`` that divide every layer's attention heads."""
    heads = math.gcd(*attention_heads(model))
    if heads == 0:
        return tuple(2**i for i in range(limit.bit_length()) if 2**i <= limit)
    return tuple(size for size in range(1, limit + 1) if heads % size == 0)


def power_caps(gpu: GpuSpec, cap: PowerCap) -> tuple[float, ...]:
    """Return the power limits per GPU to try, in watts; NaN is the product's default limit."""
    if cap.mode == "Fixed":
        return (float(cap.watts_per_gpu or math.nan),)
    if cap.mode == "Never":
        return (math.nan,)
    steps = np.linspace(gpu.power_limit_min_watts, gpu.power_limit_watts, POWER_CAP_STEPS)[:-1]
    return (math.nan, *(float(round(step)) for step in steps))


def enumerate_space(
    model: ModelSpec,
    gpu: GpuSpec,
    node_sizes: Sequence[int],
    overrides: Overrides,
    power_cap: PowerCap,
    *,
    max_replicas: int | None = None,
    most_gpus: int | None = None,
) -> ProductSpace:
    """Return every layout of a model on nodes of one GPU product.

    Args:
        model: The model to serve.
        gpu: The GPU product.
        node_sizes: Allocatable GPUs of each usable node, in any order; at least one node.
        overrides: Fixed choices; each replaces its axis by one value.
        power_cap: Which power limits to try, if any.
        max_replicas: Most replicas, such as one for each concurrent request; None for as many as fit.
        most_gpus: Most GPUs of all replicas together, unless replicas are overridden; None for all GPUs of the nodes.
    """
    largest, total = max(node_sizes), sum(node_sizes)
    total = total if most_gpus is None else min(total, most_gpus)
    tensor = _axis(overrides.tensor_parallel, tensor_parallel_sizes(model, largest))
    pipeline = _axis(overrides.pipeline_parallel, range(1, min(MAX_PIPELINE_STAGES, model.layer_count, total) + 1))
    data_sizes = range(1, total + 1) if model.is_moe else range(1, 2)
    data = _axis(overrides.data_parallel, data_sizes)
    batch = _axis(overrides.max_batch_size, BATCH_SIZES)
    caps = np.asarray(power_caps(gpu, power_cap))
    expert_choices = np.arange(2 if model.is_moe and overrides.expert_parallel is None else 1)

    tp, pp, dp, choice, seqs, cap = (
        axis.ravel() for axis in np.meshgrid(tensor, pipeline, data, expert_choices, batch, caps, indexing="ij")
    )
    if overrides.expert_parallel is not None:
        ep = np.full_like(tp, overrides.expert_parallel)
        keep = tp * pp * dp <= total
    else:
        ep = np.where(choice == 1, tp * dp, 1)
        keep = (tp * pp * dp <= total) & ((choice == 0) | (ep > 1))
        if overrides.tensor_parallel is None and overrides.data_parallel is None:
            for moe in {group.ffn for group in model.layers if isinstance(group.ffn, MoeFfn)}:
                keep &= splits_experts(moe, tp * dp, ep)
    keep &= tp <= largest
    layouts = Layouts(tp, pp, ep, dp, seqs, cap.astype(np.float64)).take(keep)
    layouts, nodes = _split_over_nodes(layouts, node_sizes)
    layouts = replace(layouts, node_gpus=_node_gpus(layouts, nodes, gpu))

    last = np.minimum(replicas_that_fit(node_sizes, layouts.gpus // nodes, nodes), total // layouts.gpus)
    first = np.ones_like(last)
    if overrides.replicas is not None:
        first = np.full_like(last, overrides.replicas)
        last = first
    if max_replicas is not None:
        last = np.minimum(last, max_replicas)
    return ProductSpace(gpu, layouts, nodes, first, last)


def _axis(override: int | None, values: Sequence[int]) -> IntArray:
    return np.asarray([override] if override is not None else list(values), dtype=np.int64)


def _split_over_nodes(layouts: Layouts, node_sizes: Sequence[int]) -> tuple[Layouts, IntArray]:
    """Return the layouts repeated for every number of nodes that they can span, and that number.

    Every node of a replica holds the same number of GPUs, as the engines' launchers require, and whole tensor-parallel
    groups, because their all-reduces would be slow over the network between nodes.
    """
    stages = layouts.pipeline_parallel * layouts.data_parallel
    seen: list[IntArray] = []
    rows: list[IntArray] = []
    for size in sorted(set(node_sizes), reverse=True):
        nodes = np.zeros(len(layouts), dtype=np.int64)
        for count in range(1, min(int(stages.max(initial=0)), len(node_sizes)) + 1):
            nodes[(nodes == 0) & (stages % count == 0) & (layouts.gpus // count <= size)] = count
        new = nodes > 0
        for other in seen:
            new &= nodes != other
        rows.append(np.flatnonzero(new))
        seen.append(nodes)
    index = np.concatenate(rows)
    return layouts.take(index), np.concatenate([nodes[r] for nodes, r in zip(seen, rows, strict=True)])


def _node_gpus(layouts: Layouts, nodes: IntArray, gpu: GpuSpec) -> IntArray:
    """Return the GPUs of the nodes that replicas see: those that a replica over several nodes has on each of them.

    0 where they are as many as nodes of the product usually have, so that equal layouts are predicted once.
    """
    here = layouts.gpus // nodes
    seen = np.where(nodes > 1, here, np.maximum(here, gpu.max_gpus_per_node))
    return np.where(seen == gpu.max_gpus_per_node, 0, seen)


def concatenate(parts: Sequence[Layouts]) -> Layouts:
    """Return several sets of layouts as one, in order."""
    return Layouts(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Layouts)})
