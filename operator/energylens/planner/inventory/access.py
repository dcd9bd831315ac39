"""How the pods of a plan get GPUs: all pods of a plan use one way, so only nodes that offer this way count.

The device plugin's nodes give GPUs for requests of ``nvidia.com/gpu``; nodes of dynamic resource allocation give them
for ResourceClaims, and for requests too if a DeviceClass serves the resource.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from energylens.planner.types import BY_RESOURCE, ExcludedNode, GpuAccess, GpuNode
from energylens.records import dataclass

_WORDS: dict[GpuAccess, str] = {"Resource": "requests of nvidia.com/gpu", "Claim": "ResourceClaims"}
_OTHER: dict[GpuAccess, GpuAccess] = {"Resource": "Claim", "Claim": "Resource"}


def with_one_access(nodes: tuple[GpuNode, ...], owners: Collection[str]) -> tuple[GpuNode, ...]:
    """Return the nodes that a plan may use together: of each product those that offer their GPUs in the same way.

    Pods that run keep their way, because a change restarts all of them. They change to the way of more than half of the
    product's GPUs once that way has as many free GPUs as they hold. Without pods, a deployment uses the way with most
    free GPUs, and requests of ``nvidia.com/gpu`` if these give half.

    Args:
        nodes: The nodes that a deployment may use otherwise.
        owners: Names of the deployments that the plan is for, as in the nodes' allocations; their GPUs count as free.
    """
    ways = _ways(nodes, owners)
    return nodes if ways is None else tuple(node for node in nodes if ways[node.product].way in node.access)


def of_another_access(nodes: Sequence[GpuNode], owner: str) -> list[ExcludedNode]:
    """Return the nodes that :func:`with_one_access` leaves out, and why."""
    ways = _ways(nodes, (owner,))
    if ways is None:
        return []
    found = []
    for node in nodes:
        used = ways[node.product]
        if used.way not in node.access:
            (offered,) = node.access
            reason = (
                f"its GPUs are allocated for {_WORDS[offered]}, but {used.reason}: the pods of a plan use one of the "
                "two; to use these nodes, select them alone by spec.hardware.nodeSelector"
            )
            found.append(ExcludedNode(node.name, node.product, reason))
    return found


def access_to(nodes: Iterable[GpuNode], product: str, live: GpuAccess | None = None) -> GpuAccess:
    """Return how the pods of a plan get GPUs of a product.

    Args:
        nodes: The nodes that the plan may use, by :func:`with_one_access`.
        product: The plan's product.
        live: How the running pods get them; kept while it is possible, since a change restarts every pod.
    """
    ways = [node.access for node in nodes if node.product == product]
    possible = frozenset.intersection(*ways) if ways else frozenset()
    if live is not None and (live in possible or not ways):
        return live
    return "Claim" if possible and "Resource" not in possible else "Resource"


def way_with_most(free: Mapping[frozenset[GpuAccess], int]) -> GpuAccess:
    """Return the way with most free GPUs, requests of ``nvidia.com/gpu`` if these give half.

    Args:
        free: Free GPUs of a product, zero or more, by the ways in which nodes offer them.
    """
    by_request = [gpus for ways, gpus in free.items() if "Resource" in ways]
    return "Resource" if by_request and 2 * sum(by_request) >= sum(free.values()) else "Claim"


@dataclass(frozen=True)
class _Used:
    way: GpuAccess
    reason: str
    """Why the deployment uses this way, as the end of a sentence."""


def _ways(nodes: Collection[GpuNode], owners: Collection[str]) -> dict[str, _Used] | None:
    """Return the way of each product; None if all nodes are those of a device plugin."""
    if all(node.access == BY_RESOURCE for node in nodes):
        return None
    of_product: dict[str, list[GpuNode]] = defaultdict(list)
    for node in nodes:
        of_product[node.product].append(node)
    return {product: _way(product, mine, owners) for product, mine in of_product.items()}


def _way(product: str, nodes: Sequence[GpuNode], owners: Collection[str]) -> _Used:
    held: dict[GpuAccess, int] = {"Resource": 0, "Claim": 0}
    for node in nodes:
        for allocation in node.allocations:
            if allocation.owner in owners:
                held[allocation.access] += allocation.gpus
    free: dict[frozenset[GpuAccess], int] = defaultdict(int)
    for node in nodes:
        others = sum(a.gpus for a in node.allocations if a.owner not in owners)
        free[node.access] += max(0, node.allocatable - others) if node.schedulable else 0
    if not any(held.values()):
        way = way_with_most(free)
        most = "at least half of the free" if way == "Resource" else "most of the free"
        return _Used(way, f"{most} GPUs of {product} are for {_WORDS[way]}")
    now: GpuAccess = "Resource" if held["Resource"] >= held["Claim"] else "Claim"
    here = sum(node.allocatable for node in nodes if now in node.access)
    there = sum(gpus for ways, gpus in free.items() if _OTHER[now] in ways)
    most_are_there = 2 * here < sum(node.allocatable for node in nodes)
    if here == 0 or (most_are_there and there >= sum(held.values())):
        return _Used(_OTHER[now], f"most GPUs of {product} for {_WORDS[_OTHER[now]]}")
    return _Used(now, f"the deployment's pods hold GPUs of {product} by {_WORDS[now]}")
