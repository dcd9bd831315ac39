"""A model on candidates of one GPU product, and the requests that it serves."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import FloatArray, GpuSpec, IntArray, Layouts, Workload
from energylens.records import dataclass

Role = Literal["aggregated", "prefill", "decode"]
"""Role of a replica: both phases, or one phase in a disaggregated deployment."""


@dataclass(frozen=True)
class Scenario:
    """A model on n candidates of one GPU product, and the served requests: all inputs but the load."""

    model: ModelSpec
    """The model as served on the product."""
    gpu: GpuSpec
    layouts: Layouts
    """Candidates, shape (n,)."""
    workload: Workload
    role: Role

    def take(self, index: IntArray) -> Scenario:
        """Return the candidates of an index array of shape (m,)."""
        return replace(self, layouts=self.layouts.take(index), workload=self.workload.take(index))

    @property
    def lockstep_ranks(self) -> FloatArray:
        """Data-parallel ranks that step together, shape (n,): ranks that exchange the tokens of experts."""
        return np.where(self.model.is_moe, self.layouts.data_parallel, 1).astype(np.float64)

    @property
    def lanes(self) -> FloatArray:
        """Groups of data-parallel ranks that step together, shape (n,): as many as ranks where each steps alone."""
        return self.layouts.data_parallel / self.lockstep_ranks

    @property
    def tokens_per_step(self) -> float:
        """Output tokens that a step adds to each sequence; on a prefill replica, one."""
        return 1.0 if self.role == "prefill" else self.workload.tokens_per_step
