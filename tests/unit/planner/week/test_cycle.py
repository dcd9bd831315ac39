"""The cheapest replicas over a cycle, beside every possible sequence of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.planner.week.cycle import Cycle

COSTS = st.one_of(st.integers(0, 20).map(float), st.just(float("inf")))


def cost_of(cycle: Cycle, path: tuple[int, ...]) -> float:
    held = sum(float(cycle.costs[span, index]) for span, index in enumerate(path))
    counts = [int(cycle.counts[index]) for index in path]
    return held + cycle.start * sum(max(0, counts[span] - counts[span - 1]) for span in range(len(path)))


@given(st.data())
def test_no_sequence_of_replicas_is_cheaper(data: st.DataObject) -> None:
    spans, size = data.draw(st.integers(1, 4), label="spans"), data.draw(st.integers(1, 4), label="size")
    counts = data.draw(st.sets(st.integers(1, 9), min_size=size, max_size=size), label="counts")
    costs = data.draw(st.lists(st.lists(COSTS, min_size=size, max_size=size), min_size=spans, max_size=spans))
    start = data.draw(st.integers(0, 10).map(float), label="start")
    cycle = Cycle(np.asarray(sorted(counts)), np.asarray(costs), start)

    every = [cost_of(cycle, path) for path in itertools.product(range(size), repeat=spans)]

    assert cycle.cheapest() == min(every)
    if np.isfinite(min(every)):
        path = cycle.path()
        assert cost_of(cycle, tuple(path.tolist())) == min(every)
        counts_of_path = cycle.counts[path]
        added = [max(0, int(counts_of_path[i] - counts_of_path[i - 1])) for i in range(spans)]
        assert cycle.starts(path) == sum(added)


def test_a_short_dip_is_not_worth_a_start() -> None:
    power = np.asarray([[9.0, 10.0], [7.0, 10.0], [9.0, 10.0]])
    power[[0, 2], 0] = np.inf
    counts = np.asarray([1, 2])
    assert Cycle(counts, power, 2.0).path().tolist() == [1, 0, 1]
    assert Cycle(counts, power, 4.0).path().tolist() == [1, 1, 1]


def test_a_span_without_any_possible_number_is_an_error() -> None:
    cycle = Cycle(np.asarray([1, 2]), np.full((2, 2), np.inf), 1.0)
    assert cycle.cheapest() == np.inf
    with pytest.raises(ValueError, match="no possible number"):
        cycle.path()
