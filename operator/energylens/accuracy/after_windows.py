"""Prediction errors at a site that has measured a few windows: a replay of measured runs.

A site is one model in one number format on one GPU type under one engine. Some of its runs serve as measured windows
and pass through the correction that the operator uses. Its other runs, of other layouts and loads, are then judged with
the factors that the operator's plans would use. This is repeated for several choices of windows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np

from energylens.accuracy.evaluate import QUANTITIES, Predicted
from energylens.predictor.fitted.features import load_kind
from energylens.predictor.fitted.lessons import Lessons
from energylens.predictor.fitted.recalibration import MeasuredPoint, Places, factors_at
from energylens.predictor.types import BoolArray, FloatArray
from energylens.records import dataclass
from energylens.runs import Run

DRAWS = 12
"""Choices of windows per site."""
ALIKE_LOADS = 2.0
"""Largest ratio of the numbers of sequences of two similar loads."""
NEAREST_WINDOW = (
    "window of its layout and load",
    "window of its layout",
    "window of its load",
    "no such window",
)
"""How near the nearest window is to a judged run, nearest first."""
_Site = tuple[str, str, str, str]
"""Model, number format, GPU type and engine."""
FACTOR = {"itl": "itl", "tpot": "itl", "ttft": "ttft", "power": "power", "energy": "energy"}
"""Quantity -> the correction factor that the operator applies to it."""


@dataclass(frozen=True)
class _Case:
    """One run of a site, judged after one choice of windows."""

    site: _Site
    run: int
    """Index of the run."""
    factors: Mapping[str, float]
    """Learned factor by quantity."""
    nearest: str
    """One of `NEAREST_WINDOW`."""


@dataclass(frozen=True)
class AfterWindows:
    """Errors of one part of the runs: mean absolute percentage by quantity, NaN if nothing was measured."""

    name: str
    windows: int
    """Windows that each site measured first."""
    sites: int
    runs: int
    """Runs that were judged at least once."""
    before: Mapping[str, float]
    """Errors over the same cases without any correction."""
    after: Mapping[str, float]
    median_after: Mapping[str, float]
    cases: int
    """Cases, since each run is judged after several choices of windows."""


def after_windows(
    runs: Sequence[Run], mask: BoolArray, measured: Mapping[str, FloatArray], predicted: Predicted, windows: int
) -> list[AfterWindows]:
    """Return the errors after ``windows`` windows: of all runs, by engine, by GPU type and by `NEAREST_WINDOW`.

    Args:
        runs: n runs.
        mask: Which runs take part, shape (n,).
        measured: Measured values by quantity, shape (n,).
        predicted: Predictions of the same n runs, without any correction.
        windows: Number of windows that each site measures first.
    """
    usable = mask & predicted.ok
    sites: dict[_Site, list[int]] = defaultdict(list)
    for i, run in enumerate(runs):
        if usable[i]:
            sites[run.model_id, run.weight_precision or "", run.gpu_model, run.engine or ""].append(i)
    cases: list[_Case] = []
    for site, members in sorted(sites.items()):
        if len(members) <= windows:
            continue
        random = np.random.default_rng(crc32("/".join(site).encode()))
        for _ in range(DRAWS):
            chosen = random.choice(len(members), windows, replace=False)
            told = [members[j] for j in chosen]
            rest = [i for i in members if i not in told]
            factors = _factors(runs, told, rest, measured, predicted)
            for place, i in enumerate(rest):
                own = {quantity: float(factors[FACTOR[quantity]][place]) for quantity in FACTOR}
                cases.append(_Case(site, i, own, _nearest_window(runs[i], [runs[j] for j in told])))
    parts: dict[str, list[_Case]] = {"all": cases}
    for name in sorted({case.site[-1] for case in cases}):
        parts[f"engine {name or '(newest vLLM)'}"] = [case for case in cases if case.site[-1] == name]
    for name in sorted({case.site[-2] for case in cases}):
        parts[f"GPU {name}"] = [case for case in cases if case.site[-2] == name]
    for name in NEAREST_WINDOW:
        parts[name] = [case for case in cases if case.nearest == name]
    return [_judged((name, windows), part, measured, predicted) for name, part in parts.items() if part]


def _nearest_window(run: Run, told: Sequence[Run]) -> str:
    """Return how near the nearest of the measured windows is to a run, one of `NEAREST_WINDOW`."""
    found = set()
    for window in told:
        near = max(run.concurrency, window.concurrency) <= ALIKE_LOADS * min(run.concurrency, window.concurrency)
        found.add(2 * (layout_of(window) != layout_of(run)) + (not near))
    return NEAREST_WINDOW[min(found)]


def layout_of(run: Run) -> str:
    """Return a run's layout in the form that corrections use."""
    return f"TP{run.tensor_parallel}-EP{run.expert_parallel}-DP{run.data_parallel}"


def _factors(
    runs: Sequence[Run],
    told: Sequence[int],
    rest: Sequence[int],
    measured: Mapping[str, FloatArray],
    predicted: Predicted,
) -> dict[str, FloatArray]:
    """Return the factors of the other runs by figure, shape (len(rest),), after the windows were learned one by one."""
    lessons = Lessons()
    for i in told:
        latency = "itl" if np.isfinite(measured["itl"][i]) else "tpot"
        ratios = {
            figure: measured[quantity][i] / predicted.values[quantity][i]
            for figure, quantity in (("itl", latency), ("ttft", "ttft"), ("power", "power"), ("energy", "energy"))
        }
        known = {f"{figure}_ratio": float(ratio) for figure, ratio in ratios.items() if np.isfinite(ratio)}
        run = runs[i]
        kind = load_kind(run.input_tokens, run.output_tokens)
        lessons.learn(layout_of(run), kind, run.concurrency, MeasuredPoint(**known))
    return factors_at(lessons.applied(), _places([runs[i] for i in rest]))


def _places(runs: Sequence[Run]) -> Places:
    return Places(
        np.array([layout_of(run) for run in runs], dtype=np.str_),
        np.array([load_kind(run.input_tokens, run.output_tokens) for run in runs], dtype=np.str_),
        np.array([run.concurrency for run in runs]),
    )


def _judged(
    part: tuple[str, int], cases: Sequence[_Case], measured: Mapping[str, FloatArray], predicted: Predicted
) -> AfterWindows:
    index = np.array([case.run for case in cases], dtype=np.int64)
    before, after, median = (dict.fromkeys(QUANTITIES, float("nan")) for _ in range(3))
    for quantity in FACTOR:
        plain = predicted.values[quantity][index] / measured[quantity][index]
        corrected = plain * np.array([case.factors[quantity] for case in cases])
        known = np.isfinite(plain)
        if known.any():
            before[quantity] = 100.0 * float(np.mean(np.abs(plain[known] - 1.0)))
            after[quantity] = 100.0 * float(np.mean(np.abs(corrected[known] - 1.0)))
            median[quantity] = 100.0 * float(np.median(np.abs(corrected[known] - 1.0)))
    sites = len({case.site for case in cases})
    return AfterWindows(*part, sites, len(set(index.tolist())), before, after, median, len(cases))
