"""Pods of a plan are scheduled on the nodes that the planner counted, by their labels and taints."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.operator_cluster import OperatorCluster, Team, layout

from energylens.devcluster.nodes import NodePool, node_manifests

PRODUCT, GKE = "nvidia.com/gpu.product", "cloud.google.com/gke-accelerator"
A100 = "NVIDIA-A100-80GB-PCIe"
RTX = "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition"


def gpu_node(label: str, value: str, **taint: str) -> dict[str, Any]:
    (_, node) = node_manifests([NodePool("NVIDIA-L4", count=1, gpus=2, memory_mib=81920)])
    metadata, labels = node["metadata"], node["metadata"]["labels"]
    metadata["name"] = labels["kubernetes.io/hostname"] = "one-of-a-kind"
    kept = {key: text for key, text in labels.items() if "nvidia.com" not in key}
    metadata["labels"] = {**kept, label: value}
    node["spec"]["taints"] = [{"key": "nvidia.com/gpu", "value": "present", **taint}]
    return node


@pytest.mark.parametrize(
    ("node", "product"),
    [
        (gpu_node(PRODUCT, "A100-PCIE-80GB", effect="NoSchedule"), A100),
        (gpu_node(GKE, "nvidia-rtx-pro-6000", effect="NoExecute"), RTX),
    ],
)
def test_pods_run_on_a_node_that_has_the_product_by_another_label(
    operator: OperatorCluster, team: Team, node: dict[str, Any], product: str
) -> None:
    operator.api.run("delete", "node", "one-of-a-kind", "--ignore-not-found")
    operator.api.apply(node)
    try:
        team.apply(hardware={"gpuProducts": [product]}, planning=layout(replicas=2))
        assert team.ready()["plan"]["gpuProduct"] == product
        assert [pod["spec"]["nodeName"] for pod in team.pods()] == ["one-of-a-kind"] * 2
    finally:
        team.clear()
        operator.api.run("delete", "node", "one-of-a-kind")
