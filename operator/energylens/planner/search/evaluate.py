"""The planning space with its predictions: one row per candidate, figures of the whole deployment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from energylens.api.llmdeployment import Percentile
from energylens.planner.engines import EngineSettings, refusals
from energylens.planner.search.corrections import Correction, Corrections
from energylens.planner.search.ranking import Risk
from energylens.planner.search.space import ProductSpace, concatenate
from energylens.predictor.fitted.features import NOTHING
from energylens.predictor.load.steady import Role
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.rules import unsupported_reasons
from energylens.predictor.types import (
    BoolArray,
    FloatArray,
    GpuSpec,
    IntArray,
    Interval,
    Layouts,
    Memory,
    Prediction,
    Workload,
)


class ReplicaPredictor(Protocol):
    """The predictor's face that planning uses; arrays of shape (n,), figures of one replica."""

    @property
    def version(self) -> str:
        """Version of the code and of the coefficients."""
        ...

    @property
    def sees_nodes(self) -> bool:
        """Whether predictions depend on ``GpuSpec.max_gpus_per_node``; where not, one call does for all node sizes."""
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
        """Return the behaviour under Poisson arrivals per replica, which does both phases or one of them."""
        ...


CACHED_ROWS = 8192
"""Candidates per call of the predictor: with more its arrays leave the cache of a core, with fewer the calls count."""
POWER_LIMIT_REASON = "the power limit of"
"""How the reason of a layout begins whose power cap its GPU cannot take."""


@dataclass(frozen=True)
class Load:
    """Load of the whole deployment: an arrival rate or a number of requests in flight."""

    workload: Workload
    requests_per_second: float | None = None
    concurrency: int | None = None

    def scaled(self, factor: float) -> Load:
        """Return the load times a factor; a concurrency stays a whole number of at least 1."""
        if self.concurrency is not None:
            return replace(self, concurrency=max(1, math.floor(self.concurrency * factor)))
        return replace(self, requests_per_second=(self.requests_per_second or 0.0) * factor)


@dataclass(frozen=True)
class Reserve:
    """Capacity that a plan keeps free."""

    headroom: float | None = None
    """Of the highest rate, 0 to below 1; None: as much as the throughput of each candidate may be overestimated, to the
    lower end of its 80 % interval."""
    spare: int = 0
    """Replicas without which the others still carry the load."""

    def allowed(self, prediction: Prediction) -> FloatArray:
        """Return the share of the capacity that the load may take, shape (n,)."""
        if self.headroom is not None:
            return np.full(len(prediction.supported), 1.0 - self.headroom)
        with np.errstate(divide="ignore", invalid="ignore"):
            surely = prediction.throughput.low / prediction.output_tokens_per_second
        return np.where(prediction.output_tokens_per_second > 0, surely, 1.0)

    def left(self, replicas: IntArray) -> FloatArray:
        """Return the share of the replicas that is left when the spare ones fail, shape (n,): 0 where none is."""
        return np.maximum(replicas - self.spare, 0) / replicas


NO_RESERVE = Reserve(headroom=0.0)
BURST_ODDS = 1e-4
"""Probability that more requests run at once than a burst is said to have."""


def burst(running: FloatArray, variation: float | FloatArray = 1.0) -> FloatArray:
    """Return how many sequences run at once in a burst, shape of ``running``, their mean.

    A bound on the Poisson distribution: more run with a probability of `BURST_ODDS` at most (Bernstein's inequality;
    Boucheron, Lugosi and Massart, Concentration Inequalities, 2013, section 2.4). Arrivals of a larger squared
    coefficient of variation, ``variation``, are taken as Poisson arrivals of so many at once.
    """
    odds = -math.log(BURST_ODDS)
    return np.asarray(running + np.sqrt(2.0 * odds * variation * running) + odds * variation / 3.0)


@dataclass(frozen=True)
class Candidates:
    """One row per candidate, arrays of shape (n,); figures are those of all replicas together.

    Where ``supported`` or ``fits`` is False the predicted figures are NaN.
    """

    products: tuple[str, ...]
    product: IntArray
    """Index into ``products``."""
    layouts: Layouts
    nodes_per_replica: IntArray
    replicas: IntArray
    supported: BoolArray
    reason: npt.NDArray[np.object_]
    """Texts, shared by the candidates of a layout: a copy for each would be most of the memory of a large cluster."""
    fits: BoolArray
    sustainable: BoolArray
    itl_ms: FloatArray
    """At the SLO's percentile."""
    itl_upper_ms: FloatArray
    """The same with the safety margin."""
    tpot_ms: FloatArray
    tpot_upper_ms: FloatArray
    ttft_ms: FloatArray
    ttft_upper_ms: FloatArray
    joules_per_output_token: FloatArray
    joules_low: FloatArray
    """Ends of the 80 % interval."""
    joules_high: FloatArray
    joules_upper: FloatArray
    """With the safety margin."""
    power_watts: FloatArray
    idle_power_watts: FloatArray
    output_tokens_per_second: FloatArray
    concurrency: FloatArray
    utilization: FloatArray
    """The load over what all replicas carry at most: rates, or requests in flight over places."""
    utilization_limit: FloatArray
    """What the headroom and the spare replicas leave of it."""
    burst_sequences: FloatArray
    """That run at once on a data-parallel rank in a burst, as far as its KV cache has room; 0 for a fixed number."""
    kv_cache_tokens: FloatArray
    """Of one data-parallel rank."""
    unshared_deviation: FloatArray
    """Standard deviations of the error of log(energy): what candidates do not share, and the part of layouts."""
    layout_deviation: FloatArray
    nearest: IntArray
    """The nearest that was measured, as indices into `energylens.predictor.fitted.features.NEAREST`."""
    role: Role = "aggregated"

    @property
    def risk(self) -> Risk:
        """How the errors of the candidates' energies lie apart."""
        return Risk(self.unshared_deviation, self.layout_deviation)

    def without_risk(self) -> Candidates:
        """Return the candidates as a planner that knows only means sees them: every prediction counts as certain."""
        certain = Risk.none(len(self))
        return replace(self, unshared_deviation=certain.unshared, layout_deviation=certain.layout)

    @property
    def gpus(self) -> IntArray:
        """GPUs over all replicas, shape (n,)."""
        return self.layouts.gpus * self.replicas

    @property
    def gpus_per_node(self) -> IntArray:
        """GPUs that a replica takes on each of its nodes, shape (n,)."""
        result: IntArray = self.layouts.gpus // self.nodes_per_replica
        return result

    def __len__(self) -> int:
        return len(self.layouts)

    def take(self, index: IntArray) -> Candidates:
        """Return the rows of an index array of shape (m,)."""
        shared = ("products", "layouts", "role")
        columns = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name not in shared}
        return replace(self, layouts=self.layouts.take(index), **columns)


def evaluate(
    spaces: Sequence[ProductSpace],
    model: ModelSpec,
    predictor: ReplicaPredictor,
    load: Load,
    percentile: Percentile,
    *,
    margin: float = 1.0,
    corrections: Corrections | None = None,
    role: Role = "aggregated",
    settings: EngineSettings | None = None,
    reserve: Reserve = NO_RESERVE,
) -> Candidates:
    """Return every candidate of the spaces with its prediction under the load.

    Args:
        spaces: One per GPU product.
        model: The model to serve.
        predictor: Predicts one replica.
        load: Split evenly over the replicas.
        percentile: The percentile of ITL, TPOT and TTFT to report.
        margin: Share of the upper half of the 80 % interval that is added for the figures that SLOs are checked with:
            0 trusts the prediction, 1 takes the interval's upper end.
        corrections: Factors learned from measurement.
        role: What the replicas do. Energy of the prefill role is per prompt, as is its number of output tokens.
        settings: The engine and what its arguments set; vLLM's defaults when None.
        reserve: Capacity to keep free.
    """
    learned, engine = corrections or Corrections(), settings or EngineSettings()
    parts = [
        _evaluate_product(space, model, predictor, load, percentile, margin, learned, role, engine, reserve)
        for space in spaces
    ]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in (f.name for f in fields(Candidates))
        if name not in ("products", "product", "layouts", "role")
    }
    return Candidates(
        products=tuple(space.gpu.product for space in spaces),
        product=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        layouts=concatenate([part.layouts for part in parts]),
        role=role,
        **columns,
    )


def _evaluate_product(
    space: ProductSpace,
    model: ModelSpec,
    predictor: ReplicaPredictor,
    load: Load,
    percentile: Percentile,
    margin: float,
    corrections: Corrections,
    role: Role,
    settings: EngineSettings,
    reserve: Reserve,
) -> Candidates:
    # A prefill replica is done with a request after its first token.
    workload = replace(load.workload, output_tokens=1, speculation=None) if role == "prefill" else load.workload
    supported, reason, fits = _structure(space, model, predictor, load.workload, workload, settings)
    index, replicas = space.expand()
    figures = {name: np.full(index.size, np.nan) for name in _FIGURES}
    sustainable, nearest = np.zeros(index.size, dtype=bool), np.full(index.size, NOTHING)
    runnable = np.flatnonzero((supported & fits)[index])
    groups = _by_node_size(space, index, runnable, apart=predictor.sees_nodes)
    for gpu, rows in ((gpu, part) for gpu, group in groups for part in _in_cache(space, index, group)):
        layouts = space.layouts.take(index[rows])
        if load.concurrency is not None:
            share = load.concurrency / replicas[rows]
            prediction = predictor.at_concurrency(model, gpu, layouts, load.workload, share)
            # What exceeds the batch queues in the engine, so that the fullest replica must hold its share, too.
            left = np.maximum(replicas[rows] - reserve.spare, 0)
            with np.errstate(divide="ignore"):
                fullest = np.ceil(load.concurrency / left)
            sustainable[rows] = prediction.sustainable & (fullest <= prediction.max_concurrency)
            figures["utilization"][rows] = share / prediction.max_concurrency
            figures["utilization_limit"][rows] = reserve.left(replicas[rows])
            figures["burst_sequences"][rows] = 0.0
        else:
            rate = (load.requests_per_second or 0.0) / replicas[rows]
            thinned = _thinned(workload, replicas[rows])
            prediction = predictor.at_rate(model, gpu, layouts, thinned, rate, role)
            figures["utilization"][rows] = prediction.utilization
            limit = reserve.allowed(prediction) * reserve.left(replicas[rows])
            figures["utilization_limit"][rows] = limit
            sustainable[rows] = prediction.sustainable & (prediction.utilization <= limit * (1.0 + 1e-9))
            ranks = layouts.data_parallel
            figures["burst_sequences"][rows] = np.minimum(
                burst(prediction.concurrency / ranks, thinned.arrival_variation),
                np.floor(prediction.memory.max_concurrency / ranks),
            )
        # No run that the coefficients were fitted on had a power cap, or one phase only.
        unlike = np.isfinite(layouts.power_cap_watts) | (role != "aggregated")
        nearest[rows] = np.where(unlike, NOTHING, prediction.nearest)
        correction = corrections.for_candidates(space.gpu.product, layouts, prediction.concurrency)
        for name, values in _figures(prediction, percentile, margin, correction, replicas[rows]).items():
            figures[name][rows] = values
        if load.concurrency is not None:
            # So many requests in flight give fewer tokens when each takes longer; a rate stays what it is.
            figures["output_tokens_per_second"][rows] /= correction.itl
        # At the very edge of capacity the rate is below it, but the queue in front grows without bound.
        for name in ("ttft_upper_ms", "itl_upper_ms", "tpot_upper_ms"):
            sustainable[rows] &= np.isfinite(figures[name][rows])
    return Candidates(
        products=(space.gpu.product,),
        product=np.zeros(index.size, dtype=np.int64),
        layouts=space.layouts.take(index),
        nodes_per_replica=space.nodes_per_replica[index],
        replicas=replicas,
        supported=supported[index],
        reason=reason[index],
        fits=fits[index],
        sustainable=sustainable,
        nearest=nearest,
        role=role,
        **figures,
    )


def _thinned(workload: Workload, replicas: IntArray) -> Workload:
    """Return the load of one of several replicas that requests are spread over at random, ``replicas`` of shape (m,).

    A share p of renewal arrivals has the squared coefficient of variation p c + 1 - p (Whitt, Bell System Technical
    Journal 62, 1983): Poisson arrivals stay such.
    """
    if np.all(workload.arrival_variation == 1.0):
        return workload
    return replace(workload, arrival_variation=1.0 + (workload.arrival_variation - 1.0) / replicas)


def _structure(
    space: ProductSpace,
    model: ModelSpec,
    predictor: ReplicaPredictor,
    whole: Workload,
    workload: Workload,
    settings: EngineSettings,
) -> tuple[BoolArray, npt.NDArray[np.object_], BoolArray]:
    """Return for each layout whether the engine can run it, else why not, and whether it fits into memory.

    ``workload`` is what the replicas' role leaves of the ``whole`` request.
    """
    size = len(space.layouts)
    fits = np.zeros(size, dtype=bool)
    reason = np.full(size, "", dtype=object)
    every = np.arange(size)
    for gpu, rows in _by_node_size(space, every, every, apart=predictor.sees_nodes):
        layouts = space.layouts.take(rows)
        reason[rows] = unsupported_reasons(model, layouts)
        fits[rows] = predictor.memory(model, gpu, layouts, workload).fits
    layouts = space.layouts
    refused = refusals(model, space.gpu, layouts, space.nodes_per_replica, whole, settings)
    reason = np.where(reason == "", refused, reason)
    supported = reason == ""
    # Expert parallelism has no size of its own in the engines: it is off or spans the tensor and data parallel GPUs.
    ranks = layouts.tensor_parallel * layouts.data_parallel
    no_such_size = supported & (layouts.expert_parallel > 1) & (layouts.expert_parallel != ranks)
    reason[no_such_size] = "expert parallelism spans all tensor x data parallel GPUs or is off (1)"
    rank_gpus = layouts.tensor_parallel * layouts.pipeline_parallel
    spread = (space.nodes_per_replica > 1) & (layouts.data_parallel > 1) & (space.gpus_per_node % rank_gpus != 0)
    reason[supported & spread] = "a data-parallel rank of a replica over several nodes must fit into one of them"
    cap = layouts.power_cap_watts
    too_low, too_high = cap < space.gpu.power_limit_min_watts, cap > space.gpu.power_limit_max_watts
    reason[supported & (too_low | too_high)] = (
        f"{POWER_LIMIT_REASON} {space.gpu.product} can be set from {space.gpu.power_limit_min_watts:.0f} to "
        f"{space.gpu.power_limit_max_watts:.0f} W"
    )
    supported &= ~(no_such_size | spread | too_low | too_high)
    return supported, reason, fits


def _in_cache(space: ProductSpace, index: IntArray, rows: IntArray) -> Iterator[IntArray]:
    """Yield the rows in parts of about :data:`CACHED_ROWS`, so that the predictor's arrays stay in the cache.

    Candidates of one parallel layout stay together: what they have in common is then computed once, and alike.
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


def _by_node_size(
    space: ProductSpace, index: IntArray, rows: IntArray, *, apart: bool
) -> Iterator[tuple[GpuSpec, IntArray]]:
    """Yield the rows in groups whose replicas see nodes of the same size, and the GPU with that size.

    The size says which links are inside a node: a replica over two nodes of four GPUs is not one node of eight. Where
    that makes no difference (``apart`` is False) all rows are one group.
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
        # A replica inside one node sees nothing of the node's size, so it goes along, which saves a call.
        along = (single & (widest <= size)) if size == sizes[-1] else False
        yield replace(space.gpu, max_gpus_per_node=size), rows[(~single & (per_node == size)) | along]


_FIGURES = (
    "itl_ms",
    "itl_upper_ms",
    "tpot_ms",
    "tpot_upper_ms",
    "ttft_ms",
    "ttft_upper_ms",
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
    "unshared_deviation",
    "layout_deviation",
)


def _figures(
    prediction: Prediction, percentile: Percentile, margin: float, correction: Correction, replicas: IntArray
) -> dict[str, FloatArray]:
    p = prediction
    itl = {"P50": p.itl_p50_ms, "P95": p.itl_p95_ms, "P99": p.itl_p99_ms}[percentile] * correction.itl
    # A token costs a request what a step costs, whichever of the two latencies says so.
    tpot = {"P50": p.tpot_ms, "P95": p.tpot_p95_ms, "P99": p.tpot_p99_ms}[percentile] * correction.itl
    ttft = {"P50": p.ttft_p50_ms, "P95": p.ttft_p95_ms, "P99": p.ttft_p99_ms}[percentile] * correction.ttft
    joules = p.joules_per_output_token * correction.energy
    high = p.energy.high * correction.energy
    return {
        "itl_ms": itl,
        "itl_upper_ms": itl * _widened(p.itl, p.itl_p50_ms, margin),
        "tpot_ms": tpot,
        "tpot_upper_ms": tpot * _widened(p.tpot, p.tpot_ms, margin),
        "ttft_ms": ttft,
        "ttft_upper_ms": ttft * _widened(p.ttft, p.ttft_p50_ms, margin),
        "joules_per_output_token": joules,
        "joules_low": p.energy.low * correction.energy,
        "joules_high": high,
        "joules_upper": joules + margin * (high - joules),
        "power_watts": p.power_watts * correction.power * replicas,
        "idle_power_watts": p.idle_power_watts * correction.power * replicas,
        "output_tokens_per_second": p.output_tokens_per_second * replicas,
        "concurrency": p.concurrency * replicas,
        "kv_cache_tokens": p.memory.kv_capacity_tokens,
        "unshared_deviation": p.unshared_deviation,
        "layout_deviation": p.layout_deviation,
    }


def _widened(interval: Interval, median: FloatArray, margin: float) -> FloatArray:
    """Return the factor that the margin puts on a percentile: the interval is known for the median only."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: FloatArray = 1.0 + margin * np.maximum(0.0, interval.high / median - 1.0)
    return result
