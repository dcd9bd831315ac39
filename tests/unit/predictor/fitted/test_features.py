"""The kinds of layouts that the residual tells apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from energylens.data import find_gpu, load_model
from energylens.predictor.fitted.features import run_features
from energylens.predictor.types import IntArray, Layouts, Workload


def layouts(*rows: tuple[int, int, int, int, int]) -> Layouts:
    """Return layouts of tp, pp, ep, dp and the GPUs of a node."""
    columns: list[IntArray] = [np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)]
    tp, pp, ep, dp, node = columns
    return Layouts(tp, pp, ep, dp, np.full_like(tp, 64), np.full(tp.shape, np.nan), node_gpus=node)


@pytest.mark.parametrize(
    "rows",
    [
        [(1, 1, 512, 512, 0), (1, 2, 4, 12, 0)],
        [(1, 1, 128, 128, 0), (1, 1, 1, 228, 0)],
        [(2, 1, 1, 2, 0), (2, 1, 1, 2, 2)],
        [(8, 8, 1, 8000, 0), (9, 1, 1, 1, 0)],
    ],
    ids=["stages-and-many-ranks", "many-ranks", "small-nodes", "very-many-ranks"],
)
def test_a_layout_has_the_same_features_alone_and_beside_others(rows: list[tuple[int, int, int, int, int]]) -> None:
    model, gpu, load = load_model("Qwen/Qwen3-30B-A3B"), replace(find_gpu("H100"), max_gpus_per_node=8), Workload(1, 1)
    together = run_features(model, gpu, layouts(*rows), load, np.ones(len(rows)))
    for i, row in enumerate(rows):
        alone = run_features(model, gpu, layouts(row), load, np.ones(1))
        for key, labels in alone.keys.items():
            assert together.each(together.keys[key])[i] == alone.each(labels)[0], key


def test_links_beyond_an_island_are_a_kind_of_their_own() -> None:
    model, gpu = load_model("Qwen/Qwen3-30B-A3B"), find_gpu("H100")
    found = run_features(model, gpu, layouts((2, 1, 1, 2, 0), (2, 1, 1, 2, 2)), Workload(1, 1), np.ones(2))
    assert found.each(found.keys["parallel"]).tolist() == ["ranks", "ranks/host-link"]
