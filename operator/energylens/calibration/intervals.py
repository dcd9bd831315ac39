"""Scale prediction intervals so that they cover 80 % of left-out runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from energylens.calibration.dataset import Dataset
from energylens.predictor.fitted.features import NEAREST, NOTHING, nearest
from energylens.predictor.fitted.intervals import SEVERAL_RANKS, IntervalModel
from energylens.predictor.fitted.intervals import TARGETS as TARGETS_OF_INTERVALS
from energylens.predictor.fitted.noise import SURE, noise_variance, physics_spread
from energylens.predictor.fitted.residual import TARGETS, ResidualModel, RunFeatures
from energylens.predictor.types import BoolArray, FloatArray, IntArray

COVERAGE = 0.80
REFIT = {
    name: dict(zip(TARGETS_OF_INTERVALS, factors, strict=True))
    for name, factors in (
        ("layout", (1.20, 1.12, 1.05, 1.05, 1.15)),
        ("model", (1.20, 1.20, 1.00, 1.20, 1.10)),
        ("engine", (1.20, 1.43, 1.05, 1.15, 1.05)),
        ("nothing", (1.50, 1.40, 1.10, 1.50, 1.20)),
    )
}
"""Ratio of the errors of left-out runs with refitted constants to those with constants fitted to all runs. It was
measured by refitting (leaving out a fifth of the runs, whole layouts, whole models, GPU types and engines), since
refitting inside every fit would take minutes."""
FOLDS = 8
FEW_RANKS = 10
"""Fewest runs of several ranks that show how much wider their errors are."""
FEW_RUNS, FEW_GROUPS = 20, 6
"""Fewest runs that show how wide errors are; with fewer, no interval is narrower than the prior deviations make it."""
NOT_MEASURED = 1e6
"""Variance of a run in a target that the run lacks, so that the run has no weight there."""
NORMAL = 1.282
"""80 % of a normal distribution lie within this many standard deviations."""


def fit_intervals(data: Dataset, left: Mapping[str, FloatArray], residual: ResidualModel) -> IntervalModel:
    """Return one scale for each kind of nearest measurement, for one rank and for several.

    Runs are left out so that nothing nearer remains: some batches of every layout, kinds of loads and whole layouts,
    whole models, and for ``nothing`` all runs, which leaves physics alone. A run counts for the kind of nearest
    measurement that remains. If few runs of several ranks have that kind, their errors relative to runs of one rank are
    taken from the next farther kind.

    Args:
        data: The fitted runs.
        left: Errors that physics leaves of each target, logarithms.
        residual: The Gaussian process of these errors.
    """
    features = data.features
    order, n = np.arange(len(data.runs)), len(data.runs)
    models = _groups(features.each(features.keys["architecture"]), n)
    parts = {
        "layout": [[order % FOLDS == fold for fold in range(FOLDS)]],
        "model": [*(_groups(features.each(features.keys[key]), FOLDS) for key in ("layout", "load"))],
        "engine": [models],
        "nothing": [[np.ones(n, dtype=np.bool_)]],
    }
    several = data.runs.data_parallel > 1
    scale: dict[str, float] = {}
    wider = dict.fromkeys(TARGETS_OF_INTERVALS, 1.0)
    for code, name in reversed(list(enumerate(NEAREST))):
        few = n < FEW_RUNS if name == "layout" else len(models) < FEW_GROUPS
        scores: dict[str, list[FloatArray]] = {target: [] for target in TARGETS_OF_INTERVALS}
        ranks: dict[str, list[FloatArray]] = {target: [] for target in TARGETS_OF_INTERVALS}
        for split in parts[name]:
            errors, near = _scores(features, left, residual.inverses, split)
            # Runs without a TPOT come from one engine version, and are therefore nearer to each other.
            errors["tpot"] = np.where(np.isfinite(data.runs.median_tpot_ms), errors["step"], np.nan)
            # The median ITL of runs of several ranks is not meaningful.
            errors["itl"] = np.where(several, errors["step"], errors["itl"])
            for target, values in errors.items():
                scores[target].append(values[(near == code) & ~several])
                ranks[target].append(values[(near == code) & several])
        for target in TARGETS_OF_INTERVALS:
            one = _quantile(np.concatenate(scores[target]))
            width = max(REFIT[name][target] * one, NORMAL / SURE) if few else REFIT[name][target] * one
            more = np.concatenate(ranks[target])
            if np.isfinite(more).sum() >= FEW_RANKS:
                # Constants are fitted to runs of one rank, so that no refit depends on runs of several.
                wider[target] = max(_quantile(more) / width, 1.0)
            scale[f"{target}/{name}"] = width
            scale[f"{target}/{name}{SEVERAL_RANKS}"] = width * wider[target]
    return IntervalModel({key: scale[key] for key in sorted(scale)})


def _groups(labels: npt.NDArray[np.str_], most: int) -> list[BoolArray]:
    """Return disjoint masks of whole labels, at most ``most`` of them."""
    _, codes = np.unique(labels, return_inverse=True)
    folds = codes.reshape(-1) % most
    return [folds == fold for fold in np.unique(folds)]


def _scores(
    features: RunFeatures,
    left: Mapping[str, FloatArray],
    inverses: Mapping[str, FloatArray],
    parts: list[BoolArray],
) -> tuple[dict[str, FloatArray], IntArray]:
    """Return |error| / predicted standard deviation of every run when its part is left out.

    The second result is the nearest remaining measurement, as indices into ``NEAREST``, shape (n,). With the inverse C
    of the covariance of all runs, the runs of a part b have the error inv(C_bb) (C y)_b without that part, and the
    variance inv(C_bb) (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, section 5.4.2, for
    several at once).
    """
    near = np.full(features.log_batch.size, NOTHING, dtype=np.int64)
    for out in parts:
        if not out.all():
            near[out] = nearest(features.take(~out), features.take(out))
    error = {t: np.zeros_like(left[t]) for t in TARGETS}
    variance = {t: np.ones_like(left[t]) for t in TARGETS}
    spread = physics_spread(features)
    for target in TARGETS:
        known = np.isfinite(left[target])
        noise = np.where(known, noise_variance(target, features), NOT_MEASURED)
        found = np.where(known, left[target], 0.0)
        error[target][~known] = np.nan
        inverse, weighted = inverses[target], inverses[target] @ found
        for out in parts:
            apart = np.linalg.inv(inverse[np.ix_(out, out)])
            error[target][out & known] = (apart @ weighted[out])[known[out]]
            remaining = np.maximum(np.diag(apart) - noise[out], 0.0)
            variance[target][out] = spread[out] ** 2 * remaining + noise[out]
    scores = {t: np.abs(error[t]) / np.sqrt(variance[t]) for t in TARGETS}
    scores["energy"] = np.abs(error["step"] + error["power"]) / np.sqrt(variance["step"] + variance["power"])
    return scores, near


def _quantile(scores: FloatArray) -> float:
    """Return the conformal quantile: the (n + 1) x coverage-th smallest score."""
    scores = scores[np.isfinite(scores)]
    if scores.size == 0:
        return NORMAL / SURE
    level = min(np.ceil((scores.size + 1) * COVERAGE) / scores.size, 1.0)
    return float(np.quantile(scores, level))
