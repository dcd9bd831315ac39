"""Measured serving runs as arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from energylens.calibration.products import relative_of
from energylens.predictor.load.workloads import recipe_graph_tokens, recipe_step_tokens, workload_of
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import BoolArray, FloatArray, IntArray, Layouts, Workload
from energylens.records import dataclass
from energylens.runs import Resolved, Run, RunsFileError, weight_precision
from energylens.runs import read_runs as read_table
from energylens.runs.layouts import layouts_of


class RunsError(ValueError):
    """A file of runs cannot be used; the message names the file, the line and the column."""


@dataclass(frozen=True)
class Runs:
    """One element per run, arrays of shape (n,); units are in the names; missing measured values are NaN."""

    run_id: npt.NDArray[np.str_]
    task: npt.NDArray[np.str_]
    model_id: npt.NDArray[np.str_]
    gpu_model: npt.NDArray[np.str_]
    engine: npt.NDArray[np.str_]
    num_gpus: IntArray
    tensor_parallel: IntArray
    expert_parallel: IntArray
    data_parallel: IntArray
    max_num_seqs: IntArray
    concurrency: FloatArray
    input_tokens_assumed: FloatArray
    output_tokens: FloatArray
    median_itl_ms: FloatArray
    p99_itl_ms: FloatArray
    median_tpot_ms: FloatArray
    """The mean if a run has no median."""
    output_tokens_per_second: FloatArray
    power_watts: FloatArray
    host_bound: BoolArray
    waiting_counts: BoolArray
    """Whether ``concurrency`` also counts requests that wait for a place."""
    decodes_only: BoolArray
    """Whether the run is of a worker without prefill."""

    def __len__(self) -> int:
        return int(self.run_id.shape[0])

    def take(self, index: npt.NDArray[Any]) -> Runs:
        """Return the runs that a mask or an index array selects."""
        return Runs(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @property
    def clean(self) -> BoolArray:
        """Runs that reflect the GPU: not host-bound, and with several ranks only those with a TPOT.

        The median ITL of data-parallel ranks that wait for each other says little about their throughput.
        """
        return np.asarray(~self.host_bound & ((self.data_parallel == 1) | np.isfinite(self.median_tpot_ms)))

    def workload(self, index: int) -> Workload:
        """Return the mean request of one run."""
        tokens = float(self.input_tokens_assumed[index]), float(self.output_tokens[index])
        return workload_of(str(self.task[index]), *tokens, float(self.max_num_seqs[index]))

    @property
    def layouts(self) -> Layouts:
        """The layout of each run."""
        named = list(zip(self.task.tolist(), self.engine.tolist(), self.data_parallel.tolist(), strict=True))
        tokens = np.array([recipe_step_tokens(task, engine, ranks) for task, engine, ranks in named], dtype=np.int64)
        graphs = np.array([recipe_graph_tokens(task, engine) for task, engine, _ in named], dtype=np.int64)
        degrees = self.tensor_parallel, self.expert_parallel, self.data_parallel
        return layouts_of(*degrees, self.max_num_seqs, tokens, graphs)


def read_runs(path: Path) -> tuple[Run, ...]:
    """Return the runs of a CSV file with the columns of the shipped runs.

    Raises:
        RunsError: The file cannot be read, a column is missing, or a value is out of range. Unlike a prediction, a fit
            does not use the valid part of a file.
    """
    try:
        table = read_table(path, measured=True)
    except RunsFileError as error:
        raise RunsError(str(error)) from error
    for bad in table.errors:
        raise RunsError(f"{path}: line {bad.row}: {bad.message}")
    if not table.runs:
        raise RunsError(f"{path}: no runs")
    return table.runs


@dataclass(frozen=True)
class ResolvedRuns:
    """Runs whose model and GPU are known."""

    runs: Runs
    models: Mapping[str, ModelSpec]
    """Architecture by the ids of ``runs``; one model id in two precisions counts as two models."""
    errors: tuple[str, ...]
    """Why each other run cannot be fitted to."""
    assumed: Mapping[str, int]
    """Names such as ``MiniMaxAI/MiniMax-M3 in NVFP4`` of releases that the catalogue lacks and that are assumed to be
    stored as usual releases in the format of their runs, with the number of these runs."""


def resolve_runs(runs: Sequence[Run], resolve: Callable[[Run], Resolved]) -> ResolvedRuns:
    """Return the runs whose models and GPUs can be looked up.

    A run states its number format, or the catalogue has the release: the end of an unknown name is no measurement.

    Args:
        runs: Runs with their measured values.
        resolve: Function that looks up a run's model and GPU.

    Raises:
        RunsError: A run was read without its measured columns.
    """
    models: dict[str, ModelSpec] = {}
    usable: list[tuple[Run, str, str]] = []
    errors: list[str] = []
    assumed: Counter[str] = Counter()
    for run in runs:
        found = resolve(run)
        if found.model is None or found.gpu is None:
            errors.append(f"run {run.run_id}: {found.error}")
        elif found.what_if and run.weight_precision is None:
            errors.append(
                f"run {run.run_id}: model_id={run.model_id!r} is not in the catalogue, and only its name suggests "
                f"{found.what_if}; state weight_precision"
            )
        elif relative_of(found.gpu) is None:
            errors.append(f"run {run.run_id}: gpu_model {run.gpu_model!r} has an architecture without constants")
        else:
            name = f"{run.model_id} {weight_precision(found.model)}"
            models[name] = found.model
            if found.what_if:
                assumed[f"{run.model_id} in {found.what_if}"] += 1
            usable.append((run, name, found.gpu.name))
    arrays = arrays_of([run for run, *_ in usable], [name for _, name, _ in usable], [gpu for *_, gpu in usable])
    return ResolvedRuns(arrays, models, tuple(errors), dict(sorted(assumed.items())))


def arrays_of(
    runs: Sequence[Run], model_ids: Sequence[str] | None = None, gpu_names: Sequence[str] | None = None
) -> Runs:
    """Return runs as arrays.

    Args:
        runs: Runs that were read with their measured columns.
        model_ids: Model id of each run, if it differs from the run's own.
        gpu_names: Short GPU name of each run, if it differs from the run's own.

    Raises:
        RunsError: A run was read without its measured columns.
    """
    measured = [run.measured for run in runs]
    if None in measured:
        raise RunsError("runs were read without their measured columns")

    def text(values: Sequence[str]) -> npt.NDArray[np.str_]:
        return np.array(values, dtype=np.str_)

    def whole(name: str) -> IntArray:
        return np.array([getattr(run, name) for run in runs], dtype=np.int64)

    def real(name: str) -> FloatArray:
        return np.array([getattr(run, name) for run in runs], dtype=np.float64)

    def truth(name: str) -> FloatArray:
        found = [getattr(values, name) for values in measured]
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    return Runs(
        run_id=text([run.run_id for run in runs]),
        task=text([run.task for run in runs]),
        model_id=text(model_ids or [run.model_id for run in runs]),
        gpu_model=text(gpu_names or [run.gpu_model for run in runs]),
        engine=text([run.engine or "" for run in runs]),
        num_gpus=whole("num_gpus"),
        tensor_parallel=whole("tensor_parallel"),
        expert_parallel=whole("expert_parallel"),
        data_parallel=whole("data_parallel"),
        max_num_seqs=whole("max_num_seqs"),
        concurrency=real("concurrency"),
        input_tokens_assumed=real("input_tokens"),
        output_tokens=real("output_tokens"),
        median_itl_ms=truth("median_itl_ms"),
        p99_itl_ms=truth("p99_itl_ms"),
        median_tpot_ms=truth("time_per_output_token_ms"),
        output_tokens_per_second=truth("output_tokens_per_second"),
        power_watts=truth("power_watts"),
        host_bound=np.array([run.host_bound for run in runs], dtype=np.bool_),
        waiting_counts=np.array([run.counts_waiting for run in runs], dtype=np.bool_),
        decodes_only=np.array([run.role == "decode" for run in runs], dtype=np.bool_),
    )
