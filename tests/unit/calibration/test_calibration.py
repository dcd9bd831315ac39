"""Fitting: the shipped coefficients are what the command writes from the shipped runs, and they fit them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from energylens.accuracy.evaluate import predict_runs
from energylens.calibration.dataset import build_dataset, engine_profiles
from energylens.calibration.fit import FitError, FitResult, fit, stand_ins
from energylens.calibration.parameters import CONSTANTS
from energylens.calibration.procedure import calibrate_files, gpus_by_name, shipped_runs
from energylens.calibration.runs import ResolvedRuns, Runs, RunsError, read_runs, resolve_runs
from energylens.cli.commands.calibrate import calibrate
from energylens.data import find_gpu, load_predictor
from energylens.data.predictor import load_coefficients, load_profiles
from energylens.predictor import Predictor
from energylens.predictor.fitted.features import LAYOUT, NOTHING
from energylens.predictor.fitted.profiles import parse_engine, select_profile
from energylens.predictor.fitted.serialization import document_of
from energylens.predictor.step.latency import Overlap
from energylens.runs import MEASURED_COLUMNS, MeasuredRun, Run, parse_runs, resolver

ROW = {
    "run_id": "r1", "task": "gpqa", "model_id": "Qwen/Qwen3-8B", "weight_precision": "bfloat16", "gpu_model": "H100",
    "engine": "vllm==0.11.1", "num_gpus": "1", "tensor_parallel": "1", "expert_parallel": "1", "data_parallel": "1",
    "max_num_seqs": "8", "concurrency": "8", "input_tokens_assumed": "250", "output_tokens": "8000",
    "median_itl_ms": "9.7", "p90_itl_ms": "11", "p95_itl_ms": "12", "p99_itl_ms": "14",
    "joules_per_output_token": "0.6", "output_tokens_per_second": "820", "power_watts": "490",
    "host_bound": "0",
}  # fmt: skip


@pytest.fixture(scope="module")
def shipped() -> ResolvedRuns:
    return resolve_runs(shipped_runs(), resolver())


@pytest.fixture(scope="module")
def refitted(shipped: ResolvedRuns) -> FitResult:
    return fitted(shipped.runs, shipped)


def fitted(runs: Runs, known: ResolvedRuns) -> FitResult:
    return fit(runs, known.models, gpus_by_name(), load_coefficients().tables, load_profiles())


def test_the_shipped_coefficients_are_what_the_fit_writes(refitted: FitResult) -> None:
    shipped = document_of(load_coefficients())
    again = document_of(refitted.coefficients)
    assert again["constants"].keys() == shipped["constants"].keys()
    for name, values in again["constants"].items():
        assert values == pytest.approx(shipped["constants"][name], rel=2e-3), name
    assert again["intervals"]["scale"] == pytest.approx(shipped["intervals"]["scale"], rel=1e-2)
    assert again["residual"]["keys"] == shipped["residual"]["keys"]


def test_the_fit_is_close_and_constants_stay_near_what_physics_allows(refitted: FitResult) -> None:
    assert refitted.errors["energy"] < 4.0
    assert refitted.errors["power"] < 3.5
    assert refitted.errors["step"] < 4.5
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
    assert any("InferenceX" in source for source in provenance["sources"])
    assert provenance["fit_error_percent"]["energy"] < 4.0
    assert len(provenance["run_ids"]) == provenance["clean_runs"]


def test_every_constant_has_a_value_for_every_product() -> None:
    for product, values in load_coefficients().constants.items():
        assert set(values) == {c.name for c in CONSTANTS}, product
        assert all(value > 0 for value in values.values()), product


def test_runs_that_say_nothing_are_refused(shipped: ResolvedRuns) -> None:
    with pytest.raises(FitError, match="no run to fit to"):
        fitted(shipped.runs.take(shipped.runs.host_bound), shipped)


SITE_BATCHES = (4, 8, 16, 32, 64, 128)


def site_runs(gpu: str, engine: str, slower: float, hotter: float) -> list[Run]:
    """Return runs of a site whose GPUs are so much slower, and draw so much more, than was known."""
    base = parse_runs(",".join(ROW) + "\n" + ",".join(ROW.values()) + "\n", "runs.csv", measured=True).runs[0]
    asked = [
        replace(base, run_id=f"{model}-{batch}", task="site", model_id=model, gpu_model=gpu, engine=engine,
                max_num_seqs=batch, concurrency=float(batch), input_tokens=500.0, output_tokens=300.0)
        for model in ("Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct")
        for batch in SITE_BATCHES
    ]  # fmt: skip
    predictor = load_predictor(*parse_engine(engine))
    found = predict_runs(asked, resolver(), lambda _: predictor).values
    out = []
    for i, run in enumerate(asked):
        itl, power = found["itl"][i] * slower, found["power"][i] * hotter
        throughput = found["throughput"][i] / slower
        measured = MeasuredRun(itl, itl * 1.1, itl * 1.2, itl * 1.5, throughput, power, power / throughput)
        out.append(replace(run, measured=measured))
    return out


def test_requests_that_wait_do_not_run_and_what_a_site_saw_running_did() -> None:
    base = site_runs("H100", "vllm==0.11.1", slower=1.0, hotter=1.0)[0]
    many = replace(base, max_num_seqs=2048, concurrency=2000.0, input_tokens=8000.0)
    known = resolve_runs([replace(many, task="gpqa"), replace(many, run_id="site")], resolver())
    engines = engine_profiles(known.runs.engine.tolist(), load_profiles())
    found = build_dataset(known.runs, known.models, gpus_by_name(), load_coefficients().tables, engines)
    benchmark, site = found.running
    assert 20 < benchmark < 100
    assert site == 2000
    assert found.mean_step == pytest.approx(found.running / known.runs.output_tokens_per_second)


def test_few_runs_make_no_interval_narrower_than_the_prior_whatever_is_near() -> None:
    known = resolve_runs(site_runs("H100", "vllm==0.11.1", slower=1.0, hotter=1.0), resolver())
    scales = fitted(known.runs, known).coefficients.intervals
    near = np.arange(NOTHING + 1)
    widths = scales.half_width("step", near, np.full(near.size, 0.04), np.zeros(near.size), np.ones(near.size))
    assert (widths >= 1.28 * 0.2).all()


@pytest.mark.parametrize(
    ("gpu", "engine"), [("H200", "vllm==0.24.0"), ("A100-80GB", "vllm==0.11.1"), ("H100", "sglang==0.5.5")]
)
def test_a_sites_runs_move_its_gpu_and_engine_to_what_was_measured(gpu: str, engine: str) -> None:
    runs = site_runs(gpu, engine, slower=1.25, hotter=0.93)
    known = resolve_runs(runs, resolver())
    coefficients = fitted(known.runs, known).coefficients
    profile = select_profile(load_profiles(), *parse_engine(engine))
    assert coefficients.measured == {find_gpu(gpu).name: (profile.name,)}
    after = predict_runs(runs, resolver(), lambda _: Predictor(coefficients, profile))
    for name, wanted in (
        ("throughput", [run.measured.output_tokens_per_second for run in runs if run.measured]),
        ("power", [run.measured.power_watts for run in runs if run.measured]),
    ):
        np.testing.assert_allclose(after.values[name], np.array(wanted, dtype=np.float64), rtol=0.05)
        assert (after.intervals[name].low < wanted).all()
        assert (after.intervals[name].high > wanted).all()
    assert (after.nearest == LAYOUT).all()
    # Another engine was not measured, whatever the GPU.
    other = select_profile(load_profiles(), *parse_engine("sglang" if engine.startswith("vllm") else "vllm"))
    assert predict_runs(runs, resolver(), lambda _: Predictor(coefficients, other)).nearest.min() == NOTHING


@pytest.mark.parametrize(
    ("engine", "text"),
    [("triton==3", "engine 'triton' has no profile"), ("vllm==abc", "engine version 'abc' does not start with")],
)
def test_runs_of_an_engine_without_a_profile_are_refused(engine: str, text: str) -> None:
    runs = [replace(run, engine=engine) for run in site_runs("H100", "vllm==0.11.1", 1.0, 1.0)]
    known = resolve_runs(runs, resolver())
    with pytest.raises(FitError, match=text):
        fitted(known.runs, known)


def test_runs_of_an_engine_that_overlaps_collectives_are_refused() -> None:
    staged = replace(load_profiles()[0], overlap=Overlap(4, 0.12))
    with pytest.raises(ValueError, match="overlaps collectives"):
        engine_profiles(["vllm==0.11.1"], [staged])


def test_a_format_that_only_a_releases_name_suggests_is_not_fitted_to() -> None:
    base = site_runs("H100", "vllm==0.11.1", slower=1.0, hotter=1.0)[0]
    unknown = replace(base, model_id="someone/Qwen3-8B-AWQ", weight_precision=None)
    known = resolve_runs([unknown, replace(unknown, run_id="own", model_id="Qwen/Qwen3-8B")], resolver())
    assert known.errors == (
        f"run {base.run_id}: model_id='someone/Qwen3-8B-AWQ' is not in the catalogue, and only its name suggests INT4; "
        "state weight_precision",
    )
    assert (len(known.runs), known.assumed) == (1, {})


def test_releases_that_the_catalogue_lacks_are_named_with_their_stated_format() -> None:
    base = site_runs("H100", "vllm==0.11.1", slower=1.0, hotter=1.0)[0]
    release = replace(base, model_id="someone/Qwen3-8B-AWQ", weight_precision="int4")
    stated = replace(base, model_id="Qwen/Qwen3-8B", weight_precision="nvfp4")
    named = [replace(run, run_id=str(i)) for i, run in enumerate((release, stated, release, base))]
    known = resolve_runs(named, resolver())
    assert known.errors == ()
    assert known.assumed == {"Qwen/Qwen3-8B in NVFP4": 1, "someone/Qwen3-8B-AWQ in INT4": 2}


def test_the_summary_names_releases_whose_storage_is_assumed(tmp_path: Path) -> None:
    rows = written(tmp_path, {**ROW, "weight_precision": "nvfp4"})
    outcome = calibrate_files(rows, None)
    assert outcome.document["provenance"]["assumed_formats"] == {"Qwen/Qwen3-8B in NVFP4": 1}
    assert "assumed to be stored as releases in this format usually are: Qwen/Qwen3-8B in NVFP4 (1 run)" in [
        *outcome.summary()
    ]


def test_the_command_refuses_shipped_runs_twice_and_unknown_models(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out.json")]
    again = shipped_runs()[0].run_id
    for row, options, text in (
        ({**ROW, "run_id": again}, ["--add-shipped"], f"run_id '{again}' is also the id of a shipped run"),
        ({**ROW, "model_id": "nobody/knows"}, [], "run r1: model_id='nobody/knows' is not in the catalogue"),
        ({**ROW, "gpu_model": "TPU"}, [], "run r1: gpu_model: "),
    ):
        result = CliRunner().invoke(calibrate, ["fit", "--runs", str(written(tmp_path, row)), *options, *out])
        assert (result.exit_code, text in result.output.splitlines()[-1]) == (2, True), result.output


def written(tmp_path: Path, row: dict[str, str]) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    return path


def test_a_good_file_is_read(tmp_path: Path) -> None:
    (run,) = read_runs(written(tmp_path, ROW))
    assert run.measured is not None
    assert run.measured.power_watts == 490.0


@pytest.mark.parametrize(("column", "value"), [("power_watts", "-3"), ("concurrency", "many"), ("p90_itl_ms", "x")])
def test_a_bad_value_names_the_line_and_the_column_and_no_part_of_the_file_is_fitted(
    tmp_path: Path, column: str, value: str
) -> None:
    with pytest.raises(RunsError, match=f"runs.csv: line 2: {column}") as caught:
        read_runs(written(tmp_path, {**ROW, column: value}))
    assert "\n" not in str(caught.value)


def test_a_missing_column_and_an_empty_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunsError, match="column 'num_gpus' is missing"):
        read_runs(written(tmp_path, {k: v for k, v in ROW.items() if k != "num_gpus"}))
    with pytest.raises(RunsError, match="no measured column; at least one is needed of median_itl_ms, "):
        read_runs(written(tmp_path, {k: v for k, v in ROW.items() if k not in MEASURED_COLUMNS}))
    (tmp_path / "empty.csv").write_text(",".join(ROW) + "\n")
    with pytest.raises(RunsError, match=r"empty\.csv: no runs"):
        read_runs(tmp_path / "empty.csv")


def test_a_third_figure_follows_from_two_and_a_row_without_any_is_an_error(tmp_path: Path) -> None:
    (run,) = read_runs(written(tmp_path, {**ROW, "power_watts": "", "median_itl_ms": "", "p99_itl_ms": ""}))
    assert run.measured is not None
    assert run.measured.power_watts == pytest.approx(0.6 * 820)
    assert run.measured.median_itl_ms is None
    with pytest.raises(RunsError, match="nothing was measured"):
        read_runs(written(tmp_path, {**ROW, **dict.fromkeys(MEASURED_COLUMNS, "")}))


def test_runs_with_a_time_per_output_token_alone_move_the_step(shipped: ResolvedRuns) -> None:
    runs = site_runs("H100", "vllm==0.11.1", slower=1.3, hotter=1.0)
    only = [
        replace(
            run, measured=MeasuredRun(median_tpot_ms=1000.0 * run.concurrency / run.measured.output_tokens_per_second)
        )
        for run in runs
        if run.measured is not None and run.measured.output_tokens_per_second is not None
    ]
    known = resolve_runs(only, resolver())
    coefficients = fitted(known.runs, known).coefficients
    profile = select_profile(load_profiles(), "vllm", "0.11.1")
    after = predict_runs(only, resolver(), lambda _: Predictor(coefficients, profile))
    wanted = np.array([run.measured.median_tpot_ms for run in only if run.measured], dtype=np.float64)
    np.testing.assert_allclose(after.values["tpot"], wanted, rtol=0.06)
    assert np.isfinite(after.values["power"]).all()


def test_the_command_refuses_a_missing_file_in_one_line(tmp_path: object) -> None:
    result = CliRunner().invoke(calibrate, ["fit", "--runs", f"{tmp_path}/none.csv", "--out", f"{tmp_path}/out.json"])
    assert result.exit_code == 2
    assert "none.csv" in result.output.splitlines()[-1]


def test_a_measured_product_stands_in_for_its_architecture() -> None:
    gpus = gpus_by_name()
    both = stand_ins(np.array(["H100", "H200", "B200"]), gpus)
    assert (both["hopper"], both["blackwell"], both["ampere"]) == ("H100", "B200", "A100")
    assert stand_ins(np.array(["H200", "B300"]), gpus)["hopper"] == "H200"
    assert stand_ins(np.array(["L4"]), gpus)["ada-lovelace"] == "L4"
