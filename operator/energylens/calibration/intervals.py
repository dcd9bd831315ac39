"""Scale prediction intervals so that they cover 80 % of left-out runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from energylens.calibration.dataset import Dataset
from energylens.predictor.fitted.intervals import IntervalModel
from energylens.predictor.fitted.noise import SURE, noise_variance, physics_spread
from energylens.predictor.fitted.residual import TARGETS, KernelTerm, ResidualModel, RunFeatures, covariance
from energylens.predictor.types import BoolArray, FloatArray

COVERAGE = 0.80
REFIT = {"step": 1.1, "itl": 1.1, "power": 1.2, "energy": 1.08}
"""How much wider errors of a whole left-out model are when the constants are refitted without it, against constants
fitted with it: measured by refitting, since refitting inside every fit would cost a minute. With each model left out
1.07, 1.05, 1.17 and 1.04 would cover 80 %; other parts left out need a little more."""
FOLDS = 8
FEW_RUNS, FEW_GROUPS = 20, 6
"""Fewer say nothing of how wide errors are: no interval is narrower then than the prior deviations make it."""
NOT_MEASURED = 1e6
"""Variance that a run has in a target that it lacks: the run says nothing of it."""
NORMAL = 1.282
"""80 % of a normal distribution lie within so many standard deviations."""


def fit_intervals(
    data: Dataset, left: Mapping[str, FloatArray], residual: ResidualModel, terms: Mapping[str, tuple[KernelTerm, ...]]
) -> IntervalModel:
    """Return scales for runs whose layout is known and for runs of unknown models.

    Args:
        data: The fitted runs.
        left: What physics left of each target, logarithms.
        residual: The Gaussian process over it.
        terms: Its kernels.
    """
    features = data.features
    architectures = features.keys["architecture"]
    groups = [architectures == a for a in np.unique(architectures)]
    order = np.arange(len(data.runs))
    folds = [order % FOLDS == f for f in range(FOLDS)]
    near = _scores(features, left, terms, folds)
    far = _scores(features, left, terms, groups)
    seen = {t: _quantile(near[t]) for t in near}
    new = {t: _quantile(far[t]) for t in far}
    if len(data.runs) < FEW_RUNS:
        seen = {t: max(value, NORMAL / SURE) for t, value in seen.items()}
    if len(groups) < FEW_GROUPS:
        new = {t: max(value, NORMAL / SURE) for t, value in new.items()}
    return IntervalModel({f"{t}/seen": seen[t] for t in seen} | {f"{t}/new": REFIT[t] * new[t] for t in new})


def _scores(
    features: RunFeatures,
    left: Mapping[str, FloatArray],
    terms: Mapping[str, tuple[KernelTerm, ...]],
    parts: list[BoolArray],
) -> dict[str, FloatArray]:
    """Return |error| over the predicted standard deviation of every run when its part is left out."""
    error = {t: np.zeros_like(left[t]) for t in TARGETS}
    variance = {t: np.ones_like(left[t]) for t in TARGETS}
    spread = physics_spread(features)
    for target in TARGETS:
        known = np.isfinite(left[target])
        noise = np.where(known, noise_variance(target, features), NOT_MEASURED)
        found = np.where(known, left[target], 0.0)
        error[target][~known] = np.nan
        full = covariance(terms[target], features, features)
        prior = sum(t.variance for t in terms[target])
        for out in parts:
            kept = ~out
            if not kept.any():
                continue
            matrix = full[np.ix_(kept, kept)] + np.diag(noise[kept])
            cross = full[np.ix_(out, kept)]
            solved = np.linalg.solve(matrix, cross.T)
            error[target][out] = left[target][out] - solved.T @ found[kept]
            remaining = prior - (cross * solved.T).sum(axis=1)
            variance[target][out] = spread[out] ** 2 * remaining + noise[out]
    scores = {t: np.abs(error[t]) / np.sqrt(variance[t]) for t in TARGETS}
    scores["energy"] = np.abs(error["step"] + error["power"]) / np.sqrt(variance["step"] + variance["power"])
    return scores


def _quantile(scores: FloatArray) -> float:
    """Return the conformal quantile: the (n + 1) x coverage-th smallest score."""
    scores = scores[np.isfinite(scores)]
    if scores.size == 0:
        return NORMAL / SURE
    level = min(np.ceil((scores.size + 1) * COVERAGE) / scores.size, 1.0)
    return float(np.quantile(scores, level))
