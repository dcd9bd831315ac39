"""Candidates that see nodes of one size are predicted together, and the space keeps the candidates of fewest GPUs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from energylens.data import find_gpu
from energylens.planner.search.replica import by_node_size
from energylens.planner.search.space import ProductSpace
from energylens.predictor.types import Layouts

GPU = replace(find_gpu("H200"), max_gpus_per_node=8)


def space(*rows: tuple[int, int, int]) -> ProductSpace:
    """Return a space of layouts with GPUs, nodes and most replicas each."""
    gpus, nodes, last = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    one = np.ones(len(rows), dtype=np.int64)
    return ProductSpace(GPU, Layouts(gpus, one, one, one, 64 * one, np.full(len(rows), np.nan)), nodes, one, last)


def groups(found: ProductSpace, rows: list[int] | None = None, *, apart: bool = True) -> list[tuple[int, list[int]]]:
    every = np.arange(len(found.layouts))
    some = every if rows is None else np.array(rows, dtype=np.int64)
    return [(gpu.max_gpus_per_node, index.tolist()) for gpu, index in by_node_size(found, every, some, apart=apart)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(2, 1, 1), (8, 1, 1)], [(8, [0, 1])]),
        ([(16, 1, 1), (2, 1, 1)], [(16, [0, 1])]),
        # Replicas inside a node join those of the largest nodes, if they fit into one of these.
        ([(4, 1, 1), (8, 2, 1), (16, 2, 1)], [(4, [1]), (8, [0, 2])]),
        ([(8, 1, 1), (8, 2, 1)], [(8, [0]), (4, [1])]),
        ([(4, 1, 1), (8, 2, 1)], [(4, [0, 1])]),
        ([(8, 2, 1)], [(4, [0])]),
        ([(6, 1, 1), (8, 2, 1), (16, 2, 1)], [(4, [1]), (8, [0, 2])]),
        ([(1, 1, 1)], [(8, [0])]),
    ],
)
def test_groups_are_of_the_nodes_that_replicas_see(
    rows: list[tuple[int, int, int]], expected: list[tuple[int, list[int]]]
) -> None:
    assert groups(space(*rows)) == expected


def test_some_rows_are_grouped_alone_and_none_gives_no_group() -> None:
    found = space((4, 1, 1), (8, 2, 1), (16, 2, 1))
    assert groups(found, [2]) == [(8, [2])]
    assert groups(found, []) == []
    assert groups(found, [], apart=False) == []
    assert groups(found, [1, 2], apart=False) == [(8, [1, 2])]


@pytest.mark.parametrize(
    ("most", "left", "gpus"),
    [
        (9, {2: 6, 4: 3}, 12),
        (8, {2: 5, 4: 2}, 11),
        (7, {2: 5, 4: 2}, 11),
        (6, {2: 4, 4: 2}, 9),
        (5, {2: 3, 4: 1}, 7),
        (1, {2: 1}, 3),
        (0, {}, 1),
    ],
)
def test_the_candidates_of_fewest_gpus_are_kept_whole(most: int, left: dict[int, int], gpus: int) -> None:
    found, complete = space((2, 1, 6), (4, 1, 3)).within(most)
    assert dict(zip(found.layouts.gpus.tolist(), found.last.tolist(), strict=True)) == left
    assert complete == gpus
    assert len(found) <= most


def test_no_candidate_is_kept_where_one_is_too_many() -> None:
    found, complete = space((1, 1, 5)).within(0)
    assert (len(found), complete) == (0, 0)


def test_candidates_count_their_replicas_from_the_first_to_the_last() -> None:
    found = replace(space((2, 1, 3), (4, 1, 2), (8, 1, 1)), first=np.array([2, 3, 1]))
    index, replicas = found.expand()
    assert (index.tolist(), replicas.tolist()) == ([0, 0, 2], [2, 3, 1])
    assert len(found) == 3
