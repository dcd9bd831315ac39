"""Measured points as rows of a table of runs, written one by one, so that an interrupted measurement can resume."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from energylens.benchmark.points import Point
from energylens.benchmark.statistics import WindowLatencies
from energylens.records import dataclass

COLUMNS = (
    "run_id", "source", "task", "model_id", "weight_precision", "gpu_model", "num_gpus", "tensor_parallel",
    "expert_parallel", "data_parallel", "max_num_seqs", "concurrency", "concurrency_counts", "requests_per_second",
    "input_tokens_assumed", "output_tokens", "engine", "host_bound", "median_itl_ms", "p90_itl_ms", "p95_itl_ms",
    "p99_itl_ms", "mean_tpot_ms", "median_ttft_ms", "p95_ttft_ms", "p99_ttft_ms", "first_tokens",
    "output_tokens_per_second", "power_watts", "joules_per_output_token", "window_seconds",
)  # fmt: skip


class RunRecordError(ValueError):
    """A measurement cannot be resumed with a table; the message is one line."""


@dataclass(frozen=True)
class Subject:
    """The subject of a measurement."""

    run: str
    """Name of the measurement, the prefix of every run_id."""
    source: str
    model: str
    weight_precision: str
    gpu: str
    gpus: int
    tensor_parallel: int
    expert_parallel: int
    data_parallel: int
    max_num_seqs: int
    """Over all data-parallel ranks."""
    engine: str
    """Engine, such as ``vllm==0.26.0``."""


@dataclass(frozen=True)
class BenchmarkedPoint:
    """One point as it was measured."""

    point: Point
    latencies: WindowLatencies
    running: float | None
    """Mean running sequences as counted by the engine."""
    power_watts: float
    output_tokens_per_second: float
    seconds: float

    @property
    def joules_per_output_token(self) -> float:
        """Energy per output token, J."""
        return self.power_watts / self.output_tokens_per_second


def run_id(subject: Subject, point: Point) -> str:
    """Return the name of a row: equal for the same point of the same measurement."""
    return f"{subject.run}-{point.name}"


def row_of(subject: Subject, found: BenchmarkedPoint, before: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the row of a measured point.

    Args:
        subject: The subject of the measurement.
        found: The measured point.
        before: Earlier rows of the table, to decide whether the run is host-bound.
    """
    point, seen = found.point, found.latencies
    closed = point.kind == "closed"
    running = found.running if found.running is not None else 0.0
    figures: dict[str, object] = {
        "run_id": run_id(subject, point),
        "source": subject.source,
        "task": point.task,
        "model_id": subject.model,
        "weight_precision": subject.weight_precision,
        "gpu_model": subject.gpu,
        "num_gpus": subject.gpus,
        "tensor_parallel": subject.tensor_parallel,
        "expert_parallel": subject.expert_parallel,
        "data_parallel": subject.data_parallel,
        "max_num_seqs": subject.max_num_seqs,
        "concurrency": point.level if closed else running,
        "concurrency_counts": "in-flight" if closed else "running",
        "requests_per_second": "" if closed else seen.requests / found.seconds,
        "input_tokens_assumed": point.input_tokens,
        "output_tokens": point.output_tokens,
        "engine": subject.engine,
        "host_bound": int(is_host_bound(found, before)),
        "median_itl_ms": seen.itl_ms.get(50, ""),
        "p90_itl_ms": seen.itl_ms.get(90, ""),
        "p95_itl_ms": seen.itl_ms.get(95, ""),
        "p99_itl_ms": seen.itl_ms.get(99, ""),
        "mean_tpot_ms": "" if seen.mean_tpot_ms is None else seen.mean_tpot_ms,
        "median_ttft_ms": seen.ttft_ms.get(50, ""),
        "p95_ttft_ms": seen.ttft_ms.get(95, ""),
        "p99_ttft_ms": seen.ttft_ms.get(99, ""),
        "first_tokens": seen.first_tokens,
        "output_tokens_per_second": found.output_tokens_per_second,
        "power_watts": found.power_watts,
        "joules_per_output_token": found.joules_per_output_token,
        "window_seconds": found.seconds,
    }
    return {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in figures.items()}


def is_host_bound(found: BenchmarkedPoint, before: Sequence[Mapping[str, str]]) -> bool:
    """Return whether the host limits throughput: the GPUs draw less than under a smaller load of the same shape."""
    if found.point.kind != "closed":
        return False
    smaller = [
        float(row["power_watts"])
        for row in before
        if row.get("task") == found.point.task and float(row["concurrency"]) < found.point.level
    ]
    return bool(smaller) and found.power_watts < 0.97 * max(smaller)


def read_rows(path: Path, subject: Subject) -> list[dict[str, str]]:
    """Return the rows of a table with which a measurement resumes; none if there is no file.

    Raises:
        RunRecordError: The file is another table, or its rows belong to another subject.
    """
    if not path.exists():
        return []
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunRecordError(f"{path}: cannot be read: {error}") from error
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise RunRecordError(f"{path}: is another kind of table; name a new file, or one that this command wrote")
    own = {
        "model_id": subject.model, "gpu_model": subject.gpu, "num_gpus": str(subject.gpus),
        "tensor_parallel": str(subject.tensor_parallel), "max_num_seqs": str(subject.max_num_seqs),
        "engine": subject.engine,
    }  # fmt: skip
    for row in rows:
        if not row["run_id"].startswith(f"{subject.run}-"):
            continue
        for name, value in own.items():
            if row[name] != value:
                raise RunRecordError(
                    f"{path}: run {row['run_id']} has {name}={row[name]!r}, this one {value!r}; use another --name"
                )
    return rows


def append(path: Path, row: Mapping[str, str]) -> None:
    """Append a row to a table and flush it to disk.

    Raises:
        OSError: It cannot be written.
    """
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    if not path.exists() or not path.stat().st_size:
        writer.writeheader()
    writer.writerow(row)
    with path.open("a+b") as file:
        if file.tell():
            # An editor may have left the last line without its end.
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(buffer.getvalue().encode())
        file.flush()
        os.fsync(file.fileno())
