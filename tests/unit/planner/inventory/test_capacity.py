from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.api.llmdeployment import Toleration
from energylens.planner.inventory.capacity import eligible, pods_beside, replicas_that_fit, tolerates
from energylens.planner.types import GpuNode, Taint


def fit(nodes: list[int], gpus: int, pods: int = 1) -> int:
    return int(replicas_that_fit(nodes, np.array([gpus]), np.array([pods]))[0])


@pytest.mark.parametrize(
    ("nodes", "gpus", "pods", "expected"),
    [
        ([8, 8], 8, 1, 2),
        ([8, 8], 4, 1, 4),
        ([8, 7], 4, 1, 3),
        ([6, 6], 4, 1, 2),
        ([3, 3], 4, 1, 0),
        ([8, 8, 8], 8, 2, 1),
        ([8, 8, 8, 8], 8, 2, 2),
        ([8, 4, 4], 4, 2, 2),
        ([], 1, 1, 0),
        ([0], 1, 1, 0),
    ],
)
def test_replicas_that_fit(nodes: list[int], gpus: int, pods: int, expected: int) -> None:
    assert fit(nodes, gpus, pods) == expected


@given(
    nodes=st.lists(st.integers(0, 8), max_size=6),
    gpus=st.integers(1, 8),
    pods=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_a_scheduler_that_places_pods_in_any_order_reaches_the_count(
    nodes: list[int], gpus: int, pods: int, seed: int
) -> None:
    chance, free, placed = random.Random(seed), list(nodes), 0
    while any(room >= gpus for room in free):
        i = chance.choice([i for i, room in enumerate(free) if room >= gpus])
        free[i] -= gpus
        placed += 1
    assert fit(nodes, gpus, pods) == placed // pods


GPU_TAINT = Taint("nvidia.com/gpu", "present")


@pytest.mark.parametrize(
    ("toleration", "taint", "expected"),
    [
        (Toleration(key="a", operator="Exists"), Taint("a", "x"), True),
        (Toleration(key="a", value="x"), Taint("a", "x"), True),
        (Toleration(key="a", value="y"), Taint("a", "x"), False),
        (Toleration(key="a"), Taint("a"), True),
        (Toleration(key="b", operator="Exists"), Taint("a"), False),
        (Toleration(operator="Exists"), Taint("a", "x", "NoExecute"), True),
        (Toleration(key="a", operator="Exists", effect="NoExecute"), Taint("a"), False),
        (Toleration(key="a", operator="Exists", effect="NoSchedule"), Taint("a"), True),
    ],
)
def test_tolerates(toleration: Toleration, taint: Taint, expected: bool) -> None:
    assert tolerates(toleration, taint) is expected


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (GpuNode("n", "p", 8, labels={"pool": "llm"}), True),
        (GpuNode("n", "p", 8, labels={"pool": "web"}), False),
        (GpuNode("n", "p", 8), False),
        (GpuNode("n", "p", 8, labels={"pool": "llm"}, taints=(GPU_TAINT,)), True),
        (GpuNode("n", "p", 8, labels={"pool": "llm"}, taints=(Taint("spot"),)), False),
        (GpuNode("n", "p", 8, labels={"pool": "llm"}, taints=(Taint("spot", "", "PreferNoSchedule"),)), True),
        (GpuNode("n", "p", 8, labels={"pool": "llm"}, schedulable=False), True),
    ],
)
def test_eligible(node: GpuNode, expected: bool) -> None:
    assert eligible(node, {"pool": "llm"}, ()) is expected


def test_a_toleration_of_the_spec_opens_tainted_nodes() -> None:
    node = GpuNode("n", "p", 8, taints=(Taint("spot"), GPU_TAINT))
    assert eligible(node, {}, (Toleration(key="spot", operator="Exists"),))


@pytest.mark.parametrize("effect", ["NoSchedule", "NoExecute"])
def test_the_taint_of_gpu_nodes_is_tolerated_with_every_effect(effect: str) -> None:
    assert eligible(GpuNode("n", "p", 8, taints=(Taint("nvidia.com/gpu", "present", effect),)), {}, ())


SPOT = Taint("spot", "true", "NoExecute")


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ([{"key": "spot", "operator": "Exists"}], True),
        ([{"operator": "Exists"}], True),
        ([{"key": "spot", "value": "true", "effect": "NoExecute"}], True),
        ([{"key": "spot", "value": "true", "effect": "NoSchedule"}], False),
        ([{"key": "spot", "value": "false"}], False),
        ([{"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}], False),
        # The first that matches decides, as in Kubernetes' taint eviction controller.
        ([{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}, {"operator": "Exists"}], False),
        ([{"operator": "Exists"}, {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}], True),
    ],
)
def test_a_node_from_which_pods_are_evicted_after_a_while_is_no_place(
    tolerations: list[dict[str, object]], expected: bool
) -> None:
    node = GpuNode("n", "p", 8, taints=(SPOT,))
    assert eligible(node, {}, [Toleration.model_validate(toleration) for toleration in tolerations]) is expected


def test_seconds_do_not_matter_where_nothing_is_evicted() -> None:
    brief = Toleration(operator="Exists", effect="NoExecute", toleration_seconds=5)
    assert eligible(GpuNode("n", "p", 8, taints=(Taint("a", "", "PreferNoSchedule"),)), {}, (brief,))


@given(nodes=st.lists(st.integers(0, 8), max_size=3), pod=st.integers(1, 8), other=st.integers(1, 8))
def test_the_best_placement_of_two_sizes_is_found(nodes: list[int], pod: int, other: int) -> None:
    best: dict[int, int] = {}
    for counts in itertools.product(*(range(free // pod + 1) for free in nodes)):
        rest = sum((free - pod * count) // other for free, count in zip(nodes, counts, strict=True))
        best[sum(counts)] = max(best.get(sum(counts), 0), rest)
    assert pods_beside(nodes, pod, other).tolist() == [best[count] for count in range(len(best))]
