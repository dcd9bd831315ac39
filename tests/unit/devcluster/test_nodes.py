"""Nodes look like those of a cluster with the NVIDIA GPU operator."""

from __future__ import annotations

import pytest

from energylens_dev.devcluster import DEFAULT_POOLS, DevClusterError, NodePool, parse_pools
from energylens_dev.devcluster.nodes import NODE_LABEL, SPEC_ANNOTATION, node_manifests, pools_from_data, pools_to_data


def test_the_default_nodes_are_two_of_each_product() -> None:
    nodes = node_manifests(DEFAULT_POOLS)
    found = [
        (
            node["metadata"]["labels"].get("nvidia.com/gpu.product"),
            node["metadata"]["labels"].get("nvidia.com/gpu.memory"),
            node["status"]["allocatable"].get("nvidia.com/gpu"),
        )
        for node in nodes
    ]
    assert found == [
        (None, None, None),
        *2 * [("NVIDIA-H100-80GB-HBM3", "81559", "8")],
        *2 * [("NVIDIA-H200", "143771", "8")],
        *2 * [("NVIDIA-B200", "183359", "8")],
        *2 * [("NVIDIA-L40S", "46068", "4")],
    ]


def test_a_gpu_node_has_the_labels_of_feature_discovery_and_the_usual_taint() -> None:
    node = node_manifests([NodePool("NVIDIA-B200", count=1, gpus=8)])[1]
    labels = node["metadata"]["labels"]
    expected = {
        "nvidia.com/gpu.count": "8",
        "nvidia.com/gpu.family": "blackwell",
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.compute.major": "10",
        "nvidia.com/gpu.compute.minor": "0",
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.capable": "true",
        "kubernetes.io/hostname": "b200-x8-0",
        NODE_LABEL: "b200-x8",
    }
    assert {key: labels[key] for key in expected} == expected
    assert node["spec"]["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    assert node["metadata"]["annotations"]["kwok.x-k8s.io/node"] == "fake"
    assert node["status"]["capacity"]["cpu"] == "192"
    assert node["status"]["allocatable"]["cpu"] == "191800m"


def test_names_are_unique_and_fit_a_label() -> None:
    pools = (*DEFAULT_POOLS, NodePool("NVIDIA-L40S", count=3, gpus=8))
    names = [node["metadata"]["name"] for node in node_manifests(pools)]
    assert len(set(names)) == len(names) == 12
    assert all(len(name) <= 63 and name == name.lower() for name in names)


def test_the_digest_follows_the_manifest() -> None:
    def digest(pool: NodePool) -> str:
        node = node_manifests([pool])[1]
        return str(node["metadata"]["annotations"][SPEC_ANNOTATION])

    same = digest(NodePool("NVIDIA-H200", count=1, gpus=8))
    assert digest(NodePool("NVIDIA-H200", count=5, gpus=8)) == same
    assert digest(NodePool("NVIDIA-H200", count=1, gpus=8, memory_mib=1000)) != same


def test_pools_are_read_from_yaml() -> None:
    text = "- {product: NVIDIA-L4, count: 3, gpus: 1}\n- {product: My-GPU, count: 1, gpus: 2, memoryMiB: 1024}\n"
    pools = parse_pools(text, "nodes.yaml")
    assert pools == (NodePool("NVIDIA-L4", 3, 1), NodePool("My-GPU", 1, 2, memory_mib=1024))
    assert pools_from_data(pools_to_data(pools)) == pools
    unknown = node_manifests(pools)[-1]["metadata"]["labels"]
    assert unknown["nvidia.com/gpu.memory"] == "1024"
    assert "nvidia.com/gpu.family" not in unknown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("product: x", r"n\.yaml: must be a list of \{product, count, gpus\}, not \{'product': 'x'\}"),
        ("[]", r"must be a list"),
        ("[1]", r"entry 1: must be a mapping .* not 1"),
        (
            "- {product: NVIDIA-H200, count: 0, gpus: 8}",
            r"entry 1: count is 0: allowed is a whole number from 1 to 5000",
        ),
        ("- {product: NVIDIA-H200, count: true, gpus: 8}", r"count is True"),
        ("- {product: NVIDIA-H200, count: 1, gpus: 1.5}", r"gpus is 1\.5: allowed is a whole number from 1 to 72"),
        ("- {product: NVIDIA-H200, count: 1}", r"gpus is None"),
        ("- {product: NVIDIA-H200, count: 1, gpus: 8, memory: 1}", r"unknown field 'memory': allowed are product"),
        ("- {product: H9000, count: 1, gpus: 8}", r"memoryMiB is missing and product 'H9000' is unknown: known are "),
        ("- {product: NVIDIA H200, count: 1, gpus: 8}", r"product is 'NVIDIA H200': allowed is a value of the label"),
        ("- {product: [a], count: 1, gpus: 8}", r"product is \['a'\]"),
        (2 * "- {product: NVIDIA-L4, count: 1, gpus: 8}\n", r"two entries have the same product and gpus \(l4-x8\)"),
        ("- {product: [", r"n\.yaml: not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_field_and_value(text: str, message: str) -> None:
    with pytest.raises(DevClusterError, match=message):
        parse_pools(text, "n.yaml")
