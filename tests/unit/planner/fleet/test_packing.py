"""Pods on nodes, against every way to place them one by one."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest

from energylens.planner.fleet.milp import Program
from energylens.planner.fleet.packing import Demand, Node, add_packing

Pods = tuple[tuple[int, frozenset[str] | None], ...]


def unplaced(pods: Pods, nodes: tuple[tuple[str, int], ...]) -> int:
    """Return the fewest GPUs of pods that stay without a node."""

    @cache
    def least(number: int, free: tuple[int, ...]) -> int:
        if number == len(pods):
            return 0
        size, allowed = pods[number]
        found = size + least(number + 1, free)
        for place, gpus in enumerate(free):
            if gpus >= size and (allowed is None or nodes[place][0] in allowed):
                left = (*free[:place], gpus - size, *free[place + 1 :])
                found = min(found, least(number + 1, left))
        return found

    return least(0, tuple(gpus for _, gpus in nodes))


def solved(pods: Pods, nodes: tuple[tuple[str, int], ...], *, elastic: bool) -> float:
    """Return the fewest GPUs without a node; without ``elastic`` -1 if all pods have one, and 0 if not."""
    program = Program()
    (column,) = program.add_variables([0.0 if elastic else -1.0], upper=1.0)
    if elastic:
        program.add_row({column: 1.0}, 1.0, 1.0)
    kinds = sorted({pod: pods.count(pod) for pod in pods}.items(), key=lambda kind: (kind[0][0], str(kind[0][1])))
    demands = [Demand("H100", allowed, size, {column: float(count)}) for (size, allowed), count in kinds]
    others = [Node("other", "L40S", 8)]
    holes = add_packing(
        program, demands, [*(Node(name, "H100", gpus) for name, gpus in nodes), *others], elastic=elastic
    )
    found = program.solve()
    assert found is not None
    if not elastic:
        assert holes == []
        return -float(found[column])
    assert [hole.gpus for _, hole in holes] == [size for (size, _), _ in kinds]
    return float(sum(found[at] * hole.gpus for at, hole in holes))


@pytest.mark.parametrize("sizes", [(1, 2, 4), (2, 3), (1, 3, 5), (3, 4, 8), (2, 6)])
def test_pods_fit_where_one_by_one_they_can_be_placed(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(sum(sizes))
    outcomes = set()
    for _ in range(25):
        nodes = tuple((f"n{i}", int(gpus)) for i, gpus in enumerate(rng.choice([0, 3, 4, 8], rng.integers(1, 4))))
        places = (None, frozenset({"n0"}), frozenset({"n1", "n2"}))
        pods: Pods = tuple(
            (int(rng.choice(sizes)), places[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]) for _ in range(rng.integers(1, 7))
        )
        missing = unplaced(pods, nodes)
        assert solved(pods, nodes, elastic=False) == pytest.approx(0.0 if missing else -1.0), (pods, nodes)
        assert solved(pods, nodes, elastic=True) == pytest.approx(missing), (pods, nodes)
        outcomes.add(bool(missing))
    assert outcomes == {True, False}


def test_the_sizes_of_pods_decide_and_not_their_sum() -> None:
    every = [(3, None), (3, None), (2, None), (2, None)]
    for first, second in product(range(9), repeat=2):
        nodes = (("a", first), ("b", second))
        assert (solved(tuple(every), nodes, elastic=False) == -1.0) is (unplaced(tuple(every), nodes) == 0)


@pytest.mark.parametrize(("pods", "fits"), [((3, 3, 3, 3), True), ((3, 3, 3, 3, 2), False), ((3, 3, 2, 2, 2), True)])
def test_equal_nodes_hold_no_more_than_each_of_them(pods: tuple[int, ...], fits: bool) -> None:
    nodes = (("a", 6), ("b", 6))
    every: Pods = tuple((size, None) for size in pods)
    assert (unplaced(every, nodes) == 0) is fits
    assert solved(every, nodes, elastic=False) == (-1.0 if fits else 0.0)
