"""The shipped coefficients and engine profiles, read once per process."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from energylens.documents import DocumentError, json_document
from energylens.predictor.core import Predictor
from energylens.predictor.fitted.coefficients import Coefficients, CoefficientsError
from energylens.predictor.fitted.profiles import EngineProfile, select_profile
from energylens.predictor.fitted.serialization import coefficients_from, curves_from, profiles_from
from energylens.predictor.step.moe_tables import MoeCurves

PACKAGE = "energylens.data"
COEFFICIENTS_FILE = "coefficients.json"
CURVES_FILE = "moe-curves.npz"
PROFILES_FILE = "engine-profiles.json"
_instead: Coefficients | None = None


def load_predictor(engine: str = "vllm", version: str | None = None) -> Predictor:
    """Return the predictor of an engine with the shipped coefficients; without a version the newest profile.

    Raises:
        UnknownEngineError: No profile of that engine, or none that covers the version.
        ValueError: The version is not a version.
    """
    return Predictor(load_coefficients(), select_profile(load_profiles(), engine, version))


def use_coefficients(path: Path) -> None:
    """Let this process predict with the coefficients of a file instead of the shipped ones.

    Raises:
        CoefficientsError: The file cannot be read, is no coefficient file, or lacks what the shipped one has.
    """
    global _instead
    found = read_coefficients(path)
    for product, constants in _shipped_coefficients().constants.items():
        own = found.constants.get(product)
        if own is None:
            raise CoefficientsError(f"{path}: constants of {product} are missing")
        for name in constants:
            if not 0.0 < own.get(name, 0.0) < np.inf:
                raise CoefficientsError(
                    f"{path}: constant {name} of {product} is {own.get(name)}, not a number above 0"
                )
    _instead = found


def load_coefficients() -> Coefficients:
    """Return the coefficients that this process predicts with: the shipped ones, if no others were asked for."""
    return _shipped_coefficients() if _instead is None else _instead


@cache
def _shipped_coefficients() -> Coefficients:
    root = resources.files(PACKAGE)
    document = json.loads(root.joinpath(COEFFICIENTS_FILE).read_text(encoding="utf-8"))
    return coefficients_from(document, _curve_arrays())


def read_coefficients(path: Path) -> Coefficients:
    """Return coefficients from a file of ``energylens calibrate fit``, with the shipped kernel curves.

    Raises:
        CoefficientsError: The file cannot be read, or is no coefficient file.
    """
    try:
        document = json_document(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CoefficientsError(f"{path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, DocumentError) as error:
        raise CoefficientsError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise CoefficientsError(f"{path}: the document must be a JSON object")
    try:
        return coefficients_from(document, _curve_arrays())
    except CoefficientsError as error:
        raise CoefficientsError(f"{path}: {error}") from error


def load_curves() -> dict[str, MoeCurves]:
    """Return the shipped kernel curves, of which a fit makes coefficients."""
    return curves_from(_curve_arrays())


@cache
def load_profiles() -> tuple[EngineProfile, ...]:
    """Return the shipped engine profiles."""
    text = resources.files(PACKAGE).joinpath(PROFILES_FILE).read_text(encoding="utf-8")
    return profiles_from(json.loads(text))


def _curve_arrays() -> dict[str, np.ndarray]:
    with (
        resources.as_file(resources.files(PACKAGE).joinpath(CURVES_FILE)) as path,
        np.load(path, allow_pickle=False) as archive,
    ):
        return {name: archive[name] for name in archive.files}
