"""Causes of the energy that picks take above the best choice, and other widths of intervals."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.accuracy.fakes import predicted, run

from energylens.accuracy.decisions import ChoiceSet, choice_sets, decide
from energylens.accuracy.evaluate import measured_arrays
from energylens.accuracy.losses import at_widths, losses

BOUND = 50.0


def sets(*, itl: float, high: float, energy: float = 0.5) -> list[ChoiceSet]:
    """A set of two runs that meet the bound: one predicted safely, and one of half the energy predicted as given."""
    runs = [run("safe", itl=20.0, energy=1.0, batch=8), run("best", itl=45.0, energy=0.5, batch=64)]
    found = predicted(runs, itl=[20.0, itl], high=[25.0, high], energy=[1.0, energy])
    return choice_sets(runs, np.ones(2, dtype=bool), measured_arrays(runs), found, {"H100": 8})


@pytest.mark.parametrize(
    ("itl", "high", "energy", "cause"),
    [(40.0, 48.0, 2.0, "ranking"), (48.0, 58.0, 0.5, "width"), (60.0, 70.0, 0.5, "latency")],
)
def test_each_loss_has_one_cause(itl: float, high: float, energy: float, cause: str) -> None:
    found = losses(sets(itl=itl, high=high, energy=energy), [BOUND])
    assert (found.cases, getattr(found, cause)) == (1, pytest.approx(100.0))
    assert found.ranking + found.width + found.latency == pytest.approx(100.0)


def test_the_causes_add_up_to_the_energy_above_the_best_choice() -> None:
    some = [*sets(itl=48.0, high=58.0), *sets(itl=60.0, high=70.0), *sets(itl=40.0, high=48.0)]
    found = losses(some, [BOUND])
    assert found.ranking + found.width + found.latency == pytest.approx(decide(some, [BOUND])[-1].energy_above_best)


def test_a_pick_that_breaks_its_bound_has_no_cause() -> None:
    runs = [run("slow", itl=70.0, energy=0.5), run("fast", itl=20.0, energy=1.0)]
    found = predicted(runs, itl=[40.0, 20.0], high=[45.0, 25.0], energy=[0.5, 1.0])
    some = choice_sets(runs, np.ones(2, dtype=bool), measured_arrays(runs), found, {"H100": 8})
    assert losses(some, [BOUND]).cases == 0


def test_narrower_intervals_allow_what_wider_ones_refuse() -> None:
    table = {row.factor: row for row in at_widths(sets(itl=48.0, high=58.0), [0.4, 8.0])}
    assert list(table) == [0.4, 1.0, 8.0]
    assert table[0.4].energy_above_best < table[1.0].energy_above_best < table[8.0].energy_above_best
    assert table[1.0].without_pick_percent < table[8.0].without_pick_percent
