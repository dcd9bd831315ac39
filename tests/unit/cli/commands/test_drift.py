"""`energylens drift`: what is shown, what is exported, and that nothing unmeasured becomes a number."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.unit.api.objects import changed
from tests.unit.cli.commands.test_status import LIVE, PLAN

import energylens
from energylens.api.parse import parse_llmdeployment
from energylens.calibration import runs as calibration
from energylens.cli.commands import status as command
from energylens.cli.inputs.drift_runs import COLUMNS, runs_csv
from energylens.cli.inputs.live import ClusterAccess, LiveObjects
from energylens.cli.main import cli
from energylens.cli.text.drift import row_of
from energylens.cli.text.status import page
from energylens.runs import Run, parse_runs

SHIPPED = Path(energylens.__file__).parent / "data" / "runs" / "ml-energy-benchmark-v3.csv"
CONDITIONS = [
    {"type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    for kind, reason in (("EnergyMetricsAvailable", "Measured"), ("PredictionAccurate", "WithinTolerance"))
]
MEASURED = changed(
    LIVE,
    {
        "metadata.uid": "u-1",
        "spec.model": {"name": "Qwen/Qwen3-32B"},
        "spec.engine": {"type": "VLLM", "image": "vllm/vllm-openai:v0.11.1"},
        "status.plan": PLAN,
        "status.conditions": CONDITIONS,
        "status.measured": {
            "windowStart": "2026-01-01T00:00:00Z",
            "windowEnd": "2026-01-01T00:10:00Z",
            "coveragePercent": 100,
            "powerWatts": 2000,
            "outputTokensPerSecond": 5000,
            "joulesPerOutputToken": "400m",
            "runningRequests": "91500m",
            "inputTokens": 310,
            "outputTokens": 395,
            "ttftMilliseconds": 200,
            "itlMilliseconds": 18,
            "itlPercentiles": {"p50": "18300m", "p90": "20", "p95": "21", "p99": "30"},
        },
        "status.prediction": {
            "energyErrorPercent": 3,
            "powerErrorPercent": 5,
            "itlErrorPercent": -6,
            "ttftErrorPercent": -10,
            "samples": 4,
        },
    },
)
BLIND = changed(
    MEASURED,
    {
        "metadata.name": "blind",
        "status.conditions": [{**CONDITIONS[0], "status": "False", "reason": "SourceUnreachable"}],
    },
)
BUSY = changed(
    MEASURED,
    {
        "metadata.name": "busy",
        "status.conditions": [CONDITIONS[0], {**CONDITIONS[1], "status": "Unknown", "reason": "LoadDiffers"}],
    },
)
FRESH = changed(MEASURED, {"metadata.name": "fresh", "status": {}})


def run(monkeypatch: pytest.MonkeyPatch, bodies: list[dict[str, Any]], *arguments: str) -> Result:
    def read(access: ClusterAccess, namespaced: object, everywhere: object = ()) -> LiveObjects:
        assert access.all_namespaces == (access.namespace is None)
        return LiveObjects("team-a", {"LLMDeployment": bodies})

    monkeypatch.setattr(command, "read_cluster", read)
    return CliRunner().invoke(cli, ["drift", *arguments])


def test_the_table_has_errors_and_why_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, [MEASURED, BLIND, BUSY, FRESH])
    assert done.exit_code == 0, done.output
    header, *lines, mean = done.stdout.splitlines()
    assert header.split()[:7] == ["NAMESPACE", "NAME", "GPUS", "LAYOUT", "LOAD", "J/TOKEN", "MEASURED"]
    name = MEASURED["metadata"]["name"]
    expected = ["team-a", name, "8", "x", "H200", "2", "x", "TP4", "98", "%", "0.412", "0.4"]
    assert lines[0].split()[:12] == expected
    assert lines[0].split()[12:] == ["+3", "%", "+5", "%", "-6", "%", "-", "-10", "%", "-"]
    assert lines[1].split()[-6:] == ["-", "-", "-", "-", "-", "SourceUnreachable"]
    assert lines[2].split()[-1] == "LoadDiffers"
    assert lines[3].split()[-1] == "NotPlanned"
    assert mean == "  mean error of the energy per token: 3 % over 1 deployment"


CORRECTED = changed(
    MEASURED, {"status.plan": {**PLAN, "correction": {"ttft": "1", "itl": "1050m", "power": "1", "energy": "1200m"}}}
)


def test_predicted_figures_say_what_measurement_taught_them(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, [CORRECTED])
    assert done.stdout.splitlines()[1].endswith("(corrected: energy x 1.2, ITL x 1.05)")
    document = json.loads(run(monkeypatch, [CORRECTED, MEASURED], "-o", "json").stdout)
    assert [item["correction"] for item in document["items"]] == ["energy x 1.2, ITL x 1.05", ""]
    text = page(parse_llmdeployment(CORRECTED, strict=False))
    assert "predicted figures include learned corrections: energy x 1.2, ITL x 1.05" in text
    assert "taught" not in page(parse_llmdeployment(MEASURED, strict=False))


def test_the_load_is_of_requests_in_flight_where_the_spec_gives_those() -> None:
    """As the condition LoadDiffers has it."""
    in_flight = changed(MEASURED, {"spec.workload": {"inputTokens": 512, "outputTokens": 256, "concurrency": 90}})
    figures = {**MEASURED["status"]["measured"], "runningRequests": "45"}
    row = row_of(parse_llmdeployment(changed(in_flight, {"status.measured": figures}), strict=False))
    assert row.load_percent == 50


def test_programs_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(run(monkeypatch, [MEASURED, BLIND], "-o", "json").stdout)
    good, blind = document["items"]
    assert good["measured"] == {"energy": 0.4, "power": 2000, "itl": 18, "ttft": 200}
    assert good["errorPercent"] == {"energy": 3, "power": 5, "itl": -6, "ttft": -10}
    assert (blind["measured"], blind["errorPercent"], blind["reason"]) == ({}, {}, "SourceUnreachable")


def exported(**changes: Any) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    table = runs_csv([parse_llmdeployment(changed(MEASURED, changes), strict=False)])
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert len(rows) == table.written
    return rows, table.left_out


def test_a_measured_deployment_is_a_run_of_one_replica() -> None:
    ((row,), left_out) = exported()
    assert left_out == ()
    assert (row["gpu_model"], row["num_gpus"], row["tensor_parallel"]) == ("H200", "4", "4")
    assert (row["concurrency"], row["output_tokens_per_second"], row["power_watts"]) == ("45.75", "2500", "1000")
    assert (row["joules_per_output_token"], row["median_itl_ms"], row["p99_itl_ms"]) == ("0.4", "18.3", "30")
    assert (row["input_tokens_assumed"], row["output_tokens"], row["engine"]) == ("310", "395", "vllm==0.11.1")
    assert (row["weight_precision"], row["architecture"]) == ("bfloat16", "Dense")
    assert row["run_id"] == exported()[0][0]["run_id"]
    assert row["run_id"] != exported(**{"status.measured.windowEnd": "2026-01-01T00:20:00Z"})[0][0]["run_id"]


def test_the_columns_are_those_of_the_shipped_runs_and_a_fit_takes_them() -> None:
    shipped = SHIPPED.read_text().splitlines()[0]
    assert ",".join(COLUMNS) == shipped
    table = runs_csv([parse_llmdeployment(MEASURED, strict=False)])
    (parsed,) = parse_runs(table.text, "out.csv", measured=True).rows
    assert isinstance(parsed, Run)
    assert calibration.arrays_of([parsed]).power_watts[0] == 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status.conditions": BLIND["status"]["conditions"]}, "not measured (SourceUnreachable)"),
        ({"status": {}}, "not measured (no plan)"),
        ({"status.measured.itlPercentiles": None}, "no inter-token latency"),
        ({"status.measured.acceptancePercent": 60}, "speculative decoding has no column"),
        ({"status.measured.joulesPerOutputToken": None}, "no inter-token latency or running requests"),
        ({"status.measured.runningRequests": "0"}, "no request ran"),
        ({"status.plan": {**PLAN, "pipelineParallel": 2}}, "pipeline parallelism"),
        ({"status.plan": {**PLAN, "powerCapWattsPerGPU": 400}}, "power cap"),
        ({"spec.model": {"name": "x/own", "configRef": {"name": "own"}}}, "configRef"),
        ({"spec.model": {"name": "x/unheard-of"}}, "spec.model."),
    ],
)
def test_what_is_not_a_whole_measurement_is_left_out_and_said(changes: dict[str, Any], message: str) -> None:
    rows, left_out = exported(**changes)
    assert rows == []
    assert message in left_out[0]


def test_files_are_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table, picture = tmp_path / "out.csv", tmp_path / "out.png"
    done = run(monkeypatch, [MEASURED, BLIND], "--runs", str(table), "--plot", str(picture))
    assert done.exit_code == 0, done.output
    assert table.read_text().count("\n") == 2
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"{table}: 1 run" in done.stderr
    assert "left out: team-a/blind: not measured (SourceUnreachable)" in done.stderr


@pytest.mark.parametrize("option", ["--runs", "--plot"])
def test_a_file_that_cannot_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str
) -> None:
    path = tmp_path / "missing" / "out"
    done = run(monkeypatch, [MEASURED], option, str(path))
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"Error: {option} {path}: No such file or directory"


def test_an_old_measurement_is_no_row() -> None:
    row = row_of(parse_llmdeployment(BLIND, strict=False))
    assert not row.measured
    assert row.load_percent is None
