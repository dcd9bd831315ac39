"""Constants of maximum posterior by damped Gauss-Newton (Levenberg 1944).

The errors of runs of one layout are correlated, so residuals are whitened with the covariance of the residual model
(generalised least squares, Aitken 1935): thirty layouts weigh like thirty layouts, not like three hundred runs. Ratios
of a product and factors of an engine affect only the runs on that product or engine, and only those runs are recomputed
for derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from energylens.calibration.dataset import Dataset, take_sheet
from energylens.calibration.parameters import ENGINE_SPREADS
from energylens.calibration.scales import Scales, constants_of, engine_factors
from energylens.predictor.fitted.noise import noise_variance
from energylens.predictor.fitted.residual import TARGETS, KernelTerm, covariance
from energylens.predictor.load.steady import PhaseWork, combine
from energylens.predictor.types import FloatArray, IntArray
from energylens.records import dataclass

TAIL_DEVIATION, TAIL_CLIP = 1.0, 2.0
"""Standard deviation of the P99 ITL, which reflects the cost of steps with a prefill; large, because runs share it."""
ITERATIONS = 8
STEP = 1e-3
TOLERANCE = 2e-4
LOGS = (*TARGETS, "tail")


def predicted_logs(
    data: Dataset, constants: Mapping[str, FloatArray], factors: Mapping[str, Mapping[str, float]]
) -> dict[str, FloatArray]:
    """Return the logarithm of the step (s), median and P99 ITL (s) and power per GPU (W) of every run.

    The step is the time per output token if the run has one, otherwise the mean step.

    Args:
        data: The runs.
        constants: Constants without engine factors, shape (n,) each.
        factors: Factors of engine profiles, in the form of `Dataset.factors`.
    """
    own = data.factors(factors)
    constants = {name: value * own.get(name, 1.0) for name, value in constants.items()}
    no_cap = np.full(len(data.runs), np.nan)
    state = combine(PhaseWork(data.decode, data.mixed, data.starts), constants, data.sheet, no_cap, None, data.ranks)
    itl, rows = np.full(len(data.runs), np.nan), data.itl_rows
    if rows.size:
        there = {name: value[rows] for name, value in constants.items()}
        sheet, ranks = take_sheet(data.sheet, rows), data.ranks[rows]
        work = PhaseWork(data.itl_decode, data.itl_mixed, data.itl_starts)
        other = combine(work, there, sheet, no_cap[rows], None, ranks)
        itl[rows] = other.mixture.quantile(data.itl_level)
    tpot = state.mixture.tpot(data.running)
    return {
        "step": np.log(np.where(np.isnan(data.runs.median_tpot_ms), state.mean_step, tpot)),
        "itl": np.log(itl),
        "tail": np.log(state.mixture.quantile(0.99)),
        "power": np.log(state.power_per_gpu),
    }


def measured_logs(data: Dataset) -> dict[str, FloatArray]:
    """Return the measured counterparts of :func:`predicted_logs`; NaN if a run lacks one."""
    return {
        "step": np.log(data.mean_step),
        "itl": np.log(data.runs.median_itl_ms * 1e-3),
        "tail": np.log(data.runs.p99_itl_ms * 1e-3),
        "power": np.log(data.runs.power_watts / data.runs.num_gpus),
    }


@dataclass(frozen=True)
class Slopes:
    """Derivatives of :func:`predicted_logs` by the parameters, at the result of a fit to more runs."""

    theta: Mapping[str, float]
    """Parameters by name."""
    by_log: Mapping[str, Mapping[str, FloatArray]]
    """Logarithm -> parameter -> derivative for each run, shape (n,)."""

    def take(self, index: IntArray) -> Slopes:
        """Return the derivatives for the runs of an index array of shape (r,)."""
        return Slopes(
            self.theta, {log: {name: of[index] for name, of in each.items()} for log, each in self.by_log.items()}
        )


class _Normal:
    """The least-squares problem of a fit: whitened residuals of runs, and residuals of the prior."""

    def __init__(
        self,
        data: Dataset,
        scales: Scales,
        terms: Mapping[str, tuple[KernelTerm, ...]],
        slopes: Slopes | None = None,
    ) -> None:
        self.fixed = None
        if slopes is not None:
            none = np.zeros(len(data.runs))
            self.fixed = {
                name: np.stack([slopes.by_log[name].get(p, none) for p in scales.names], axis=1) for name in LOGS
            }
        self.data, self.scales = data, scales
        self.membership = scales.membership(data.runs.gpu_model)
        self.measured = measured_logs(data)
        # Constants describe one rank; the residual covers the delay of ranks that wait for each other.
        single = data.runs.data_parallel == 1
        self.known = {name: np.flatnonzero(np.isfinite(self.measured[name]) & single) for name in LOGS}
        self.whiten = {}
        for target in TARGETS:
            matrix = covariance(terms[target], data.features, data.features)
            # Twice the noise of a repeated run, because physics is not exact from one batch size to the next either.
            matrix += np.diag(2.0 * noise_variance(target, data.features))
            inside = np.ix_(self.known[target], self.known[target])
            self.whiten[target] = np.linalg.inv(np.linalg.cholesky(matrix[inside]))
        self.parts = [_Part(data, index, columns) for index, columns in _moved(data, scales, self.membership)]

    def logs(self, theta: FloatArray) -> dict[str, FloatArray]:
        constants = constants_of(theta, self.scales, self.membership)
        return predicted_logs(self.data, constants, engine_factors(theta, self.scales))

    def residuals(self, theta: FloatArray, logs: Mapping[str, FloatArray]) -> FloatArray:
        off = {name: (logs[name] - self.measured[name])[self.known[name]] for name in LOGS}
        tail = np.clip(off["tail"] / TAIL_DEVIATION, -TAIL_CLIP, TAIL_CLIP)
        return np.concatenate([*(self.whiten[t] @ off[t] for t in TARGETS), tail, theta])

    def slopes(self, theta: FloatArray, logs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        if self.fixed is not None:
            return self.fixed
        slopes = {name: np.zeros((len(self.data.runs), theta.size)) for name in LOGS}
        for part in self.parts:
            membership = self.membership[:, part.index]
            for j in part.columns:
                moved = theta.copy()
                moved[j] += STEP
                constants = constants_of(moved, self.scales, membership)
                found = predicted_logs(part.data, constants, engine_factors(moved, self.scales))
                for name in LOGS:
                    slopes[name][part.index, j] = (found[name] - logs[name][part.index]) / STEP
        return slopes

    def jacobian(self, theta: FloatArray, logs: Mapping[str, FloatArray]) -> FloatArray:
        slopes = self.slopes(theta, logs)
        off = {name: slopes[name][self.known[name]] for name in LOGS}
        tail = (logs["tail"] - self.measured["tail"])[self.known["tail"]] / TAIL_DEVIATION
        inside = (np.abs(tail) < TAIL_CLIP)[:, None]
        rows = [self.whiten[t] @ off[t] for t in TARGETS]
        return np.concatenate([*rows, inside * off["tail"] / TAIL_DEVIATION, np.eye(theta.size)])


@dataclass(frozen=True)
class _Part:
    data: Dataset
    index: IntArray
    columns: tuple[int, ...]

    def __init__(self, whole: Dataset, index: IntArray, columns: tuple[int, ...]) -> None:
        object.__setattr__(self, "data", whole if index.size == len(whole.runs) else whole.take(index))
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "columns", columns)


def _moved(data: Dataset, scales: Scales, membership: FloatArray) -> list[tuple[IntArray, tuple[int, ...]]]:
    """Return which runs the parameters affect, and the parameters."""
    everything = np.arange(len(data.runs))
    found = [(everything, tuple(range(len(scales.shared))))]
    at = len(scales.shared)
    for row in range(len(scales.products)):
        found.append((np.flatnonzero(membership[row]), tuple(range(at, at + len(scales.ratios)))))
        at += len(scales.ratios)
    for engine in scales.engines:
        width = len(ENGINE_SPREADS)
        found.append((np.flatnonzero(data.engines == engine.profile), tuple(range(at, at + width))))
        at += width
    return [(index, columns) for index, columns in found if index.size]


def slopes_at(data: Dataset, scales: Scales, terms: Mapping[str, tuple[KernelTerm, ...]], theta: FloatArray) -> Slopes:
    """Return the derivatives at given parameters, shape (p,); other arguments as for :func:`solve`."""
    problem = _Normal(data, scales, terms)
    found = problem.slopes(theta, problem.logs(theta))
    by_log = {log: dict(zip(scales.names, of.T, strict=True)) for log, of in found.items()}
    return Slopes(dict(zip(scales.names, theta.tolist(), strict=True)), by_log)


def solve(
    data: Dataset,
    scales: Scales,
    terms: Mapping[str, tuple[KernelTerm, ...]],
    near: Slopes | None = None,
    start: Mapping[str, float] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Return the parameters of maximum posterior and their covariance (Laplace).

    Args:
        data: The runs.
        scales: The free parameters.
        terms: Prior covariance of the errors that physics leaves, by target.
        near: Result of a fit to more runs. The fit starts from its parameters and keeps its derivatives (the chord
            method), which takes a tenth of the time.
        start: Parameters by name from which the fit starts otherwise; an absent one starts at its prior.
    """
    problem = _Normal(data, scales, terms, near)
    first = (start or {}) if near is None else near.theta
    theta = np.array([first.get(name, 0.0) for name in scales.names])
    logs = problem.logs(theta)
    current = problem.residuals(theta, logs)
    cost, damping = float(current @ current), 1e-3
    hessian = np.eye(scales.size)
    for _ in range(ITERATIONS):
        jacobian = problem.jacobian(theta, logs)
        hessian = jacobian.T @ jacobian
        for _ in range(8):
            step = np.linalg.solve(hessian + damping * np.eye(scales.size), -jacobian.T @ current)
            there = problem.logs(theta + step)
            following = problem.residuals(theta + step, there)
            lower = float(following @ following)
            if lower < cost:
                break
            damping = max(damping, 1e-2) * 5.0
        else:
            break
        gain = cost - lower
        theta, logs, current, cost, damping = theta + step, there, following, lower, damping * 0.2
        if gain < TOLERANCE * cost:
            break
    return theta, np.asarray(np.linalg.inv(hessian), dtype=np.float64)
