"""Predictions of a table of runs as arrays, and the measured values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Protocol

import numpy as np

from energylens.planner.search.ranking import Risk
from energylens.predictor.fitted.features import NOTHING
from energylens.predictor.fitted.profiles import UnknownEngineError
from energylens.predictor.load.workloads import (
    loaded,
    recipe_graph_tokens,
    recipe_step_tokens,
    sampled_of,
    standing_share,
    workload_of,
)
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.prediction import Interval, Prediction
from energylens.predictor.types import BoolArray, FloatArray, GpuSpec, IntArray, Layouts, Sampled, Workload
from energylens.records import dataclass
from energylens.runs import Resolved, Run
from energylens.runs.layouts import layouts_of
from energylens.runs.types import Role

QUANTITIES = ("itl", "tpot", "ttft", "throughput", "power", "energy")
"""Median ITL (ms), time per output token (ms), time to first token (ms), output tokens per second, watts, joules per
output token."""


@dataclass(frozen=True)
class Predicted:
    """Predictions of n runs: each quantity and its 80 % interval, shape (n,); NaN if ``error`` is not empty."""

    values: dict[str, FloatArray]
    intervals: dict[str, Interval]
    unshared_deviation: FloatArray
    """Standard deviation of the part of the error of log(energy) that candidates do not share, shape (n,)."""
    layout_deviation: FloatArray
    """Part of that deviation by which two layouts of one product differ."""
    nearest: IntArray
    """The nearest measurement, as indices into `energylens.predictor.fitted.features.NEAREST`."""
    error: tuple[str, ...]

    @property
    def risk(self) -> Risk:
        """Spread of the errors of the predicted energies relative to each other."""
        return Risk(self.unshared_deviation, self.layout_deviation)

    @property
    def ok(self) -> BoolArray:
        """Whether there is a prediction, shape (n,)."""
        return np.array([not text for text in self.error], dtype=bool)


class PredictorLike(Protocol):
    """The part of a predictor that evaluation needs; see :class:`energylens.predictor.Predictor`."""

    def at_concurrency(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        concurrency: FloatArray,
        *,
        sampled: Sampled | None = None,
        in_flight: bool = True,
        role: Role = "aggregated",
    ) -> Prediction:
        """Predict candidates that share a model, a GPU and a workload."""
        ...


Resolver = Callable[[Run], Resolved]
Chooser = Callable[[str | None], PredictorLike]
"""Function from an engine to its predictor; raises ValueError or UnknownEngineError with the known engines."""


def predict_runs(runs: Sequence[Run], resolve: Resolver, predictor_for: Chooser) -> Predicted:
    """Predict runs, with one array call for all runs that share model, GPU, engine and workload.

    A run that cannot be predicted gets an error text and does not affect other runs.
    """
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, run in enumerate(runs):
        served = (run.model_id, run.weight_precision, run.gpu_model, run.engine, run.role, run.concurrency_counts)
        groups[(*served, *_load(run))].append(i)
    parts: list[tuple[Sequence[int], Predicted]] = []
    for members in groups.values():
        first = runs[members[0]]
        resolved = resolve(first)
        if resolved.model is None or resolved.gpu is None:
            parts.append((members, _refused(len(members), resolved.error)))
            continue
        try:
            predictor = predictor_for(first.engine)
        except (ValueError, UnknownEngineError) as refused:
            parts.append((members, _refused(len(members), str(refused))))
            continue
        parts.extend(_group(members, runs, predictor, resolved.model, resolved.gpu))
    return merge(len(runs), parts)


def _load(run: Run) -> tuple[Workload, Sampled | None]:
    batch = float(run.max_num_seqs)
    return workload_of(run.task, run.input_tokens, run.output_tokens, batch), sampled_of(run.task, batch)


def _group(
    members: Sequence[int], runs: Sequence[Run], predictor: PredictorLike, model: ModelSpec, gpu: GpuSpec
) -> list[tuple[Sequence[int], Predicted]]:
    group = [runs[i] for i in members]
    try:
        workload, sampled = _load(group[0])
        concurrency = np.array([run.concurrency for run in group], dtype=np.float64)
        prediction = predictor.at_concurrency(
            loaded(group[0].task, model),
            gpu,
            _layouts(group),
            workload,
            concurrency,
            sampled=sampled,
            in_flight=group[0].counts_waiting,
            role=group[0].role,
        )
    except (ValueError, ArithmeticError) as refused:
        if len(members) == 1:
            return [(members, _refused(1, str(refused)))]
        # One bad row must not fail the other rows of its group.
        return [part for i in members for part in _group([i], runs, predictor, model, gpu)]
    return [(members, _predicted(prediction, standing_share(group[0].task)))]


def _predicted(prediction: Prediction, standing: float) -> Predicted:
    found = quantities(prediction, standing)
    usable = np.ones(len(prediction.supported), dtype=bool)
    for value, interval in found.values():
        for array in (value, interval.low, interval.high):
            usable &= np.isfinite(array) & (array > 0)
    error = tuple(
        (str(reason) or "not supported") if not supported else "" if good else "the prediction is not a finite number"
        for supported, reason, good in zip(prediction.supported, prediction.reason, usable, strict=True)
    )
    good = np.array([not text for text in error], dtype=bool)

    def masked(array: FloatArray) -> FloatArray:
        return np.where(good, array, np.nan)

    return Predicted(
        values={name: masked(value) for name, (value, _) in found.items()},
        intervals={name: Interval(masked(ends.low), masked(ends.high)) for name, (_, ends) in found.items()},
        unshared_deviation=masked(prediction.unshared_deviation),
        layout_deviation=masked(prediction.layout_deviation),
        nearest=prediction.nearest,
        error=error,
    )


def _refused(n: int, message: str) -> Predicted:
    nothing = np.full(n, np.nan)
    return Predicted(
        values=dict.fromkeys(QUANTITIES, nothing),
        intervals=dict.fromkeys(QUANTITIES, Interval(nothing, nothing)),
        unshared_deviation=nothing,
        layout_deviation=nothing,
        nearest=np.full(n, NOTHING),
        error=(message or "not supported",) * n,
    )


def quantities(prediction: Prediction, standing: float = 0.0) -> dict[str, tuple[FloatArray, Interval]]:
    """Return the evaluated quantities of a prediction with their intervals.

    Args:
        prediction: A prediction of the steady state.
        standing: Share of a benchmark's time during which places are empty, which affects throughput and energy.
    """
    served = 1.0 - standing

    def scaled(value: FloatArray, ends: Interval, factor: float) -> tuple[FloatArray, Interval]:
        return value * factor, Interval(ends.low * factor, ends.high * factor)

    return {
        "itl": (prediction.itl_p50_ms, prediction.itl),
        "tpot": (prediction.tpot_ms, prediction.tpot),
        "ttft": (prediction.ttft_p50_ms, prediction.ttft),
        "throughput": scaled(prediction.output_tokens_per_second, prediction.throughput, served),
        "power": (prediction.power_watts, prediction.power),
        "energy": scaled(prediction.joules_per_output_token, prediction.energy, 1.0 / served),
    }


def _layouts(runs: Sequence[Run]) -> Layouts:
    names = "tensor_parallel", "expert_parallel", "data_parallel", "max_num_seqs"
    tensor, expert, data, sequences = (np.array([getattr(run, name) for run in runs], dtype=np.int64) for name in names)
    tokens = [recipe_step_tokens(run.task, run.engine, run.data_parallel) for run in runs]
    graphs = [recipe_graph_tokens(run.task, run.engine) for run in runs]
    return layouts_of(tensor, expert, data, sequences, *(np.array(each, dtype=np.int64) for each in (tokens, graphs)))


def measured_arrays(runs: Sequence[Run]) -> dict[str, FloatArray]:
    """Return the measured quantities, shape (n,); NaN if a run lacks one.

    Raises:
        ValueError: A run was read without its measured columns.
    """
    names = {
        "itl": "median_itl_ms",
        "tpot": "time_per_output_token_ms",
        "ttft": "time_to_first_token_ms",
        "throughput": "output_tokens_per_second",
        "power": "power_watts",
        "energy": "joules_per_output_token",
    }
    if any(run.measured is None for run in runs):
        raise ValueError("runs were read without their measured columns")
    found = {key: [getattr(run.measured, name) for run in runs] for key, name in names.items()}
    return {key: np.array([np.nan if value is None else value for value in found[key]]) for key in names}


def merge(n: int, parts: Sequence[tuple[Sequence[int], Predicted]]) -> Predicted:
    """Combine predictions of disjoint index sets into one prediction of n runs."""
    empty = {name: np.full(n, np.nan) for name in QUANTITIES}
    merged = Predicted(
        values={name: array.copy() for name, array in empty.items()},
        intervals={name: Interval(array.copy(), array.copy()) for name, array in empty.items()},
        unshared_deviation=np.full(n, np.nan),
        layout_deviation=np.full(n, np.nan),
        nearest=np.full(n, NOTHING),
        error=("not predicted",) * n,
    )
    error = list(merged.error)
    for index, part in parts:
        where = np.array(index, dtype=np.int64)
        for name in QUANTITIES:
            merged.values[name][where] = part.values[name]
            for end in fields(Interval):
                getattr(merged.intervals[name], end.name)[where] = getattr(part.intervals[name], end.name)
        merged.unshared_deviation[where] = part.unshared_deviation
        merged.layout_deviation[where] = part.layout_deviation
        merged.nearest[where] = part.nearest
        for i, text in zip(index, part.error, strict=True):
            error[i] = text
    return replace(merged, error=tuple(error))
