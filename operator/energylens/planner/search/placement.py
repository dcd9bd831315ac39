"""Where a candidate is placed, in the form of status: product, GPUs, nodes, and the layout of each replica."""

from __future__ import annotations

import math
from typing import Any

from energylens.api.llmdeployment import ReplicaLayout
from energylens.planner.search.candidates import Candidates


def layout_at(rows: Candidates, i: int) -> ReplicaLayout:
    """Return the replicas of a candidate and the layout of each."""
    layouts, cap = rows.layouts, float(rows.layouts.power_cap_watts[i])
    return ReplicaLayout(
        replicas=int(rows.replicas[i]),
        tensor_parallel=int(layouts.tensor_parallel[i]),
        pipeline_parallel=int(layouts.pipeline_parallel[i]),
        expert_parallel=int(layouts.expert_parallel[i]),
        data_parallel=int(layouts.data_parallel[i]),
        max_batch_size=int(layouts.max_batch_size[i]),
        max_batched_tokens=int(layouts.max_batched_tokens[i]) or None,
        power_cap_watts_per_gpu=None if math.isnan(cap) else round(cap),
    )


def placement_at(rows: Candidates, i: int) -> dict[str, Any]:
    """Return the fields of a plan or an alternative that define where a candidate is placed."""
    return {
        **dict(layout_at(rows, i)),
        "gpu_product": rows.products[int(rows.product[i])],
        "gpus": int(rows.gpus[i]),
        "nodes_per_replica": int(rows.nodes_per_replica[i]),
    }
