"""Errors with a whole group of models left out of the fit, siblings together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from energylens.calibration.dataset import build_dataset, engine_profiles
from energylens.calibration.fit import fit, measured_logs, predicted_logs
from energylens.calibration.runs import Runs
from energylens.predictor.architecture import ModelSpec
from energylens.predictor.features import architecture_key
from energylens.predictor.moe_tables import MoeTables
from energylens.predictor.profiles import EngineProfile
from energylens.predictor.residual import TARGETS, correct
from energylens.predictor.types import GpuSpec


def architecture_groups(runs: Runs, models: Mapping[str, ModelSpec]) -> npt.NDArray[np.str_]:
    """Return the group of each run: one architecture and size, whatever the release or the precision."""
    return np.array([architecture_key(models[str(m)]) for m in runs.model_id], dtype=np.str_)


def grouped_errors(
    runs: Runs,
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    tables: MoeTables,
    profiles: Sequence[EngineProfile],
    start: Mapping[str, float],
) -> dict[str, float]:
    """Return mean absolute percentage errors of clean runs, each predicted without its group.

    Empty when all runs are of one group.
    """
    clean = runs.take(runs.clean)
    groups = architecture_groups(clean, models)
    names = np.unique(groups)
    if names.size < 2:
        return {}
    rest = {t: np.zeros(len(clean)) for t in TARGETS}
    for name in names:
        out = groups == name
        coefficients = fit(clean.take(~out), models, gpus, tables, profiles, start)
        part = clean.take(out)
        data = build_dataset(part, models, gpus, tables, engine_profiles(part.engine.tolist(), profiles))
        mine = [coefficients.constants[str(gpu)] for gpu in data.runs.gpu_model]
        physics = predicted_logs(data, {name: np.array([values[name] for values in mine]) for name in mine[0]})
        measured = measured_logs(data)
        model = coefficients.residual
        assert model is not None
        learned = correct(model, data.features)
        for target in TARGETS:
            rest[target][out] = physics[target] + learned[target][0] - measured[target]
    rest["energy"] = rest["step"] + rest["power"]
    return {name: float(100.0 * np.mean(np.abs(np.expm1(value)))) for name, value in rest.items()}
