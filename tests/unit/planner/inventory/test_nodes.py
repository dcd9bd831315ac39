"""Which nodes a spec may use, and the message where there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment
from energylens.data import load_gpus
from energylens.planner.inventory.nodes import no_matching_gpus, unknown_products, unusable, usable_nodes
from energylens.planner.inventory.snapshot import snapshot_from_objects
from energylens.planner.types import ClusterSnapshot, ExcludedNode, GpuNode, Taint

Deploy = Callable[..., LLMDeployment]
H100, L40S = "NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S"


def message(make_deployment: Deploy, *nodes: GpuNode, **hardware: Any) -> str:
    spec = make_deployment(hardware=hardware).spec
    return no_matching_gpus(spec, ClusterSnapshot(nodes), load_gpus()).message


def test_a_node_without_gpus_is_none_that_a_plan_may_use(make_deployment: Deploy) -> None:
    nodes = tuple(GpuNode(f"n{gpus}", H100, gpus) for gpus in (0, 1, 2))
    found = usable_nodes(make_deployment().spec, "team/chat", ClusterSnapshot(nodes), load_gpus())
    assert [node.name for node in found] == ["n1", "n2"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, ""),
        (1, "; not usable: n0: empty"),
        (3, "; not usable: n0, n1, n2: empty"),
        (4, "; not usable: n0, n1, n2 and 1 more: empty"),
        (5, "; not usable: n0, n1, n2 and 2 more: empty"),
    ],
)
def test_three_nodes_of_a_reason_are_named_and_the_others_counted(count: int, text: str) -> None:
    assert unusable(ExcludedNode(f"n{i}", H100, "empty") for i in range(count)) == text


def test_three_nearest_products_are_named(make_deployment: Deploy) -> None:
    text = unknown_products(make_deployment(hardware={"gpuProducts": ["H1000"]}).spec, load_gpus())
    assert text.startswith("H1000 is not a known product, nearest: NVIDIA-H100-")
    assert len(text.split("nearest: ")[1].split(", ")) == 3
    (node,) = snapshot_from_objects(
        [
            {
                "metadata": {"name": "a", "labels": {"cloud.google.com/gke-accelerator": "nvidia-h1000"}},
                "status": {"allocatable": {"nvidia.com/gpu": "8"}},
            }
        ],
        [],
        load_gpus(),
    ).excluded
    assert "=nvidia-h1000 names no known GPU product; nearest: " in node.reason
    assert len(node.reason.split("nearest: ")[1].split(", ")) == 3


def test_a_selector_that_no_node_matches_is_named_with_what_there_is(make_deployment: Deploy) -> None:
    nodes = GpuNode("a", H100, 8, labels={"zone": "a"}), GpuNode("b", L40S, 4), GpuNode("c", H100, 8)
    assert message(make_deployment, *nodes, nodeSelector={"zone": "b"}, gpuProducts=["H100"]) == (
        f"spec.hardware.nodeSelector={{zone=b}}: no node with {H100} has these labels; available: {H100} (16 GPUs)"
    )


def test_taints_are_named_where_a_node_has_the_labels(make_deployment: Deploy) -> None:
    """The taints of nodes without the labels of the selector play no part, and one node with them is enough."""
    spot, own = Taint("spot", "yes"), Taint("own", "yes")
    nodes = GpuNode("a", H100, 8, labels={"zone": "a"}, taints=(spot,)), GpuNode("b", H100, 8, taints=(own,))
    assert message(make_deployment, *nodes, nodeSelector={"zone": "a"}) == (
        f"spec.hardware.tolerations: every node with {H100} has a taint that is not tolerated: spot=yes:NoSchedule"
    )


def test_a_toleration_for_a_while_is_said_if_one_taint_has_it(make_deployment: Deploy) -> None:
    taints = Taint("brief", "", "NoExecute"), Taint("never", "", "NoExecute")
    nodes = [GpuNode(taint.key, H100, 8, taints=(taint,)) for taint in taints]
    brief = {"key": "brief", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    other = {"key": "another", "operator": "Exists"}
    text = message(make_deployment, *nodes, tolerations=[other, brief])
    assert text.endswith("not tolerated without a time limit (tolerationSeconds): brief:NoExecute, never:NoExecute")
    assert message(make_deployment, *nodes, tolerations=[other]).endswith(
        "a taint that is not tolerated: brief:NoExecute, never:NoExecute"
    )
