"""The planning space with its predictions: one row per candidate, figures of the whole deployment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field, replace
from typing import Any

import numpy as np

from energylens.api.llmdeployment import Percentile
from energylens.planner.engines import EngineSettings
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.corrections import Correction, Corrections
from energylens.planner.search.load import NO_RESERVE, Load, Reserve, burst, of_job, thinned
from energylens.planner.search.replica import ReplicaPredictor, by_node_size
from energylens.planner.search.space import ProductSpace, concatenate
from energylens.planner.search.structure import structure
from energylens.predictor.fitted.features import NOTHING
from energylens.predictor.load.decoding import end_to_end
from energylens.predictor.load.scenario import Role
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.parameters import weight_bytes
from energylens.predictor.prediction import Interval, Prediction
from energylens.predictor.types import BoolArray, FloatArray, GpuSpec, IntArray, Layouts, Workload
from energylens.records import dataclass

CACHED_ROWS = 4_096
"""Candidates per call of the predictor, which needs about 2.6 kB for each. Larger arrays exceed a core's cache and are
most of what a process that plans needs at its highest; smaller ones make the calls themselves costly: eight specs on
1,000 nodes took 5 % longer than with 12,288 candidates, and with 2,048 they took 28 % longer."""

_Columns = dict[str, Any]
"""Arrays of :class:`Candidates` by name, each of shape (n,)."""


@dataclass(frozen=True)
class Question:
    """What all candidates are evaluated for."""

    model: ModelSpec
    predictor: ReplicaPredictor
    """Predicts one replica."""
    load: Load
    """Split evenly over the replicas."""
    percentile: Percentile
    """The percentile at which latencies are reported."""
    margin: float = 1.0
    """Share of the upper half of the 80 % interval that is added to the figures that are compared with SLOs: 0 uses the
    prediction, 1 the interval's upper end."""
    latency_share: float = 1.0
    """Share of that margin that latencies have; the rest counts in the ranking, see
    :mod:`energylens.planner.search.breach`."""
    corrections: Corrections = field(default_factory=Corrections)
    """Factors learned from measurement."""
    role: Role = "aggregated"
    """The role of the replicas. Figures per output token of the prefill role are per prompt."""
    settings: EngineSettings = field(default_factory=EngineSettings)
    """The engine and the settings from its arguments."""
    reserve: Reserve = NO_RESERVE
    """Capacity to keep free."""

    @property
    def workload(self) -> Workload:
        """The part of each request that a replica of the role processes."""
        # A prefill replica finishes a request after the first token.
        return self.load.workload.first_tokens if self.role == "prefill" else self.load.workload


def evaluate(spaces: Sequence[ProductSpace], question: Question) -> Candidates:
    """Return every candidate of the spaces, one space per GPU product, with its prediction under the load."""
    layouts, parts = list[Layouts](), list[_Columns]()
    for space in spaces:
        found, part = _evaluate_product(space, question)
        layouts.append(found)
        parts.append(part)
    counts = [len(found) for found in layouts]
    # A column of the parts is dropped as soon as the whole has it: with all of both, a search of tens of thousands of
    # candidates would need twice the memory.
    columns = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
    return Candidates(
        products=tuple(space.gpu.product for space in spaces),
        product=np.repeat(np.arange(len(parts)), counts),
        layouts=concatenate(layouts),
        role=question.role,
        **columns,
    )


@dataclass(frozen=True)
class _UnderLoad:
    """Replicas under their part of the load; arrays of shape (m,)."""

    prediction: Prediction
    sustainable: BoolArray
    utilization: FloatArray
    utilization_limit: FloatArray
    burst_sequences: FloatArray


def _evaluate_product(space: ProductSpace, question: Question) -> tuple[Layouts, _Columns]:
    """Return the candidates of one product: their layouts, and all their columns but the product."""
    model, predictor, load = question.model, question.predictor, question.load
    supported, reason, fits = structure(space, model, predictor, load.workload, question.workload, question.settings)
    index, replicas = space.expand()
    figures = {name: np.full(index.size, np.nan) for name in _FIGURES}
    sustainable, nearest = np.zeros(index.size, dtype=bool), np.full(index.size, NOTHING)
    runnable = np.flatnonzero((supported & fits)[index])
    groups = by_node_size(space, index, runnable, apart=predictor.sees_nodes)
    for gpu, rows in ((gpu, part) for gpu, group in groups for part in _in_cache(space, index, group)):
        layouts = space.layouts.take(index[rows])
        found = _under_load(question, gpu, layouts, replicas[rows])
        # No run behind the coefficients had a power cap or only one phase.
        unlike = np.isfinite(layouts.power_cap_watts) | (question.role != "aggregated")
        nearest[rows] = np.where(unlike, NOTHING, found.prediction.nearest)
        correction = question.corrections.for_candidates(space.gpu.product, layouts, found.prediction.concurrency)
        if question.role != "prefill":
            found = _slowed(found, load, correction)
        part = _figures(found, question, correction, replicas[rows])
        if load.job is not None:
            part |= of_job(
                load, load.job, gpu, layouts.gpus * replicas[rows], weight_bytes(model), replicas[rows], part
            )
            used = part["utilization"] <= part["utilization_limit"] * (1.0 + 1e-9)
            found = replace(found, sustainable=found.sustainable & used)
        for name, values in part.items():
            figures[name][rows] = values
        # Just below capacity the rate is sustainable, but the queue still grows without bound.
        bounded = [np.isfinite(figures[name][rows]) for name in ("ttft_upper_ms", "itl_upper_ms", "tpot_upper_ms")]
        sustainable[rows] = np.logical_and.reduce([found.sustainable, *bounded])
    return space.layouts.take(index), {
        "nodes_per_replica": space.nodes_per_replica[index],
        "replicas": replicas,
        "supported": supported[index],
        "reason": reason[index],
        "fits": fits[index],
        "sustainable": sustainable,
        "nearest": nearest,
        "step_tokens": question.settings.step_limits(model, space.gpu, space.layouts)[index],
        **figures,
    }


def _under_load(question: Question, gpu: GpuSpec, layouts: Layouts, replicas: IntArray) -> _UnderLoad:
    if question.load.job is not None:
        return _with_all_requests(question, gpu, layouts, replicas)
    under_load = _under_arrivals if question.load.concurrency is None else _with_fixed_concurrency
    return under_load(question, gpu, layouts, replicas)


def _with_all_requests(question: Question, gpu: GpuSpec, layouts: Layouts, replicas: IntArray) -> _UnderLoad:
    """Return replicas that share the requests of a job, before its time is counted."""
    load, reserve = question.load, question.reserve
    share = load.in_flight / replicas
    prediction = question.predictor.at_concurrency(question.model, gpu, layouts, load.workload, share)
    return _UnderLoad(
        prediction,
        sustainable=prediction.supported,
        utilization=np.full(replicas.shape, np.nan),
        utilization_limit=reserve.allowed(prediction) * reserve.left(replicas),
        burst_sequences=np.zeros(replicas.shape),
    )


def _with_fixed_concurrency(question: Question, gpu: GpuSpec, layouts: Layouts, replicas: IntArray) -> _UnderLoad:
    """Return replicas that share a fixed number of requests in flight."""
    load, reserve = question.load, question.reserve
    share = load.in_flight / replicas
    prediction = question.predictor.at_concurrency(question.model, gpu, layouts, load.workload, share)
    # Requests beyond the batch queue in the engine, so the fullest replica must hold its share as well.
    left = np.maximum(replicas - reserve.spare, 0)
    with np.errstate(divide="ignore"):
        fullest = np.ceil(load.in_flight / left)
    return _UnderLoad(
        prediction,
        sustainable=prediction.sustainable & (fullest <= prediction.max_concurrency),
        utilization=share / prediction.max_concurrency,
        utilization_limit=reserve.left(replicas),
        burst_sequences=np.zeros(replicas.shape),
    )


def _under_arrivals(question: Question, gpu: GpuSpec, layouts: Layouts, replicas: IntArray) -> _UnderLoad:
    """Return replicas among which requests that arrive at a rate are split."""
    load, reserve = question.load, question.reserve
    rate = (load.requests_per_second or 0.0) / replicas
    workload = thinned(question.workload, replicas)
    prediction = question.predictor.at_rate(question.model, gpu, layouts, workload, rate, question.role)
    limit = reserve.allowed(prediction) * reserve.left(replicas)
    ranks = layouts.data_parallel
    return _UnderLoad(
        prediction,
        sustainable=prediction.sustainable & (prediction.utilization <= limit * (1.0 + 1e-9)),
        utilization=prediction.utilization,
        utilization_limit=limit,
        burst_sequences=np.minimum(
            burst(prediction.concurrency / ranks, thinned(workload, ranks).arrival_variation),
            np.floor(prediction.memory.max_concurrency / ranks),
        ),
    )


def _slowed(found: _UnderLoad, load: Load, correction: Correction) -> _UnderLoad:
    """Return replicas under arrivals whose steps were measured to be slower: their capacity is lower by that factor.

    Faster steps add no capacity, since windows below the capacity cannot show any. A load by concurrency needs places
    in batches, not speed, and the time of a job already follows from the corrected throughput. The factor applies to
    steps that decode, not to the capacity of replicas that only prefill.
    """
    if load.concurrency is not None or np.all(np.asarray(correction.itl) <= 1.0):
        return found
    utilization = found.utilization * np.maximum(correction.itl, 1.0)
    sustainable = found.sustainable & (utilization <= found.utilization_limit * (1.0 + 1e-9))
    return replace(found, utilization=utilization, sustainable=sustainable)


def _in_cache(space: ProductSpace, index: IntArray, rows: IntArray) -> Iterator[IntArray]:
    """Yield the rows in parts of about :data:`CACHED_ROWS`, so that the predictor's arrays fit into the cache.

    Candidates of one parallel layout stay together, so their common terms are computed once and identically.
    """
    layouts = space.layouts
    degrees = (layouts.tensor_parallel, layouts.pipeline_parallel, layouts.expert_parallel, layouts.data_parallel)
    changes = np.zeros(max(rows.size - 1, 0), dtype=bool)
    for degree in degrees:
        changes |= np.diff(degree[index[rows]]) != 0
    ends = np.append(np.flatnonzero(changes) + 1, rows.size)
    start = 0
    while start < rows.size:
        end = int(ends[np.searchsorted(ends, min(start + CACHED_ROWS, rows.size))])
        yield rows[start:end]
        start = end


_FIGURES = (
    "itl_ms",
    "itl_upper_ms",
    "itl_decode_upper_ms",
    "tpot_ms",
    "tpot_upper_ms",
    "ttft_ms",
    "ttft_upper_ms",
    "end_to_end_ms",
    "end_to_end_upper_ms",
    "joules_per_output_token",
    "joules_low",
    "joules_high",
    "joules_upper",
    "power_watts",
    "idle_power_watts",
    "output_tokens_per_second",
    "concurrency",
    "utilization",
    "utilization_limit",
    "burst_sequences",
    "kv_cache_tokens",
    "completion_seconds",
    "job_start_seconds",
    "job_joules",
    "idle_job_share",
    "unshared_deviation",
    "layout_deviation",
    "breach_chance",
)


def _figures(
    found: _UnderLoad, question: Question, correction: Correction, replicas: IntArray
) -> dict[str, FloatArray]:
    p, percentile, margin = found.prediction, question.percentile, question.margin
    itl = {"P50": p.itl_p50_ms, "P95": p.itl_p95_ms, "P99": p.itl_p99_ms}[percentile] * correction.itl
    # A token takes a request one step, so ITL and TPOT have the same factor.
    tpot = {"P50": p.tpot_ms, "P95": p.tpot_p95_ms, "P99": p.tpot_p99_ms}[percentile] * correction.itl
    ttft = {"P50": p.ttft_p50_ms, "P95": p.ttft_p95_ms, "P99": p.ttft_p99_ms}[percentile] * correction.ttft
    rest = {"P50": p.decoding_p50_ms, "P95": p.decoding_p95_ms, "P99": p.decoding_p99_ms}[percentile] * correction.itl
    # Median and percentile of the TTFT, then of the time from the first token to the last.
    whole = p.ttft_p50_ms * correction.ttft, ttft, p.decoding_p50_ms * correction.itl, rest
    share = margin * question.latency_share
    itl_margin = _widened(p.itl, p.itl_p50_ms, share)
    ttft_margin, tpot_margin = _widened(p.ttft, p.ttft_p50_ms, share), _widened(p.tpot, p.tpot_ms, share)
    joules = p.joules_per_output_token * correction.energy
    high = p.energy.high * correction.energy
    # A fixed number of requests in flight yields fewer tokens when each takes longer; an arrival rate is unaffected.
    slower = correction.itl if question.load.concurrency is not None else 1.0
    return {
        "itl_ms": itl,
        "itl_upper_ms": itl * itl_margin,
        "itl_decode_upper_ms": p.itl_decode_ms * correction.itl * itl_margin,
        "tpot_ms": tpot,
        "tpot_upper_ms": tpot * tpot_margin,
        "ttft_ms": ttft,
        "ttft_upper_ms": ttft * ttft_margin,
        "end_to_end_ms": end_to_end(*whole),
        "end_to_end_upper_ms": end_to_end(
            *(each * ttft_margin for each in whole[:2]), *(each * tpot_margin for each in whole[2:])
        ),
        "joules_per_output_token": joules,
        "joules_low": p.energy.low * correction.energy,
        "joules_high": high,
        "joules_upper": joules + margin * (high - joules),
        "power_watts": p.power_watts * correction.power * replicas,
        "idle_power_watts": p.idle_power_watts * correction.power * replicas,
        "output_tokens_per_second": p.output_tokens_per_second * replicas / slower,
        "concurrency": p.concurrency * replicas,
        "utilization": found.utilization,
        "utilization_limit": found.utilization_limit,
        "burst_sequences": found.burst_sequences,
        "kv_cache_tokens": p.memory.kv_capacity_tokens,
        "completion_seconds": np.full(replicas.shape, np.nan),
        "job_start_seconds": np.full(replicas.shape, np.nan),
        "job_joules": np.full(replicas.shape, np.nan),
        "idle_job_share": np.zeros(replicas.shape),
        "unshared_deviation": p.unshared_deviation,
        "layout_deviation": p.layout_deviation,
        "breach_chance": np.zeros(replicas.shape),
    }


def _widened(interval: Interval, median: FloatArray, margin: float) -> FloatArray:
    """Return the factor by which the margin raises a percentile; only the median has a known interval."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: FloatArray = 1.0 + margin * np.maximum(0.0, interval.high / median - 1.0)
    return result
