"""Percentage errors of predictions, grouped by common properties of the runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from energylens.accuracy.evaluate import QUANTITIES, Predicted
from energylens.predictor.types import BoolArray, FloatArray
from energylens.records import dataclass
from energylens.runs import Run

_BATCH_RANGES = (16, 64, 256, 1024)
BY: dict[str, Callable[[Run], str]] = {
    "GPU": lambda run: run.gpu_model,
    "GPU count": lambda run: f"{run.gpu_model} x {run.num_gpus}",
    "layout": lambda run: layout_name(run),
    "model": lambda run: run.model_id,
    "task": lambda run: run.task or "(none)",
    "batch": lambda run: batch_range(run),
    "precision": lambda run: run.weight_precision or "(as published)",
    "engine": lambda run: run.engine or "(newest vLLM)",
}
"""Ways to split a table of errors: each maps a run to the name of its part."""


@dataclass(frozen=True)
class Errors:
    """Absolute percentage errors of the runs of one part, in percent by quantity; NaN if nothing was predicted."""

    by: str
    """A key of :data:`BY`, or ``rows`` for scopes of the whole table."""
    name: str
    runs: int
    unpredicted: int
    """Runs without a prediction, which the errors exclude."""
    mean: Mapping[str, float]
    """Mean absolute percentage error."""
    median: Mapping[str, float]
    bias: Mapping[str, float]
    """Bias: exp(mean of ln(predicted / measured)) - 1, above 0 if predictions are too high."""
    with_host_bound: bool = False
    """Whether host-bound runs are included."""


def layout_name(run: Run) -> str:
    """Return a name such as ``TP4 EP4``, with only the dimensions above 1."""
    parts = (("TP", run.tensor_parallel), ("EP", run.expert_parallel), ("DP", run.data_parallel))
    return " ".join(f"{name}{size}" for name, size in parts if size > 1) or "1 GPU"


def batch_range(run: Run) -> str:
    """Return the range of ``max_num_seqs`` that contains the run, named so that names sort by size."""
    below = 1
    for most in _BATCH_RANGES:
        if run.max_num_seqs <= most:
            return f"{below:>4} to {most}"
        below = most + 1
    return f"above {_BATCH_RANGES[-1]}"


def clean(runs: Sequence[Run]) -> BoolArray:
    """Return the mask, shape (n,), of runs that are neither host-bound nor data parallel.

    Data-parallel runs with a measured time per output token are included: that figure reflects throughput, unlike a
    median ITL.
    """
    return np.array([not run.host_bound and judges_ranks(run) for run in runs], dtype=bool)


def judges_ranks(run: Run) -> bool:
    """Return whether a run has one data-parallel rank, or a latency that is meaningful for several."""
    return run.data_parallel == 1 or (run.measured is not None and run.measured.time_per_output_token_ms is not None)


def error_table(runs: Sequence[Run], measured: Mapping[str, FloatArray], predicted: Predicted) -> list[Errors]:
    """Return the errors of the whole table in several scopes, then of the clean runs split in each way of :data:`BY`.

    A part that has host-bound runs gets a second entry that includes them. ``measured`` maps quantities to arrays of
    shape (n,).
    """
    good = clean(runs)
    single = np.array([judges_ranks(run) for run in runs], dtype=bool)
    ranked = np.array([run.data_parallel > 1 for run in runs], dtype=bool)
    multi = np.array([run.num_gpus > 1 for run in runs], dtype=bool)
    scopes = {
        "clean": good,
        "clean, one GPU": good & ~multi,
        "clean, several GPUs": good & multi,
        "clean and host-bound": single,
        "host-bound only": single & ~good,
        "data parallel only": ranked,
    }
    table = [
        errors_of("rows", name, np.flatnonzero(mask), measured, predicted)
        for name, mask in scopes.items()
        if mask.any()
    ]
    for by, key in BY.items():
        names = np.array([key(run) for run in runs], dtype=object)
        for name in sorted(set(names[single])):
            part = single & (names == name)
            if (part & good).any():
                table.append(errors_of(by, name, np.flatnonzero(part & good), measured, predicted))
            if (part & ~good).any():
                everything = errors_of(by, name, np.flatnonzero(part), measured, predicted)
                table.append(replace(everything, with_host_bound=True))
    return table


def errors_of(
    by: str, name: str, index: np.typing.NDArray[np.intp], measured: Mapping[str, FloatArray], predicted: Predicted
) -> Errors:
    """Return the errors of the runs of ``index``, shape (m,)."""
    index_ok = index[predicted.ok[index]]
    mean, median, bias = {}, {}, {}
    for quantity in QUANTITIES:
        ratio = predicted.values[quantity][index_ok] / measured[quantity][index_ok]
        ratio = ratio[np.isfinite(ratio)]
        absolute = np.abs(ratio - 1)
        nothing = len(ratio) == 0
        mean[quantity] = np.nan if nothing else 100 * float(absolute.mean())
        median[quantity] = np.nan if nothing else 100 * float(np.median(absolute))
        bias[quantity] = np.nan if nothing else 100 * float(np.expm1(np.log(ratio).mean()))
    return Errors(by, name, len(index), len(index) - len(index_ok), mean, median, bias)
