"""The operating point of a replica: its steady state by physics, before any learned correction."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from energylens.predictor.load.mixture import StepMixture
from energylens.predictor.load.scenario import Scenario
from energylens.predictor.load.steady import Pace
from energylens.predictor.types import BoolArray, FloatArray
from energylens.records import dataclass


@dataclass(frozen=True)
class NearbySteps:
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
    """Share of time in which anything runs in a lane (`Scenario.lanes`)."""
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
    """Requests per second with all places taken if requests start one by one, shape (n,); None for a fixed number of
    requests in flight."""
    beside: NearbySteps | None = None
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
    """Return the requests per start of a step mixture with the given running sequences, shape (n,).

    Below 1 where a prompt takes several steps.
    """
    ones = np.ones_like(running)
    if scenario.role != "aggregated":
        return ones
    layouts, starts = scenario.layouts, mixture.starts
    prompts = running * scenario.lockstep_ranks / layouts.data_parallel / scenario.workload.decode_steps
    together = prompts / np.maximum(starts, 1e-12)
    # Ranks that step together start once for each chunk of a prompt, all others start whole prompts.
    chunked = (scenario.lockstep_ranks > 1.0) | (together >= 1.0)
    return np.where(starts > 0, np.where(chunked, together, ones), ones)
