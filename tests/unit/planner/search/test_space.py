from __future__ import annotations

import math

import numpy as np
import pytest

from energylens.api.llmdeployment import Overrides, PowerCap
from energylens.planner.search.space import (
    BATCH_SIZES,
    ProductSpace,
    enumerate_space,
    power_caps,
    tensor_parallel_sizes,
)
from energylens.predictor.model.architecture import Attention, DenseFfn, LayerGroup, Mamba2, ModelSpec
from energylens.predictor.types import GpuSpec

H100 = "NVIDIA-H100-80GB-HBM3"


def space(model: ModelSpec, gpu: GpuSpec, nodes: list[int], **overrides: int) -> ProductSpace:
    return enumerate_space(model, gpu, nodes, Overrides(**overrides), PowerCap())


def rows(found: ProductSpace) -> set[tuple[int, ...]]:
    layouts = found.layouts
    columns = (
        layouts.tensor_parallel,
        layouts.pipeline_parallel,
        layouts.expert_parallel,
        layouts.data_parallel,
        found.nodes_per_replica,
        found.last,
    )
    return {tuple(map(int, row)) for row in np.column_stack(columns)}


def test_a_dense_model_on_one_node(models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]) -> None:
    found = space(models["70b"], gpus[H100], [4])
    # TP, PP, EP, DP, nodes, replicas that the node holds.
    expected = {(1, p, 1, 1, 1, 4 // p) for p in (1, 2, 3, 4)} | {
        (2, 1, 1, 1, 1, 2),
        (2, 2, 1, 1, 1, 1),
        (4, 1, 1, 1, 1, 1),
    }
    assert rows(found) == expected
    assert sorted(set(found.layouts.max_batch_size.tolist())) == list(BATCH_SIZES)
    assert len(found) == sum(row[-1] for row in expected) * len(BATCH_SIZES)


def test_experts_are_split_over_all_ranks_or_none(models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]) -> None:
    found = space(models["moe"], gpus[H100], [8], max_batch_size=1, pipeline_parallel=1)
    layouts = found.layouts
    ranks = layouts.tensor_parallel * layouts.data_parallel
    assert set(zip(layouts.tensor_parallel.tolist(), layouts.data_parallel.tolist(), strict=True)) == {
        (t, d) for t in (1, 2, 4, 8) for d in range(1, 9) if t * d <= 8
    }
    # Slices of the width of 768 cannot be had for 5 or 7 ranks, whole experts can.
    sliced = set(zip(*(a[layouts.expert_parallel == 1].tolist() for a in (ranks, layouts.data_parallel)), strict=True))
    assert sliced == {(r * d, d) for r in (1, 2, 4, 8) for d in range(1, 9) if r * d <= 8 and 768 % (r * d) == 0}
    assert (layouts.expert_parallel[layouts.expert_parallel > 1] == ranks[layouts.expert_parallel > 1]).all()
    assert len(layouts) == len(
        {*zip(layouts.tensor_parallel, layouts.data_parallel, layouts.expert_parallel, strict=True)}
    )


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        # 16 GPUs: two nodes of eight.
        ([8, 8], {(8, 2, 2)}),
        # The same over nodes of four: tensor parallelism of eight fits into none of them.
        ([4, 4, 4, 4], set()),
        ([4, 4, 4, 4, 8], set()),
    ],
)
def test_tensor_parallel_groups_stay_on_a_node(
    nodes: list[int], expected: set[tuple[int, int, int]], models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]
) -> None:
    found = space(models["405b"], gpus[H100], nodes, tensor_parallel=8, pipeline_parallel=2, max_batch_size=1)
    assert {(t, p, n) for t, p, _, _, n, last in rows(found) if last} == expected


def test_a_replica_may_span_small_nodes_although_a_large_one_exists(
    models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]
) -> None:
    """The large node may be taken by others; a plan over the small ones must not be lost for that."""
    found = space(models["70b"], gpus[H100], [8, 4, 4], tensor_parallel=4, pipeline_parallel=2, max_batch_size=1)
    assert {(n, last) for *_, n, last in rows(found)} == {(1, 1), (2, 2)}


def test_overrides_replace_an_axis(models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]) -> None:
    found = space(models["70b"], gpus[H100], [8], tensor_parallel=4, pipeline_parallel=2, max_batch_size=48, replicas=3)
    assert rows(found) == {(4, 2, 1, 1, 1, 3)}
    assert found.first.tolist() == found.last.tolist() == [3]
    assert found.layouts.max_batch_size.tolist() == [48]


def test_replicas_never_exceed_what_the_caller_allows(models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]) -> None:
    found = enumerate_space(models["8b"], gpus[H100], [8], Overrides(), PowerCap(), max_replicas=3)
    assert int(found.last.max()) == 3


def test_expansion_names_every_layout_and_replica_count_once(
    models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]
) -> None:
    found = space(models["70b"], gpus[H100], [8, 8])
    index, replicas = found.expand()
    assert index.size == len(found)
    assert len({*zip(index.tolist(), replicas.tolist(), strict=True)}) == len(found)
    assert (replicas >= 1).all()
    assert (replicas <= found.last[index]).all()


def test_tensor_parallel_sizes_divide_the_heads(models: dict[str, ModelSpec]) -> None:
    odd = LayerGroup(4, Attention(40, 8, 128), DenseFfn(1024))
    mamba = LayerGroup(4, Mamba2(64, 64, 128, 8, 4), None)
    assert tensor_parallel_sizes(models["70b"], 8) == (1, 2, 4, 8)
    assert tensor_parallel_sizes(ModelSpec("m", "f", 5120, 1000, (odd,)), 8) == (1, 2, 4, 5, 8)
    assert tensor_parallel_sizes(ModelSpec("m", "f", 5120, 1000, (mamba,)), 6) == (1, 2, 4)
    assert tensor_parallel_sizes(ModelSpec("m", "f", 5120, 1000, (mamba,)), 8) == (1, 2, 4, 8)
    assert tensor_parallel_sizes(models["70b"], 7) == (1, 2, 4)


def test_power_caps(gpus: dict[str, GpuSpec]) -> None:
    gpu = gpus[H100]
    assert [math.isnan(c) for c in power_caps(gpu, PowerCap())] == [True]
    assert power_caps(gpu, PowerCap(mode="Fixed", watts_per_gpu=500)) == (500.0,)
    tried = power_caps(gpu, PowerCap(mode="Plan"))
    assert math.isnan(tried[0])
    assert tried[1:] == (200.0, 300.0, 400.0, 500.0, 600.0)


def test_the_candidates_of_the_fewest_gpus_are_kept(models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]) -> None:
    whole = space(models["moe"], gpus[H100], [8] * 6)
    few, up_to = whole.within(len(whole) // 3)
    assert 0.8 * len(whole) / 3 < len(few) <= len(whole) // 3

    def totals(found: ProductSpace) -> list[int]:
        index, replicas = found.expand()
        return sorted((found.layouts.gpus[index] * replicas).tolist())

    assert totals(few) == [total for total in totals(whole) if total <= up_to]
    assert whole.within(len(whole)) == (whole, 48)


def test_no_more_candidates_are_kept_than_asked_for(models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]) -> None:
    whole = space(models["8b"], gpus[H100], [8])
    index, replicas = whole.expand()
    totals = np.sort(whole.layouts.gpus[index] * replicas)
    for most in (0, 1, 10, 11, 40, len(whole) - 1):
        few, up_to = whole.within(most)
        assert len(few) == (totals <= up_to).sum() <= most < (totals <= up_to + 1).sum()
    assert whole.take(np.zeros(0, dtype=np.int64)).within(5)[1] == 0


@pytest.mark.parametrize("overrides", [{"data_parallel": 5}, {"tensor_parallel": 5}])
def test_an_override_that_no_engine_can_have_is_kept_to_be_explained(
    overrides: dict[str, int], models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]
) -> None:
    """Slices of the width of 768 cannot be had for 5 ranks."""
    found = space(models["moe"], gpus[H100], [8], max_batch_size=1, pipeline_parallel=1, **overrides)
    layouts = found.layouts
    ranks = layouts.tensor_parallel * layouts.data_parallel
    assert ((ranks == 5) & (layouts.expert_parallel == 1)).any()
