"""Predictors of coefficients that are fitted to given runs, for judging what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from energylens.accuracy.evaluate import Chooser, Resolver
from energylens.calibration.fit import fit
from energylens.calibration.parameters import RATIO_PRODUCT, REFERENCE
from energylens.calibration.runs import arrays_of
from energylens.predictor import EngineProfile, Predictor
from energylens.predictor.architecture import ModelSpec
from energylens.predictor.moe_tables import MoeTables
from energylens.predictor.profiles import parse_engine, select_profile
from energylens.predictor.types import GpuSpec
from energylens.runs import Run, weight_precision


def refitted(
    runs: Sequence[Run],
    resolve: Resolver,
    gpus: Mapping[str, GpuSpec],
    tables: MoeTables,
    profiles: Sequence[EngineProfile],
) -> Chooser:
    """Fit to runs and return the predictor of an engine.

    Args:
        runs: with their measured values; those of unknown models and of GPUs without priors are not fitted to.
        resolve: looks up a run's model and GPU.
        gpus: all products, by short name.
        tables: kernel curves.
        profiles: engine profiles.

    Raises:
        FitError: no run is left that constants can be fitted to.
    """
    models: dict[str, ModelSpec] = {}
    usable: list[tuple[Run, str, ModelSpec, GpuSpec]] = []
    for run in runs:
        found = resolve(run)
        if found.model is None or found.gpu is None or found.gpu.name not in (REFERENCE, RATIO_PRODUCT):
            continue
        # One id in two precisions is two models.
        name = f"{run.model_id} {weight_precision(found.model)}"
        models[name] = found.model
        usable.append((run, name, found.model, found.gpu))
    arrays = arrays_of([run for run, *_ in usable], [name for _, name, *_ in usable], [gpu.name for *_, gpu in usable])
    coefficients = fit(arrays, models, gpus, tables)
    return lambda engine: Predictor(coefficients, select_profile(profiles, *parse_engine(engine or "vllm")))
