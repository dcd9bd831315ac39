"""Measured outcome of plans that are chosen by predictions: broken bounds, lost energy, saved energy.

A *choice set* contains every measured layout and batch size of one (model, GPU type, task). For each bound on the
median ITL (the time per output token if runs have no ITL), the pick is the planner's choice
(:mod:`energylens.planner.search.ranking`): among the candidates whose chance of breaking the bound is below
`ranking.LARGEST_BREACH`, the one with the lowest energy including its risk and that chance. A planner that uses only
mean predictions picks the lowest predicted energy among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from energylens.accuracy.evaluate import Predicted
from energylens.planner.search.ranking import LARGEST_BREACH, Risk, breach_chance, breach_factor, choose
from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass
from energylens.runs import Run

ITL_BOUNDS_MS = (20.0, 30.0, 50.0, 100.0)
BASELINES = ("all GPUs of a node", "fewest GPUs", "highest throughput per GPU")


@dataclass(frozen=True)
class ChoiceSet:
    """The candidates of one (model, GPU type, task); arrays of shape (m,), NaN without a prediction."""

    name: str
    gpus: FloatArray
    batch: FloatArray
    expert_parallel: FloatArray
    measured_itl: FloatArray
    measured_energy: FloatArray
    measured_throughput: FloatArray
    predicted_itl: FloatArray
    predicted_itl_high: FloatArray
    predicted_energy: FloatArray
    risk: Risk
    nearest: IntArray
    """Distance of the nearest measured run, as `Prediction.nearest`."""
    node_gpus: int
    """GPUs of a whole node of this type."""
    counts_risk: bool = True
    """Whether the chance of breaking the bound counts as energy."""


@dataclass(frozen=True)
class Decisions:
    """The outcome for one ITL bound, or over all bounds (``bound_ms`` None). Shares in percent, NaN without cases."""

    bound_ms: float | None
    sets: int
    feasible: int
    """Choice sets with a candidate whose measured ITL meets the bound."""
    picks: int
    broken: int
    """Picks whose measured ITL breaks the bound."""
    without_pick: int
    """Feasible choice sets without a pick."""
    energy_above_best: float
    """Mean, over picks that meet the bound, of the measured energy of the pick / the measured energy of the best choice
    that meets the bound, - 1."""
    worst_energy_above_best: float
    saved: Mapping[str, float]
    """By baseline: mean over picks that meet the bound of 1 - energy of the pick / energy of the baseline."""
    compared: Mapping[str, int]
    """By baseline: number of picks that were compared with it."""

    @property
    def broken_percent(self) -> float:
        """Share of picks that break the bound."""
        return _percent(self.broken, self.picks)

    @property
    def without_pick_percent(self) -> float:
        """Share of feasible choice sets without a pick."""
        return _percent(self.without_pick, self.feasible)


@dataclass(frozen=True)
class Pareto:
    """How well predicted fronts of energy and ITL match measured fronts, over choice sets of 3 candidates or more."""

    sets: int
    true_points: int
    predicted_points: int
    common_points: int

    @property
    def recovered_percent(self) -> float:
        """Share of the points of true fronts that are on the predicted fronts (arXiv 2605.14249 reports 69 %)."""
        return _percent(self.common_points, self.true_points)

    @property
    def precision_percent(self) -> float:
        """Share of the points of predicted fronts that are on the true fronts."""
        return _percent(self.common_points, self.predicted_points)


def choice_sets(
    runs: Sequence[Run],
    mask: BoolArray,
    measured: Mapping[str, FloatArray],
    predicted: Predicted,
    node_gpus: Mapping[str, int],
) -> list[ChoiceSet]:
    """Return the choice sets of the runs of ``mask``.

    ``node_gpus`` maps the runs' ``gpu_model`` to the GPUs of a node.
    """
    members: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for i, (run, wanted) in enumerate(zip(runs, mask, strict=True)):
        if wanted:
            members[run.model_id, run.gpu_model, run.task].append(i)
    sets = []
    for key, index in sorted(members.items()):
        chosen = [runs[i] for i in index]
        latency = "itl" if np.isfinite(measured["itl"][index]).any() else "tpot"
        sets.append(
            ChoiceSet(
                name=" / ".join(key),
                gpus=np.array([float(run.num_gpus) for run in chosen]),
                batch=np.array([float(run.max_num_seqs) for run in chosen]),
                expert_parallel=np.array([float(run.expert_parallel) for run in chosen]),
                measured_itl=measured[latency][index],
                measured_energy=measured["energy"][index],
                measured_throughput=measured["throughput"][index],
                predicted_itl=predicted.values[latency][index],
                predicted_itl_high=predicted.intervals[latency].high[index],
                predicted_energy=predicted.values["energy"][index],
                risk=predicted.risk.take(np.array(index)),
                nearest=predicted.nearest[index],
                node_gpus=node_gpus[key[1]],
            )
        )
    return sets


def pick(choices: ChoiceSet, bound_ms: float) -> int | None:
    """Return the planner's choice; None if every candidate may break the bound."""
    chance = breach_chance(bound_ms, choices.predicted_itl, choices.predicted_itl_high)
    return take(choices.predicted_energy, choices.risk, choices.nearest, chance, counted=choices.counts_risk)


def take(energy: FloatArray, risk: Risk, nearest: IntArray, chance: FloatArray, *, counted: bool = True) -> int | None:
    """Return the planner's choice among some runs; None if every run may break its bound or has no prediction.

    Args:
        energy: Predicted energy, shape (n,).
        risk: Risk of the predictions, shape (n,).
        nearest: Distance of the nearest measured run, as `Prediction.nearest`, shape (n,).
        chance: Chance of breaking the bound, shape (n,).
        counted: Whether that chance counts as energy.
    """
    index = np.flatnonzero(np.isfinite(energy) & (chance <= LARGEST_BREACH))
    if not index.size:
        return None
    some = risk.take(index)
    values = energy[index] * some.factor * (breach_factor(chance[index]) if counted else 1.0)
    # Runs are on one node and have no pipeline stages.
    return int(index[choose(values, some, [nearest[index]])])


def by_means(sets: Sequence[ChoiceSet]) -> list[ChoiceSet]:
    """Return choice sets whose predictions count as certain, so that the lowest is picked."""
    return [
        replace(
            each,
            risk=Risk.none(len(each.gpus)),
            nearest=np.zeros(len(each.gpus), dtype=np.int64),
            counts_risk=False,
        )
        for each in sets
    ]


def best(choices: ChoiceSet, bound_ms: float) -> int | None:
    """Return the candidate of least measured energy whose measured ITL meets the bound."""
    return _lowest(choices.measured_energy, choices.measured_itl <= bound_ms)


def baseline(choices: ChoiceSet, bound_ms: float, name: str) -> int | None:
    """Return the baseline that measurement shows to meet the bound; None if no run of the baseline does.

    Args:
        choices: The choice set.
        bound_ms: The ITL bound, ms.
        name: One of :data:`BASELINES`. The first two use the largest batch that meets the bound, and prefer plain
            tensor parallelism to expert parallelism.
    """
    holds = choices.measured_itl <= bound_ms
    if name == "highest throughput per GPU":
        return _lowest(-choices.measured_throughput / choices.gpus, holds)
    wanted = float(choices.node_gpus) if name == "all GPUs of a node" else float(choices.gpus.min())
    index = np.flatnonzero(holds & (choices.gpus == wanted))
    if len(index) == 0:
        return None
    return int(min(index, key=lambda i: (-choices.batch[i], choices.expert_parallel[i])))


def decide(sets: Sequence[ChoiceSet], bounds_ms: Sequence[float] = ITL_BOUNDS_MS) -> list[Decisions]:
    """Return the outcome for each bound, then over all bounds."""
    each = [_decisions(bound, [(choices, bound) for choices in sets]) for bound in bounds_ms]
    return [*each, _decisions(None, [(choices, bound) for bound in bounds_ms for choices in sets])]


def _decisions(bound: float | None, cases: Sequence[tuple[ChoiceSet, float]]) -> Decisions:
    feasible = picks = broken = without = 0
    above: list[float] = []
    saved: dict[str, list[float]] = {name: [] for name in BASELINES}
    for choices, limit in cases:
        chosen, optimum = pick(choices, limit), best(choices, limit)
        feasible += optimum is not None
        if chosen is None:
            without += optimum is not None
            continue
        picks += 1
        if optimum is None or choices.measured_itl[chosen] > limit:
            broken += 1
            continue
        energy = choices.measured_energy[chosen]
        above.append(float(energy / choices.measured_energy[optimum] - 1))
        for name, savings in saved.items():
            other = baseline(choices, limit, name)
            if other is not None:
                savings.append(float(1 - energy / choices.measured_energy[other]))
    return Decisions(
        bound_ms=bound,
        sets=len(cases),
        feasible=feasible,
        picks=picks,
        broken=broken,
        without_pick=without,
        energy_above_best=_mean_percent(above),
        worst_energy_above_best=100 * max(above, default=np.nan),
        saved={name: _mean_percent(savings) for name, savings in saved.items()},
        compared={name: len(savings) for name, savings in saved.items()},
    )


def pareto(sets: Sequence[ChoiceSet]) -> Pareto:
    """Compare the predicted with the measured fronts of energy and median ITL."""
    n = true_points = predicted_points = common = 0
    for choices in sets:
        if len(choices.gpus) < 3:
            continue
        n += 1
        true = front(choices.measured_energy, choices.measured_itl)
        found = front(choices.predicted_energy, choices.predicted_itl)
        true_points += int(true.sum())
        predicted_points += int(found.sum())
        common += int((true & found).sum())
    return Pareto(n, true_points, predicted_points, common)


def front(energy: FloatArray, itl: FloatArray) -> BoolArray:
    """Return which points, shape (m,), are not dominated in the two costs.

    Points with NaN are never on the front.
    """
    known = np.isfinite(energy) & np.isfinite(itl)
    no_worse = (energy[None, :] <= energy[:, None]) & (itl[None, :] <= itl[:, None])
    better = (energy[None, :] < energy[:, None]) | (itl[None, :] < itl[:, None])
    dominated = (no_worse & better & known[None, :]).any(axis=1)
    return known & ~dominated


def _lowest(values: FloatArray, allowed: BoolArray) -> int | None:
    index = np.flatnonzero(allowed & np.isfinite(values))
    return None if len(index) == 0 else int(index[np.argmin(values[index])])


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else float("nan")


def _mean_percent(values: Sequence[float]) -> float:
    return 100 * float(np.mean(values)) if values else float("nan")
