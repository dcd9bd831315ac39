"""Widths of intervals by what was measured nearby and by how many ranks a replica has."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.data import find_gpu, load_model
from energylens.data.predictor import load_coefficients, load_predictor
from energylens.predictor.fitted.features import LAYOUT, NEAREST, NOTHING
from energylens.predictor.fitted.intervals import DEFAULT_SCALE, SEVERAL_RANKS, IntervalModel, interval_class
from energylens.predictor.types import Layouts, Workload


def widths(scale: dict[str, float], several: bool) -> list[float]:
    classes = interval_class(np.array([LAYOUT, NOTHING]), np.array([several, several]))
    one = np.ones(2)
    return IntervalModel({**DEFAULT_SCALE, **scale}).half_width("tpot", classes, one, 0.0 * one, one).tolist()


def test_replicas_of_several_ranks_have_widths_of_their_own() -> None:
    scale = {f"tpot/layout{SEVERAL_RANKS}": 2.6, f"tpot/nothing{SEVERAL_RANKS}": 3.9}
    assert widths(scale, several=False) == pytest.approx([1.3, 1.3])
    assert widths(scale, several=True) == pytest.approx([2.6, 3.9])


def test_coefficients_without_widths_of_ranks_take_those_of_one() -> None:
    assert widths({}, several=True) == pytest.approx(widths({}, several=False))


def test_the_shipped_widths_are_no_narrower_where_ranks_wait_for_each_other() -> None:
    scale = load_coefficients().intervals.scale
    for target in ("step", "tpot", "power", "energy"):
        for name in NEAREST:
            assert scale[f"{target}/{name}{SEVERAL_RANKS}"] >= scale[f"{target}/{name}"]


def test_only_ranks_that_exchange_the_tokens_of_experts_count_as_several() -> None:
    one, ranks = np.ones(2, dtype=np.int64), np.array([1, 2])
    where = Layouts(ranks[::-1].copy(), one, ranks, ranks, one * 64, np.full(2, np.nan))
    found = load_predictor("vllm", "0.25").at_concurrency(
        load_model("openai/gpt-oss-120b"), find_gpu("B200"), where, Workload(1000.0, 1000.0), np.full(2, 64.0)
    )
    tensor, data = (found.tpot.high / found.tpot.low).tolist()
    assert data > 1.3 * tensor
