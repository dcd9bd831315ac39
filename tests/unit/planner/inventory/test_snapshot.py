from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from energylens.data import load_gpus
from energylens.decide.trimmed import trim_node
from energylens.planner.inventory import snapshot as inventory
from energylens.planner.inventory.node_gpus import gpu_count
from energylens.planner.types import ClusterSnapshot, GpuAllocation, Taint

H100 = "NVIDIA-H100-80GB-HBM3"
PRODUCT = "nvidia.com/gpu.product"


def snapshot_from_objects(nodes: Sequence[dict[str, Any]], pods: Sequence[dict[str, Any]]) -> ClusterSnapshot:
    return inventory.snapshot_from_objects(nodes, pods, load_gpus())


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
        ([], [container(4), container(1, restartPolicy="Always")], 4),
        ([container(1)], [container(3, restartPolicy="Always"), container(1, restartPolicy="Always")], 5),
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


def offering(labels: dict[str, str], **resources: str) -> dict[str, Any]:
    """A ready node with labels, and resources as ``nvidia_com/gpu`` (capacity 8 as ``capacity``)."""
    found = node()
    capacity = resources.pop("capacity", None)
    found["metadata"]["labels"] = labels
    found["status"]["allocatable"] = {"cpu": "64", **{f"nvidia.com/{k}": v for k, v in resources.items()}}
    found["status"]["capacity"] = found["status"]["allocatable"] | ({"nvidia.com/gpu": capacity} if capacity else {})
    return found


def reason(one: dict[str, Any]) -> str:
    snapshot = snapshot_from_objects([one], [])
    assert snapshot.nodes == ()
    (excluded,) = snapshot.excluded
    assert excluded.name == "a"
    return excluded.reason


SHARED = "its GPUs are shared"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({PRODUCT: f"{H100}-SHARED"}, "shared between pods"),
        ({PRODUCT: H100, "nvidia.com/gpu.sharing-strategy": "mps"}, "shared between pods"),
        ({PRODUCT: H100, "nvidia.com/gpu.replicas": "4"}, "nvidia.com/gpu.replicas=4"),
        ({"cloud.google.com/gke-accelerator": "nvidia-l4", "cloud.google.com/gke-gpu-sharing-strategy": "mps"}, SHARED),
        (
            {"cloud.google.com/gke-accelerator": "nvidia-l4", "cloud.google.com/gke-max-shared-clients-per-gpu": "2"},
            SHARED,
        ),
        ({PRODUCT: f"{H100}-MIG-1g.10gb"}, "partitioned (MIG)"),
        ({PRODUCT: "nvidia-a10g-shared"}, "shared between pods"),
        ({PRODUCT: "NVIDIA-A100-SXM4-80GB-MIG-INVALID"}, "partitioned (MIG)"),
        (
            {
                "cloud.google.com/gke-accelerator": "nvidia-h100-80gb",
                "cloud.google.com/gke-gpu-partition-size": "1g.10gb",
            },
            "partitioned (MIG)",
        ),
        ({PRODUCT: H100, "nvidia.com/vgpu.present": "true"}, "virtual (vGPU)"),
        ({PRODUCT: H100, "nvidia.com/vgpu.host-driver-version": "535.54.06"}, "virtual (vGPU)"),
        ({PRODUCT: "GRID-A100D-40C"}, "virtual (vGPU)"),
        ({PRODUCT: "NVIDIA-L40S-48Q"}, "virtual (vGPU)"),
        ({PRODUCT: H100, "kubernetes.io/os": "windows"}, "it runs Windows (kubernetes.io/os)"),
        ({PRODUCT: ""}, f"its label {PRODUCT} is empty"),
        ({}, f"no label {PRODUCT} or cloud.google.com/gke-accelerator names its GPUs"),
        (
            {"cloud.google.com/gke-accelerator": "nvidia-h100-80gbs"},
            "cloud.google.com/gke-accelerator=nvidia-h100-80gbs names no known GPU product; nearest: " + H100,
        ),
        ({"k8s.amazonaws.com/accelerator": "nvidia-tesla-v100"}, "k8s.amazonaws.com/accelerator=nvidia-tesla-v100"),
        ({"karpenter.k8s.aws/instance-gpu-name": "h100"}, f"label the node {PRODUCT}={H100}"),
        ({"eks.amazonaws.com/instance-gpu-name": "h100"}, f"label the node {PRODUCT}={H100}"),
        ({"kubernetes.azure.com/accelerator": "nvidia"}, "names its GPUs"),
        (
            {PRODUCT: "H100"},
            f"{PRODUCT}=H100 is not a name that feature discovery writes; if the node has that product, label it "
            f"{H100}",
        ),
        ({PRODUCT: "Nvidia-h100-80gb-HBM3"}, f"label it {H100}"),
        (
            {PRODUCT: H100, "nvidia.com/gpu.memory": "20390"},
            "nvidia.com/gpu.memory=20390, but a whole GPU has 81559 MiB",
        ),
    ],
)
def test_nodes_without_whole_known_gpus_are_kept_apart(labels: dict[str, str], expected: str) -> None:
    assert expected in reason(offering(labels, gpu="8"))


@pytest.mark.parametrize(
    "labels",
    [
        {
            PRODUCT: H100,
            "nvidia.com/gpu.sharing-strategy": "none",
            "nvidia.com/gpu.replicas": "1",
            "nvidia.com/mig.capable": "true",
            "nvidia.com/gpu.count": "8",
            "nvidia.com/gpu.memory": "81559",
            "nvidia.com/vgpu.present": "false",
        },
        # Labels that are stale or no numbers say nothing.
        {PRODUCT: H100, "nvidia.com/gpu.count": "", "nvidia.com/gpu.replicas": "x", "nvidia.com/gpu.memory": "80Gi"},
        # Two of ten were lost: the kubelet still has the capacity of ten.
        {PRODUCT: H100, "nvidia.com/gpu.count": "10"},
        {"cloud.google.com/gke-accelerator": "nvidia-h100-mega-80gb", "cloud.google.com/gke-accelerator-count": "8"},
        # GDDR memory with error correction.
        {PRODUCT: "NVIDIA-A10G", "nvidia.com/gpu.memory": "22731"},
    ],
)
def test_whole_gpus_are_planned_with(labels: dict[str, str]) -> None:
    (found,) = snapshot_from_objects([offering(labels, gpu="8", capacity="10")], []).nodes
    assert found.allocatable == 8


def test_whole_gpus_count_beside_slices_of_others() -> None:
    labels = {PRODUCT: H100, "nvidia.com/gpu.count": "8", "nvidia.com/mig.strategy": "mixed"}
    (found,) = snapshot_from_objects([offering(labels, gpu="6", **{"mig-1g.10gb": "14"})], []).nodes
    assert found.allocatable == 6


@pytest.mark.parametrize("product", [H100, "A100-PCIE-80GB", "NVIDIA-X1"])
def test_a_node_has_the_product_that_its_label_means(product: str) -> None:
    (found,) = snapshot_from_objects([offering({PRODUCT: product}, gpu="8")], []).nodes
    assert found.product == {"A100-PCIE-80GB": "NVIDIA-A100-80GB-PCIe"}.get(product, product)


@pytest.mark.parametrize(
    ("count_label", "resources", "expected"),
    [
        ("nvidia.com/gpu.count", {"gpu": "10"}, "its GPUs are shared: 10 allocatable, 1 physical"),
        ("cloud.google.com/gke-accelerator-count", {"gpu": "10"}, "its GPUs are shared: 10 allocatable, 1 physical"),
        ("karpenter.k8s.aws/instance-gpu-count", {"gpu": "10"}, "its GPUs are shared: 10 allocatable, 1 physical"),
        ("eks.amazonaws.com/instance-gpu-count", {"gpu": "10"}, "its GPUs are shared: 10 allocatable, 1 physical"),
        # All are unhealthy now, but they were offered ten times.
        ("nvidia.com/gpu.count", {"gpu": "0", "capacity": "10"}, "shared: capacity 10, 0 allocatable, 1 physical"),
        ("nvidia.com/gpu.count", {"gpu.shared": "10"}, "shared: 10 nvidia.com/gpu.shared, 1 physical"),
        ("nvidia.com/gpu.count", {"gpu": "0", "gpu.shared": "10"}, "shared: 10 nvidia.com/gpu.shared, 1 physical"),
    ],
)
def test_gpus_offered_several_times_are_shared_whatever_other_labels_say(
    count_label: str, resources: dict[str, str], expected: str
) -> None:
    labels = {PRODUCT: "NVIDIA-A10G", "nvidia.com/gpu.replicas": "1", count_label: "1"}
    assert expected in reason(offering(labels, **resources))


@pytest.mark.parametrize(
    ("labels", "resources", "expected"),
    [
        ({PRODUCT: H100}, {}, "the device plugin is not running on it"),
        ({PRODUCT: H100}, {"gpu": "0"}, "the device plugin is not running on it"),
        ({"cloud.google.com/gke-accelerator": "nvidia-l4"}, {}, "the device plugin is not running on it"),
        ({"nvidia.com/gpu.present": "true"}, {}, "the device plugin is not running on it"),
        ({"feature.node.kubernetes.io/pci-10de.present": "true"}, {}, "the device plugin is not running on it"),
        ({PRODUCT: H100}, {"gpu": "0", "capacity": "8"}, "capacity 8, allocatable 0: its GPUs are unhealthy"),
        ({PRODUCT: H100}, {"gpu": "0", "mig-1g.10gb": "56"}, "partitioned (MIG): 56 nvidia.com/mig-1g.10gb"),
        ({}, {"mig-1g.10gb": "7"}, "partitioned (MIG): 7 nvidia.com/mig-1g.10gb"),
        ({PRODUCT: "NVIDIA-A10"}, {"GA102GL_A10": "1"}, "it offers 1 nvidia.com/GA102GL_A10 instead of nvidia.com/gpu"),
    ],
)
def test_a_gpu_node_with_nothing_to_give_is_named(
    labels: dict[str, str], resources: dict[str, str], expected: str
) -> None:
    assert expected in reason(offering(labels, **resources))


@pytest.mark.parametrize("value", ["a", "", "-1", "0.5", "8 GPUs", "1e30", None, True, [8]])
def test_a_malformed_quantity_is_a_reason(value: object) -> None:
    broken = node()
    broken["status"]["allocatable"]["nvidia.com/gpu"] = value
    assert reason(broken) == f"its status is malformed: nvidia.com/gpu={value!r} must be a whole number from 0 to 1024"


@pytest.mark.parametrize("value", [8, "8", "8.0", "8000m", "0.008k"])
def test_a_quantity_may_be_written_in_every_way_of_kubernetes(value: object) -> None:
    plain = node()
    plain["status"]["allocatable"]["nvidia.com/gpu"] = value
    assert [found.allocatable for found in snapshot_from_objects([plain], []).nodes] == [8]


def test_a_node_whose_pods_cannot_be_counted_is_not_used() -> None:
    broken = {"name": "c", "resources": {"limits": {"nvidia.com/gpu": "two"}}}
    snapshot = snapshot_from_objects([node(), node("b")], [pod(broken)])
    assert [found.name for found in snapshot.nodes] == ["b"]
    assert [found.reason for found in snapshot.excluded] == [
        "its pod team-a/p is malformed: nvidia.com/gpu='two' must be a whole number from 0 to 1024"
    ]


def test_nodes_without_gpus_are_left_out() -> None:
    plain = {"metadata": {"name": "cpu"}, "status": {"allocatable": {"cpu": "8"}}}
    network = {"metadata": {"name": "n"}, "status": {"allocatable": {"nvidia.com/hostdev": "2"}}}
    bare = {"metadata": {"name": "bare", "labels": None}, "spec": None, "status": None}
    snapshot = snapshot_from_objects([plain, network, bare, {"metadata": {"name": "new"}}], [])
    assert (snapshot.nodes, snapshot.excluded) == ((), ())


def test_labels_may_be_numbers_in_a_file() -> None:
    found = node()
    found["metadata"]["labels"] |= {"nvidia.com/gpu.count": 1}
    assert reason(found) == "its GPUs are shared: 8 allocatable, 1 physical"


@pytest.mark.parametrize(
    ("change", "schedulable"),
    [
        ({}, True),
        ({"spec": {"unschedulable": True}}, False),
        ({"spec": {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}}, False),
        ({"spec": {"taints": [{"key": "node.kubernetes.io/x", "effect": "PreferNoSchedule"}]}}, True),
        ({"spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}}, True),
        ({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}, False),
        ({"spec": {"taints": [{"key": "DeletionCandidateOfClusterAutoscaler", "effect": "PreferNoSchedule"}]}}, True),
        ({"spec": {"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]}}, False),
        ({"spec": {"taints": [{"key": "node.cilium.io/agent-not-ready", "effect": "NoExecute"}]}}, False),
        ({"status": {"allocatable": {"nvidia.com/gpu": "8"}}}, False),
    ],
)
def test_schedulable(change: dict[str, Any], schedulable: bool) -> None:
    (found,) = snapshot_from_objects([node() | change], []).nodes
    assert found.schedulable is schedulable


def test_a_node_that_is_not_ready_is_not_schedulable() -> None:
    for ready in ("False", "Unknown"):
        assert not snapshot_from_objects([node(ready=ready)], []).nodes[0].schedulable


def test_a_node_that_is_being_deleted_takes_no_more_pods_but_is_planned_with_until_it_is_gone() -> None:
    """Karpenter and cloud providers hold deleted nodes by a finalizer until their pods have left."""
    leaving = node()
    leaving["metadata"]["deletionTimestamp"] = "2026-03-01T00:00:00Z"
    for body in (leaving, trim_node(leaving)):
        (found,) = snapshot_from_objects([body], []).nodes
        assert not found.schedulable
        assert found.allocatable == 8


def test_only_lasting_taints_are_kept() -> None:
    taints = [
        {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
        {"key": "karpenter.sh/unregistered", "effect": "NoExecute"},
        {"key": "team", "value": "a", "effect": "NoSchedule"},
    ]
    (found,) = snapshot_from_objects([node() | {"spec": {"taints": taints}}], []).nodes
    assert found.taints == (Taint("team", "a", "NoSchedule"),)


def test_nodes_come_in_order_of_name() -> None:
    snapshot = snapshot_from_objects([node("b"), node("a"), node("c")], [])
    assert [n.name for n in snapshot.nodes] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("nvidia.com/gpu.present", "true"),
        ("feature.node.kubernetes.io/pci-0302_10de.present", "true"),
        ("kubernetes.azure.com/accelerator", "nvidia"),
        ("k8s.amazonaws.com/accelerator", "nvidia-h100"),
        ("karpenter.azure.com/sku-gpu-name", "H100"),
    ],
)
def test_one_label_shows_that_a_node_has_gpus(label: str, value: str) -> None:
    assert "offers no nvidia.com/gpu" in reason(offering({label: value}))
    assert snapshot_from_objects([offering({"kubernetes.azure.com/accelerator": "amd"})], []) == ClusterSnapshot(())


def test_a_capacity_of_twice_the_physical_gpus_is_shared() -> None:
    labels = {PRODUCT: H100, "nvidia.com/gpu.count": "4"}
    assert "shared: capacity 8, 4 allocatable, 4 physical" in reason(offering(labels, gpu="4", capacity="8"))
    (found,) = snapshot_from_objects([offering(labels, gpu="4", capacity="7")], []).nodes
    assert found.allocatable == 4


def test_counts_of_gpus_end_at_the_limit() -> None:
    assert [gpu_count({"nvidia.com/gpu": value}) for value in ("0", "1024")] == [0, 1024]
    assert gpu_count({}) == 0
    with pytest.raises(ValueError, match="must be a whole number from 0 to 1024"):
        gpu_count({"nvidia.com/gpu": "1025"})


def test_only_an_excluded_node_says_how_many_gpus_it_would_give() -> None:
    (shared,) = snapshot_from_objects([offering({PRODUCT: H100, "nvidia.com/gpu.count": "1"}, gpu="10")], []).excluded
    assert shared.gpus == 10
    (malformed,) = snapshot_from_objects([offering({PRODUCT: H100}, gpu="many")], []).excluded
    assert malformed.gpus == 0
    broken = pod({"name": "c", "resources": {"limits": {"nvidia.com/gpu": "many"}}})
    (uncounted,) = snapshot_from_objects([node()], [broken]).excluded
    assert (uncounted.gpus, uncounted.product) == (0, H100)
