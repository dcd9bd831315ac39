"""From files of runs and kernel tables to the coefficient document, for ``energylens calibrate fit``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from energylens.api.words import counted
from energylens.calibration.fit import FitResult, fit
from energylens.calibration.kernels import moe_curves
from energylens.calibration.runs import ResolvedRuns, read_runs, resolve_runs
from energylens.data.gpus import load_gpus
from energylens.data.predictor import load_curves, load_profiles
from energylens.predictor.fitted.serialization import curves_to, document_of
from energylens.predictor.step.moe_tables import MoeTables
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass
from energylens.runs import Run, resolver

SHIPPED_RUNS = ("ml-energy-benchmark-v3.csv", "engines-2026.csv")
LATENCY_RUNS = "latency-2026.csv"
"""Runs of NVIDIA aiconfigurator: TTFT and TPOT by exact engine version, without power."""
SOURCES = (
    "Serving runs: ML.ENERGY Benchmark v3 (Chung et al., NeurIPS 2025, arXiv 2505.06371), vLLM 0.11.1",
    "Serving runs: InferenceX 2026-07-20 (SemiAnalysis), vLLM 0.19 to 0.25 and SGLang 0.5.8 to 0.5.15",
    "Serving runs: efficient-ai ac0df20, vLLM 0.10.2",
    "Kernel curves: NVIDIA aiconfigurator (github.com/ai-dynamo/aiconfigurator, Apache-2.0), vLLM 0.22 and 0.24",
    "GPU peaks: data sheets, see gpus.json",
)


class CalibrationError(ValueError):
    """The inputs of a calibration are inconsistent or unreadable."""


@dataclass(frozen=True)
class Calibration:
    """A finished calibration."""

    result: FitResult
    document: dict[str, Any]
    tables: MoeTables

    def summary(self) -> Iterator[str]:
        """Yield the lines of a summary for users."""
        yield f"version {self.document['version']}, {self.document['provenance']['clean_runs']} clean runs"
        parts = ", ".join(f"{name} {value:.1f} %" for name, value in self.result.errors.items())
        yield f"mean absolute error of the fitted runs: {parts}"
        for name, runs in self.document["provenance"]["assumed_formats"].items():
            yield f"assumed to be stored as releases in this format usually are: {name} ({counted(runs, 'run')})"
        yield "for left-out runs, see `energylens accuracy --leave-out model`"

    def write_curves(self, path: Path) -> None:
        """Write the kernel curves in the format of the shipped file."""
        with path.open("wb") as file:
            np.savez_compressed(file, **curves_to(self.tables))  # type: ignore[arg-type]


def shipped_runs() -> tuple[Run, ...]:
    """Return the runs to which the shipped coefficients were fitted."""
    return tuple(run for name in SHIPPED_RUNS for run in _shipped(name))


def shipped_latency_runs() -> tuple[Run, ...]:
    """Return the shipped runs that have only latencies."""
    return _shipped(LATENCY_RUNS)


def _shipped(name: str) -> tuple[Run, ...]:
    with resources.as_file(resources.files("energylens.data").joinpath("runs", name)) as path:
        return read_runs(path)


def gpus_by_name() -> dict[str, GpuSpec]:
    """Return the known products by short name."""
    return {gpu.name: gpu for gpu in load_gpus().values()}


def calibrate_files(runs_file: Path | None, kernel_directory: Path | None, add_shipped: bool = False) -> Calibration:
    """Fit to files, by default the shipped ones.

    Args:
        runs_file: Table of runs; None for the shipped table.
        kernel_directory: Kernel tables; None for the shipped curves.
        add_shipped: Whether to fit to the shipped runs as well.

    Raises:
        RunsError: The runs cannot be read.
        FitError: Constants cannot be fitted to the runs.
        CalibrationError: A model or GPU is unknown, or the kernel tables cannot be read.
    """
    own = () if runs_file is None else read_runs(runs_file)
    shipped = shipped_runs() if runs_file is None or add_shipped else ()
    twice = sorted({run.run_id for run in own} & {run.run_id for run in shipped})
    if twice:
        raise CalibrationError(
            f"{runs_file}: run_id {twice[0]!r} is also the id of a shipped run, and shipped runs are included"
        )
    known = resolve_runs([*own, *shipped], resolver())
    if known.errors:
        raise CalibrationError(known.errors[0])
    gpus = gpus_by_name()
    tables: MoeTables = load_curves()
    if kernel_directory is not None:
        try:
            tables = moe_curves(kernel_directory, {n: gpus[n] for n in ("H100", "B200", "H200")})
        except OSError as error:
            raise CalibrationError(f"kernel tables: {error}") from error
        except ImportError as error:
            raise CalibrationError("kernel tables need pyarrow: pip install 'energylens[calibrate]'") from error
    profiles = load_profiles()
    result = fit(known.runs, known.models, gpus, tables, profiles)
    others = [text for text in SOURCES if shipped or not text.startswith("Serving runs")]
    sources = [*([f"Serving runs: {runs_file.name}"] if runs_file else []), *others]
    return Calibration(result, _document(known, sources, result), tables)


def _document(known: ResolvedRuns, sources: list[str], result: FitResult) -> dict[str, Any]:
    runs, document = known.runs, document_of(result.coefficients)
    engines = sorted(set(runs.engine.tolist()))
    document["provenance"] = {
        "sources": sources,
        "engines": engines,
        "runs": len(runs),
        "clean_runs": int(runs.clean.sum()),
        "assumed_formats": dict(known.assumed),
        "run_ids": sorted(runs.run_id[runs.clean].tolist()),
        "fit_error_percent": {k: round(v, 2) for k, v in result.errors.items()},
        "parameters": list(result.names),
        "parameter_values_in_prior_deviations": [round(float(v), 4) for v in result.theta],
        "parameter_deviation_after_over_before": [round(float(v), 4) for v in np.sqrt(np.diag(result.covariance))],
        "parameter_correlations": _correlations(result),
    }
    text = json.dumps({k: v for k, v in document.items() if k != "version"}, sort_keys=True)
    document["version"] = f"2026.1-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return document


def _correlations(result: FitResult, least: float = 0.3) -> list[list[Any]]:
    """Return the pairs of parameters that the data hardly distinguish; other correlations are below ``least``."""
    deviation = np.sqrt(np.diag(result.covariance))
    matrix = result.covariance / deviation[:, None] / deviation[None, :]
    rows, columns = np.where(np.triu(np.abs(matrix) >= least, 1))
    return [
        [result.names[i], result.names[j], round(float(matrix[i, j]), 2)] for i, j in zip(rows, columns, strict=True)
    ]
