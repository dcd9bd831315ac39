"""The operating point of a replica: the steady state that a prediction is made of, before any residual."""

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
    """Whatever stays the same over all loads: a model on n candidates of one product, and what they serve."""

    model: ModelSpec
    """As served on the product."""
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
        """Data-parallel ranks that step together, shape (n,): those that exchange the tokens of experts."""
        return np.where(self.model.is_moe, self.layouts.data_parallel, 1).astype(np.float64)

    @property
    def tokens_per_step(self) -> float:
        """Output tokens that a step adds to each sequence; a replica that only prefills adds the first."""
        return 1.0 if self.role == "prefill" else self.workload.tokens_per_step


@dataclass(frozen=True)
class Beside:
    """Steps of n replicas near their operating point, which say how steps grow with running sequences."""

    mixture: StepMixture
    running: FloatArray
    """Sequences, shape (n,); none is that of the operating point."""


@dataclass(frozen=True)
class OperatingPoint:
    """How n replicas run in steady state, physics only; arrays of shape (n,)."""

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
    """Offered requests over those that the replica could serve, 1 at most."""
    sustainable: BoolArray
    rate: FloatArray
    """Requests per second that are served."""
    median_step: FloatArray | None = None
    """Seconds of the step that a benchmark's median inter-token latency is; None for the median of the mixture."""
    waiting: FloatArray | None = None
    """Of a fixed number of requests in flight those without a place; None where requests arrive at a rate."""
    most: FloatArray | None = None
    """Requests per second with all places taken, shape (n,); None where the number of requests in flight is given."""
    beside: Beside | None = None
    """Where requests arrive at a rate: the steps at other numbers of running sequences."""

    @cached_property
    def running_while_busy(self) -> FloatArray:
        """Mean running sequences while any run, 1 at least."""
        return np.asarray(np.maximum(self.running / np.maximum(self.busy, 1e-12), 1.0))

    @cached_property
    def starts_together(self) -> FloatArray:
        """Requests in one start of the mixture of steps, which lets them start together where many do."""
        return prompts_together(self.scenario, self.pace.mixture, self.running_while_busy)


def prompts_together(scenario: Scenario, mixture: StepMixture, running: FloatArray) -> FloatArray:
    """Return the requests in one start of a mixture of steps with so many running sequences, shape (n,)."""
    ones = np.ones_like(running)
    if scenario.role != "aggregated":
        return ones
    layouts, starts = scenario.layouts, mixture.starts
    prompts = running * scenario.lockstep_ranks / layouts.data_parallel / scenario.workload.decode_steps
    return np.where(starts > 0, np.maximum(prompts / np.maximum(starts, 1e-12), 1.0), ones)
