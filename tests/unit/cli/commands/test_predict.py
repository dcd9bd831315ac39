from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.runs.test_table import GOOD, csv_of

from energylens.cli.commands.predict import OUTPUT_COLUMNS
from energylens.cli.inputs.runs import predictor_for
from energylens.cli.main import cli
from energylens.data import predictor as predictor_data
from energylens.predictor.fitted.serialization import document_of
from energylens.runs import INPUT_COLUMNS, MEASURED_COLUMNS

# Several in a row of one model, so that a bad one sits in the middle of an array call.
NEIGHBOURS = [{**GOOD, "run_id": f"n{i}", "max_num_seqs": str(8 * i), "concurrency": ""} for i in (1, 2, 3)]


def call(directory: Path, text: str) -> tuple[Result, list[dict[str, str]]]:
    source, out = directory / "in.csv", directory / "out.csv"
    source.write_text(text, encoding="utf-8", newline="")
    out.unlink(missing_ok=True)
    result = CliRunner().invoke(cli, ["predict", "--runs", str(source), "--out", str(out)], catch_exceptions=False)
    if not out.exists():
        return result, []
    with out.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        assert tuple(reader.fieldnames or ()) == OUTPUT_COLUMNS
    return result, rows


def is_good(row: dict[str, str]) -> bool:
    numbers = [float(row[name]) for name in OUTPUT_COLUMNS[1:-4]]
    in_order = all(low <= value <= high for value, low, high in zip(*[iter(numbers)] * 3, strict=True))
    return (
        in_order
        and min(numbers) > 0
        and row["error"] == ""
        and row["confidence"] in {"measurement", "interpolation", "extrapolation"}
    )


def test_columns_are_those_that_others_read() -> None:
    assert OUTPUT_COLUMNS == (
        "run_id",
        "predicted_median_itl_ms",
        "predicted_median_itl_ms_low",
        "predicted_median_itl_ms_high",
        "predicted_tpot_ms",
        "predicted_tpot_ms_low",
        "predicted_tpot_ms_high",
        "predicted_output_tokens_per_second",
        "predicted_output_tokens_per_second_low",
        "predicted_output_tokens_per_second_high",
        "predicted_power_watts",
        "predicted_power_watts_low",
        "predicted_power_watts_high",
        "predicted_joules_per_output_token",
        "predicted_joules_per_output_token_low",
        "predicted_joules_per_output_token_high",
        "confidence",
        "error",
        "what_if",
        "predicted_ttft_ms",
    )


def test_good_rows_get_numbers_in_the_order_of_the_file(tmp_path: Path) -> None:
    result, rows = call(tmp_path, csv_of(*NEIGHBOURS))
    assert result.exit_code == 0
    assert [row["run_id"] for row in rows] == ["n1", "n2", "n3"]
    assert all(is_good(row) for row in rows)
    itl = [float(row["predicted_median_itl_ms"]) for row in rows]
    assert itl == sorted(itl)


def test_a_format_that_the_checkpoint_lacks_is_answered_and_said_to_be_a_what_if(tmp_path: Path) -> None:
    base = {**GOOD, "model_id": "Qwen/Qwen3-8B"}
    asked = [{**base, "run_id": f, "weight_precision": f} for f in ("bfloat16", "fp8", "int4")]
    plain, fp8, int4 = call(tmp_path, csv_of(*asked))[1]
    # Engines convert 16 bits to FP8 while loading: that is no what-if.
    assert [row["what_if"] for row in (plain, fp8, int4)] == ["", "", "INT4"]
    assert is_good(int4)
    assert float(int4["predicted_joules_per_output_token"]) < float(plain["predicted_joules_per_output_token"])
    (stored,) = call(tmp_path, csv_of({**base, "model_id": "Qwen/Qwen3-8B-AWQ", "weight_precision": "int4"}))[1]
    assert (stored["what_if"], stored["error"]) == ("", "")


def test_measured_columns_change_nothing(tmp_path: Path) -> None:
    columns = (*INPUT_COLUMNS, *MEASURED_COLUMNS, "host_bound")
    measured = [{**row, **dict.fromkeys(MEASURED_COLUMNS, "1e99"), "host_bound": "maybe"} for row in NEIGHBOURS]
    assert call(tmp_path, csv_of(*measured, columns=columns))[1] == call(tmp_path, csv_of(*NEIGHBOURS))[1]


def test_a_missing_engine_is_the_newest_profile(tmp_path: Path) -> None:
    without = tuple(name for name in INPUT_COLUMNS if name != "engine")
    (row,) = call(tmp_path, csv_of(GOOD, columns=without))[1]
    assert row == call(tmp_path, csv_of({**GOOD, "engine": ""}))[1][0]
    assert row == call(tmp_path, csv_of({**GOOD, "engine": "vllm"}))[1][0]
    assert is_good(row)
    assert row["confidence"] == "interpolation"
    assert float(row["predicted_ttft_ms"]) > float(row["predicted_median_itl_ms"])
    assert row["predicted_median_itl_ms"] != call(tmp_path, csv_of(GOOD))[1][0]["predicted_median_itl_ms"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_id": "nobody/nothing"}, "model_id='nobody/nothing' is not in the catalogue"),
        ({"gpu_model": "Voodoo2"}, "Voodoo2"),
        ({"engine": "triton==1"}, "engine 'triton' has no profile"),
        ({"engine": "vllm==old"}, "'old'"),
        ({"engine": "vllm==0.0.1"}, "0.0.1"),
        ({"num_gpus": "3", "tensor_parallel": "3"}, "3"),
        ({"model_id": "meta-llama/Llama-3.1-405B-Instruct"}, "fit"),
        ({"expert_parallel": "2"}, "expert"),
        ({"output_tokens": "0"}, "output_tokens='0'"),
        ({"output_tokens": "0.5"}, "output_tokens"),
    ],
)
def test_a_row_that_cannot_be_predicted_says_why_and_costs_no_other(
    tmp_path: Path, changed: dict[str, str], said: str
) -> None:
    result, rows = call(tmp_path, csv_of(NEIGHBOURS[0], {**GOOD, **changed}, *NEIGHBOURS[1:]))
    assert result.exit_code == 0
    assert "4 rows written" in result.stderr
    assert "1 without a prediction" in result.stderr
    assert said in rows[1]["error"]
    assert [value for name, value in rows[1].items() if name not in {"run_id", "error"}] == [""] * (
        len(OUTPUT_COLUMNS) - 2
    )
    assert all(is_good(row) for i, row in enumerate(rows) if i != 1)


@pytest.mark.parametrize("precision", ["fp8", "nvfp4", "mxfp4", "int8", "int4"])
def test_a_release_that_the_catalogue_lacks_is_answered_as_its_format_is_usually_published(
    tmp_path: Path, precision: str
) -> None:
    base = {**GOOD, "gpu_model": "B200"}
    _, rows = call(tmp_path, csv_of({**base, "weight_precision": precision}, base))
    assert all(is_good(row) for row in rows)
    assert float(rows[0]["predicted_joules_per_output_token"]) < float(rows[1]["predicted_joules_per_output_token"])


@pytest.mark.parametrize("text", ["", "{}", "run_id,model_id\nr,m\n", "\n\n\n", "no csv at all"])
def test_a_file_that_is_no_table_ends_with_one_line_and_exit_code_2(tmp_path: Path, text: str) -> None:
    result, rows = call(tmp_path, text)
    assert (result.exit_code, rows, result.stdout) == (2, [], "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_paths_that_cannot_be_used_end_with_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(csv_of(GOOD), encoding="utf-8")
    for runs, out in (("none.csv", "out.csv"), ("in.csv", "no/such/directory.csv"), (".", "out.csv")):
        result = CliRunner().invoke(cli, ["predict", "--runs", str(tmp_path / runs), "--out", str(tmp_path / out)])
        assert result.exit_code == 2
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1


def test_an_empty_table_gives_an_empty_table(tmp_path: Path) -> None:
    result, rows = call(tmp_path, csv_of())
    assert (result.exit_code, rows) == (0, [])


NASTY = st.one_of(
    st.sampled_from(
        [
            "",
            "0",
            "-1",
            "1e9",
            "1e-9",
            "nan",
            "inf",
            "3",
            "7",
            "1000000",
            "0.5",
            "vllm==",
            "sglang",
            "fp8",
            "H200",
            "８",
        ]
    ),
    st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from(INPUT_COLUMNS), NASTY, min_size=1, max_size=3))
def test_no_row_is_a_crash_and_none_costs_another(tmp_path: Path, cells: dict[str, str]) -> None:
    quoted = {name: '"' + value.replace('"', '""') + '"' for name, value in cells.items()}
    result, rows = call(tmp_path, csv_of(NEIGHBOURS[0], {**GOOD, **quoted}, NEIGHBOURS[1]))
    assert result.exit_code == 0
    assert len(rows) == 3
    assert is_good(rows[0])
    assert is_good(rows[2])
    assert rows[1]["error"] or is_good(rows[1])


@pytest.fixture
def own_coefficients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(predictor_data, "_instead", None)
    predictor_for.cache_clear()
    yield
    predictor_for.cache_clear()


@pytest.mark.usefixtures("own_coefficients")
def test_a_file_of_coefficients_is_used_instead_of_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (before,) = call(tmp_path, csv_of(GOOD))
    document = document_of(predictor_data.load_coefficients())
    document["constants"]["H100"]["static_watts"] += 100.0
    path = tmp_path / "site.json"
    path.write_text(json.dumps(document))
    monkeypatch.setenv("ENERGYLENS_COEFFICIENTS", str(path))
    predictor_for.cache_clear()
    _, (after,) = call(tmp_path, csv_of(GOOD))
    assert float(after["predicted_power_watts"]) > float(before["predicted_power_watts"]) + 50


@pytest.mark.usefixtures("own_coefficients")
@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2}', '{"format": 4}', None])
def test_a_file_that_holds_no_coefficients_is_one_line(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "site.json"
    if text is not None:
        path.write_text(text)
    result = CliRunner().invoke(cli, ["--coefficients", str(path), "predict", "--help"])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith(f"Error: --coefficients: {path}: ")


@pytest.mark.usefixtures("own_coefficients")
@pytest.mark.parametrize(
    ("product", "value", "text"),
    [
        ("B200", None, "constants of B200 are missing"),
        ("H100", {}, "constant gemm_bandwidth of H100 is None, not a number above 0"),
        ("H100", {"gemm_bandwidth": -1.0}, "constant gemm_bandwidth of H100 is -1.0, not a number above 0"),
    ],
)
def test_a_file_without_a_products_constants_is_one_line(
    product: str, value: dict[str, float] | None, text: str, tmp_path: Path
) -> None:
    document = document_of(predictor_data.load_coefficients())
    if value is None:
        del document["constants"][product]
    else:
        document["constants"][product] = value
    path = tmp_path / "site.json"
    path.write_text(json.dumps(document))
    result = CliRunner().invoke(cli, ["--coefficients", str(path), "predict", "--help"])
    assert (result.exit_code, result.output.splitlines()[-1]) == (2, f"Error: --coefficients: {path}: {text}")
