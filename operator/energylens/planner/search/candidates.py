"""The table of candidates that planning filters, ranks and reports."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from energylens.planner.search.ranking import Risk, breach_factor
from energylens.planner.search.space import concatenate
from energylens.predictor.load.scenario import Role
from energylens.predictor.types import BoolArray, FloatArray, IntArray, Layouts
from energylens.records import dataclass


@dataclass(frozen=True)
class Candidates:
    """One row per candidate, arrays of shape (n,); figures are totals over all replicas.

    If ``supported`` or ``fits`` is False, the predicted figures are NaN.
    """

    products: tuple[str, ...]
    product: IntArray
    """Index into ``products``."""
    layouts: Layouts
    nodes_per_replica: IntArray
    replicas: IntArray
    supported: BoolArray
    reason: npt.NDArray[np.object_]
    """Why the engine cannot run the layout. The candidates of a layout share the texts, because copies would need most
    of the memory of a large cluster."""
    fits: BoolArray
    sustainable: BoolArray
    itl_ms: FloatArray
    """Latency at the percentile of the SLO."""
    itl_upper_ms: FloatArray
    """The same latency with the safety margin."""
    itl_decode_upper_ms: FloatArray
    """ITL of a step that computes no prompt, with the safety margin."""
    tpot_ms: FloatArray
    tpot_upper_ms: FloatArray
    ttft_ms: FloatArray
    ttft_upper_ms: FloatArray
    end_to_end_ms: FloatArray
    """Time from a request's arrival to its last token."""
    end_to_end_upper_ms: FloatArray
    joules_per_output_token: FloatArray
    joules_low: FloatArray
    """Ends of the 80 % interval."""
    joules_high: FloatArray
    joules_upper: FloatArray
    """The figure with the safety margin."""
    power_watts: FloatArray
    idle_power_watts: FloatArray
    output_tokens_per_second: FloatArray
    concurrency: FloatArray
    utilization: FloatArray
    """The load divided by the capacity of all replicas: arrival rates, or requests in flight over places."""
    utilization_limit: FloatArray
    """The utilization that headroom and spare replicas allow."""
    burst_sequences: FloatArray
    """Sequences that run at once on a data-parallel rank in a burst, as far as its KV cache has room; 0 for a load by
    concurrency."""
    step_tokens: IntArray
    """Most tokens that a step of a data-parallel rank computes; the engine's default if the layout sets nothing."""
    kv_cache_tokens: FloatArray
    """Tokens in the KV cache of one data-parallel rank."""
    completion_seconds: FloatArray
    """Time from the creation of the pods to the last answer of a job, s; NaN for other loads, as the next figure."""
    job_start_seconds: FloatArray
    """The part of this time before the first request, s."""
    job_joules: FloatArray
    idle_job_share: FloatArray
    """Share of the energy of a job that goes into the start and into idling until the deadline; 0 for other loads."""
    unshared_deviation: FloatArray
    """Standard deviation of the part of the error of log(energy) that candidates do not share."""
    layout_deviation: FloatArray
    breach_chance: FloatArray
    """Chance that a candidate breaks a latency objective, as it counts in the ranking: 0 where the candidate is
    rejected or nothing is bounded."""
    nearest: IntArray
    """The nearest measurement, as an index into `energylens.predictor.fitted.features.NEAREST`."""
    role: Role = "aggregated"

    @property
    def risk(self) -> Risk:
        """Spread of the errors of the candidates' energies relative to each other."""
        return Risk(self.unshared_deviation, self.layout_deviation)

    @property
    def ranking_factor(self) -> FloatArray:
        """Factor on energy or power by which candidates are ranked, shape (n,)."""
        return np.asarray(self.risk.factor * breach_factor(self.breach_chance))

    def without_risk(self) -> Candidates:
        """Return the candidates with every prediction counted as certain, for a planner that uses only means."""
        certain, none = Risk.none(len(self)), np.zeros(len(self))
        return replace(self, unshared_deviation=certain.unshared, layout_deviation=certain.layout, breach_chance=none)

    @property
    def gpus(self) -> IntArray:
        """GPUs of all replicas, shape (n,)."""
        return self.layouts.gpus * self.replicas

    @property
    def gpus_per_node(self) -> IntArray:
        """GPUs of a replica on each of its nodes, shape (n,)."""
        result: IntArray = self.layouts.gpus // self.nodes_per_replica
        return result

    def __len__(self) -> int:
        return len(self.layouts)

    def choice(self, name: str) -> FloatArray:
        """Return the candidates' values of a field of ``spec.planning.overrides``, or of layouts; shape (n,)."""
        if name == "max_batched_tokens":
            return self.step_tokens.astype(np.float64)
        return np.asarray(getattr(self if name == "replicas" else self.layouts, name), dtype=np.float64)

    def joined(self, others: Candidates) -> Candidates:
        """Return these rows, then others with the same products."""
        shared = ("products", "layouts", "role")
        columns: dict[str, Any] = {
            f.name: np.concatenate([getattr(self, f.name), getattr(others, f.name)])
            for f in fields(self)
            if f.name not in shared
        }
        return replace(self, layouts=concatenate([self.layouts, others.layouts]), **columns)

    def take(self, index: IntArray) -> Candidates:
        """Return the rows of an index array of shape (m,)."""
        shared = ("products", "layouts", "role")
        columns = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name not in shared}
        return replace(self, layouts=self.layouts.take(index), **columns)
