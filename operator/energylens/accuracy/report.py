"""Everything that ``energylens accuracy`` says of one set of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from energylens.accuracy.after_windows import AfterWindows, after_windows
from energylens.accuracy.coverage import Coverage, coverage_table
from energylens.accuracy.decisions import Decisions, Pareto, by_means, choice_sets, decide, pareto
from energylens.accuracy.errors import Errors, clean, error_table
from energylens.accuracy.evaluate import Predicted, measured_arrays
from energylens.accuracy.same_load import SameLoad, same_load
from energylens.runs import Run


@dataclass(frozen=True)
class Report:
    """Errors, coverage and decisions; of clean runs (not host-bound, not data parallel) where nothing else is said."""

    basis: str
    """One sentence: what the predictions were fitted on."""
    coefficients: str
    """Version of the coefficients, or of those that are shipped with what was refitted."""
    in_sample: bool
    """Whether runs are judged that the coefficients were fitted on."""
    errors: tuple[Errors, ...]
    coverage: tuple[Coverage, ...]
    decisions: tuple[Decisions, ...]
    by_means: Decisions
    """Over all bounds, of a planner that knows only means."""
    pareto: Pareto
    same_load: tuple[SameLoad, ...]
    unpredicted: Mapping[str, str]
    """Run id -> why there is no prediction."""
    windows: int = 0
    """Windows that each site measured first, for ``after_windows``."""
    after_windows: tuple[AfterWindows, ...] = ()


def report(
    runs: Sequence[Run],
    predicted: Predicted,
    node_gpus: Mapping[str, int],
    *,
    basis: str,
    coefficients: str,
    in_sample: bool,
    windows: int = 0,
) -> Report:
    """Judge predictions of runs that were read with their measured columns.

    Args:
        runs: n runs.
        predicted: of the same n runs.
        node_gpus: GPUs of a whole node by the runs' ``gpu_model``.
        basis: what the predictions were fitted on, one sentence.
        coefficients: their version.
        in_sample: whether they were fitted on these runs.
        windows: replay sites that have measured so many windows; 0 for none.
    """
    measured = measured_arrays(runs)
    good = clean(runs)
    # Layouts can only be chosen among by runs that say both what they cost and how fast they are.
    latency = np.where(np.isfinite(measured["itl"]), measured["itl"], measured["tpot"])
    costed = good & np.isfinite(measured["energy"]) & np.isfinite(latency)
    sets = choice_sets(runs, costed, measured, predicted, node_gpus)
    return Report(
        basis=basis,
        coefficients=coefficients,
        in_sample=in_sample,
        errors=tuple(error_table(runs, measured, predicted)),
        coverage=tuple(coverage_table(good, measured, predicted)),
        decisions=tuple(decide(sets)),
        by_means=decide(by_means(sets))[-1],
        pareto=pareto(sets),
        same_load=same_load(runs, costed, measured, predicted, node_gpus),
        windows=windows,
        after_windows=tuple(after_windows(runs, good, measured, predicted, windows) if windows else ()),
        unpredicted={run.run_id: text for run, text in zip(runs, predicted.error, strict=True) if text},
    )


def as_object(judged: Report) -> dict[str, Any]:
    """Return the report as plain JSON values; what cannot be said (NaN) is null."""
    document: dict[str, Any] = _plain(asdict(judged))
    entries = [*document["decisions"], document["by_means"]]
    for entry, decisions in zip(entries, [*judged.decisions, judged.by_means], strict=True):
        entry["broken_percent"] = _plain(decisions.broken_percent)
        entry["without_pick_percent"] = _plain(decisions.without_pick_percent)
    document["pareto"]["recovered_percent"] = _plain(judged.pareto.recovered_percent)
    document["pareto"]["precision_percent"] = _plain(judged.pareto.precision_percent)
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 4) if isfinite(value) else None
    return value
