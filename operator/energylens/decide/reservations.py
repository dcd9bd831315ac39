"""GPUs of plans whose pods are not bound to nodes yet, so that two plans never use the same free GPUs."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace

from energylens.decide.planned import PlannedDeployment
from energylens.planner.types import ClusterSnapshot, GpuAllocation


@dataclass(frozen=True)
class Reservation:
    """GPUs and watts of one deployment's plan that its pods do not hold yet."""

    owner: str
    product: str
    gpus_per_pod: int
    pods: int


def reservation(deployment: PlannedDeployment, bound_gpus: int) -> Reservation | None:
    """Return the GPUs of a plan beyond the GPUs of its bound pods; None if there are none.

    A plan that waits for approval, or a plan of mode Advisory, reserves no GPUs.
    """
    plan = deployment.plan
    if plan is None or deployment.is_suspended or deployment.mode == "Advisory" or deployment.awaits_approval:
        return None
    missing = plan.gpus - bound_gpus
    if missing <= 0:
        return None
    return Reservation(deployment.owner, plan.gpu_product, plan.gpus_per_pod, -(-missing // plan.gpus_per_pod))


def reserve(snapshot: ClusterSnapshot, reservations: Iterable[Reservation]) -> ClusterSnapshot:
    """Return the snapshot with the reserved GPUs taken: each pod on the fullest node with room for the pod."""
    # Nodes have few different numbers of free GPUs: per product a heap of node indices for each.
    pools: dict[str, dict[int, list[int]]] = {}
    for index, node in enumerate(snapshot.nodes):
        if node.schedulable:
            # Indices ascend, so that each list already is a heap.
            pools.setdefault(node.product, {}).setdefault(node.free_now, []).append(index)
    taken: dict[int, list[GpuAllocation]] = {}
    for wanted in reservations:
        levels = pools.get(wanted.product, {})
        for _ in range(wanted.pods):
            fitting = [free for free, indices in levels.items() if indices and free >= wanted.gpus_per_pod]
            if not fitting:
                break
            free = min(fitting)
            index = heapq.heappop(levels[free])
            heapq.heappush(levels.setdefault(free - wanted.gpus_per_pod, []), index)
            taken.setdefault(index, []).append(GpuAllocation(wanted.owner, wanted.gpus_per_pod))
    if not taken:
        return snapshot
    nodes = list(snapshot.nodes)
    for index, allocations in taken.items():
        nodes[index] = replace(nodes[index], allocations=(*nodes[index].allocations, *allocations))
    return replace(snapshot, nodes=tuple(nodes))
