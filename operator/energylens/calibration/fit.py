"""Fit the constants and the residual to measured runs: deterministic, in seconds, with NumPy only.

Maximum a posteriori in the logarithm of the constants; see :mod:`energylens.calibration.solve`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from energylens.calibration.dataset import Dataset, build_dataset, engine_profiles
from energylens.calibration.intervals import NOT_MEASURED, fit_intervals
from energylens.calibration.products import derived_constants
from energylens.calibration.runs import Runs
from energylens.calibration.scales import Scales, constants_of, engine_factors, product_constants, scales_for
from energylens.calibration.solve import Slopes, measured_logs, predicted_logs, solve
from energylens.predictor.fitted.coefficients import Coefficients
from energylens.predictor.fitted.noise import noise_variance
from energylens.predictor.fitted.profiles import EngineProfile, UnknownEngineError
from energylens.predictor.fitted.residual import (
    TARGETS,
    KernelTerm,
    ResidualModel,
    RunFeatures,
    TargetResidual,
    covariance,
)
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.step.moe_tables import MoeTables
from energylens.predictor.types import FloatArray, GpuSpec
from energylens.records import dataclass

SHAPES = (
    ("family", 0.05, 2.0),
    ("architecture", 0.06, 2.0),
    ("stored", 0.07, 2.0),
    ("layout", 0.10, 1.0),
    ("load", 0.14, 1.0),
    ("product", 0.04, 1.5),
)
"""Summands of the residual: key, standard deviation of the step's logarithm, and length scale in log(batch)."""
RELATIVE_SIZE = {"step": 1.0, "itl": 1.15, "power": 0.65}
OFFSETS = {
    "step": (("kind", 0.03),),
    "itl": (("experts", 0.10),),
    "power": (("gpu", 0.04), ("size", 0.04)),
}
"""Offsets of what many models share: key, and standard deviation of the target's logarithm. Without them, median ITL
with models left out is 7 % too high where experts are split and 2 % too low elsewhere, and power is too high or too low
by up to 10 % on single and several GPUs of one product. They were chosen among 21 keys by the errors with models,
numbers of GPUs, tasks and layouts left out; offsets by engine, number format, kind of model or layout gave less or
nothing beside these."""
TERMS: dict[str, tuple[KernelTerm, ...]] = {
    target: (
        *(KernelTerm(key, (deviation * size) ** 2, length) for key, deviation, length in SHAPES),
        *(KernelTerm(key, deviation**2, np.inf) for key, deviation in OFFSETS[target]),
    )
    for target, size in RELATIVE_SIZE.items()
}
"""Prior covariance of the logarithmic errors that physics leaves, by model, storage format, layout and load."""
BOUND = {"step": 0.35, "itl": 0.45, "power": 0.30}


class FitError(ValueError):
    """Constants cannot be fitted to the given runs."""


@dataclass(frozen=True)
class FitResult:
    """Results of a fit besides the coefficients."""

    coefficients: Coefficients
    theta: FloatArray
    covariance: FloatArray
    """Covariance of theta in prior standard deviations, shape (p, p)."""
    names: tuple[str, ...]
    """The target of each parameter: a constant, or constant/product for its ratio on a product."""
    errors: dict[str, float]
    """Mean absolute percentage error on the fitted runs, of physics and residual together, by measured quantity."""


def fit(
    runs: Runs,
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    tables: MoeTables,
    profiles: Sequence[EngineProfile],
) -> FitResult:
    """Fit coefficients to runs; host-bound and data-parallel runs are left out.

    Args:
        runs: Measured runs.
        models: Architecture by model id.
        gpus: GPU products by short name, including products without runs, whose constants are derived.
        tables: Kernel curves.
        profiles: Engine profiles. Constants belong to the engine without factors, whatever the engine of a run.

    Raises:
        FitError: There is no clean run, a product has an unknown architecture, or an engine has no profile.
        KeyError: A model or a product is unknown.
    """
    return fit_data(clean_data(runs, models, gpus, tables, profiles), gpus, tables, profiles)


def clean_data(
    runs: Runs,
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    tables: MoeTables,
    profiles: Sequence[EngineProfile],
) -> Dataset:
    """Return the clean runs with their work; arguments and errors as for :func:`fit`."""
    clean = runs.take(runs.clean)
    if not len(clean):
        raise FitError("no run to fit to: all are host-bound or data-parallel")
    try:
        engines = engine_profiles(clean.engine.tolist(), profiles)
    except (UnknownEngineError, ValueError) as error:
        raise FitError(str(error)) from error
    return build_dataset(clean, models, gpus, tables, engines)


def scales_of(data: Dataset, gpus: Mapping[str, GpuSpec], profiles: Sequence[EngineProfile]) -> Scales:
    """Return the parameters that a fit to runs may change.

    Raises:
        FitError: A product has an unknown architecture.
    """
    used = [profile for profile in profiles if profile.name in set(data.engines.tolist())]
    try:
        return scales_for(data.runs.gpu_model.tolist(), gpus, used)
    except ValueError as error:
        raise FitError(str(error)) from error


def fit_data(
    data: Dataset,
    gpus: Mapping[str, GpuSpec],
    tables: MoeTables,
    profiles: Sequence[EngineProfile],
    near: Slopes | None = None,
    start: Mapping[str, float] | None = None,
) -> FitResult:
    """Fit to clean runs whose work is known.

    Args:
        data: The runs.
        gpus: Products by short name.
        tables: Kernel curves, which become part of the coefficients.
        profiles: Engine profiles.
        near: The result of a fit to more runs, see `solve`.
        start: Parameters to start from, see `solve`.
    """
    clean, scales = data.runs, scales_of(data, gpus, profiles)
    theta, spread = solve(data, scales, TERMS, near, start)
    measured = measured_logs(data)
    factors = engine_factors(theta, scales)
    physics = predicted_logs(data, constants_of(theta, scales, scales.membership(clean.gpu_model)), factors)
    left = {t: measured[t] - physics[t] for t in TARGETS}
    residual = residual_model(data, left)
    intervals = fit_intervals(data, left, residual)
    errors = _errors(left, residual, data.features)
    coefficients = Coefficients(
        version="fit",
        constants=derived_constants(product_constants(theta, scales), gpus),
        measured=measured_pairs(clean.gpu_model, data.engines),
        architecture_default=stand_ins(clean.gpu_model, gpus),
        tables=tables,
        engines=factors,
        residual=residual,
        intervals=intervals,
    )
    return FitResult(coefficients, theta, spread, scales.names, errors)


STAND_INS = {"hopper": "H100", "ampere": "A100", "ada-lovelace": "L40S", "blackwell": "B200"}
"""Product whose constants serve other products of its architecture without own constants."""


def stand_ins(gpu_names: npt.NDArray[np.str_], gpus: Mapping[str, GpuSpec]) -> dict[str, str]:
    """Return by architecture the product that stands in for others, a measured one if there is any.

    Args:
        gpu_names: GPU products of the fitted runs.
        gpus: Products by short name.
    """
    found = dict(STAND_INS)
    for name in sorted(set(gpu_names.tolist()), reverse=True):
        architecture = gpus[name].architecture
        if found.get(architecture) not in gpu_names:
            found[architecture] = name
    return found


def measured_pairs(gpu_names: npt.NDArray[np.str_], engines: npt.NDArray[np.str_]) -> dict[str, tuple[str, ...]]:
    """Return the engine profiles of the runs, by product."""
    return {str(name): tuple(sorted(set(engines[gpu_names == name].tolist()))) for name in np.unique(gpu_names)}


def residual_model(data: Dataset, left: Mapping[str, FloatArray]) -> ResidualModel:
    """Return the Gaussian process of the errors that physics leaves."""
    targets = {}
    for target in TARGETS:
        known = np.isfinite(left[target])
        noise = np.where(known, noise_variance(target, data.features), NOT_MEASURED)
        matrix = covariance(TERMS[target], data.features, data.features) + np.diag(noise)
        weights = np.asarray(np.linalg.solve(matrix, np.where(known, left[target], 0.0)), dtype=np.float64)
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
    found = {name: value[np.isfinite(value)] for name, value in rest.items()}
    return {name: float(100.0 * np.mean(np.abs(np.expm1(-value)))) for name, value in found.items() if value.size}
