"""Reading runs from CSV: a bad row costs only itself, a bad file is one clear error."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

INPUT_COLUMNS = (
    "run_id",
    "task",
    "model_id",
    "weight_precision",
    "gpu_model",
    "num_gpus",
    "tensor_parallel",
    "expert_parallel",
    "data_parallel",
    "max_num_seqs",
    "concurrency",
    "input_tokens_assumed",
    "output_tokens",
    "engine",
)
MEASURED_COLUMNS = (
    "median_itl_ms",
    "p90_itl_ms",
    "p95_itl_ms",
    "p99_itl_ms",
    "median_tpot_ms",
    "median_ttft_ms",
    "output_tokens_per_second",
    "power_watts",
    "joules_per_output_token",
)
_REQUIRED = ("run_id", "model_id", "gpu_model", "num_gpus", "max_num_seqs", "input_tokens_assumed", "output_tokens")
_PRECISIONS = ("bfloat16", "fp8", "mxfp4", "nvfp4", "int8", "int4")
_SIXTEEN_BITS = ("bf16", "fp16", "float16")
"""Names that count as ``bfloat16``: either format has the same bytes and the same arithmetic rate."""
_LARGEST = 1e9
"""Far above any token count, batch, watt or millisecond of a run; keeps formulas from overflowing."""


class RunsFileError(ValueError):
    """The file is no table of runs; the message is one line for the user."""


@dataclass(frozen=True)
class Measured:
    """What was measured, None where it was not; power, throughput and energy of all GPUs together."""

    median_itl_ms: float | None = None
    """Time between two tokens of a request, median over tokens: most steps that prefill other requests are above it."""
    p90_itl_ms: float | None = None
    p95_itl_ms: float | None = None
    p99_itl_ms: float | None = None
    output_tokens_per_second: float | None = None
    power_watts: float | None = None
    joules_per_output_token: float | None = None
    median_tpot_ms: float | None = None
    """Time per output token of a request, last minus first token over the tokens between, median over requests: the
    prefill of other requests is part of it, so that it lies near the mean step and above the median ITL."""
    median_ttft_ms: float | None = None


@dataclass(frozen=True)
class Run:
    """One configuration, and what was measured of it when that was asked for and is there."""

    run_id: str
    task: str
    model_id: str
    weight_precision: str | None
    """None: as the catalogue says."""
    gpu_model: str
    num_gpus: int
    tensor_parallel: int
    expert_parallel: int
    data_parallel: int
    max_num_seqs: int
    concurrency: float
    """Over all data-parallel ranks: requests in flight of a benchmark's task, mean running sequences of any other;
    ``max_num_seqs`` where the table has none."""
    input_tokens: float
    output_tokens: float
    engine: str | None
    """Such as ``vllm==0.11.1``; None means the newest profile."""
    host_bound: bool = False
    measured: Measured | None = None


@dataclass(frozen=True)
class RowError:
    """A row that could not be read; ``message`` names the field, the value and what is allowed."""

    row: int
    """Line of the file, the header being line 1."""
    run_id: str
    message: str


@dataclass(frozen=True)
class RunTable:
    """The rows in the order of the file: each is a run or an error."""

    rows: tuple[Run | RowError, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The rows that could be read."""
        return tuple(row for row in self.rows if isinstance(row, Run))

    @property
    def errors(self) -> tuple[RowError, ...]:
        """The rows that could not."""
        return tuple(row for row in self.rows if isinstance(row, RowError))


def read_runs(path: Path, *, measured: bool) -> RunTable:
    """Read a CSV file of runs.

    Args:
        path: the file.
        measured: read the measured columns; when False they are not looked at, whether present or not.

    Raises:
        RunsFileError: the file cannot be read, is not CSV, or lacks a column that no row can do without.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RunsFileError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RunsFileError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from error
    return parse_runs(text, str(path), measured=measured)


def parse_runs(text: str, source: str, *, measured: bool) -> RunTable:
    """Parse the text of a CSV file of runs; see :func:`read_runs`."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    # One line is one row, so that a stray quote cannot swallow the rows after it; no field of a run spans lines.
    header = _header(next(iter(lines), ""), source)
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise RunsFileError(f"{source}: column {missing[0]!r} is missing; needed are {', '.join(_REQUIRED)}")
    if measured and not set(MEASURED_COLUMNS) & set(header):
        raise RunsFileError(f"{source}: no measured column; at least one is needed of {', '.join(MEASURED_COLUMNS)}")
    rows = (_row(number, line, header, measured) for number, line in enumerate(lines[1:], start=2) if line.strip())
    return RunTable(tuple(rows))


def _header(line: str, source: str) -> tuple[str, ...]:
    if not line.strip():
        raise RunsFileError(f"{source}: not a CSV table: there is no header line")
    try:
        header = tuple(name.strip() for name in next(csv.reader([line], strict=True)))
    except csv.Error as error:
        raise RunsFileError(f"{source}: not a CSV table: {error}") from error
    for name in (*INPUT_COLUMNS, *MEASURED_COLUMNS, "host_bound"):
        if header.count(name) > 1:
            raise RunsFileError(f"{source}: column {name!r} appears {header.count(name)} times; once is allowed")
    return header


class _FieldError(ValueError):
    pass


def _row(number: int, line: str, header: tuple[str, ...], measured: bool) -> Run | RowError:
    try:
        values = next(csv.reader([line], strict=True))
    except csv.Error as error:
        return RowError(number, "", f"line {number} is not CSV: {error}")
    row = dict(zip(header, values, strict=False))
    run_id = row.get("run_id", "").strip()
    if len(values) > len(header):
        return RowError(number, run_id, f"line {number} has {len(values)} fields; the header has {len(header)}")
    try:
        return _run(row, measured)
    except _FieldError as error:
        return RowError(number, run_id, str(error))


def _run(row: Mapping[str, str], measured: bool) -> Run:
    gpus = _count(row, "num_gpus", None)
    data_parallel = _count(row, "data_parallel", 1)
    if gpus % data_parallel:
        raise _FieldError(f"data_parallel={data_parallel} must divide num_gpus={gpus}")
    tensor_parallel = _count(row, "tensor_parallel", gpus // data_parallel)
    if tensor_parallel * data_parallel != gpus:
        raise _FieldError(
            f"tensor_parallel={tensor_parallel} x data_parallel={data_parallel} must be num_gpus={gpus}; "
            "runs have no pipeline parallelism"
        )
    batch = _count(row, "max_num_seqs", None)
    return Run(
        run_id=_required_text(row, "run_id"),
        task=_text(row, "task") or "",
        model_id=_required_text(row, "model_id"),
        weight_precision=_precision(row),
        gpu_model=_required_text(row, "gpu_model"),
        num_gpus=gpus,
        tensor_parallel=tensor_parallel,
        expert_parallel=_count(row, "expert_parallel", 1),
        data_parallel=data_parallel,
        max_num_seqs=batch,
        concurrency=_positive(row, "concurrency", float(batch)),
        input_tokens=_positive(row, "input_tokens_assumed", None),
        output_tokens=_positive(row, "output_tokens", None),
        engine=_text(row, "engine"),
        host_bound=measured and (_text(row, "host_bound") == "1"),
        measured=_measured(row) if measured else None,
    )


def _measured(row: Mapping[str, str]) -> Measured:
    """Return the measured values of a row; of power, throughput and energy per token a third follows from two."""
    found = {name: _positive(row, name, None) for name in MEASURED_COLUMNS if _text(row, name) is not None}
    if not found:
        raise _FieldError(f"nothing was measured: {', '.join(MEASURED_COLUMNS)} are all empty")
    power, rate, energy = (
        found.get(name) for name in ("power_watts", "output_tokens_per_second", "joules_per_output_token")
    )
    if energy is None and power is not None and rate is not None:
        found["joules_per_output_token"] = power / rate
    elif power is None and energy is not None and rate is not None:
        found["power_watts"] = energy * rate
    elif rate is None and energy is not None and power is not None:
        found["output_tokens_per_second"] = power / energy
    return Measured(**found)


def _text(row: Mapping[str, str], name: str) -> str | None:
    return (row.get(name) or "").strip() or None


def _required_text(row: Mapping[str, str], name: str) -> str:
    text = _text(row, name)
    if text is None:
        raise _FieldError(f"{name} is empty")
    return text


def _precision(row: Mapping[str, str]) -> str | None:
    text = _text(row, "weight_precision")
    if text is None:
        return None
    name = "bfloat16" if text.lower() in _SIXTEEN_BITS else text.lower()
    if name not in _PRECISIONS:
        raise _FieldError(f"weight_precision={_short(text)} is not one of {', '.join(_PRECISIONS)}")
    return name


def _positive(row: Mapping[str, str], name: str, default: float | None) -> float:
    text = _text(row, name)
    if text is None:
        if default is None:
            raise _FieldError(f"{name} is empty; a number above 0 is needed")
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= _LARGEST or "_" in text:
        raise _FieldError(f"{name}={_short(text)} is not a number above 0 and at most {_LARGEST:g}")
    return value


def _count(row: Mapping[str, str], name: str, default: int | None) -> int:
    text = _text(row, name)
    value = _positive(row, name, None if default is None else float(default))
    if value != int(value) or value > 1_000_000:
        raise _FieldError(f"{name}={_short(text)} is not a whole number from 1 to 1000000")
    return int(value)


def _short(text: str | None) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."
