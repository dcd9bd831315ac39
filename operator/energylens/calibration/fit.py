"""Fit the constants and the residual to measured runs: deterministic, seconds, NumPy only.

Maximum a posteriori in the logarithm of the constants by damped Gauss-Newton (Levenberg 1944). The errors of runs of
one layout are correlated, so residuals are whitened with the covariance that the residual model gives them (generalised
least squares, Aitken 1935): thirty layouts weigh like thirty layouts, not like three hundred runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energylens.calibration.dataset import Dataset, build_dataset, engine_profiles
from energylens.calibration.intervals import fit_intervals
from energylens.calibration.products import derived_constants
from energylens.calibration.runs import Runs
from energylens.calibration.scales import Scales, constants_of, product_constants, scales_for
from energylens.predictor.architecture import ModelSpec
from energylens.predictor.coefficients import Coefficients
from energylens.predictor.moe_tables import MoeTables
from energylens.predictor.noise import noise_variance
from energylens.predictor.profiles import EngineProfile, UnknownEngineError
from energylens.predictor.residual import (
    TARGETS,
    KernelTerm,
    ResidualModel,
    RunFeatures,
    TargetResidual,
    covariance,
)
from energylens.predictor.steady import combine
from energylens.predictor.types import FloatArray, GpuSpec

SHAPES = (
    ("family", 0.05, 2.0),
    ("architecture", 0.06, 2.0),
    ("stored", 0.07, 2.0),
    ("layout", 0.10, 1.0),
    ("load", 0.14, 1.0),
    ("product", 0.04, 1.5),
)
"""Key, standard deviation of the step's logarithm, and length in log(batch), of each summand of the residual."""
RELATIVE_SIZE = {"step": 1.0, "itl": 1.15, "power": 0.65}
TERMS: dict[str, tuple[KernelTerm, ...]] = {
    target: tuple(KernelTerm(key, (deviation * size) ** 2, length) for key, deviation, length in SHAPES)
    for target, size in RELATIVE_SIZE.items()
}
"""Prior covariance of the logarithmic errors: what physics leaves, by model, storage, layout and load."""
TAIL_DEVIATION, TAIL_CLIP = 1.0, 2.0
"""Standard deviation given to the P99 ITL, which says what steps with a prefill cost; weak, as runs share it."""
BOUND = {"step": 0.35, "itl": 0.45, "power": 0.30}
ITERATIONS = 8
STEP = 1e-3
TOLERANCE = 2e-4


class FitError(ValueError):
    """Runs that constants cannot be fitted to."""


def predicted_logs(data: Dataset, constants: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the logarithm of mean step (s), median and P99 ITL (s) and power per GPU (W) of every run."""
    constants = {name: value * data.factors.get(name, 1.0) for name, value in constants.items()}
    state = combine(data.decode, data.mixed, data.starts, constants, data.sheet, np.full(len(data.runs), np.nan))
    other = combine(
        data.itl_decode, data.itl_mixed, data.itl_starts, constants, data.sheet, np.full(len(data.runs), np.nan)
    )
    itl = other.mixture.quantile(data.itl_level)
    return {
        "step": np.log(state.mean_step),
        "itl": np.log(itl),
        "tail": np.log(state.mixture.quantile(0.99)),
        "power": np.log(state.power_per_gpu),
    }


def measured_logs(data: Dataset) -> dict[str, FloatArray]:
    """Return the measured counterparts of :func:`predicted_logs`."""
    return {
        "step": np.log(data.mean_step),
        "itl": np.log(data.runs.median_itl_ms * 1e-3),
        "tail": np.log(data.runs.p99_itl_ms * 1e-3),
        "power": np.log(data.runs.power_watts / data.runs.num_gpus),
    }


@dataclass(frozen=True)
class FitResult:
    """What a fit returns beside the coefficients."""

    coefficients: Coefficients
    theta: FloatArray
    covariance: FloatArray
    """Of theta in prior standard deviations, shape (p, p)."""
    names: tuple[str, ...]
    """What each parameter moves: a constant, or constant/product for its ratio on a product."""
    errors: dict[str, float]
    """Mean absolute percentage error on the fitted runs, physics and residual together."""


def fit(
    runs: Runs,
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    tables: MoeTables,
    profiles: Sequence[EngineProfile],
    start: Mapping[str, float] | None = None,
) -> Coefficients:
    """Return coefficients fitted to runs; host-bound and data-parallel runs are left out.

    Args:
        runs: Measured runs.
        models: Architecture by model id.
        gpus: Products by short name, those without runs included: their constants are derived.
        tables: Kernel curves.
        profiles: Engine profiles: constants are those of the engine without factors, whatever engine a run is of.
        start: Parameters to start from by name, such as those of a fit to more runs; the result depends on them only
            within the tolerance.

    Raises:
        FitError: No clean run, a product of an unknown architecture, or an engine that no profile can be told for.
        KeyError: A model or a product is not known.
    """
    return fit_full(runs, models, gpus, tables, profiles, start).coefficients


def fit_full(
    runs: Runs,
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    tables: MoeTables,
    profiles: Sequence[EngineProfile],
    start: Mapping[str, float] | None = None,
) -> FitResult:
    """Fit as :func:`fit` does and return the parameters, their covariance and the errors too."""
    clean = runs.take(runs.clean)
    if not len(clean):
        raise FitError("no run to fit to: all are host-bound or data-parallel")
    try:
        engines = engine_profiles(clean.engine.tolist(), profiles)
        scales = scales_for(clean.gpu_model.tolist(), gpus)
    except (UnknownEngineError, ValueError) as error:
        raise FitError(str(error)) from error
    data = build_dataset(clean, models, gpus, tables, engines)
    theta, spread = solve(data, scales, start)
    measured = measured_logs(data)
    physics = predicted_logs(data, constants_of(theta, scales, scales.membership(clean.gpu_model)))
    left = {t: measured[t] - physics[t] for t in TARGETS}
    residual = residual_model(data, left)
    intervals = fit_intervals(data, left, residual, TERMS)
    errors = _errors(left, residual, data.features)
    coefficients = Coefficients(
        version="fit",
        constants=derived_constants(product_constants(theta, scales), gpus),
        measured=measured_pairs(clean.gpu_model, data.engines),
        architecture_default={"hopper": "H100", "ampere": "A100", "ada-lovelace": "L40S", "blackwell": "B200"},
        tables=tables,
        residual=residual,
        intervals=intervals,
    )
    return FitResult(coefficients, theta, spread, scales.names, errors)


def measured_pairs(gpu_names: npt.NDArray[np.str_], engines: npt.NDArray[np.str_]) -> dict[str, tuple[str, ...]]:
    """Return the engine profiles that runs are of, by product."""
    return {str(name): tuple(sorted(set(engines[gpu_names == name].tolist()))) for name in np.unique(gpu_names)}


def solve(data: Dataset, scales: Scales, start: Mapping[str, float] | None = None) -> tuple[FloatArray, FloatArray]:
    """Return the parameters of maximum posterior and their covariance (Laplace)."""
    membership = scales.membership(data.runs.gpu_model)
    measured = measured_logs(data)
    whiten = {}
    for target in TARGETS:
        matrix = covariance(TERMS[target], data.features, data.features)
        # Twice the noise of a repeated run: physics is not exact from one batch to the next either.
        matrix += np.diag(2.0 * noise_variance(target, data.features))
        whiten[target] = np.linalg.inv(np.linalg.cholesky(matrix))

    def residuals(theta: FloatArray) -> FloatArray:
        logs = predicted_logs(data, constants_of(theta, scales, membership))
        tail = np.clip((logs["tail"] - measured["tail"]) / TAIL_DEVIATION, -TAIL_CLIP, TAIL_CLIP)
        return np.concatenate([whiten[t] @ (logs[t] - measured[t]) for t in TARGETS] + [tail, theta])

    theta = np.array([(start or {}).get(name, 0.0) for name in scales.names])
    current = residuals(theta)
    cost, damping = float(current @ current), 1e-3
    hessian = np.eye(scales.size)
    for _ in range(ITERATIONS):
        jacobian = np.empty((current.size, scales.size))
        for j in range(scales.size):
            moved = theta.copy()
            moved[j] += STEP
            jacobian[:, j] = (residuals(moved) - current) / STEP
        hessian = jacobian.T @ jacobian
        for _ in range(8):
            step = np.linalg.solve(hessian + damping * np.eye(scales.size), -jacobian.T @ current)
            following = residuals(theta + step)
            lower = float(following @ following)
            if lower < cost:
                break
            damping = max(damping, 1e-2) * 5.0
        else:
            break
        gain = cost - lower
        theta, current, cost, damping = theta + step, following, lower, damping * 0.2
        if gain < TOLERANCE * cost:
            break
    return theta, np.asarray(np.linalg.inv(hessian), dtype=np.float64)


def residual_model(data: Dataset, left: Mapping[str, FloatArray]) -> ResidualModel:
    """Return the Gaussian process over what physics left."""
    targets = {}
    for target in TARGETS:
        noise = noise_variance(target, data.features)
        matrix = covariance(TERMS[target], data.features, data.features) + np.diag(noise)
        weights = np.asarray(np.linalg.solve(matrix, left[target]), dtype=np.float64)
        targets[target] = TargetResidual(TERMS[target], noise, weights, BOUND[target])
    return ResidualModel(data.features, targets)


def _errors(left: Mapping[str, FloatArray], model: ResidualModel, features: RunFeatures) -> dict[str, float]:
    rest = {}
    for target in TARGETS:
        of = model.targets[target]
        rest[target] = left[target] - np.clip(
            covariance(of.terms, features, features) @ of.weights, -of.bound, of.bound
        )
    rest["energy"] = rest["step"] + rest["power"]
    return {name: float(100.0 * np.mean(np.abs(np.expm1(-value)))) for name, value in rest.items()}
