from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.unit.accuracy.fakes import FakePredictor, run

from energylens.accuracy.evaluate import Chooser
from energylens.accuracy.leave_out import Fold, LeaveOutError, folds, predict_left_out
from energylens.runs import Run, resolver

RUNS = [
    run("a", model="Qwen/Qwen3-8B"),
    run("b", model="Qwen/Qwen3-32B", gpus=2),
    run("c", model="Qwen/Qwen3-8B", gpu="B200", task="code", engine="vllm==0.11.1"),
    run("d", model="Qwen/Qwen3-32B", gpu="B200", gpus=2),
]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("model", {"Qwen/Qwen3-32B": "bd", "eight": "ac"}),
        ("gpu-count", {"B200 x 1": "c", "B200 x 2": "d", "H100 x 1": "a", "H100 x 2": "b"}),
        ("gpu-type", {"B200": "cd", "H100": "ab"}),
        ("engine", {"no engine": "abd", "vllm==0.11.1": "c"}),
        ("task", {"chat": "abd", "code": "c"}),
    ],
)
def test_folds_hold_out_what_belongs_together(by: str, expected: dict[str, str]) -> None:
    found = folds(RUNS, by, {"Qwen/Qwen3-8B": "eight"})
    assert {fold.name: "".join(RUNS[i].run_id for i in fold.held_out) for fold in found} == expected
    for fold in found:
        assert sorted(fold.held_out + fold.kept) == [0, 1, 2, 3]


def test_fifths_of_the_runs_are_the_same_every_time_and_about_equal() -> None:
    runs = [run(f"r{i}") for i in range(500)]
    found = folds(runs, "run", {})
    assert [fold.name for fold in found] == [f"fifth {i}" for i in range(1, 6)]
    assert all(70 < len(fold.held_out) < 130 for fold in found)
    assert found == folds(runs, "run", {})


def test_all_runs_of_a_layout_are_left_out_together() -> None:
    runs = [run(f"r{gpus}-{batch}", gpus=gpus, batch=batch) for gpus in (1, 2, 4, 8) for batch in (1, 8, 64)]
    for fold in folds(runs, "layout", {}):
        assert not {runs[i].num_gpus for i in fold.held_out} & {runs[i].num_gpus for i in fold.kept}


def test_one_fold_leaves_nothing_to_fit_on() -> None:
    with pytest.raises(LeaveOutError, match="gpu-type: all runs belong to H100"):
        folds(RUNS[:2], "gpu-type", {})


def test_each_run_is_predicted_by_a_fit_without_it() -> None:
    fits: list[set[str]] = []
    seen: list[tuple[int, int, str]] = []

    def fit(kept: Sequence[Run]) -> Chooser:
        fits.append({one.run_id for one in kept})
        return lambda _: FakePredictor(factor=10.0 ** len(fits))

    def progress(number: int, count: int, fold: Fold) -> None:
        seen.append((number, count, fold.name))

    found = predict_left_out(RUNS, folds(RUNS, "gpu-type", {}), fit, resolver(), progress)
    assert fits == [{"a", "b"}, {"c", "d"}]
    assert seen == [(1, 2, "B200"), (2, 2, "H100")]
    assert found.values["itl"].tolist() == [800, 800, 80, 80]
    assert found.ok.all()
