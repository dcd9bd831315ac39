from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.unit.accuracy.fakes import FakePredictor
from tests.unit.runs.test_table import GOOD, csv_of

import energylens.cli.commands.accuracy as command
from energylens.cli.main import cli
from energylens.runs import INPUT_COLUMNS, MEASURED_COLUMNS

COLUMNS = (*INPUT_COLUMNS, *MEASURED_COLUMNS, "host_bound")


def measured(run_id: str, batch: int, **changed: str) -> dict[str, str]:
    values = {
        **dict.fromkeys(MEASURED_COLUMNS, str(batch)),
        "output_tokens_per_second": "1000",
        "power_watts": "600",
        "joules_per_output_token": "0.6",
    }
    return {**GOOD, "run_id": run_id, "max_num_seqs": str(batch), "concurrency": "", **values, **changed}


ROWS = [measured("a", 8), measured("b", 16), measured("c", 32, gpu_model="B200"), measured("d", 64, host_bound="1")]


@pytest.fixture(autouse=True)
def fake_predictor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "predictor_for", lambda _: FakePredictor())


def call(directory: Path, *arguments: str, rows: list[dict[str, str]] | None = None) -> Result:
    source = directory / "measured.csv"
    source.write_text(csv_of(*(ROWS if rows is None else rows), columns=COLUMNS), encoding="utf-8")
    return CliRunner().invoke(cli, ["accuracy", "--runs", str(source), *arguments], catch_exceptions=False)


def test_tables_show_errors_coverage_and_decisions(tmp_path: Path) -> None:
    result = call(tmp_path)
    assert result.exit_code == 0
    for text in (
        "by GPU count",
        "by task",
        "host-bound only",
        "80 % intervals",
        "break bound",
        "fewest GPUs",
        "Pareto",
    ):
        assert text in result.stdout
    assert "Out of sample" in result.stdout


def test_json_holds_the_same(tmp_path: Path) -> None:
    document = json.loads(call(tmp_path, "-o", "json").stdout)
    first = document["errors"][0]
    assert (first["by"], first["name"], first["runs"]) == ("rows", "clean", 3)
    assert first["mean"] == {"itl": 0.0, "tpot": 0.0, "ttft": 0.0, "throughput": 0.0, "power": 0.0, "energy": 0.0}
    assert document["in_sample"] is False
    assert document["decisions"][-1]["broken_percent"] == 0.0
    assert document["pareto"]["recovered_percent"] is None


def test_the_fit_s_own_runs_are_called_in_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fitted:
        version = "7"
        provenance = {"run_ids": ["a", "b", "c", "d", "z"]}  # noqa: RUF012

    monkeypatch.setattr(command, "load_coefficients", Fitted)
    assert "IN-SAMPLE: coefficients 7 were fitted on these 4 runs" in call(tmp_path).stdout
    assert json.loads(call(tmp_path, "-o", "json").stdout)["in_sample"] is True
    mixed = call(tmp_path, rows=[*ROWS, measured("new", 8)]).stdout
    assert "IN-SAMPLE: coefficients 7 were fitted on 4 of these 5 runs" in mixed


def test_a_bad_row_is_named_and_left_out(tmp_path: Path) -> None:
    result = call(tmp_path, rows=[*ROWS, measured("bad", 8, power_watts="much")])
    assert result.exit_code == 0
    assert "line 6 (bad) is left out: power_watts='much'" in result.stderr


def test_rows_that_are_refused_for_one_reason_are_told_of_in_one_line(tmp_path: Path) -> None:
    bad = [measured(f"bad{i}", 8, power_watts="much") for i in range(5)]
    result = call(tmp_path, rows=[*ROWS, *bad])
    assert result.stderr.count("is left out") == 0
    assert "5 lines, the first is 6, are left out: power_watts='much'" in result.stderr


def test_latency_runs_have_no_power_and_choose_nothing() -> None:
    result = CliRunner().invoke(cli, ["accuracy", "--latency-runs"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "bias of TPOT" in result.stdout
    assert "TTFT" in result.stdout
    assert "sglang==0.5.9" in result.stdout
    for text in ("energy", "power", "throughput", "Decisions"):
        assert text not in result.stdout


def test_unpredicted_runs_are_counted_with_their_reason(tmp_path: Path) -> None:
    result = call(tmp_path, rows=[*ROWS, measured("odd", 8, num_gpus="3", tensor_parallel="3")])
    assert "heads are not divisible by 3" in result.stdout
    assert "1 without a prediction" in result.stdout


@pytest.mark.parametrize("missing", [True, False])
def test_files_that_cannot_be_judged_end_with_one_line_and_exit_code_2(tmp_path: Path, missing: bool) -> None:
    path = tmp_path / "runs.csv"
    if not missing:
        path.write_text(csv_of(GOOD), encoding="utf-8")
    result = CliRunner().invoke(cli, ["accuracy", "--runs", str(path)])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_leaving_out_the_only_one_is_a_clear_error(tmp_path: Path) -> None:
    result = call(tmp_path, "--leave-out", "task")
    assert result.exit_code == 2
    assert "--leave-out task: all runs belong to chat; at least 2 different values are needed" in result.stderr


def test_leave_out_refits_for_each_fold_and_shows_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[list[str]] = []

    class Refits:
        def __init__(self, *_: object) -> None:
            pass

        def to(self, runs: Any) -> Any:
            kept.append([run.run_id for run in runs])
            return lambda _: FakePredictor()

    monkeypatch.setattr(command, "Refits", Refits)
    result = call(tmp_path, "--leave-out", "gpu-type")
    assert result.exit_code == 0
    assert kept == [["a", "b", "d"], ["c"]]
    assert "refit 1 of 2: without B200 (1 run)" in result.stderr
    assert "each gpu-type is predicted by coefficients fitted without it" in result.stdout


def test_plots_are_written(tmp_path: Path) -> None:
    result = call(tmp_path, "--plot", str(tmp_path / "new" / "plots"))
    assert result.exit_code == 0
    names = {path.name for path in (tmp_path / "new" / "plots").iterdir()}
    assert names == {
        "predicted-vs-measured-itl.png",
        "predicted-vs-measured-tpot.png",
        "predicted-vs-measured-ttft.png",
        "predicted-vs-measured-throughput.png",
        "predicted-vs-measured-power.png",
        "predicted-vs-measured-energy.png",
        "error-by-group.png",
    }
    for path in (tmp_path / "new" / "plots").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_plots_of_nothing_predicted_are_still_pictures(tmp_path: Path) -> None:
    rows = [measured("odd", 8, num_gpus="3", tensor_parallel="3")]
    assert call(tmp_path, "--plot", str(tmp_path / "plots"), rows=rows).exit_code == 0


def test_without_matplotlib_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **keywords: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    result = call(tmp_path, "--plot", str(tmp_path / "plots"))
    assert result.exit_code == 2
    assert "--plot needs matplotlib: pip install 'energylens[plot]'" in result.stderr


def test_a_plot_directory_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    result = call(tmp_path, "--plot", str(tmp_path / "file"))
    assert result.exit_code == 2
    assert "--plot: cannot write" in result.stderr
