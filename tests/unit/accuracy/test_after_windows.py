"""A replay of sites that have measured some of their runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.unit.accuracy.fakes import predicted, run

from energylens.accuracy.after_windows import DRAWS, after_windows, layout_of
from energylens.accuracy.evaluate import measured_arrays
from energylens.runs.types import Run

BATCHES = (8, 16, 32, 64)


def site(gpu: str, energy: float, engine: str = "vllm==0.11.1", gpus: int = 1) -> list[Run]:
    return [
        run(f"{gpu}-{gpus}-{batch}", gpu=gpu, gpus=gpus, batch=batch, energy=energy, engine=engine) for batch in BATCHES
    ]


def judged(runs: list[Run], windows: int) -> dict[str, Any]:
    n = len(runs)
    found = predicted(runs, itl=[10.0] * n, high=[12.0] * n, energy=[1.0] * n)
    mask = np.ones(n, dtype=bool)
    return {part.name: part for part in after_windows(runs, mask, measured_arrays(runs), found, windows)}


def test_a_site_that_is_off_alike_everywhere_is_right_after_two_windows() -> None:
    runs = site("H100", 1.5) + site("B200", 1.0, "vllm==0.24.0")
    found = judged(runs, 2)
    engines = ["engine vllm==0.11.1", "engine vllm==0.24.0"]
    near = ["window of its layout and load", "window of its layout"]
    assert list(found) == ["all", *engines, "GPU B200", "GPU H100", *near]
    assert found["GPU H100"].before["energy"] == pytest.approx(100 / 3)
    assert found["GPU H100"].after["energy"] < 7.0
    # Where predictions were right nothing is corrected.
    assert found["GPU B200"].after["energy"] == found["GPU B200"].before["energy"] == 0.0
    assert (found["all"].sites, found["all"].runs) == (2, 8)


def test_what_layouts_do_not_share_is_not_taken_for_shared() -> None:
    runs = site("H100", 1.3) + site("H100", 0.8, gpus=2)
    one, more = judged(runs, 1)["all"], judged(runs, 5)["all"]
    assert more.after["energy"] < one.after["energy"]
    assert more.after["energy"] < 10.0


@pytest.mark.parametrize(
    ("gpus", "batch", "nearest"),
    [
        (1, 20, "window of its layout and load"),
        (1, 21, "window of its layout"),
        (1, 4, "window of its layout"),
        (2, 5, "window of its load"),
        (2, 21, "no such window"),
    ],
)
def test_runs_are_judged_by_how_near_a_window_is(gpus: int, batch: int, nearest: str) -> None:
    found = judged([run("window", batch=10), run("judged", gpus=gpus, batch=batch)], 1)
    # Either run is the window in some of the choices.
    assert found[nearest].cases == found["all"].cases == DRAWS
    assert [name for name in found if "window" in name] == [nearest]


def test_the_nearest_of_several_windows_counts() -> None:
    runs = [run("far", batch=100), run("near", batch=10), run("nearer", batch=12), run("other", gpus=2, batch=12)]
    found = judged(runs, 3)
    assert sum(found[name].cases for name in found if "window" in name) == found["all"].cases == DRAWS
    assert {name for name in found if "window" in name} <= {
        "window of its layout and load",
        "window of its layout",
        "window of its load",
    }


def test_windows_are_not_judged_and_a_site_needs_more_runs_than_windows() -> None:
    runs = site("H100", 1.5)
    assert judged(runs, 4) == {}
    assert judged(runs, 3)["all"].runs <= len(runs)
    assert DRAWS > 1


def test_layouts_are_told_apart_by_every_degree() -> None:
    names = {layout_of(run(gpus=8, expert_parallel=e, data_parallel=d)) for e in (1, 8) for d in (1, 2, 8)}
    assert len(names) == 6
