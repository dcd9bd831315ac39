"""Whether one call of the predictor does for nodes of all sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from energylens.api.llmdeployment import Overrides, PowerCap
from energylens.data import find_gpu, load_model, load_predictor
from energylens.planner.search import evaluate as evaluation
from energylens.planner.search.evaluate import Question, evaluate
from energylens.planner.search.load import Load
from energylens.planner.search.space import enumerate_space
from energylens.predictor.types import Workload


@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-70B-Instruct", "Qwen/Qwen3-30B-A3B"])
def test_nodes_as_large_as_an_nvlink_island_make_no_difference(model: str) -> None:
    """Were they to, planning would have to ask once per size."""
    predictor, gpu, spec = load_predictor(), find_gpu("H100"), load_model(model)
    assert not predictor.sees_nodes
    space = enumerate_space(spec, gpu, [8, 8], Overrides(max_batch_size=64), PowerCap())
    rate = np.full(len(space.layouts), 0.5)
    found = [
        predictor.at_rate(spec, replace(gpu, max_gpus_per_node=size), space.layouts, Workload(300, 200), rate)
        for size in (8, 16)
    ]
    for name in ("itl_p95_ms", "ttft_p95_ms", "power_watts", "joules_per_output_token"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))


def test_nvlink_ends_with_the_node() -> None:
    predictor, gpu, spec = load_predictor(), find_gpu("H100"), load_model("meta-llama/Llama-3.1-70B-Instruct")
    space = enumerate_space(spec, gpu, [8], Overrides(tensor_parallel=8, max_batch_size=64), PowerCap())
    apart, joined = (
        predictor.at_rate(
            spec, replace(gpu, max_gpus_per_node=size), space.layouts, Workload(300, 200), np.array([2.0])
        )
        for size in (4, 8)
    )
    assert apart.itl_p50_ms[0] > 1.1 * joined.itl_p50_ms[0]
    # A rack that NVLink joins has no such border.
    rack = replace(gpu, gpus_per_nvlink_island=72, max_gpus_per_node=4)
    whole = predictor.at_rate(spec, rack, space.layouts, Workload(300, 200), np.array([2.0]))
    assert whole.itl_p50_ms[0] == pytest.approx(joined.itl_p50_ms[0])


@pytest.mark.parametrize("gigabits", [0, 400])
def test_together_or_apart_the_candidates_are_the_same(gigabits: int) -> None:
    class Apart(type(load_predictor())):  # type: ignore[misc]
        """Knows the size of nodes from the product alone."""

        sees_nodes = True

        def at_rate(self, model: Any, gpu: Any, layouts: Any, *asked: Any) -> Any:
            return super().at_rate(model, gpu, replace(layouts, node_gpus=np.zeros(0, dtype=np.int64)), *asked)

    shipped, spec = load_predictor(), load_model("Qwen/Qwen3-30B-A3B")
    gpu = replace(find_gpu("H100"), network_bandwidth=gigabits * 1e9 / 8.0)
    space = enumerate_space(spec, gpu, [4, 4, 2], Overrides(max_batch_size=64), PowerCap())
    assert set(space.layouts.node_gpus.tolist()) == {0, 1, 2, 3, 4}
    load = Load(Workload(300, 200), 2.0)
    together = evaluate([space], Question(spec, shipped, load, "P95"))
    apart = evaluate([space], Question(spec, Apart(shipped.coefficients, shipped.profile), load, "P95"))
    for name in ("sustainable", "itl_upper_ms", "ttft_upper_ms", "power_watts", "joules_per_output_token"):
        np.testing.assert_allclose(getattr(together, name), getattr(apart, name), rtol=1e-12)


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_in_parts_or_at_once_the_candidates_are_the_same(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, gpu, spec = load_predictor(), find_gpu("H100"), load_model("Qwen/Qwen3-30B-A3B")
    space = enumerate_space(spec, gpu, [2, 2], Overrides(), PowerCap())
    load = Load(Workload(300, 200), 2.0)
    at_once = evaluate([space], Question(spec, predictor, load, "P95"))
    monkeypatch.setattr(evaluation, "CACHED_ROWS", rows)
    in_parts = evaluate([space], Question(spec, predictor, load, "P95"))
    for name in ("sustainable", "itl_upper_ms", "ttft_upper_ms", "power_watts", "joules_per_output_token"):
        np.testing.assert_allclose(getattr(at_once, name), getattr(in_parts, name), rtol=1e-12)
