"""A small, bounded correction learned on what the physics leaves, which fades outside its training range.

Gaussian-process regression (Rasmussen and Williams 2006, chapter 2) on the logarithm of measured over predicted, with a
sum of kernels: model family, model, layout, task, each smooth in the logarithm of the batch. Far from every training
run all kernels are zero, and so is the correction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energylens.predictor.types import FloatArray

TARGETS = ("step", "itl", "power")


@dataclass(frozen=True)
class RunFeatures:
    """What the residual's kernels compare; keys are strings, arrays of shape (n,)."""

    keys: Mapping[str, npt.NDArray[np.str_]]
    log_batch: FloatArray


@dataclass(frozen=True)
class KernelTerm:
    """One summand: runs that agree in ``key`` are similar, more so the closer their batches are."""

    key: str
    variance: float
    length: float
    """In units of log(batch); infinity for a constant."""


@dataclass(frozen=True)
class TargetResidual:
    """The correction of one target."""

    terms: tuple[KernelTerm, ...]
    noise: FloatArray
    """Variance of each training run around the smooth curve, shape (m,)."""
    weights: FloatArray
    """Solution of (K + noise) w = residuals, shape (m,)."""
    inverse: FloatArray
    """Inverse of K + noise, shape (m, m)."""
    bound: float
    """Largest absolute correction, as a logarithm."""


@dataclass(frozen=True)
class ResidualModel:
    """Corrections of all targets over the same training runs."""

    training: RunFeatures
    targets: Mapping[str, TargetResidual]


def covariance(terms: tuple[KernelTerm, ...], a: RunFeatures, b: RunFeatures) -> FloatArray:
    """Return the prior covariance between two sets of runs, shape (len(a), len(b))."""
    gap = a.log_batch[:, None] - b.log_batch[None, :]
    total = np.zeros(gap.shape)
    for term in terms:
        same = a.keys[term.key][:, None] == b.keys[term.key][None, :]
        smooth = 1.0 if np.isinf(term.length) else np.exp(-0.5 * (gap / term.length) ** 2)
        total += term.variance * same * smooth
    return total


def prior_variance(terms: tuple[KernelTerm, ...]) -> float:
    """Return the variance where nothing is known."""
    return sum(term.variance for term in terms)


def correct(model: TargetResidual, training: RunFeatures, runs: RunFeatures) -> tuple[FloatArray, FloatArray]:
    """Return the log correction and its posterior variance without noise, each of shape (n,).

    Only training runs that share a key take part.
    """
    cross = covariance(model.terms, runs, training)
    related = cross.any(axis=0)
    prior = prior_variance(model.terms)
    if not related.any():
        return np.zeros(cross.shape[0]), np.full(cross.shape[0], prior)
    mean = np.clip(cross[:, related] @ model.weights[related], -model.bound, model.bound)
    half = cross[:, related] @ model.inverse[np.ix_(related, related)]
    variance = prior - (half * cross[:, related]).sum(axis=1)
    return mean, np.clip(variance, 0.0, prior)
