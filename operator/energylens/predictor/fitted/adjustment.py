"""What runs say about the physics of a prediction: learned factors, and how wide its intervals are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    doubt: Doubt
    """How the errors of energy lie apart."""

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
    apart = widen = np.ones(len(layouts))
    if residual is not None:
        # Neither pipeline stages nor messages over a host link, whose speed differs between machines of one product,
        # are in the runs that the intervals were set on.
        beyond = measured | beyond_island(gpu, layouts)
        new = _new_split(residual, runs, beyond)
        apart = np.where(new, scales.extrapolation, 1.0)
        # Left-out products had relatives of their architecture among those that were fitted to.
        if not coefficients.knows_architecture(gpu):
            apart = apart * scales.extrapolation
        # What other versions of an engine say of a kind of model is less than what left-out models have left.
        unlike = ~kind_known(residual.training, runs) & ((near == ENGINE) | (new & measured))
        widen = apart * np.where(unlike, scales.extrapolation, 1.0)
    spread = physics_spread(runs)
    several = (layouts.data_parallel > 1) & model.is_moe
    doubt = doubt_of(scales, residual, interval_class(near, several), apart, variance["energy"], spread)
    if workload.speculation is not None:
        # No run that the coefficients were fitted to drafted tokens; nor did those of any other candidate.
        near, widen = np.full_like(near, NOTHING), widen * scales.extrapolation
    classes = interval_class(near, several)
    halves = {t: widen * scales.half_width(t, classes, variance[t], noise[t], spread) for t in variance}
    return Adjustment({t: np.exp(log) for t, log in logs.items()}, halves, near, doubt)


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


def _new_split(residual: ResidualModel, runs: RunFeatures, beyond: BoolArray | bool) -> BoolArray:
    """Return which candidates are split over GPUs in a way that no run stands for, shape (n,).

    Args:
        residual: With the runs that were fitted to.
        runs: Features of the candidates.
        beyond: Where splits that were not measured under the candidates' engine count, shape (n,).
    """
    # Under an engine without runs every split is new; one that no engine was run with is so in any case.
    new = ~measured_parallelism(residual.training, runs) & beyond
    return np.asarray(new | ~split_anywhere(residual.training, runs))
