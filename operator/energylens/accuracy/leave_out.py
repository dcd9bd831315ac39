"""Predictions of runs by coefficients that were fitted without them and without their like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

from energylens.accuracy.evaluate import Chooser, Predicted, Resolver, merge, predict_runs
from energylens.runs import Run

LEAVE_OUT = ("model", "layout", "gpu-count", "gpu-type", "engine", "task", "run")
"""What is left out together: models of one group; a fifth of the layouts, each with all of its runs; a number of GPUs
of one type; a GPU type; an engine as the runs name it; a task; a fifth of the runs whatever they are, so that nearly
every layout is still known from other batches."""
FIFTHS = 5

Fit = Callable[[Sequence[Run]], Chooser]
"""From runs to the predictor of an engine, deterministic. Raises ValueError when the runs are too few."""
Progress = Callable[[int, int, "Fold"], None]
"""Called before each refit with its number from 1, the number of refits, and the fold."""


@dataclass(frozen=True)
class Fold:
    """Runs that are left out together."""

    name: str
    held_out: tuple[int, ...]
    kept: tuple[int, ...]


class LeaveOutError(ValueError):
    """Nothing can be left out, such as a GPU type where there is only one."""


def folds(runs: Sequence[Run], by: str, groups: Mapping[str, str]) -> list[Fold]:
    """Return the folds in the order of their names.

    Args:
        runs: all runs.
        by: one of :data:`LEAVE_OUT`.
        groups: the group's name of each model id; an id that is absent is a group of its own.

    Raises:
        LeaveOutError: all runs are in one fold.
    """
    key: Callable[[Run], str] = {
        "model": lambda run: groups.get(run.model_id, run.model_id),
        "layout": lambda run: f"fifth {crc32(_layout(run).encode()) % FIFTHS + 1} of the layouts",
        "engine": lambda run: run.engine or "no engine",
        "gpu-count": lambda run: f"{run.gpu_model} x {run.num_gpus}",
        "gpu-type": lambda run: run.gpu_model,
        "task": lambda run: run.task,
        "run": lambda run: f"fifth {crc32(run.run_id.encode()) % FIFTHS + 1}",
    }[by]
    names = [key(run) for run in runs]
    distinct = sorted(set(names))
    if len(distinct) < 2:
        raise LeaveOutError(f"--leave-out {by}: all runs are of one, {', '.join(distinct)}; at least 2 are needed")
    return [
        Fold(
            name,
            held_out=tuple(i for i, other in enumerate(names) if other == name),
            kept=tuple(i for i, other in enumerate(names) if other != name),
        )
        for name in distinct
    ]


def _layout(run: Run) -> str:
    served = (run.model_id, run.weight_precision, run.gpu_model, run.engine)
    return "/".join(map(str, (*served, run.tensor_parallel, run.expert_parallel, run.data_parallel)))


def predict_left_out(
    runs: Sequence[Run], parts: Sequence[Fold], fit: Fit, resolve: Resolver, progress: Progress = lambda *_: None
) -> Predicted:
    """Refit for each fold without it and predict it; each run is predicted once."""
    found: list[tuple[Sequence[int], Predicted]] = []
    for number, fold in enumerate(parts, start=1):
        progress(number, len(parts), fold)
        predictor_for = fit([runs[i] for i in fold.kept])
        found.append((fold.held_out, predict_runs([runs[i] for i in fold.held_out], resolve, predictor_for)))
    return merge(len(runs), found)
