"""The tables of docs/accuracy.md: written from reports, all of one commit, and of the coefficients that ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tools.accuracy_tables import END, LEFT_OUT, NEVER_FITTED, PAGE, TABLES, TablesError, gathered, source, with_tables

from energylens.accuracy.errors import BY
from energylens.data.predictor import load_coefficients

NUMBERS = {"itl": 10.61, "tpot": 10.92, "ttft": None, "throughput": 11.4, "power": 9.3, "energy": 8.8}


def part(by: str, name: str, *, host_bound: bool = False) -> dict[str, Any]:
    same = {"mean": NUMBERS, "median": NUMBERS, "bias": {**NUMBERS, "energy": -1.2}}
    return {"by": by, "name": name, "runs": 670, "unpredicted": 0, "with_host_bound": host_bound, **same}


def report(commit: str = "8c79aa8", coefficients: str = "2026.1-15d00063") -> dict[str, Any]:
    every = {"broken": 10, "picks": 264, "feasible": 270, "without_pick": 6, "energy_above_best": 17.0}
    inside = {q: None if value is None else 80.0 for q, value in NUMBERS.items()}
    return {
        "commit": commit,
        "coefficients": coefficients,
        "errors": [
            part("rows", "clean"),
            part("rows", "clean and host-bound"),
            part("engine", "vllm==0.11.1"),
            part("engine", "vllm==0.11.1", host_bound=True),
            part("GPU", "H100"),
            part("GPU", "H100", host_bound=True),
            part("model", "a/model"),
        ],
        "coverage": [{"name": "nearest: engine", "runs": 530, "inside": inside, "width": {**NUMBERS, "itl": 1.4}}],
        "decisions": [{**every, "broken_percent": 3.79, "without_pick_percent": 2.22}],
        "by_means": {**every, "broken_percent": 5.21},
        "pareto": {"recovered_percent": 91.8},
        "same_load": [
            {"rival": "all GPUs of the node", "cases": 156, "sets": 15, "best_percent": 33.4, "kept_percent": 31.3}
            | {"broken": 1, "without_pick": 7}
        ],
        "losses": {"cases": 254, "ranking": 0.4, "width": 8.1, "latency": 8.5},
        "at_widths": [
            {"factor": factor, "broken_percent": 2.3, "without_pick_percent": 1.9, "energy_above_best": 16.0}
            for factor in (0.8, 1.0)
        ],
        "after_windows": [
            {
                "name": name,
                "windows": 2,
                "sites": 46,
                "runs": 660,
                "before": NUMBERS,
                "after": NUMBERS,
                "median_after": NUMBERS,
                "cases": cases,
            }
            for name, cases in (("all", 400), ("window of its load", 84))
        ],
    }


ROW = {
    "task": "closed-8192-300",
    "requests_per_second": "",
    "concurrency": "8",
    "host_bound": "1",
    "model_id": "Qwen/Qwen3-30B-A3B-FP8",
    "weight_precision": "fp8",
    "median_itl_ms": "8.8",
    "predicted_median_itl_ms": "9.2",
    "mean_tpot_ms": "12.2",
    "predicted_tpot_ms": "12.2",
    "median_ttft_ms": "",
    "predicted_ttft_ms": "30",
    "power_watts": "559",
    "predicted_power_watts": "528",
    "joules_per_output_token": "0.899",
    "predicted_joules_per_output_token": "0.897",
}
REPORTS = {name: report() for name in (*LEFT_OUT, *NEVER_FITTED)}
REPORTS["own"]["rows"] = [ROW, {**ROW, "task": "poisson-300-400", "requests_per_second": "10.73", "host_bound": "0"}]


def test_every_table_has_as_many_cells_in_each_row_and_its_place_in_the_page() -> None:
    blank = "".join(f"before {name}\n<!-- table: {name} -->\nold\n{END}\n" for name in TABLES)
    page = with_tables(blank, REPORTS)
    assert "old" not in page
    for name in TABLES:
        block = page.partition(f"<!-- table: {name} -->")[2].partition(END)[0].strip()
        widths = {line.count(" | ") for line in block.splitlines() if line.startswith("| ")}
        assert len(widths) == (0 if name == "source" else 1), name
    assert "| `model` | clean (670) | 10.6 / 10.6 | 10.9 / 10.9 |" in page
    assert "| `gpu-type` | H100 and host-bound (670) |" in page
    assert "10 of 264 (3.8 %)" in page
    assert (
        "| Qwen3-30B-A3B FP8 | 8 at once, 8192/300 (host-bound) | 8.8 / 9.2 (+5 %) | 12.2 / 12.2 (+0 %) | - |" in page
    )
    assert "| Qwen3-30B-A3B FP8 | Poisson 10.7/s, 300/400 |" in page
    assert page.count("| nothing (in-sample) | clean (670)") == 1
    assert with_tables(page, REPORTS) == page


def test_a_page_without_a_table_is_refused() -> None:
    with pytest.raises(TablesError, match="no <!-- table: own -->"):
        with_tables("nothing", REPORTS)


def test_reports_of_two_commits_make_no_table() -> None:
    with pytest.raises(TablesError, match="0000001 with 2026"):
        source({**REPORTS, "task": report("0000001")})


def test_reports_of_other_coefficients_are_not_taken(tmp_path: Path) -> None:
    for name, found in REPORTS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
    assert gathered(tmp_path, "2026.1-15d00063", run=False) == REPORTS
    with pytest.raises(TablesError, match="is missing or not of coefficients 2026"):
        gathered(tmp_path, "2026.1-00000000", run=False)


def test_the_page_is_of_the_coefficients_that_ship() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f", coefficients {load_coefficients().version}; percent." in page
    for name in TABLES:
        assert f"<!-- table: {name} -->" in page
    assert {"engine", "GPU", "model"} <= set(BY)
