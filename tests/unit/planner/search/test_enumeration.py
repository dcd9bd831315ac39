"""The planning space against plain loops: every layout, the nodes that it spans, and every number of replicas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from energylens.api.llmdeployment import Overrides, PowerCap
from energylens.data import find_gpu, load_model
from energylens.planner.search.space import enumerate_space
from energylens.predictor.model.architecture import ModelSpec, MoeFfn
from energylens.predictor.model.rules import splits_experts

DENSE, MIXTURE = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_model("Qwen/Qwen3-30B-A3B")
GPU = replace(find_gpu("H200"), max_gpus_per_node=8)
NEVER = PowerCap(mode="Never")
Row = tuple[int, ...]


def placed(nodes: tuple[int, ...], pod: int, pods: int) -> int:
    return sum(node // pod for node in nodes) // pods


def spans(gpus: int, stages: int, nodes: tuple[int, ...], most_stages: int) -> set[int]:
    """Return the numbers of nodes that a replica may span: the fewest of each node size."""
    found = set()
    for size in set(nodes):
        counts = range(1, min(most_stages, len(nodes)) + 1)
        fewest = next((n for n in counts if stages % n == 0 and gpus // n <= size), None)
        found |= {fewest} if fewest is not None else set()
    return found


def degrees(model: ModelSpec, largest: int, total: int, expert: int | None) -> Iterator[Row]:
    moe = next((group.ffn for group in model.layers if isinstance(group.ffn, MoeFfn)), None)
    for tp in (size for size in range(1, largest + 1) if 32 % size == 0):
        for pp in range(1, min(8, total) + 1):
            for dp in range(1, total + 1) if model.is_moe else (1,):
                if tp * pp * dp > total:
                    continue
                experts = {1, tp * dp} if model.is_moe else {1}
                for ep in experts if expert is None else {expert}:
                    even = moe is None or splits_experts(moe, np.array([tp * dp]), np.array([ep]))[0]
                    if even or expert is not None:
                        yield tp, pp, ep, dp


def expected(
    model: ModelSpec, nodes: tuple[int, ...], total: int, expert: int | None, replicas: int | None, most: int | None
) -> set[Row]:
    found = set[Row]()
    kept = list(degrees(model, max(nodes), total, expert))
    most_stages = max(pp * dp for _, pp, _, dp in kept)
    for tp, pp, ep, dp in kept:
        gpus = tp * pp * dp
        for count in spans(gpus, pp * dp, nodes, most_stages):
            here = gpus // count
            seen = here if count > 1 else max(here, 8)
            first, last = 1, min(placed(nodes, here, count), total // gpus)
            if replicas is not None:
                first = last = replicas
            for number in range(first, (last if most is None else min(last, most)) + 1):
                found.add((tp, pp, ep, dp, count, 0 if seen == 8 else seen, number))
    return found


@pytest.mark.parametrize("model", [DENSE, MIXTURE], ids=["dense", "mixture"])
@pytest.mark.parametrize(
    ("nodes", "most_gpus", "expert", "replicas", "most"),
    [
        ((4, 2), None, None, None, None),
        ((1,), None, None, None, None),
        ((8, 4, 4), None, None, None, None),
        ((4, 4, 4), 6, None, None, None),
        ((4, 4), 100, None, None, 2),
        ((4, 2), None, 2, None, None),
        ((4,), None, 2, None, None),
        ((4, 2), None, 2, 3, None),
        ((4, 2), None, None, 3, None),
        ((16,), None, None, 1, None),
        ((3, 3), None, None, None, None),
    ],
)
def test_the_space_is_that_of_plain_loops(
    model: ModelSpec,
    nodes: tuple[int, ...],
    most_gpus: int | None,
    expert: int | None,
    replicas: int | None,
    most: int | None,
) -> None:
    fixed = Overrides(max_batch_size=64, expert_parallel=expert, replicas=replicas)
    found = enumerate_space(model, GPU, nodes, fixed, NEVER, max_replicas=most, most_gpus=most_gpus)
    index, numbers = found.expand()
    one = found.layouts.take(index)
    columns = (
        one.tensor_parallel, one.pipeline_parallel, one.expert_parallel, one.data_parallel,
        found.nodes_per_replica[index], one.node_gpus, numbers,
    )  # fmt: skip
    rows = [tuple(row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    total = sum(nodes) if most_gpus is None else min(sum(nodes), most_gpus)
    assert len(rows) == len(set(rows))
    assert set(rows) == expected(model, nodes, total, expert, replicas, most)
    assert set(one.max_batch_size.tolist()) == {64}


def test_batches_are_powers_of_two_up_to_a_thousand_and_power_caps_multiply_the_space() -> None:
    free = Overrides()
    found = enumerate_space(DENSE, GPU, (1,), free, NEVER)
    assert sorted(found.layouts.max_batch_size.tolist()) == [2**i for i in range(11)]
    capped = enumerate_space(DENSE, GPU, (1,), free, PowerCap(mode="Fixed", watts_per_gpu=400))
    assert set(capped.layouts.power_cap_watts.tolist()) == {400.0}
    assert len(capped) == len(found)
