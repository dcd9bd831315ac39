"""Which layouts of a planning space an engine can run, whatever the load: splits, nodes, power limits and memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from energylens.planner.engines import EngineSettings, refusals
from energylens.planner.search.replica import ReplicaPredictor, by_node_size
from energylens.planner.search.space import ProductSpace
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.rules import unsupported_reasons
from energylens.predictor.types import BoolArray, Workload

POWER_LIMIT_REASON = "the power limit of"
"""Prefix of the reason for layouts whose power cap the GPU does not support."""


def structure(
    space: ProductSpace,
    model: ModelSpec,
    predictor: ReplicaPredictor,
    whole: Workload,
    workload: Workload,
    settings: EngineSettings,
) -> tuple[BoolArray, npt.NDArray[np.object_], BoolArray]:
    """Return for each layout whether the engine can run it, the reason if not, and whether it fits into memory.

    ``workload`` is the part of the ``whole`` request that the replicas' role processes.
    """
    size = len(space.layouts)
    fits = np.zeros(size, dtype=bool)
    reason = np.full(size, "", dtype=object)
    every = np.arange(size)
    for gpu, rows in by_node_size(space, every, every, apart=predictor.sees_nodes):
        layouts = space.layouts.take(rows)
        reason[rows] = unsupported_reasons(model, layouts)
        fits[rows] = predictor.memory(model, gpu, layouts, workload).fits
    layouts = space.layouts
    refused = refusals(model, space.gpu, layouts, space.nodes_per_replica, whole, settings)
    reason = np.where(reason == "", refused, reason)
    supported = reason == ""
    rank_gpus = layouts.tensor_parallel * layouts.pipeline_parallel
    spread = (layouts.data_parallel > 1) & (space.gpus_per_node % rank_gpus != 0)
    reason[supported & spread] = "a data-parallel rank of a replica over several nodes must fit into one of them"
    cap = layouts.power_cap_watts
    too_low, too_high = cap < space.gpu.power_limit_min_watts, cap > space.gpu.power_limit_max_watts
    reason[supported & (too_low | too_high)] = (
        f"{POWER_LIMIT_REASON} {space.gpu.product} can be set from {space.gpu.power_limit_min_watts:.0f} to "
        f"{space.gpu.power_limit_max_watts:.0f} W"
    )
    supported &= ~(spread | too_low | too_high)
    return supported, reason, fits
