from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from energylens.planner.search.frontier import pareto

POINTS = st.lists(st.tuples(*[st.integers(1, 6).map(float)] * 3), min_size=1, max_size=40)


@given(POINTS)
def test_the_frontier_is_what_nothing_dominates(points: list[tuple[float, float, float]]) -> None:
    costs = np.array(points)
    kept = pareto(costs, resolution=0.0)
    frontier = {tuple(costs[i]) for i in kept}
    expected = {p for p in points if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)}
    assert frontier == expected
    assert len(kept) == len(frontier)


@given(POINTS)
def test_every_point_is_dominated_within_the_resolution(points: list[tuple[float, float, float]]) -> None:
    costs = np.array(points)
    kept = costs[pareto(costs, resolution=0.3)]
    for point in costs:
        near = (kept[:, 0] <= point[0]) & (kept[:, 1:] <= point[1:] * 1.3).all(axis=1)
        assert near.any()


def test_points_that_agree_within_the_resolution_count_once() -> None:
    costs = np.array([[1.0, 10.0, 5.0], [1.1, 9.95, 5.0], [1.2, 8.0, 5.0]])
    assert pareto(costs).tolist() == [0, 2]
