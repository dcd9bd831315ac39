"""Fit the constants and the residual to measured runs: deterministic, seconds, NumPy only.

Maximum a posteriori in the logarithm of the constants by damped Gauss-Newton (Levenberg 1944). The errors of runs of
one layout are correlated, so residuals are whitened with the covariance that the residual model gives them (generalised
least squares, Aitken 1935): thirty layouts weigh like thirty layouts, not like three hundred runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from energylens.calibration.dataset import Dataset, build_dataset
from energylens.calibration.intervals import fit_intervals
from energylens.calibration.parameters import CONSTANTS, RATIO_PRODUCT, REFERENCE, Constant
from energylens.calibration.products import derived_constants
from energylens.calibration.runs import Runs
from energylens.predictor.architecture import ModelSpec
from energylens.predictor.coefficients import Coefficients
from energylens.predictor.moe_tables import MoeTables
from energylens.predictor.noise import noise_variance
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


@dataclass(frozen=True)
class Scales:
    """Free constants in the order of the parameter vector."""

    shared: tuple[Constant, ...]
    ratios: tuple[Constant, ...]

    @property
    def size(self) -> int:
        """Length of the parameter vector."""
        return len(self.shared) + len(self.ratios)


def free_scales(constants: tuple[Constant, ...] = CONSTANTS) -> Scales:
    """Return what may move: one shared value and one ratio between products per constant."""
    shared = tuple(c for c in constants if c.spread > 0)
    return Scales(shared, tuple(c for c in shared if c.ratio_spread > 0))


def constants_of(theta: FloatArray, scales: Scales, second: FloatArray) -> dict[str, FloatArray]:
    """Return the constants of every run.

    Args:
        theta: Parameters in prior standard deviations, shape (p,).
        scales: Their meaning.
        second: 1 for runs on the ratio product, 0 for runs on the reference, shape (n,).
    """
    moved = {c.name: theta[i] for i, c in enumerate(scales.shared)}
    turned = {c.name: theta[len(scales.shared) + i] for i, c in enumerate(scales.ratios)}
    return {
        c.name: c.prior
        * np.exp(moved.get(c.name, 0.0) * c.spread)
        * np.exp(second * (np.log(c.ratio) + turned.get(c.name, 0.0) * c.ratio_spread))
        for c in CONSTANTS
    }


def predicted_logs(data: Dataset, constants: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the logarithm of mean step (s), median and P99 ITL (s) and power per GPU (W) of every run."""
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
    errors: dict[str, float]
    """Mean absolute percentage error on the fitted runs, physics and residual together."""


def fit(
    runs: Runs,
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    tables: MoeTables,
    start: FloatArray | None = None,
) -> Coefficients:
    """Return coefficients fitted to runs; host-bound and data-parallel runs are left out.

    Args:
        runs: Measured runs.
        models: Architecture by model id.
        gpus: Products by short name, those without runs included: their constants are derived.
        tables: Kernel curves.
        start: Parameters to start from, such as those of a fit to more runs; the result depends on them only within
            the tolerance.

    Raises:
        FitError: No clean run, or a product other than the reference and the ratio product.
        KeyError: A model or a product is not known.
    """
    return fit_full(runs, models, gpus, tables, start).coefficients


def fit_full(
    runs: Runs,
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    tables: MoeTables,
    start: FloatArray | None = None,
) -> FitResult:
    """Fit as :func:`fit` does and return the parameters, their covariance and the errors too."""
    clean = runs.take(runs.clean)
    if not len(clean):
        raise FitError("no run to fit to: all are host-bound or data-parallel")
    strange = sorted(set(clean.gpu_model.tolist()) - {REFERENCE, RATIO_PRODUCT})
    if strange:
        raise FitError(f"gpu_model {strange[0]!r} has no priors; known: {REFERENCE}, {RATIO_PRODUCT}")
    data = build_dataset(clean, models, gpus, tables)
    theta, spread = solve(data, start)
    scales = free_scales()
    measured = measured_logs(data)
    second = (clean.gpu_model == RATIO_PRODUCT).astype(np.float64)
    physics = predicted_logs(data, constants_of(theta, scales, second))
    left = {t: measured[t] - physics[t] for t in TARGETS}
    residual = residual_model(data, left)
    intervals = fit_intervals(data, left, residual, TERMS)
    errors = _errors(left, residual, data.features)
    constants = derived_constants(product_constants(theta, scales), gpus)
    coefficients = Coefficients(
        version="fit",
        constants=constants,
        measured_gpus=tuple(sorted(set(clean.gpu_model.tolist()))),
        architecture_default={"hopper": "H100", "ampere": "A100", "ada-lovelace": "L40S", "blackwell": "B200"},
        tables=tables,
        residual=residual,
        intervals=intervals,
    )
    names = tuple(c.name for c in scales.shared) + tuple(f"{c.name}/ratio" for c in scales.ratios)
    return FitResult(coefficients, theta, spread, names, errors)


def product_constants(theta: FloatArray, scales: Scales) -> dict[str, dict[str, float]]:
    """Return the constants of both measured products."""
    both = constants_of(theta, scales, np.array([0.0, 1.0]))
    return {
        name: {k: float(np.broadcast_to(v, (2,))[i]) for k, v in both.items()}
        for i, name in enumerate((REFERENCE, RATIO_PRODUCT))
    }


def solve(data: Dataset, start: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
    """Return the parameters of maximum posterior and their covariance (Laplace)."""
    scales = free_scales()
    second = (data.runs.gpu_model == RATIO_PRODUCT).astype(np.float64)
    measured = measured_logs(data)
    whiten = {}
    for target in TARGETS:
        matrix = covariance(TERMS[target], data.features, data.features)
        # Twice the noise of a repeated run: physics is not exact from one batch to the next either.
        matrix += np.diag(2.0 * noise_variance(target, data.features))
        whiten[target] = np.linalg.inv(np.linalg.cholesky(matrix))

    def residuals(theta: FloatArray) -> FloatArray:
        logs = predicted_logs(data, constants_of(theta, scales, second))
        tail = np.clip((logs["tail"] - measured["tail"]) / TAIL_DEVIATION, -TAIL_CLIP, TAIL_CLIP)
        return np.concatenate([whiten[t] @ (logs[t] - measured[t]) for t in TARGETS] + [tail, theta])

    theta = np.zeros(scales.size) if start is None else start.copy()
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
