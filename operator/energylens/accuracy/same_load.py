"""Energy saved by layouts that predictions choose, against all GPUs of the node at equal load and latency bound.

A *case* is one (model, precision, GPU type, engine, task, requests in flight) and one bound, with every layout that was
measured at that load. The baseline is the usual choice without a planner: all GPUs of the node. At equal load a larger
batch gains nothing, so that only the choice of the layout counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from energylens.accuracy.decisions import ITL_BOUNDS_MS, take
from energylens.accuracy.evaluate import Predicted
from energylens.planner.search.ranking import breach_chance
from energylens.predictor.fitted.profiles import parse_engine
from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass
from energylens.runs import Run

WHOLE_NODE, LOWEST_LATENCY = "all GPUs of the node", "layout of lowest latency"


@dataclass(frozen=True)
class SameLoad:
    """Energy saved against one baseline; shares in percent, NaN without cases."""

    rival: str
    cases: int
    sets: int
    best_percent: float
    """Mean saving of the layout of least measured energy that meets the bound."""
    kept_percent: float
    """Mean saving of the predictor's picks; a case without a pick, or whose pick breaks the bound, saves nothing."""
    broken: int
    without_pick: int


def same_load(
    runs: Sequence[Run],
    mask: BoolArray,
    measured: Mapping[str, FloatArray],
    predicted: Predicted,
    node_gpus: Mapping[str, int],
) -> tuple[SameLoad, ...]:
    """Return the savings against each baseline.

    Args:
        runs: The n runs.
        mask: Which runs count, shape (n,).
        measured: Measured values by quantity, shape (n,).
        predicted: Predictions of the same n runs.
        node_gpus: GPUs of a whole node by the runs' ``gpu_model``.
    """
    rows: dict[str, list[tuple[float, float, str]]] = {WHOLE_NODE: [], LOWEST_LATENCY: []}
    sets: dict[str, set[tuple[object, ...]]] = {name: set() for name in rows}
    for key, members in sorted(_at_one_load(runs, mask).items(), key=lambda item: str(item[0])):
        index = np.array(members)
        if len(index) < 2:
            continue
        latency = "itl" if np.isfinite(measured["itl"][index]).any() else "tpot"
        times, energy = measured[latency][index], measured["energy"][index]
        gpus = np.array([runs[i].num_gpus for i in members])
        whole = np.flatnonzero(gpus == node_gpus[runs[members[0]].gpu_model])
        for bound in ITL_BOUNDS_MS:
            holds = times <= bound
            picked = _pick(predicted, latency, index, bound)
            rivals = {WHOLE_NODE: whole, LOWEST_LATENCY: np.array([int(np.argmin(times))])}
            for name, candidates in rivals.items():
                able = candidates[holds[candidates]]
                if able.size == 0 or np.unique(gpus).size < 2:
                    continue
                # Among several layouts on all GPUs, the baseline is the fastest.
                rival = energy[able[np.argmin(times[able])]]
                best = 1.0 - energy[holds].min() / rival
                outcome = "none" if picked is None else "broken" if not holds[picked] else "holds"
                kept = 1.0 - energy[picked] / rival if picked is not None and holds[picked] else 0.0
                rows[name].append((best, kept, outcome))
                sets[name].add(key[:-1])
    return tuple(_summary(name, found, len(sets[name])) for name, found in rows.items())


def _at_one_load(runs: Sequence[Run], mask: BoolArray) -> dict[tuple[object, ...], list[int]]:
    """Return the runs of ``mask`` grouped so that the runs of a group differ only in their layouts."""
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, run in enumerate(runs):
        if mask[i]:
            engine = parse_engine(run.engine or "vllm")[0]
            load = run.task, round(run.concurrency)
            groups[run.model_id, run.weight_precision, run.gpu_model, engine, *load].append(i)
    return groups


def _summary(rival: str, found: Sequence[tuple[float, float, str]], sets: int) -> SameLoad:
    """Return the savings over cases: of the best layouts and of the picks, and how many picks broke the bound."""
    return SameLoad(
        rival=rival,
        cases=len(found),
        sets=sets,
        best_percent=100.0 * float(np.mean([best for best, _, _ in found])) if found else float("nan"),
        kept_percent=100.0 * float(np.mean([kept for _, kept, _ in found])) if found else float("nan"),
        broken=sum(outcome == "broken" for _, _, outcome in found),
        without_pick=sum(outcome == "none" for _, _, outcome in found),
    )


def _pick(predicted: Predicted, latency: str, index: IntArray, bound: float) -> int | None:
    """Return the planner's choice among some runs; None if every run may break the bound."""
    chance = breach_chance(bound, predicted.values[latency][index], predicted.intervals[latency].high[index])
    return take(predicted.values["energy"][index], predicted.risk.take(index), predicted.nearest[index], chance)
