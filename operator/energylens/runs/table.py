"""Reading runs from CSV: a bad row costs only itself, a bad file is one clear error."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from energylens.records import dataclass
from energylens.runs.fields import FieldError, choice, count, positive, required_text, short, text
from energylens.runs.latency_table import is_latency_table, latency_run
from energylens.runs.types import CONCURRENCY_COUNTS, ROLES, MeasuredRun, RowError, Run

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
OPTIONAL_COLUMNS = ("concurrency_counts", "role")
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
    "mean_tpot_ms",
    "tpot_ms",
    "mean_ttft_ms",
    "ttft_ms",
)
_REQUIRED = ("run_id", "model_id", "gpu_model", "num_gpus", "max_num_seqs", "input_tokens_assumed", "output_tokens")
_PRECISIONS = ("bfloat16", "fp8", "mxfp4", "nvfp4", "int8", "int4")
_SIXTEEN_BITS = ("bf16", "fp16", "float16")
"""Names that count as ``bfloat16``: either format has the same bytes and the same arithmetic rate."""


class RunsFileError(ValueError):
    """The file is no table of runs; the message is one line for the user."""


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
        measured: read the measured columns; when False they are ignored, whether present or not.

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
    if is_latency_table(header):
        return RunTable(tuple(_rows(lines, header, lambda row: latency_run(row, measured))))
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise RunsFileError(f"{source}: column {missing[0]!r} is missing; needed are {', '.join(_REQUIRED)}")
    if measured and not set(MEASURED_COLUMNS) & set(header):
        raise RunsFileError(f"{source}: no measured column; at least one is needed of {', '.join(MEASURED_COLUMNS)}")
    return RunTable(tuple(_rows(lines, header, lambda row: _run(row, measured))))


def _rows(
    lines: Sequence[str], header: tuple[str, ...], read: Callable[[Mapping[str, str]], Run]
) -> Iterator[Run | RowError]:
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            yield _row(number, line, header, read)


def _header(line: str, source: str) -> tuple[str, ...]:
    if not line.strip():
        raise RunsFileError(f"{source}: not a CSV table: there is no header line")
    try:
        header = tuple(name.strip() for name in next(csv.reader([line], strict=True)))
    except csv.Error as error:
        raise RunsFileError(f"{source}: not a CSV table: {error}") from error
    for name in (*INPUT_COLUMNS, *OPTIONAL_COLUMNS, *MEASURED_COLUMNS, "host_bound"):
        if header.count(name) > 1:
            raise RunsFileError(f"{source}: column {name!r} appears {header.count(name)} times; once is allowed")
    return header


def _row(number: int, line: str, header: tuple[str, ...], read: Callable[[Mapping[str, str]], Run]) -> Run | RowError:
    try:
        values = next(csv.reader([line], strict=True))
    except csv.Error as error:
        return RowError(number, "", f"line {number} is not CSV: {error}")
    row = dict(zip(header, values, strict=False))
    run_id = row.get("run_id", "").strip()
    if len(values) > len(header):
        return RowError(number, run_id, f"line {number} has {len(values)} fields; the header has {len(header)}")
    try:
        return read(row)
    except FieldError as error:
        return RowError(number, run_id, str(error))


def _run(row: Mapping[str, str], measured: bool) -> Run:
    gpus = count(row, "num_gpus", None)
    data_parallel = count(row, "data_parallel", 1)
    if gpus % data_parallel:
        raise FieldError(f"data_parallel={data_parallel} must divide num_gpus={gpus}")
    tensor_parallel = count(row, "tensor_parallel", gpus // data_parallel)
    if tensor_parallel * data_parallel != gpus:
        raise FieldError(
            f"tensor_parallel={tensor_parallel} x data_parallel={data_parallel} must be num_gpus={gpus}; "
            "runs have no pipeline parallelism"
        )
    batch = count(row, "max_num_seqs", None)
    return Run(
        run_id=required_text(row, "run_id"),
        task=text(row, "task") or "",
        model_id=required_text(row, "model_id"),
        weight_precision=_precision(row),
        gpu_model=required_text(row, "gpu_model"),
        num_gpus=gpus,
        tensor_parallel=tensor_parallel,
        expert_parallel=count(row, "expert_parallel", 1),
        data_parallel=data_parallel,
        max_num_seqs=batch,
        concurrency=positive(row, "concurrency", float(batch)),
        input_tokens=positive(row, "input_tokens_assumed", None),
        output_tokens=positive(row, "output_tokens", None),
        engine=text(row, "engine"),
        host_bound=measured and (text(row, "host_bound") == "1"),
        measured=_measured(row) if measured else None,
        concurrency_counts=choice(row, "concurrency_counts", CONCURRENCY_COUNTS),
        role="decode" if choice(row, "role", ROLES) == "decode" else "aggregated",
    )


def _measured(row: Mapping[str, str]) -> MeasuredRun:
    """Return the measured values of a row; of power, throughput and energy per token a third follows from two."""
    found = {name: positive(row, name, None) for name in MEASURED_COLUMNS if text(row, name) is not None}
    if not found:
        raise FieldError(f"nothing was measured: {', '.join(MEASURED_COLUMNS)} are all empty")
    power, rate, energy = (
        found.get(name) for name in ("power_watts", "output_tokens_per_second", "joules_per_output_token")
    )
    if energy is None and power is not None and rate is not None:
        found["joules_per_output_token"] = power / rate
    elif power is None and energy is not None and rate is not None:
        found["power_watts"] = energy * rate
    elif rate is None and energy is not None and power is not None:
        found["output_tokens_per_second"] = power / energy
    return MeasuredRun(**found)


def _precision(row: Mapping[str, str]) -> str | None:
    found = text(row, "weight_precision")
    if found is None:
        return None
    name = "bfloat16" if found.lower() in _SIXTEEN_BITS else found.lower()
    if name not in _PRECISIONS:
        raise FieldError(f"weight_precision={short(found)} is not one of {', '.join(_PRECISIONS)}")
    return name
