"""Fitting: the shipped coefficients are what the command writes from the shipped runs, and they fit them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from energylens.calibration.fit import FitError, FitResult, fit_full
from energylens.calibration.parameters import CONSTANTS
from energylens.calibration.procedure import gpus_by_name, models_of, shipped_runs
from energylens.calibration.runs import Runs, RunsError, read_runs
from energylens.cli.calibrate import calibrate
from energylens.data.predictor import load_coefficients
from energylens.predictor.serialization import document_of

ROW = {
    "run_id": "r1", "task": "gpqa", "model_id": "Qwen/Qwen3-8B", "weight_precision": "bfloat16", "gpu_model": "H100",
    "engine": "vllm==0.11.1", "num_gpus": "1", "tensor_parallel": "1", "expert_parallel": "1", "data_parallel": "1",
    "max_num_seqs": "8", "concurrency": "8", "input_tokens_assumed": "250", "output_tokens": "8000",
    "median_itl_ms": "9.7", "p90_itl_ms": "11", "p95_itl_ms": "12", "p99_itl_ms": "14",
    "joules_per_output_token": "0.6", "output_tokens_per_second": "820", "power_watts": "490",
    "host_bound": "0",
}  # fmt: skip


@pytest.fixture(scope="module")
def runs() -> Runs:
    return shipped_runs()


@pytest.fixture(scope="module")
def refitted(runs: Runs) -> FitResult:
    return fit_full(runs, models_of(runs), gpus_by_name(), load_coefficients().tables)


def test_the_shipped_coefficients_are_what_the_fit_writes(refitted: FitResult) -> None:
    shipped = document_of(load_coefficients())
    again = document_of(refitted.coefficients)
    assert again["constants"].keys() == shipped["constants"].keys()
    for name, values in again["constants"].items():
        assert values == pytest.approx(shipped["constants"][name], rel=2e-3), name
    assert again["intervals"]["scale"] == pytest.approx(shipped["intervals"]["scale"], rel=1e-2)
    assert again["residual"]["keys"] == shipped["residual"]["keys"]


def test_the_fit_is_close_and_constants_stay_near_what_physics_allows(refitted: FitResult) -> None:
    assert refitted.errors["energy"] < 3.0
    assert refitted.errors["power"] < 2.0
    assert refitted.errors["step"] < 4.0
    # Fractions of a peak.
    for product in ("H100", "B200"):
        constants = refitted.coefficients.constants[product]
        for name in ("gemm_bandwidth", "gemm_flops", "cache_bandwidth", "link_bandwidth"):
            assert 0.3 < constants[name] < 1.0, (product, name)
    assert np.abs(refitted.theta).max() < 4.0


def test_shipped_coefficients_name_their_sources_and_errors() -> None:
    provenance = load_coefficients().provenance
    assert any("ML.ENERGY" in source for source in provenance["sources"])
    assert any("aiconfigurator" in source for source in provenance["sources"])
    assert provenance["left_out_model_error_percent"]["energy"] < 12.5
    assert len(provenance["run_ids"]) == provenance["clean_runs"]


def test_every_constant_has_a_value_for_every_product() -> None:
    for product, values in load_coefficients().constants.items():
        assert set(values) == {c.name for c in CONSTANTS}, product
        assert all(value > 0 for value in values.values()), product


def test_runs_that_say_nothing_are_refused(runs: Runs) -> None:
    bound = runs.take(runs.host_bound)
    with pytest.raises(FitError, match="no run to fit to"):
        fit_full(bound, models_of(bound), gpus_by_name(), load_coefficients().tables)


def written(tmp_path: Path, row: dict[str, str]) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    return path


def test_a_good_file_is_read(tmp_path: Path) -> None:
    assert read_runs(written(tmp_path, ROW)).power_watts.tolist() == [490.0]


@pytest.mark.parametrize(("column", "value"), [("power_watts", "-3"), ("concurrency", "many"), ("p90_itl_ms", "")])
def test_a_bad_value_names_the_line_and_the_column_and_no_part_of_the_file_is_fitted(
    tmp_path: Path, column: str, value: str
) -> None:
    with pytest.raises(RunsError, match=f"runs.csv: line 2: {column}") as caught:
        read_runs(written(tmp_path, {**ROW, column: value}))
    assert "\n" not in str(caught.value)


def test_a_missing_column_and_an_empty_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunsError, match="column 'power_watts' is missing"):
        read_runs(written(tmp_path, {k: v for k, v in ROW.items() if k != "power_watts"}))
    (tmp_path / "empty.csv").write_text(",".join(ROW) + "\n")
    with pytest.raises(RunsError, match=r"empty\.csv: no runs"):
        read_runs(tmp_path / "empty.csv")


def test_the_command_refuses_a_missing_file_in_one_line(tmp_path: object) -> None:
    result = CliRunner().invoke(calibrate, ["fit", "--runs", f"{tmp_path}/none.csv", "--out", f"{tmp_path}/out.json"])
    assert result.exit_code == 2
    assert "none.csv" in result.output.splitlines()[-1]
