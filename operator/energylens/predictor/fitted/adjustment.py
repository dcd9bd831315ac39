"""What runs say about the physics of a prediction: learned factors, and how wide its intervals are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from energylens.predictor.fitted.coefficients import Coefficients
from energylens.predictor.fitted.features import (
    ENGINE,
    NOTHING,
    beyond_island,
    is_unpacked,
    kinds_of,
    measured_parallelism,
    nearest,
    run_features,
)
from energylens.predictor.fitted.intervals import around
from energylens.predictor.fitted.noise import noise_variance, physics_spread
from energylens.predictor.fitted.residual import TARGETS, ResidualModel, RunFeatures, correct, prior_variance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import BoolArray, FloatArray, GpuSpec, IntArray, Interval, Layouts, Workload

UNKNOWN_VARIANCE = 0.12**2
"""Of the logarithm, without a residual model."""


@dataclass(frozen=True)
class Adjustment:
    """Of n candidates: by target, what physics is multiplied by, and how far runs lie from the product."""

    factors: Mapping[str, FloatArray]
    """Of the targets of the residual model (`residual.TARGETS`), shape (n,) each."""
    half_widths: Mapping[str, FloatArray]
    """Of the logarithm, by target of `intervals.TARGETS`, shape (n,) each."""
    nearest: IntArray
    """The nearest that was measured, indices into `features.NEAREST`, shape (n,)."""

    def interval(self, target: str, value: FloatArray) -> Interval:
        """Return the 80 % prediction interval around an adjusted value of a target of `intervals.TARGETS`."""
        return around(value, self.half_widths[target])


def adjustment(
    coefficients: Coefficients,
    model: ModelSpec,
    gpu: GpuSpec,
    layouts: Layouts,
    workload: Workload,
    running: FloatArray,
    *,
    tag: str,
    measured: bool,
) -> Adjustment:
    """Return what runs say about n candidates.

    Args:
        coefficients: With the residual model, if there is one.
        model: As served.
        gpu: The product.
        layouts: Candidates, shape (n,).
        workload: Mean request.
        running: Sequences while any run, shape (n,).
        tag: Of the engine profile, as in features of runs.
        measured: The constants of the product were fitted to runs on it, under the engine.
    """
    runs = run_features(model, gpu, layouts, workload, running, tag)
    residual = coefficients.residual
    logs, variance = _learned(residual, runs, measured)
    noise = {t: noise_variance(t, runs) for t in TARGETS}
    for each in (variance, noise):
        each["tpot"], each["energy"] = each["step"], each["step"] + each["power"]
    near = np.full(len(layouts), NOTHING, dtype=np.int64)
    if residual is not None and measured:
        near = nearest(residual.training, runs, here_only=is_unpacked(model))
    scales = coefficients.intervals
    widen = np.ones(len(layouts))
    if residual is not None:
        # Neither pipeline stages nor messages over a host link, whose speed differs between machines of one product,
        # are in the runs that the intervals were set on.
        beyond = measured | beyond_island(gpu, layouts)
        widen = np.where(_outside(residual, runs, near, beyond), scales.extrapolation, 1.0)
        # Left-out products had relatives of their architecture among those that were fitted to.
        if not coefficients.knows_architecture(gpu):
            widen = widen * scales.extrapolation
    if workload.speculation is not None:
        # No run that the coefficients were fitted to drafted tokens.
        near, widen = np.full_like(near, NOTHING), widen * scales.extrapolation
    spread = physics_spread(runs)
    halves = {t: widen * scales.half_width(t, near, variance[t], noise[t], spread) for t in variance}
    return Adjustment({t: np.exp(log) for t, log in logs.items()}, halves, near)


def _learned(
    residual: ResidualModel | None, runs: RunFeatures, measured: bool
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return by target the logarithm of the learned factor and its variance: no factor where nothing was measured."""
    learned = correct(residual, runs) if residual is not None and measured else {}
    logs, variance = {}, {}
    for target in TARGETS:
        if target in learned:
            logs[target], variance[target] = learned[target]
        else:
            logs[target] = np.zeros_like(runs.log_batch)
            unknown = UNKNOWN_VARIANCE if residual is None else prior_variance(residual.targets[target].terms)
            variance[target] = np.full_like(runs.log_batch, unknown)
    return logs, variance


def _outside(residual: ResidualModel, runs: RunFeatures, near: IntArray, beyond: BoolArray | bool) -> BoolArray:
    """Return where no left-out run can stand for a candidate, shape (n,).

    Args:
        residual: With the runs that were fitted to.
        runs: Features of the candidates.
        near: The nearest that was measured, shape (n,).
        beyond: Where splits that nobody measured count, shape (n,).
    """
    new = ~measured_parallelism(residual.training, runs) & beyond
    # What other versions of an engine say of a kind of model is less than what left-out models have left.
    unlike = ~np.isin(kinds_of(runs), kinds_of(residual.training))
    return np.asarray(new | ((near == ENGINE) & unlike))
