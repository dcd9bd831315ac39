from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.unit.accuracy.fakes import predicted, run

from energylens.accuracy.decisions import ChoiceSet, baseline, best, choice_sets, decide, front, pareto, pick
from energylens.accuracy.evaluate import measured_arrays

NAN = float("nan")
NODES = {"H100": 8, "B200": 8}


def one_set(
    *rows: tuple[float, float, float, float],
    gpus: tuple[int, ...] | None = None,
    throughput: tuple[float, ...] | None = None,
) -> ChoiceSet:
    """Make a choice set of rows (measured ITL, measured energy, upper predicted ITL, predicted energy)."""
    runs = [
        run(
            itl=row[0],
            energy=row[1],
            batch=8 * (i + 1),
            gpus=gpus[i] if gpus else 1,
            throughput=throughput[i] if throughput else 100.0,
        )
        for i, row in enumerate(rows)
    ]
    found = predicted(
        runs, itl=[row[2] for row in rows], high=[row[2] for row in rows], energy=[row[3] for row in rows]
    )
    (choices,) = choice_sets(runs, np.ones(len(runs), dtype=bool), measured_arrays(runs), found, NODES)
    return choices


def test_the_pick_is_the_least_predicted_energy_that_holds_the_bound() -> None:
    choices = one_set((10, 3.0, 12, 3.1), (20, 2.0, 24, 1.9), (40, 1.0, 60, 1.0))
    assert pick(choices, 10) is None
    assert pick(choices, 20) == 0
    assert pick(choices, 50) == 1
    assert pick(choices, 100) == 2
    assert best(choices, 50) == 2


def test_a_choice_without_a_prediction_is_never_picked() -> None:
    assert pick(one_set((10, 3.0, NAN, NAN), (10, 4.0, 12, 5.0)), 20) == 1
    assert pick(one_set((10, 3.0, NAN, NAN)), 20) is None


def test_outcomes_are_counted() -> None:
    sets = [
        one_set((10, 2.0, 12, 2.0), (20, 1.0, 40, 1.0)),  # holds, at twice the energy of the best
        one_set((40, 1.0, 25, 1.0), (10, 2.0, 12, 2.0)),  # picks what breaks the bound
        one_set((10, 1.0, 35, 1.0)),  # feasible, no pick
        one_set((90, 1.0, 95, 1.0)),  # not feasible, no pick
        one_set((10, 1.0, 12, 1.0)),  # picks the best
    ]
    (row, everything) = decide(sets, [30.0])
    assert (row.bound_ms, row.sets, row.feasible, row.picks, row.broken, row.without_pick) == (30.0, 5, 4, 3, 1, 1)
    assert row.energy_above_best == pytest.approx(50.0)
    assert row.worst_energy_above_best == pytest.approx(100.0)
    assert row.broken_percent == pytest.approx(100 / 3)
    assert row.without_pick_percent == pytest.approx(25)
    assert (everything.bound_ms, everything.picks) == (None, 3)
    assert everything.energy_above_best == pytest.approx(50.0)


def test_nothing_picked_has_no_shares() -> None:
    (row, _) = decide([one_set((90, 1.0, 95, 1.0))], [30.0])
    assert np.isnan(row.broken_percent)
    assert np.isnan(row.without_pick_percent)
    assert np.isnan(row.energy_above_best)
    assert row.compared == dict.fromkeys(row.compared, 0)


def test_baselines_are_what_people_run() -> None:
    choices = one_set(
        (10, 4.0, 12, 4.0),  # 2 GPUs, batch 8
        (20, 3.0, 24, 3.0),  # 2 GPUs, batch 16
        (9, 8.0, 10, 8.0),  # 8 GPUs, batch 24
        (15, 5.0, 17, 5.0),  # 8 GPUs, batch 32
        gpus=(2, 2, 8, 8),
        throughput=(100, 150, 900, 500),
    )
    assert baseline(choices, 30, "fewest GPUs") == 1
    assert baseline(choices, 12, "fewest GPUs") == 0
    assert baseline(choices, 9, "fewest GPUs") is None
    assert baseline(choices, 30, "all GPUs of a node") == 3
    assert baseline(choices, 12, "all GPUs of a node") == 2
    assert baseline(choices, 30, "highest throughput per GPU") == 2
    (row, _) = decide([choices], [30.0])
    assert row.saved["all GPUs of a node"] == pytest.approx(40.0)
    assert row.saved["fewest GPUs"] == pytest.approx(0.0)
    assert row.saved["highest throughput per GPU"] == pytest.approx(62.5)


def test_choice_sets_split_by_model_gpu_and_task_and_leave_out_masked_runs() -> None:
    runs = [run(), run(task="code"), run(gpu="B200"), run(model="other"), run(batch=16), run(host_bound=True)]
    found = predicted(runs, itl=[1.0] * 6, high=[1.0] * 6, energy=[1.0] * 6)
    sets = choice_sets(runs, np.array([True] * 5 + [False]), measured_arrays(runs), found, NODES)
    assert sorted((choices.name, len(choices.gpus)) for choices in sets) == [
        ("Qwen/Qwen3-8B / B200 / chat", 1),
        ("Qwen/Qwen3-8B / H100 / chat", 2),
        ("Qwen/Qwen3-8B / H100 / code", 1),
        ("other / H100 / chat", 1),
    ]


def test_pareto_recovery_counts_shared_points() -> None:
    # True front: the first two; predicted front: the first and the third.
    choices = one_set((10, 3.0, 10, 3.0), (20, 2.0, 40, 2.0), (30, 2.5, 20, 1.0))
    found = pareto([choices, one_set((10, 1.0, 10, 1.0))])
    assert (found.sets, found.true_points, found.predicted_points, found.common_points) == (1, 2, 2, 1)
    assert found.recovered_percent == 50.0
    assert found.precision_percent == 50.0


def test_equal_points_are_both_on_the_front_and_unknown_ones_never() -> None:
    assert front(np.array([1.0, 1.0, 2.0, NAN]), np.array([1.0, 1.0, 2.0, 0.0])).tolist() == [True, True, False, False]


POINTS = hnp.arrays(np.float64, (2, 12), elements=st.floats(0.1, 10.0))


@given(POINTS)
def test_every_point_off_the_front_is_beaten_by_one_on_it(points: np.ndarray) -> None:
    energy, itl = points
    on = front(energy, itl)
    assert on.any()
    for e, i in zip(energy[~on], itl[~on], strict=True):
        assert ((energy[on] <= e) & (itl[on] <= i)).any()


@given(POINTS, st.floats(0.1, 10.0))
def test_a_perfect_predictor_loses_nothing(points: np.ndarray, bound: float) -> None:
    energy, itl = points
    choices = one_set(*((i, e, i, e) for e, i in zip(energy, itl, strict=True)))
    (row, _) = decide([choices], [bound])
    assert row.broken == row.without_pick == 0
    assert row.picks == row.feasible
    if row.picks:
        assert row.energy_above_best == 0.0
    assert pareto([choices]).recovered_percent == 100.0
