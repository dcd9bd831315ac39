"""Predictors of coefficients that are fitted to given runs, for judging what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from energylens.accuracy.evaluate import Chooser, Resolver
from energylens.calibration.fit import fit
from energylens.calibration.parameters import RATIO_PRODUCT, REFERENCE
from energylens.calibration.runs import Runs
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
    coefficients = fit(as_arrays(usable), models, gpus, tables)
    return lambda engine: Predictor(coefficients, select_profile(profiles, *parse_engine(engine or "vllm")))


def as_arrays(runs: Sequence[tuple[Run, str, ModelSpec, GpuSpec]]) -> Runs:
    """Return runs as the arrays that calibration takes.

    Args:
        runs: each with the id that its model goes by, its model and its GPU.

    Raises:
        ValueError: a run was read without its measured columns.
    """
    measured = [run.measured for run, _, _, _ in runs]
    if None in measured:
        raise ValueError("runs were read without their measured columns")

    def text(values: Sequence[str]) -> np.typing.NDArray[np.str_]:
        return np.array(values, dtype=np.str_)

    def whole(field: str) -> np.typing.NDArray[np.int64]:
        return np.array([getattr(run, field) for run, _, _, _ in runs], dtype=np.int64)

    def real(field: str) -> np.typing.NDArray[np.float64]:
        return np.array([getattr(run, field) for run, _, _, _ in runs], dtype=np.float64)

    def truth(field: str) -> np.typing.NDArray[np.float64]:
        return np.array([getattr(values, field) for values in measured], dtype=np.float64)

    return Runs(
        run_id=text([run.run_id for run, _, _, _ in runs]),
        task=text([run.task for run, _, _, _ in runs]),
        model_id=text([name for _, name, _, _ in runs]),
        weight_precision=text([weight_precision(model) for _, _, model, _ in runs]),
        gpu_model=text([gpu.name for _, _, _, gpu in runs]),
        engine=text([run.engine or "" for run, _, _, _ in runs]),
        num_gpus=whole("num_gpus"),
        tensor_parallel=whole("tensor_parallel"),
        expert_parallel=whole("expert_parallel"),
        data_parallel=whole("data_parallel"),
        max_num_seqs=whole("max_num_seqs"),
        concurrency=real("concurrency"),
        input_tokens_assumed=real("input_tokens"),
        output_tokens=real("output_tokens"),
        median_itl_ms=truth("median_itl_ms"),
        p99_itl_ms=truth("p99_itl_ms"),
        output_tokens_per_second=truth("output_tokens_per_second"),
        power_watts=truth("power_watts"),
        host_bound=np.array([run.host_bound for run, _, _, _ in runs], dtype=np.bool_),
    )
