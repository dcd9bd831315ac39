"""A row of the table of candidates as the replicas of a plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tests.unit.planner.search.test_objective import candidates

from energylens.planner.search.placement import placement_at


def test_a_plan_has_the_layout_of_its_row() -> None:
    rows = candidates({}, {"tensor": 4, "pp": 2, "replicas": 3, "nodes": 2, "batch": 32})
    layouts = replace(
        rows.layouts,
        expert_parallel=np.array([1, 8]),
        data_parallel=np.array([1, 2]),
        power_cap_watts=np.array([np.nan, 449.6]),
        max_batched_tokens=np.array([0, 4096]),
    )
    rows = replace(rows, layouts=layouts, products=("NVIDIA-H200", "NVIDIA-L40S"), product=np.array([1, 0]))
    plain = {
        "replicas": 2,
        "tensor_parallel": 2,
        "pipeline_parallel": 1,
        "expert_parallel": 1,
        "data_parallel": 1,
        "max_batch_size": 64,
        "max_batched_tokens": None,
        "power_cap_watts_per_gpu": None,
        "gpu_product": "NVIDIA-L40S",
        "gpus": 4,
        "nodes_per_replica": 1,
    }
    assert placement_at(rows, 0) == plain
    assert placement_at(rows, 1) == {
        "replicas": 3,
        "tensor_parallel": 4,
        "pipeline_parallel": 2,
        "expert_parallel": 8,
        "data_parallel": 2,
        "max_batch_size": 32,
        "max_batched_tokens": 4096,
        "power_cap_watts_per_gpu": 450,
        "gpu_product": "NVIDIA-H200",
        "gpus": 48,
        "nodes_per_replica": 2,
    }
