"""Rows of measured points, and tables that a measurement goes on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from energylens.benchmark.points import Point, closed_points, poisson_point
from energylens.benchmark.record import (
    COLUMNS,
    BenchmarkedPoint,
    RunRecordError,
    Subject,
    append,
    read_rows,
    row_of,
    run_id,
)
from energylens.benchmark.statistics import WindowLatencies
from energylens.runs import read_runs

SUBJECT = Subject(
    run="qwen", source="a test", model="Qwen/Qwen3-8B", weight_precision="bfloat16", gpu="H100", gpus=1,
    tensor_parallel=1, expert_parallel=1, data_parallel=1, max_num_seqs=256, engine="vllm==0.26.0",
)  # fmt: skip
SEEN = WindowLatencies(2000, 40, 40, {50: 10.0, 90: 11.0, 95: 12.0, 99: 13.0}, 10.5, {50: 30.0})


def measured(level: float, watts: float, kind: str = "closed") -> BenchmarkedPoint:
    point = Point("closed", level, 300, 400) if kind == "closed" else poisson_point(level, 300, 400)
    return BenchmarkedPoint(point, SEEN, 7.5, watts, 100.0, 20.0)


def test_a_row_is_read_as_the_run_that_was_measured(tmp_path: Path) -> None:
    out = tmp_path / "runs.csv"
    append(out, row_of(SUBJECT, measured(8, 400.0), []))
    append(out, row_of(SUBJECT, measured(2.5, 300.0, "poisson"), []))
    closed, arrivals = read_runs(out, measured=True).runs
    assert (closed.run_id, closed.concurrency, closed.counts_waiting) == ("qwen-c8-300-400", 8.0, True)
    assert closed.measured is not None
    assert (closed.measured.median_itl_ms, closed.measured.mean_tpot_ms) == (10.0, 10.5)
    assert closed.measured.joules_per_output_token == pytest.approx(4.0)
    assert closed.measured.median_ttft_ms == 30.0
    assert (arrivals.run_id, arrivals.concurrency, arrivals.counts_waiting) == ("qwen-poisson-300-400", 7.5, False)
    assert [row["requests_per_second"] for row in read_rows(out, SUBJECT)] == ["", "2"]


def test_power_that_falls_with_the_load_is_the_hosts_doing() -> None:
    rows = [row_of(SUBJECT, measured(8, 500.0), [])]
    assert row_of(SUBJECT, measured(64, 480.0), rows)["host_bound"] == "1"
    assert row_of(SUBJECT, measured(64, 490.0), rows)["host_bound"] == "0"
    assert row_of(SUBJECT, measured(4, 400.0), rows)["host_bound"] == "0"
    assert row_of(SUBJECT, measured(3.0, 100.0, "poisson"), rows)["host_bound"] == "0"


def test_rows_of_another_measurement_stay_and_those_of_another_subject_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "runs.csv"
    assert read_rows(out, SUBJECT) == []
    append(out, row_of(replace(SUBJECT, run="other", gpu="H200"), measured(8, 400.0), []))
    assert len(read_rows(out, SUBJECT)) == 1
    append(out, row_of(replace(SUBJECT, engine="vllm==0.25.0"), measured(8, 400.0), []))
    with pytest.raises(
        RunRecordError,
        match=r"run qwen-c8-300-400 has engine='vllm==0.25.0', this one 'vllm==0.26.0'; use another --name",
    ):
        read_rows(out, SUBJECT)


def test_points_have_names_that_stay() -> None:
    points = closed_points((1, 8, 512), 256, 300, 400)
    assert [run_id(SUBJECT, point) for point in points] == ["qwen-c1-300-400", "qwen-c8-300-400"]
    assert poisson_point(1.23456, 300, 400).name == poisson_point(2.0, 300, 400).name == "poisson-300-400"
    assert set(row_of(SUBJECT, measured(8, 400.0), [])) == set(COLUMNS)
