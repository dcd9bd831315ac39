from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.accuracy.fakes import run

from energylens.accuracy.evaluate import predict_runs
from energylens.accuracy.refit import Refits
from energylens.calibration.fit import FitError
from energylens.calibration.runs import RunsError, arrays_of
from energylens.data import load_gpus
from energylens.data.predictor import load_coefficients, load_profiles
from energylens.predictor import UnknownEngineError
from energylens.runs import Run, resolver

GPUS = {gpu.name: gpu for gpu in load_gpus().values()}
# Rates of a plausible machine: what matters is that a fit to them predicts them.
RUNS = [
    run(
        f"{gpu}-{batch}",
        gpu=gpu,
        batch=batch,
        itl=itl,
        throughput=1000 * batch / itl,
        energy=450 * itl / (1000 * batch),
    )
    for gpu in ("H100", "B200")
    for batch, itl in ((8, 8.5), (32, 10.0), (128, 17.0))
]


def refits(runs: Sequence[Run]) -> Refits:
    return Refits(runs, resolver(), GPUS, load_coefficients().tables, load_profiles())


def test_runs_become_the_arrays_of_the_calibration() -> None:
    one = run("a", itl=12.0, energy=0.5, throughput=700.0, gpus=4, expert_parallel=4, batch=16, host_bound=True)
    arrays = arrays_of([one], ["model fp8"], ["H100"])
    row = {name: getattr(arrays, name)[0] for name in arrays.__dataclass_fields__}
    assert np.isnan(row.pop("median_tpot_ms"))
    assert row == {
        "run_id": "a",
        "task": "chat",
        "model_id": "model fp8",
        "gpu_model": "H100",
        "engine": "",
        "num_gpus": 4,
        "tensor_parallel": 4,
        "expert_parallel": 4,
        "data_parallel": 1,
        "max_num_seqs": 16,
        "concurrency": 16.0,
        "input_tokens_assumed": 300.0,
        "output_tokens": 500.0,
        "median_itl_ms": 12.0,
        "p99_itl_ms": 12.0,
        "output_tokens_per_second": 700.0,
        "power_watts": 350.0,
        "host_bound": True,
        "waiting_counts": False,
        "decodes_only": False,
    }


def test_runs_without_measurement_are_refused() -> None:
    bare = replace(run(), measured=None)
    with pytest.raises(RunsError, match="without their measured columns"):
        arrays_of([bare])


def test_a_refit_follows_its_runs_and_passes_over_what_it_cannot_use() -> None:
    others = [run("x", model="nobody/nothing"), run("y", gpu="TPU"), run("z", host_bound=True, itl=900.0)]
    known = [replace(one, engine="vllm==0.11.1") for one in RUNS]
    choose = refits([*known, *others]).to([*known, *others])
    found = predict_runs(known, resolver(), choose)
    assert found.error == ("",) * len(RUNS)
    measured = np.array([one.measured.median_itl_ms for one in RUNS if one.measured is not None])
    assert np.abs(found.values["itl"] / measured - 1).max() < 0.2
    with pytest.raises(UnknownEngineError):
        choose("triton==1")


def test_nothing_to_fit_to_is_an_error() -> None:
    with pytest.raises(FitError):
        refits([run(host_bound=True)])
    with pytest.raises(FitError):
        refits(RUNS).to([run(host_bound=True)])


def test_a_refit_to_a_part_is_the_fit_to_that_part() -> None:
    kept = [one for one in RUNS if one.gpu_model == "H100"]
    near, alone = (predict_runs(kept, resolver(), made.to(kept)) for made in (refits(RUNS), refits(kept)))
    for name in ("itl", "power", "energy"):
        np.testing.assert_allclose(near.values[name], alone.values[name], rtol=2e-3)
        np.testing.assert_allclose(near.intervals[name].high, alone.intervals[name].high, rtol=5e-3)


def test_runs_that_share_an_id_cannot_be_told_apart() -> None:
    with pytest.raises(FitError, match="run_id 'H100-8' is used by 2 runs"):
        refits([*RUNS, RUNS[0]])
