"""The predictor's interface for planning, and the groups of candidates that one call predicts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np

from energylens.planner.search.space import ProductSpace
from energylens.predictor.load.scenario import Role
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.prediction import Memory, Prediction
from energylens.predictor.types import FloatArray, GpuSpec, IntArray, Layouts, Workload


class ReplicaPredictor(Protocol):
    """The part of the predictor that planning uses; arrays of shape (n,), figures of one replica."""

    @property
    def version(self) -> str:
        """Version of the code and of the coefficients."""
        ...

    @property
    def sees_nodes(self) -> bool:
        """Whether predictions depend on ``GpuSpec.max_gpus_per_node`` and not on ``Layouts.node_gpus``.

        If not, one call serves all node sizes.
        """
        ...

    def memory(self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload) -> Memory:
        """Return the memory of the most loaded GPU."""
        ...

    def at_concurrency(
        self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload, concurrency: FloatArray
    ) -> Prediction:
        """Return the behaviour with a constant number of requests in flight per replica."""
        ...

    def at_rate(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        requests_per_second: FloatArray,
        role: Role = "aggregated",
    ) -> Prediction:
        """Return the behaviour per replica under an arrival rate, for both phases or one of them."""
        ...


def by_node_size(
    space: ProductSpace, index: IntArray, rows: IntArray, *, apart: bool
) -> Iterator[tuple[GpuSpec, IntArray]]:
    """Yield the rows in groups whose replicas see nodes of the same size, and the GPU with that size.

    The size decides which links are inside a node: a replica over two nodes of four GPUs differs from one node of
    eight. If that makes no difference (``apart`` is False), all rows are one group.
    """
    if not apart:
        if rows.size:
            yield space.gpu, rows
        return
    nodes, per_node = space.nodes_per_replica[index[rows]], space.gpus_per_node[index[rows]]
    single = nodes == 1
    sizes = np.flatnonzero(np.bincount(per_node[~single])).tolist()
    widest = int(per_node[single].max(initial=0))
    if widest > max(sizes, default=0):
        yield replace(space.gpu, max_gpus_per_node=max(widest, space.gpu.max_gpus_per_node)), rows[single]
    for size in sizes:
        # A replica inside one node does not depend on the node's size and joins this group, which saves a call.
        along = (single & (widest <= size)) if size == sizes[-1] else False
        yield replace(space.gpu, max_gpus_per_node=size), rows[(~single & (per_node == size)) | along]
