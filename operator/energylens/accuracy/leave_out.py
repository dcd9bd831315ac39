"""Predictions of runs with coefficients that were fitted without them and without similar runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from zlib import crc32

from energylens.accuracy.evaluate import Chooser, Predicted, Resolver, merge, predict_runs
from energylens.records import dataclass
from energylens.runs import Run

LEAVE_OUT = ("model", "layout", "gpu-count", "gpu-type", "engine", "task", "run")
"""Ways to leave out runs together: the models of one group; a fifth of the layouts, each with all of its runs; a
number of GPUs of one type; a GPU type; an engine, as the runs name it; a task; or a fifth of all runs, so that nearly
every layout remains known from other batch sizes."""
FIFTHS = 5

Fit = Callable[[Sequence[Run]], Chooser]
"""Function from runs to a function from an engine to its predictor, deterministic. Raises ValueError if there are too
few runs."""
Progress = Callable[[int, int, "Fold"], None]
"""Function that is called before each refit with its number from 1, the number of refits, and the fold."""


@dataclass(frozen=True)
class Fold:
    """Runs that are left out together."""

    name: str
    held_out: tuple[int, ...]
    kept: tuple[int, ...]


class LeaveOutError(ValueError):
    """Nothing can be left out, for example a GPU type if there is only one."""


def folds(runs: Sequence[Run], by: str, groups: Mapping[str, str]) -> list[Fold]:
    """Return the folds sorted by name.

    Args:
        runs: All runs.
        by: One of :data:`LEAVE_OUT`.
        groups: Group name by model id; an absent id forms its own group.

    Raises:
        LeaveOutError: All runs are in one fold.
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
        raise LeaveOutError(
            f"--leave-out {by}: all runs belong to {', '.join(distinct)}; at least 2 different values are needed"
        )
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
    """Refit without each fold and predict the fold, so that each run is predicted once."""
    found: list[tuple[Sequence[int], Predicted]] = []
    for number, fold in enumerate(parts, start=1):
        progress(number, len(parts), fold)
        predictor_for = fit([runs[i] for i in fold.kept])
        found.append((fold.held_out, predict_runs([runs[i] for i in fold.held_out], resolve, predictor_for)))
    return merge(len(runs), found)
