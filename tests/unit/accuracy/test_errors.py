from __future__ import annotations

import numpy as np
import pytest
from tests.unit.accuracy.fakes import predicted, run

from energylens.accuracy.coverage import coverage_table
from energylens.accuracy.errors import clean, error_table
from energylens.accuracy.evaluate import measured_arrays

RUNS = [
    run("a", energy=1.0, itl=10.0),
    run("b", energy=1.0, itl=10.0, gpu="B200", gpus=2),
    run("c", energy=1.0, itl=10.0, host_bound=True),
    run("d", energy=1.0, itl=10.0, gpus=2, data_parallel=2),
    run("e", energy=1.0, itl=10.0, gpu="B200", gpus=2, expert_parallel=2, task="code"),
]
PREDICTED = predicted(
    RUNS,
    itl=[10, 10, 10, 10, float("nan")],
    high=[11, 11, 11, 11, float("nan")],
    energy=[1.1, 0.7, 2.0, 5.0, float("nan")],
)


def test_scopes_keep_host_bound_and_data_parallel_runs_apart() -> None:
    table = {
        (part.by, part.name): part
        for part in error_table(RUNS, measured_arrays(RUNS), PREDICTED)
        if not part.with_host_bound
    }
    assert clean(RUNS).tolist() == [True, True, False, False, True]
    all_clean = table["rows", "clean"]
    assert (all_clean.runs, all_clean.unpredicted) == (3, 1)
    assert all_clean.mean["energy"] == pytest.approx(20.0)
    assert all_clean.bias["energy"] == pytest.approx(100 * (np.sqrt(1.1 * 0.7) - 1))
    assert table["rows", "clean and host-bound"].mean["energy"] == pytest.approx((10 + 30 + 100) / 3)
    assert table["rows", "clean and host-bound"].median["energy"] == pytest.approx(30)
    assert table["rows", "host-bound only"].mean["energy"] == pytest.approx(100)
    assert table["rows", "data parallel only"].mean["energy"] == pytest.approx(400)
    assert table["GPU", "H100"].mean["energy"] == pytest.approx(10)
    assert table["GPU count", "B200 x 2"].mean["energy"] == pytest.approx(30)
    assert {name for by, name in table if by == "layout"} == {"1 GPU", "TP2", "TP2 EP2"}
    assert np.isnan(table["task", "code"].mean["energy"])


def test_parts_with_host_bound_runs_are_shown_with_and_without_them() -> None:
    table = error_table(RUNS, measured_arrays(RUNS), PREDICTED)
    h100 = [(part.with_host_bound, part.runs, part.mean["energy"]) for part in table if part.name == "H100"]
    assert h100 == [(False, 1, pytest.approx(10)), (True, 2, pytest.approx(55))]
    assert len([part for part in table if part.name == "B200"]) == 1


def test_coverage_counts_measured_values_inside_their_interval() -> None:
    runs = [run(energy=1.0, itl=itl) for itl in (4.0, 5.0, 12.0, 13.0)]
    found = predicted(runs, itl=[10.0] * 4, high=[12.0] * 4, energy=[1.0, 1.05, 1.2, 0.5])
    (all_runs, same) = coverage_table(np.ones(4, dtype=bool), measured_arrays(runs), found)
    assert (all_runs.name, same.name, all_runs.runs) == ("all", "nearest: layout", 4)
    assert all_runs.inside["itl"] == 50.0
    assert all_runs.below["itl"] == 25.0
    assert all_runs.inside["energy"] == 50.0
    assert all_runs.below["energy"] == 25.0
    assert all_runs.width["itl"] == pytest.approx(2.4)
