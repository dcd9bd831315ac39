"""The chain of steps that prompts of several lengths share."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from tests.simulator.batching import Limits
from tests.simulator.lanes import Loads as Served
from tests.simulator.lanes import serve

from energylens.predictor.load.prompt_chain import FULLEST, LATTICE, LEVELS, SIZES, FirstTokenTable, Loads
from energylens.predictor.load.step_work import Group
from energylens.predictor.types import FloatArray, IntArray

SHORT, LONG = Group(0.9, 0.4, 0.2), Group(0.1, 6.4, 0.2)
UNIT = 1000
"""Tokens of a mean prompt."""


def loads(halted: float = 0.4, step: float = 0.5, room: float = 8.0, clump: float = 1.0) -> Loads:
    return Loads(*(np.array([each]) for each in (halted, step, room, clump)))


def found(load: Loads, *, ahead: bool = True) -> FloatArray:
    """Return quantiles of both classes, shape (2, levels)."""
    return np.exp(FirstTokenTable((LONG, SHORT), (SHORT, LONG), ahead=ahead).log_quantiles(load)[:, :, 0])


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("room", [8.0, 3.0])
def test_quantiles_are_those_of_a_simulated_replica(ahead: bool, room: float) -> None:
    runs, requests, halted, step = 40, 500, 0.4, 0.5
    rng, shape = np.random.default_rng(3), (runs, requests)
    long = rng.random(shape) < LONG.share
    spread = math.sqrt(math.log1p(LONG.variance))
    prompts = np.where(long, LONG.length, SHORT.length) * np.exp(spread * rng.standard_normal(shape) - spread**2 / 2)
    arrivals = np.cumsum(rng.exponential(1.0 / halted, shape), axis=1)
    # One request that outlives all others keeps the replica busy, so that steps follow one another.
    arrivals[:, 0], prompts[:, 0] = 0.0, 1.0 / UNIT
    outputs = np.ones(shape, dtype=np.int64)
    outputs[:, 0] = int(requests / halted / step)

    def seconds(decodes: IntArray, tokens: IntArray) -> FloatArray:
        return np.asarray(step + tokens / UNIT)

    served = Served(arrivals, np.maximum(np.rint(prompts * UNIT), 1).astype(np.int64), outputs)
    limits = Limits(1000, round(room * UNIT) + 1, 0, scheduled_ahead=ahead)
    first = serve(served, limits, seconds, np.zeros(runs)).first[:, 50:]
    expected = found(loads(halted, step, room), ahead=ahead)
    for each, quantiles in zip((first[~long[:, 50:]], first[long[:, 50:]]), expected, strict=True):
        for level, within in ((0.5, 0.07), (0.95, 0.12), (0.99, 0.15)):
            at = quantiles[LEVELS.tolist().index(level)]
            assert at == pytest.approx(np.quantile(each, level), rel=within), (level, each.size)


def test_with_hardly_any_requests_a_prompt_waits_for_two_steps() -> None:
    # The rest of the step in which it arrives, the one that is composed, and its own, with 2.5 steps on average.
    short = found(loads(halted=0.01, step=4.0))[0]
    assert short[LEVELS.tolist().index(0.5)] == pytest.approx(2.5 * 4.0 + 0.4, rel=0.02)


def test_a_load_between_cells_is_between_them_and_a_cell_does_not_depend_on_the_others() -> None:
    odds, step, room = (
        LATTICE[0][0] + 9 * LATTICE[0][2],
        LATTICE[1][0] + 9 * LATTICE[1][2],
        LATTICE[2][0] + 7 * LATTICE[2][2],
    )
    both = Loads(
        np.array([1.0 / (1.0 + math.exp(-odds)), 0.3, 0.6]),
        np.exp([step, step + LATTICE[1][2] / 2.0, 3.0]),
        np.exp([room, room, 4.0]),
        np.ones(3),
    )
    table = FirstTokenTable((LONG, SHORT), (SHORT, LONG), ahead=True)
    together = table.log_quantiles(both)
    for index in range(3):
        alone = FirstTokenTable((LONG, SHORT), (SHORT, LONG), ahead=True)
        single = alone.log_quantiles(Loads(*(each[[index]] for each in vars(both).values())))
        assert together[:, :, index] == pytest.approx(single[:, :, 0], rel=1e-12, abs=1e-12)
    # Solved cells are found again.
    assert table.log_quantiles(both) == pytest.approx(together, rel=0, abs=0)


def test_more_requests_longer_steps_and_bursts_never_shorten_the_time() -> None:
    rng = np.random.default_rng(5)
    table = FirstTokenTable((LONG, SHORT), (SHORT, LONG), ahead=True)
    least, _, apart = (np.array(column) for column in zip(*LATTICE, strict=True))
    for _ in range(20):
        places = rng.integers([6, 4, 4, 0], [SIZES[0] - 6, SIZES[1] - 6, SIZES[2] - 3, SIZES[3] - 2])
        for coordinate in (0, 1, 3):
            line = np.repeat(places[:, None], 3, axis=1)
            line[coordinate] += np.arange(3)
            values = least[:, None] + apart[:, None] * line
            halted, room = 1.0 / (1.0 + np.exp(-values[0])), np.exp(values[2])
            # A full step must take in what arrives during it.
            if (halted > FULLEST * room / (room + np.exp(values[1]))).any():
                continue
            quantiles = table.log_quantiles(Loads(halted, *np.exp(values[1:])))
            for level in (0.5, 0.95, 0.99):
                for each in quantiles[:, LEVELS.tolist().index(level)]:
                    assert all(b > a - 0.005 for a, b in pairwise(each)), (coordinate, places, level)
