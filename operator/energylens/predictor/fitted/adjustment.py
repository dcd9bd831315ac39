"""Corrections of a prediction's physics from measured runs: learned factors, and the width of intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from energylens.predictor.fitted.coefficients import Coefficients
from energylens.predictor.fitted.doubt import Doubt, doubt_of
from energylens.predictor.fitted.features import (
    ENGINE,
    NOTHING,
    beyond_island,
    is_unpacked,
    kind_known,
    measured_parallelism,
    nearest,
    run_features,
    split_anywhere,
)
from energylens.predictor.fitted.intervals import around, interval_class
from energylens.predictor.fitted.noise import noise_variance, physics_spread
from energylens.predictor.fitted.residual import TARGETS, ResidualModel, RunFeatures, correct, prior_variance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.prediction import Interval
from energylens.predictor.types import BoolArray, FloatArray, GpuSpec, IntArray, Layouts, Workload
from energylens.records import dataclass

UNKNOWN_VARIANCE = 0.12**2
"""Standard deviation of the logarithm without a residual model."""


@dataclass(frozen=True)
class Adjustment:
    """Learned factors of n candidates by target, and how far measured runs deviate from the corrected physics."""

    factors: Mapping[str, FloatArray]
    """Factor on physics by target of the residual model (`residual.TARGETS`), shape (n,) each."""
    half_widths: Mapping[str, FloatArray]
    """Half-width of the logarithm by target of `intervals.TARGETS`, shape (n,) each."""
    nearest: IntArray
    """The nearest measurement, indices into `features.NEAREST`, shape (n,)."""
    doubt: Doubt
    """Spread of the errors of energy relative to each other."""

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
    """Return the corrections of n candidates from measured runs.

    Args:
        coefficients: The coefficients, with the residual model if there is one.
        model: The model as served.
        gpu: The GPU product.
        layouts: Candidates, shape (n,).
        workload: The mean request.
        running: Mean running sequences while any run, shape (n,).
        tag: Tag of the engine profile, as in the features of runs.
        measured: Whether the constants of the product were fitted to runs on it under the engine.
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
    apart = widen = np.ones(len(layouts))
    if residual is not None:
        # The runs behind the intervals have neither pipeline stages nor communication over a host link, whose speed
        # differs between machines of one product.
        beyond = measured | beyond_island(gpu, layouts)
        new = _new_split(residual, runs, beyond)
        apart = np.where(new, scales.extrapolation, 1.0)
        # When intervals were set, left-out products had relatives of their architecture among the fitted ones.
        if not coefficients.knows_architecture(gpu):
            apart = apart * scales.extrapolation
        # Other versions of an engine are weaker evidence about a kind of model than the runs that remained for left-out
        # models.
        unlike = ~kind_known(residual.training, runs) & ((near == ENGINE) | (new & measured))
        widen = apart * np.where(unlike, scales.extrapolation, 1.0)
    spread = physics_spread(runs)
    several = (layouts.data_parallel > 1) & model.is_moe
    doubt = doubt_of(scales, residual, interval_class(near, several), apart, variance["energy"], spread)
    if workload.speculation is not None:
        # No run behind the coefficients used speculative decoding, so no candidate has evidence for it.
        near, widen = np.full_like(near, NOTHING), widen * scales.extrapolation
    classes = interval_class(near, several)
    halves = {t: widen * scales.half_width(t, classes, variance[t], noise[t], spread) for t in variance}
    return Adjustment({t: np.exp(log) for t, log in logs.items()}, halves, near, doubt)


def _learned(
    residual: ResidualModel | None, runs: RunFeatures, measured: bool
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return by target the logarithm of the learned factor and its variance.

    The factor is 1 if nothing was measured.
    """
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


def _new_split(residual: ResidualModel, runs: RunFeatures, beyond: BoolArray | bool) -> BoolArray:
    """Return which candidates are split over GPUs in a way that no run represents, shape (n,).

    Args:
        residual: The residual model with the fitted runs.
        runs: Features of the candidates.
        beyond: Where only splits that were measured under the candidates' engine count as known, shape (n,).
    """
    # Without runs of an engine, all of its splits are new; a split that no engine ran is new in any case.
    new = ~measured_parallelism(residual.training, runs) & beyond
    return np.asarray(new | ~split_anywhere(residual.training, runs))
