"""The report of ``energylens accuracy`` about one set of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

import numpy as np

from energylens.accuracy.after_windows import AfterWindows, after_windows
from energylens.accuracy.coverage import Coverage, coverage_table
from energylens.accuracy.decisions import Decisions, Pareto, by_means, choice_sets, decide, pareto
from energylens.accuracy.errors import Errors, clean, error_table
from energylens.accuracy.evaluate import Predicted, measured_arrays
from energylens.accuracy.losses import AtWidth, Losses, at_widths, losses
from energylens.accuracy.same_load import SameLoad, same_load
from energylens.records import dataclass
from energylens.runs import Run


@dataclass(frozen=True)
class Report:
    """Errors, coverage and decisions; of clean runs (not host-bound, not data parallel) unless stated otherwise."""

    basis: str
    """One sentence: the runs to which the predictions were fitted."""
    coefficients: str
    """Version of the coefficients; for refits, of the shipped coefficients."""
    in_sample: bool
    """Whether the judged runs are among those to which the coefficients were fitted."""
    errors: tuple[Errors, ...]
    coverage: tuple[Coverage, ...]
    decisions: tuple[Decisions, ...]
    by_means: Decisions
    """Decisions over all bounds of a planner that uses only mean predictions."""
    pareto: Pareto
    same_load: tuple[SameLoad, ...]
    losses: Losses
    """Causes of the energy above the best choice."""
    at_widths: tuple[AtWidth, ...]
    """Decisions over all bounds with wider and narrower latency intervals."""
    unpredicted: Mapping[str, str]
    """Run id -> why there is no prediction."""
    after_windows: tuple[AfterWindows, ...] = ()


def report(
    runs: Sequence[Run],
    predicted: Predicted,
    node_gpus: Mapping[str, int],
    *,
    basis: str,
    coefficients: str,
    in_sample: bool,
    windows: Sequence[int] = (),
) -> Report:
    """Judge predictions of runs that were read with their measured columns.

    Args:
        runs: The n runs.
        predicted: Predictions of the same n runs.
        node_gpus: GPUs of a whole node by the runs' ``gpu_model``.
        basis: The runs to which the predictions were fitted, as one sentence.
        coefficients: Version of the coefficients.
        in_sample: Whether the coefficients were fitted to these runs.
        windows: Numbers of windows that each site measures first in a replay; none for no replay.
    """
    measured = measured_arrays(runs)
    good = clean(runs)
    # Choosing between layouts needs runs with both energy and latency.
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
        losses=losses(sets),
        at_widths=at_widths(sets),
        after_windows=tuple(
            part for count in windows for part in after_windows(runs, good, measured, predicted, count)
        ),
        unpredicted={run.run_id: text for run, text in zip(runs, predicted.error, strict=True) if text},
    )


def as_object(judged: Report) -> dict[str, Any]:
    """Return the report as plain JSON values; unknown figures (NaN) become null."""
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
