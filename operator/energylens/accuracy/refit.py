"""Predictors of coefficients that are fitted to given runs, for judging what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from energylens.accuracy.evaluate import Chooser, Resolver
from energylens.calibration.fit import fit
from energylens.calibration.runs import resolve_runs
from energylens.predictor import EngineProfile, Predictor
from energylens.predictor.fitted.profiles import parse_engine, select_profile
from energylens.predictor.step.moe_tables import MoeTables
from energylens.predictor.types import GpuSpec
from energylens.runs import Run


def refitted(
    runs: Sequence[Run],
    resolve: Resolver,
    gpus: Mapping[str, GpuSpec],
    tables: MoeTables,
    profiles: Sequence[EngineProfile],
) -> Chooser:
    """Fit to runs and return the predictor of an engine.

    Args:
        runs: with their measured values; those of unknown models and of GPUs of unknown architecture are not fitted to.
        resolve: looks up a run's model and GPU.
        gpus: all products, by short name.
        tables: kernel curves.
        profiles: engine profiles.

    Raises:
        FitError: no run is left that constants can be fitted to.
    """
    known = resolve_runs(runs, resolve)
    coefficients = fit(known.runs, known.models, gpus, tables, profiles)
    return lambda engine: Predictor(coefficients, select_profile(profiles, *parse_engine(engine or "vllm")))
