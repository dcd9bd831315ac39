"""Nodes as other clusters label and taint them: on a real scheduler the pods run where the plan counts GPUs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.operator_cluster import Object, OperatorCluster, Team

from energylens_dev.devcluster import eventually

GPU = "nvidia.com/gpu"
GPU_TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}
DEDICATED = {"key": "dedicated", "value": "serving", "effect": "NoExecute"}
Nodes = Callable[..., str]


def node(name: str, labels: dict[str, str], taints: list[Object], gpus: int) -> Object:
    resources = {"cpu": "96", "memory": "1000Gi", "ephemeral-storage": "2Ti", "pods": "110", GPU: str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok", **labels},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"taints": taints},
        "status": {"capacity": resources, "allocatable": resources},
    }


@pytest.fixture
def nodes(operator: OperatorCluster, team: Team) -> Iterator[Nodes]:
    """Make a node of these labels, taints and GPUs in the test's own pool; return its name. All are gone afterwards."""
    made: list[str] = []

    def make(labels: dict[str, str], *taints: Object, gpus: int = 8) -> str:
        name = f"{team.namespace}-{len(made)}"
        made.append(name)
        body = node(name, {"pool": team.namespace, **labels}, list(taints), gpus)
        operator.api.apply(body)
        # Resources of a node are its status, which an apply of the object leaves alone.
        status = json.dumps({"status": body["status"]})
        operator.api.run("patch", "node", name, "--subresource=status", "--type=merge", "-p", status)

        def ready() -> bool:
            found = operator.api.get("node", name)
            assert found is not None
            assert found["status"]["allocatable"].get(GPU, "0") == str(gpus), found["status"]["allocatable"]
            return any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"]["conditions"])

        eventually(ready)
        return name

    yield make
    team.clear()
    operator.api.run("delete", "node", *made, "--ignore-not-found")


def hardware(team: Team, **more: Any) -> Object:
    """Return ``spec.hardware`` for the test's own pool."""
    return {"nodeSelector": {"pool": team.namespace}, **more}


def runs_on(team: Team, product: str, where: set[str]) -> None:
    """Wait until two replicas are ready; they are where the plan says, and each of them on one of these nodes."""
    status = team.ready()
    assert status["plan"]["gpuProduct"] == product
    pods = team.pods()
    assert len(pods) == 2
    assert {pod["spec"]["nodeName"] for pod in pods} <= where


@pytest.mark.parametrize(
    ("labels", "product"),
    [
        ({"nvidia.com/gpu.product": "A100-SXM4-80GB"}, "NVIDIA-A100-SXM4-80GB"),
        ({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.count": "8"}, "NVIDIA-H100-80GB-HBM3"),
        ({"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}, "NVIDIA-H100-80GB-HBM3"),
        ({"cloud.google.com/gke-accelerator": "nvidia-l4"}, "NVIDIA-L4"),
    ],
    ids=["old driver", "feature discovery", "GKE H100", "GKE L4"],
)
def test_pods_find_the_nodes_whatever_label_names_their_gpus(
    team: Team, nodes: Nodes, labels: dict[str, str], product: str
) -> None:
    name = nodes(labels, GPU_TAINT)
    # Another product in the same pool, where nothing may land.
    other = "NVIDIA-L40S" if product != "NVIDIA-L40S" else "NVIDIA-L4"
    nodes({"nvidia.com/gpu.product": other}, GPU_TAINT)
    team.apply(hardware=hardware(team, gpuProducts=[product]))
    runs_on(team, product, {name})


def test_a_taint_that_evicts_is_counted_where_the_pods_tolerate_it(team: Team, nodes: Nodes) -> None:
    name = nodes({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, GPU_TAINT | {"effect": "NoExecute"}, DEDICATED)
    team.apply(hardware=hardware(team))
    message = team.wait("PlanReady", "False", "NoMatchingGPUs")["message"]
    assert "dedicated=serving:NoExecute" in message
    # A toleration with a time limit is not enough: the pods would be evicted.
    tolerated = {"key": "dedicated", "operator": "Equal", "value": "serving", "effect": "NoExecute"}
    team.apply(hardware=hardware(team, tolerations=[{**tolerated, "tolerationSeconds": 30}]))
    message = team.wait("PlanReady", "False", "NoMatchingGPUs")["message"]
    assert "without a time limit (tolerationSeconds)" in message
    team.apply(hardware=hardware(team, tolerations=[tolerated]))
    runs_on(team, "NVIDIA-H100-80GB-HBM3", {name})


def test_virtual_gpus_are_not_planned_on_and_named(team: Team, nodes: Nodes) -> None:
    shared = nodes({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.count": "1"}, gpus=8)
    team.apply(hardware=hardware(team))
    message = team.wait("PlanReady", "False", "NoMatchingGPUs")["message"]
    assert f"{shared}: its GPUs are shared: 8 allocatable, 1 physical" in message
    # Beside whole ones they are passed over.
    whole = nodes({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.count": "8"}, GPU_TAINT)
    team.apply(hardware=hardware(team, gpuProducts=["NVIDIA-H100-80GB-HBM3"]))
    runs_on(team, "NVIDIA-H100-80GB-HBM3", {whole})


def test_a_labelled_node_with_nothing_to_give_is_named(team: Team, nodes: Nodes) -> None:
    empty = nodes({"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.count": "8"}, gpus=0)
    team.apply(hardware=hardware(team))
    message = team.wait("PlanReady", "False", "NoMatchingGPUs")["message"]
    assert f"{empty}: it is labelled as a GPU node but offers no {GPU}" in message
    # Once its device plugin runs, what waited moves.
    patch = json.dumps({"status": {part: {GPU: "8"} for part in ("capacity", "allocatable")}})
    team.kubectl.run("patch", "node", empty, "--subresource=status", "--type=merge", "-p", patch)
    runs_on(team, "NVIDIA-H100-80GB-HBM3", {empty})
