"""GPUs of plans whose pods are not bound to nodes yet, so that two plans never use the same free GPUs."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import replace

from energylens.decide.planned import PlannedDeployment
from energylens.planner.inventory.access import way_with_most
from energylens.planner.types import ClusterSnapshot, GpuAccess, GpuAllocation
from energylens.records import dataclass

_Levels = dict[int, list[int]]
"""Indices of nodes by their number of free GPUs."""


@dataclass(frozen=True)
class Reservation:
    """GPUs and watts of one deployment's plan that its pods do not hold yet."""

    owner: str
    product: str
    gpus_per_pod: int
    pods: int
    smaller: tuple[int, int] = (0, 0)
    """GPUs per pod and number of further, smaller pods."""

    @property
    def sizes(self) -> list[int]:
        """The GPUs of each pod, largest first."""
        size, count = self.smaller
        return [self.gpus_per_pod] * self.pods + [size] * count


def reservation(deployment: PlannedDeployment, bound_gpus: int) -> Reservation | None:
    """Return the GPUs of a plan beyond the GPUs of its bound pods; None if there are none.

    A plan that waits for approval, a plan of mode Advisory, and a job for which budgets have no room reserve no GPUs.
    """
    plan, has_no_pods = deployment.plan, deployment.is_suspended or deployment.is_refused
    if plan is None or has_no_pods or deployment.mode == "Advisory" or deployment.awaits_approval:
        return None
    missing = plan.gpus - bound_gpus
    if missing <= 0:
        return None
    if not plan.prefill_replicas:
        return Reservation(deployment.owner, plan.gpu_product, plan.gpus_per_pod, -(-missing // plan.gpus_per_pod))
    # Which of the two roles lacks pods is not known here; room for large pods is harder to find again.
    kinds = (plan.gpus_per_pod, plan.replicas), (plan.prefill_gpus_per_pod, plan.prefill_replicas)
    (size, _), (large, count) = sorted(kinds)
    pods = min(count, missing // large)
    rest = -(-(missing - pods * large) // size)
    return Reservation(deployment.owner, plan.gpu_product, large, pods, (size, rest))


def reserve(snapshot: ClusterSnapshot, reservations: Iterable[Reservation]) -> ClusterSnapshot:
    """Return the snapshot with the reserved GPUs taken: each pod on the fullest node with room for the pod.

    All pods of a deployment get their GPUs in one way, as :func:`energylens.planner.inventory.access.with_one_access`
    has it.
    """
    # Nodes have few different numbers of free GPUs: per product and access a heap of node indices for each.
    pools: dict[str, dict[frozenset[GpuAccess], _Levels]] = {}
    for index, node in enumerate(snapshot.nodes):
        if node.schedulable:
            # Indices ascend, so that each list already is a heap.
            levels = pools.setdefault(node.product, {}).setdefault(node.access, {})
            levels.setdefault(node.free_now, []).append(index)
    taken: dict[int, list[GpuAllocation]] = {}
    for wanted in reservations:
        pool = pools.get(wanted.product, {})
        way = _way(wanted, pool, snapshot)
        nowhere = 0
        for size in wanted.sizes:
            if size == nowhere:
                continue
            fitting = [
                (free, indices[0], access)
                for access, levels in pool.items()
                if way in access
                for free, indices in levels.items()
                if indices and free >= size
            ]
            if not fitting:
                nowhere = size
                continue
            free, index, access = min(fitting, key=lambda one: one[:2])
            heapq.heappop(pool[access][free])
            heapq.heappush(pool[access].setdefault(free - size, []), index)
            taken.setdefault(index, []).append(GpuAllocation(wanted.owner, size, way))
    if not taken:
        return snapshot
    nodes = list(snapshot.nodes)
    for index, allocations in taken.items():
        nodes[index] = replace(nodes[index], allocations=(*nodes[index].allocations, *allocations))
    return replace(snapshot, nodes=tuple(nodes))


def _way(wanted: Reservation, pool: Mapping[frozenset[GpuAccess], _Levels], snapshot: ClusterSnapshot) -> GpuAccess:
    """Return how pods that are not bound yet get their GPUs."""
    if len(pool) <= 1:
        return way_with_most(dict.fromkeys(pool, 0))
    bound = (
        allocation.access
        for node in snapshot.nodes
        if node.product == wanted.product
        for allocation in node.allocations
        if allocation.owner == wanted.owner
    )
    free = {access: sum(n * len(indices) for n, indices in levels.items()) for access, levels in pool.items()}
    return next(bound, way_with_most(free))
