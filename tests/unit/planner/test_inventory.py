from __future__ import annotations

from typing import Any

import pytest

from energylens.planner.inventory import snapshot_from_objects
from energylens.planner.types import GpuAllocation, Taint

H100 = "NVIDIA-H100-80GB-HBM3"


def node(name: str = "a", gpus: int | str = 8, ready: str = "True", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": H100} | labels},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "64", "nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}],
        },
    }


def container(gpus: int, **more: Any) -> dict[str, Any]:
    return {"name": "c", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}} | more


def pod(*containers: dict[str, Any], on: str | None = "a", phase: str = "Running", **more: Any) -> dict[str, Any]:
    metadata = {"name": "p", "namespace": "team-a", "labels": more.pop("labels", {})}
    spec = {"containers": list(containers)} | more
    if on is not None:
        spec["nodeName"] = on
    return {"metadata": metadata, "spec": spec, "status": {"phase": phase}}


def used(*pods: dict[str, Any]) -> int:
    (found,) = snapshot_from_objects([node()], pods).nodes
    return found.allocatable - found.free_now


@pytest.mark.parametrize(
    ("phase", "on", "expected"),
    [
        ("Running", "a", 2),
        ("Pending", "a", 2),
        ("Pending", None, 0),
        ("Succeeded", "a", 0),
        ("Failed", "a", 0),
        ("Unknown", "a", 2),
        ("Running", "another-node", 0),
    ],
)
def test_pods_count_from_their_binding_to_their_end(phase: str, on: str | None, expected: int) -> None:
    assert used(pod(container(2), phase=phase, on=on)) == expected


@pytest.mark.parametrize(
    ("containers", "init", "expected"),
    [
        ([container(1), container(2)], [], 3),
        ([container(1)], [container(4)], 4),
        ([container(4)], [container(1), container(2)], 4),
        ([container(1)], [container(2, restartPolicy="Always")], 3),
        ([container(1)], [container(2, restartPolicy="Always"), container(3)], 5),
        ([container(1)], [container(3), container(2, restartPolicy="Always")], 3),
        ([{"name": "c"}], [], 0),
        ([{"name": "c", "resources": {"requests": {"nvidia.com/gpu": 2}, "limits": {"nvidia.com/gpu": 2}}}], [], 2),
    ],
)
def test_a_pod_holds_what_the_scheduler_counts(
    containers: list[dict[str, Any]], init: list[dict[str, Any]], expected: int
) -> None:
    assert used(pod(*containers, initContainers=init)) == expected


def test_allocations_name_their_owner() -> None:
    mine = {"energylens.dev/llmdeployment": "chat"}
    pods = [pod(container(2), labels=mine), pod(container(1), labels=mine), pod(container(1))]
    (found,) = snapshot_from_objects([node()], pods).nodes
    assert found.allocations == (GpuAllocation("", 1), GpuAllocation("team-a/chat", 3))
    assert found.free_now == 4
    assert found.free_for("team-a/chat") == 7
    assert found.free_for("team-b/chat") == 4


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"nvidia.com/gpu.product": f"{H100}-SHARED"}, "shared between pods"),
        ({"nvidia.com/gpu.sharing-strategy": "mps"}, "shared between pods"),
        ({"nvidia.com/gpu.product": f"{H100}-MIG-1g.10gb"}, "partitioned (MIG)"),
        ({"nvidia.com/gpu.product": ""}, "no label nvidia.com/gpu.product"),
        ({"nvidia.com/gpu.product": "", "cloud.google.com/gke-accelerator": "nvidia-x"}, "no label"),
        (
            {
                "nvidia.com/gpu.product": "",
                "cloud.google.com/gke-accelerator": "nvidia-h100-80gb",
                "cloud.google.com/gke-gpu-partition-size": "1g.10gb",
            },
            "partitioned (MIG)",
        ),
    ],
)
def test_nodes_without_whole_known_gpus_are_kept_apart(labels: dict[str, str], reason: str) -> None:
    snapshot = snapshot_from_objects([node(**labels)], [])
    assert snapshot.nodes == ()
    (excluded,) = snapshot.excluded
    assert excluded.name == "a"
    assert reason in excluded.reason


def test_labels_of_an_unshared_gpu_exclude_nothing() -> None:
    labels = {
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/mig.capable": "true",
    }
    assert len(snapshot_from_objects([node(**labels)], []).nodes) == 1


def test_gke_names_the_product_where_feature_discovery_does_not() -> None:
    gke = node(**{"nvidia.com/gpu.product": "", "cloud.google.com/gke-accelerator": "nvidia-h100-80gb"})
    assert snapshot_from_objects([gke], []).nodes[0].product == H100


def test_nodes_without_gpus_are_left_out() -> None:
    plain = {"metadata": {"name": "cpu"}, "status": {"allocatable": {"cpu": "8"}}}
    snapshot = snapshot_from_objects([plain, node(gpus=0)], [])
    assert (snapshot.nodes, snapshot.excluded) == ((), ())


@pytest.mark.parametrize(
    ("change", "schedulable"),
    [
        ({}, True),
        ({"spec": {"unschedulable": True}}, False),
        ({"spec": {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}}, False),
        ({"spec": {"taints": [{"key": "node.kubernetes.io/x", "effect": "PreferNoSchedule"}]}}, True),
        ({"spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}}, True),
        ({"status": {"allocatable": {"nvidia.com/gpu": "8"}}}, False),
    ],
)
def test_schedulable(change: dict[str, Any], schedulable: bool) -> None:
    (found,) = snapshot_from_objects([node() | change], []).nodes
    assert found.schedulable is schedulable


def test_a_node_that_is_not_ready_is_not_schedulable() -> None:
    for ready in ("False", "Unknown"):
        assert not snapshot_from_objects([node(ready=ready)], []).nodes[0].schedulable


def test_only_lasting_taints_are_kept() -> None:
    taints = [
        {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
        {"key": "team", "value": "a", "effect": "NoSchedule"},
    ]
    (found,) = snapshot_from_objects([node() | {"spec": {"taints": taints}}], []).nodes
    assert found.taints == (Taint("team", "a", "NoSchedule"),)


def test_nodes_come_in_order_of_name() -> None:
    snapshot = snapshot_from_objects([node("b"), node("a"), node("c")], [])
    assert [n.name for n in snapshot.nodes] == ["a", "b", "c"]
