"""Savings at the same load: against all GPUs of the node, and against the fastest layout."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.accuracy.fakes import predicted, run

from energylens.accuracy.evaluate import measured_arrays
from energylens.accuracy.same_load import SameLoad, same_load
from energylens.runs import Run

NODES = {"H100": 8}


def judged(runs: list[Run], energy: list[float], high: list[float]) -> dict[str, SameLoad]:
    found = predicted(runs, itl=high, high=high, energy=energy)
    table = same_load(runs, np.ones(len(runs), dtype=bool), measured_arrays(runs), found, NODES)
    return {row.rival: row for row in table}


def layouts(batch: int = 64) -> list[Run]:
    """Return one, four and eight GPUs at the same load: 40, 18 and 15 ms, 1, 2 and 4 J."""
    return [
        run("one", gpus=1, itl=40.0, energy=1.0, batch=batch),
        run("four", gpus=4, itl=18.0, energy=2.0, batch=batch),
        run("eight", gpus=8, itl=15.0, energy=4.0, batch=batch),
    ]


def test_a_right_pick_keeps_what_the_best_layout_saves() -> None:
    row = judged(layouts(), [1.0, 2.0, 4.0], [40.0, 18.0, 15.0])["all GPUs of the node"]
    # Bounds of 20 and 30 ms let four GPUs be the best, 50 and 100 ms one.
    assert (row.cases, row.sets) == (4, 1)
    assert row.best_percent == pytest.approx(100 * (0.5 + 0.5 + 0.75 + 0.75) / 4)
    assert row.kept_percent == pytest.approx(row.best_percent)
    assert (row.broken, row.without_pick) == (0, 0)


def test_a_broken_bound_and_no_pick_save_nothing() -> None:
    broken = judged(layouts(), [1.0, 2.0, 4.0], [10.0, 18.0, 15.0])["all GPUs of the node"]
    assert broken.broken == 2, "one GPU is picked for 20 and 30 ms, and takes 40"
    assert broken.kept_percent == pytest.approx(100 * (0.0 + 0.0 + 0.75 + 0.75) / 4)
    nothing = judged(layouts(), [1.0, 2.0, 4.0], [400.0, 400.0, 400.0])["all GPUs of the node"]
    assert (nothing.without_pick, nothing.kept_percent) == (4, 0.0)


def test_loads_are_not_mixed() -> None:
    apart = [layouts(64)[0], layouts(32)[2]]
    assert judged(apart, [1.0, 4.0], [40.0, 15.0])["all GPUs of the node"].cases == 0


def test_the_fastest_layout_is_a_rival_of_its_own() -> None:
    row = judged(layouts()[:2], [1.0, 2.0], [40.0, 18.0])
    assert row["all GPUs of the node"].cases == 0
    assert row["layout of lowest latency"].cases == 4
    assert row["layout of lowest latency"].best_percent == pytest.approx(100 * (0 + 0 + 0.5 + 0.5) / 4)
