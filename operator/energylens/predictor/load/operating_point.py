"""The operating point of a replica: its steady state by physics, before any learned correction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from energylens.predictor.load.mixture import StepMixture
from energylens.predictor.load.steady import Pace, Role
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import BoolArray, FloatArray, GpuSpec, IntArray, Layouts, Workload


@dataclass(frozen=True)
class Scenario:
    """Everything that is constant over all loads: a model on n candidates of one product, and the served requests."""

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


@dataclass(frozen=True)
class Beside:
    """Steps of n replicas near their operating point, which show how steps grow with running sequences."""

    mixture: StepMixture
    running: FloatArray
    """Running sequences, shape (n,); none equals that of the operating point."""


@dataclass(frozen=True)
class OperatingPoint:
    """Steady state of n replicas by physics alone; arrays of shape (n,)."""

    scenario: Scenario
    pace: Pace
    """Steps and power while anything runs."""
    running: FloatArray
    """Mean running sequences over time."""
    places: FloatArray
    """Most sequences that run at once: the batch, or as many as the KV cache holds."""
    busy: FloatArray
    """Share of time in which anything runs."""
    utilization: FloatArray
    """Ratio of the offered requests to the capacity of the replica, at most 1."""
    sustainable: BoolArray
    rate: FloatArray
    """Requests per second that are served."""
    median_step: FloatArray | None = None
    """Step that is a benchmark's median inter-token latency, s; None for the median of the mixture."""
    waiting: FloatArray | None = None
    """Requests in flight without a place; None under an arrival rate."""
    most: FloatArray | None = None
    """Requests per second with all places taken, shape (n,); None for a fixed number of requests in flight."""
    beside: Beside | None = None
    """Steps at other numbers of running sequences; only under an arrival rate."""

    @cached_property
    def running_while_busy(self) -> FloatArray:
        """Mean running sequences while any run, at least 1."""
        return np.asarray(np.maximum(self.running / np.maximum(self.busy, 1e-12), 1.0))

    @cached_property
    def starts_together(self) -> FloatArray:
        """Requests per start of the step mixture; when many requests start, they start together."""
        return prompts_together(self.scenario, self.pace.mixture, self.running_while_busy)


def prompts_together(scenario: Scenario, mixture: StepMixture, running: FloatArray) -> FloatArray:
    """Return the requests per start of a step mixture with the given running sequences, shape (n,)."""
    ones = np.ones_like(running)
    if scenario.role != "aggregated":
        return ones
    layouts, starts = scenario.layouts, mixture.starts
    prompts = running * scenario.lockstep_ranks / layouts.data_parallel / scenario.workload.decode_steps
    return np.where(starts > 0, np.maximum(prompts / np.maximum(starts, 1e-12), 1.0), ones)
