"""The runs that the project measured itself: readable, known by name, and true to each other."""

from __future__ import annotations

import csv
from importlib import resources
from itertools import pairwise

import pytest

from energylens.data.gpus import find_gpu
from energylens.runs import Run, read_runs, resolver

FILE = resources.files("energylens.data").joinpath("runs", "own-2026.csv")


@pytest.fixture(scope="module")
def runs() -> tuple[Run, ...]:
    with resources.as_file(FILE) as path:
        table = read_runs(path, measured=True)
    assert not table.errors
    return table.runs


def test_every_run_names_a_model_and_a_gpu_that_are_known(runs: tuple[Run, ...]) -> None:
    resolve = resolver()
    assert not [run.run_id for run in runs if resolve(run).error]


def test_a_poisson_load_counts_the_sequences_that_ran(runs: tuple[Run, ...]) -> None:
    for run in runs:
        assert run.counts_waiting is run.task.startswith("closed"), run.run_id


def test_measured_values_agree_with_each_other(runs: tuple[Run, ...]) -> None:
    limit = find_gpu("H200").power_limit_watts
    for run in runs:
        found = run.measured
        assert found is not None
        assert found.power_watts is not None
        assert found.output_tokens_per_second is not None
        assert found.median_itl_ms is not None
        assert found.joules_per_output_token == pytest.approx(
            found.power_watts / found.output_tokens_per_second, rel=1e-3
        )
        assert found.power_watts <= limit
        # Little's law: what ran, over the time per token, is the throughput, less the wait for first tokens.
        assert found.mean_tpot_ms is not None
        busy = found.output_tokens_per_second * found.mean_tpot_ms / 1e3 / run.concurrency
        assert 0.85 <= busy <= 1.03, (run.run_id, busy)


def test_percentiles_rise_and_stand_on_enough_first_tokens() -> None:
    with resources.as_file(FILE) as path, path.open(newline="") as file:
        for row in csv.DictReader(file):
            for names in (
                ("median_itl_ms", "p90_itl_ms", "p95_itl_ms", "p99_itl_ms"),
                ("median_ttft_ms", "p95_ttft_ms", "p99_ttft_ms"),
            ):
                values = [float(row[name]) for name in names if row[name]]
                assert all(low <= high for low, high in pairwise(values)), row["run_id"]
            assert int(row["first_tokens"]) >= 150 or not row["p99_ttft_ms"], row["run_id"]
