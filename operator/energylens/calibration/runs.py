"""Measured serving runs as arrays."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from energylens.predictor.types import BoolArray, FloatArray, IntArray, Layouts, Workload
from energylens.predictor.workloads import workload_of

TEXT = ("run_id", "task", "model_id", "weight_precision", "gpu_model", "engine")
WHOLE = ("num_gpus", "tensor_parallel", "expert_parallel", "data_parallel", "max_num_seqs")
REAL = (
    "concurrency", "input_tokens_assumed", "output_tokens", "median_itl_ms", "p99_itl_ms", "output_tokens_per_second",
    "power_watts",
)  # fmt: skip


class RunsError(ValueError):
    """A file of runs cannot be used; the message names the file, the line and the column."""


@dataclass(frozen=True)
class Runs:
    """One element per run, arrays of shape (n,); units in the names."""

    run_id: npt.NDArray[np.str_]
    task: npt.NDArray[np.str_]
    model_id: npt.NDArray[np.str_]
    weight_precision: npt.NDArray[np.str_]
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
    output_tokens_per_second: FloatArray
    power_watts: FloatArray
    host_bound: BoolArray

    def __len__(self) -> int:
        return int(self.run_id.shape[0])

    def take(self, index: npt.NDArray[Any]) -> Runs:
        """Return the runs that a mask or an index array selects."""
        return Runs(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @property
    def clean(self) -> BoolArray:
        """Runs that say something about the GPU: not limited by the host, one data-parallel rank."""
        return np.asarray(~self.host_bound & (self.data_parallel == 1))

    def workload(self, index: int) -> Workload:
        """Return the mean request of one run."""
        tokens = float(self.input_tokens_assumed[index]), float(self.output_tokens[index])
        return workload_of(str(self.task[index]), *tokens, float(self.max_num_seqs[index]))

    @property
    def layouts(self) -> Layouts:
        """The layout of each run."""
        stages = self.num_gpus // (self.tensor_parallel * self.data_parallel)
        no_cap = np.full(len(self), np.nan)
        return Layouts(
            self.tensor_parallel, stages, self.expert_parallel, self.data_parallel, self.max_num_seqs, no_cap
        )


def read_runs(path: Path) -> Runs:
    """Return the runs of a CSV file with the columns of ``serving-runs.csv``.

    Raises:
        RunsError: The file cannot be read, a column is missing, or a value is out of range.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return runs_from_rows(csv.DictReader(file), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RunsError(f"{path}: {error}") from error


def runs_from_rows(rows: Iterable[Mapping[str, str]], source: str) -> Runs:
    """Return runs from rows of text.

    Raises:
        RunsError: A column is missing, or a value is out of range.
    """
    columns: dict[str, list[Any]] = {name: [] for name in (*TEXT, *WHOLE, *REAL, "host_bound")}
    for line, row in enumerate(rows, start=2):
        for name in columns:
            if row.get(name) is None:
                raise RunsError(f"{source}: line {line}: column {name!r} is missing")
        for name in TEXT:
            columns[name].append(row[name].strip())
        for name in WHOLE:
            columns[name].append(int(_number(row, name, source, line)))
        for name in REAL:
            columns[name].append(_number(row, name, source, line))
        columns["host_bound"].append(row["host_bound"].strip() == "1")
    if not columns["run_id"]:
        raise RunsError(f"{source}: no runs")
    arrays: dict[str, Any] = {name: np.array(columns[name], dtype=np.str_) for name in TEXT}
    arrays |= {name: np.array(columns[name], dtype=np.int64) for name in WHOLE}
    arrays |= {name: np.array(columns[name], dtype=np.float64) for name in REAL}
    return Runs(**arrays, host_bound=np.array(columns["host_bound"], dtype=np.bool_))


def _number(row: Mapping[str, str], name: str, source: str, line: int) -> float:
    try:
        value = float(row[name])
    except ValueError:
        value = float("nan")
    if not np.isfinite(value) or value <= 0:
        raise RunsError(f"{source}: line {line}: {name} is {row[name]!r}; a positive number is needed")
    return value
