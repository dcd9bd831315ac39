"""GPUs of plans whose pods are not bound to nodes yet, so that two deployments never plan on the same last GPUs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from energylens.planner.types import ClusterSnapshot, GpuAllocation, GpuNode


@dataclass(frozen=True)
class Reservation:
    """What one deployment's plan still has to get."""

    owner: str
    product: str
    gpus_per_pod: int
    pods: int


def reservation(deployment: Mapping[str, Any], bound_gpus: int) -> Reservation | None:
    """Return what a deployment's plan lacks, given the GPUs that its bound pods hold; None when nothing."""
    spec, plan = deployment.get("spec", {}), deployment.get("status", {}).get("plan")
    if plan is None or spec.get("suspend") or spec.get("planning", {}).get("mode", "Auto") == "Advisory":
        return None
    missing = int(plan["gpus"]) - bound_gpus
    if missing <= 0:
        return None
    per_replica = plan["tensorParallel"] * plan["pipelineParallel"] * plan["dataParallel"]
    per_pod = max(1, per_replica // plan.get("nodesPerReplica", 1))
    metadata = deployment["metadata"]
    return Reservation(
        f"{metadata['namespace']}/{metadata['name']}", plan["gpuProduct"], per_pod, -(-missing // per_pod)
    )


def reserve(snapshot: ClusterSnapshot, reservations: Iterable[Reservation]) -> ClusterSnapshot:
    """Return the snapshot with the reserved GPUs taken, each pod on the fullest node that it fits on."""
    nodes = list(snapshot.nodes)
    for wanted in reservations:
        for _ in range(wanted.pods):
            fitting = [
                (node.free_now, i)
                for i, node in enumerate(nodes)
                if node.product == wanted.product and node.schedulable and node.free_now >= wanted.gpus_per_pod
            ]
            if not fitting:
                break
            _, i = min(fitting)
            nodes[i] = _with(nodes[i], GpuAllocation(wanted.owner, wanted.gpus_per_pod))
    return replace(snapshot, nodes=tuple(nodes))


def _with(node: GpuNode, allocation: GpuAllocation) -> GpuNode:
    return replace(node, allocations=(*node.allocations, allocation))
