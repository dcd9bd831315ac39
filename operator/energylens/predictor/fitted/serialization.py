"""Coefficients to and from plain documents and arrays. Pure: :mod:`energylens.data.predictor` reads the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from energylens.predictor.fitted.coefficients import FORMAT, Coefficients, CoefficientsError
from energylens.predictor.fitted.intervals import IntervalModel
from energylens.predictor.fitted.profiles import EngineProfile
from energylens.predictor.fitted.residual import KernelTerm, ResidualModel, RunFeatures, TargetResidual
from energylens.predictor.model.memory import FULL_CACHE
from energylens.predictor.step.latency import Overlap
from energylens.predictor.step.lockstep import Lockstep
from energylens.predictor.step.moe_tables import MoeCurves

Arrays = Mapping[str, npt.NDArray[Any]]


def coefficients_from(document: Mapping[str, Any], curves: Arrays) -> Coefficients:
    """Return the coefficients in a parsed JSON document with its kernel curves.

    Raises:
        CoefficientsError: A field is missing or has the wrong form; the message names it.
    """
    if document.get("format") != FORMAT:
        raise CoefficientsError(
            f"format is {document.get('format')!r}, this version reads {FORMAT}: write the file again with "
            "`energylens calibrate fit`"
        )
    try:
        return Coefficients(
            version=str(document["version"]),
            constants={g: {k: float(v) for k, v in c.items()} for g, c in document["constants"].items()},
            measured={gpu: tuple(engines) for gpu, engines in document["measured"].items()},
            architecture_default=dict(document["architecture_default"]),
            tables=curves_from(curves),
            engines={e: {k: float(v) for k, v in f.items()} for e, f in document["engines"].items()},
            residual=_residual_from(document.get("residual")),
            intervals=_intervals_from(document["intervals"]),
            provenance=dict(document["provenance"]),
        )
    except KeyError as error:
        raise CoefficientsError(f"field {error.args[0]!r} is missing") from error
    except (TypeError, AttributeError, ValueError) as error:
        raise CoefficientsError(f"a field has the wrong form: {error}") from error


def document_of(coefficients: Coefficients) -> dict[str, Any]:
    """Return the JSON document of coefficients, without the kernel curves."""
    return {
        "format": FORMAT,
        "version": coefficients.version,
        "provenance": dict(coefficients.provenance),
        "measured": {gpu: list(engines) for gpu, engines in coefficients.measured.items()},
        "architecture_default": dict(coefficients.architecture_default),
        "constants": {g: {k: _rounded(v) for k, v in c.items()} for g, c in coefficients.constants.items()},
        "engines": {e: {k: _rounded(v) for k, v in f.items()} for e, f in coefficients.engines.items()},
        "intervals": {
            "scale": {k: _rounded(v) for k, v in coefficients.intervals.scale.items()},
            "extrapolation": coefficients.intervals.extrapolation,
        },
        "residual": _residual_document(coefficients.residual),
    }


def curves_from(arrays: Arrays) -> dict[str, MoeCurves]:
    """Return kernel curves from arrays named ``<gpu>/<kernel class>|<field>``."""
    names = sorted({key.split("|", 1)[0] for key in arrays})
    fields = ("shapes", "tokens", "log_ratio")
    return {n: MoeCurves(*(np.asarray(arrays[f"{n}|{f}"], dtype=np.float64) for f in fields)) for n in names}


def curves_to(curves: Mapping[str, MoeCurves]) -> dict[str, npt.NDArray[np.float32]]:
    """Return kernel curves as named arrays of single precision."""
    fields = ("shapes", "tokens", "log_ratio")
    return {f"{n}|{f}": getattr(c, f).astype(np.float32) for n, c in sorted(curves.items()) for f in fields}


def profiles_from(document: Mapping[str, Any]) -> tuple[EngineProfile, ...]:
    """Return the engine profiles of a parsed JSON document.

    Raises:
        CoefficientsError: A field is missing.
    """
    try:
        return tuple(
            EngineProfile(
                engine=entry["engine"],
                minimum=tuple(entry["minimum"]),
                below=tuple(entry["below"]) if entry.get("below") else None,
                factors=dict(entry["factors"]),
                overlap=_overlap_from(entry.get("overlap")),
                lockstep=Lockstep(**entry.get("lockstep", {})),
                memory_utilization=float(entry["memory_utilization"]),
                steps_ahead=int(entry["steps_ahead"]),
                full_cache=float(entry.get("full_cache", FULL_CACHE)),
                sources=tuple(entry["sources"]),
                measured=_versions_from(entry.get("measured")),
            )
            for entry in document["profiles"]
        )
    except KeyError as error:
        raise CoefficientsError(f"engine profile field {error.args[0]!r} is missing") from error


def _overlap_from(entry: Mapping[str, Any] | None) -> Overlap | None:
    return None if entry is None else Overlap(int(entry["stages"]), float(entry["sm_share"]))


def _versions_from(entry: Sequence[str] | None) -> tuple[str, str] | None:
    return None if entry is None else (entry[0], entry[1])


def _rounded(value: float) -> float:
    """Round to six significant digits: far below any prediction error, and equal files on every machine."""
    return float(f"{value:.6g}")


def _intervals_from(document: Mapping[str, Any]) -> IntervalModel:
    return IntervalModel(
        {k: float(v) for k, v in document["scale"].items()},
        float(document["extrapolation"]),
    )


def _residual_document(model: ResidualModel | None) -> dict[str, Any] | None:
    if model is None:
        return None
    return {
        "keys": {k: model.training.each(v).tolist() for k, v in model.training.keys.items()},
        "log_batch": [_rounded(v) for v in model.training.log_batch],
        "targets": {
            name: {
                "terms": [
                    [t.key, _rounded(t.variance), None if np.isinf(t.length) else t.length] for t in target.terms
                ],
                "noise": [_rounded(v) for v in target.noise],
                "bound": target.bound,
                "weights": [_rounded(v) for v in target.weights],
            }
            for name, target in model.targets.items()
        },
    }


def _residual_from(document: Mapping[str, Any] | None) -> ResidualModel | None:
    if document is None:
        return None
    training = RunFeatures(
        {k: np.array(v, dtype=np.str_) for k, v in document["keys"].items()},
        np.array(document["log_batch"], dtype=np.float64),
    )
    targets = {}
    for name, entry in document["targets"].items():
        terms = tuple(
            KernelTerm(key, float(variance), np.inf if length is None else float(length))
            for key, variance, length in entry["terms"]
        )
        noise = np.array(entry["noise"], dtype=np.float64)
        weights = np.array(entry["weights"], dtype=np.float64)
        targets[name] = TargetResidual(terms, noise, weights, float(entry["bound"]))
    return ResidualModel(training, targets)
