"""How the pods of a plan get GPUs: all pods of a plan use one way, so only nodes that offer this way count.

The device plugin's nodes give GPUs for requests of ``nvidia.com/gpu``; nodes of dynamic resource allocation give them
for ResourceClaims, and for requests too if a DeviceClass serves the resource.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from energylens.planner.types import BY_RESOURCE, ExcludedNode, GpuAccess, GpuNode

_WORDS: dict[GpuAccess, str] = {"Resource": "requests of nvidia.com/gpu", "Claim": "ResourceClaims"}


def with_one_access(nodes: tuple[GpuNode, ...]) -> tuple[GpuNode, ...]:
    """Return the nodes that a plan may use together: of each product those that offer their GPUs in the same way.

    Requests of ``nvidia.com/gpu`` are used where they give at least half of a product's GPUs, so that a few nodes that
    differ do not restart every pod.

    Args:
        nodes: The nodes that a deployment may use otherwise.
    """
    ways = _ways(nodes)
    return nodes if ways is None else tuple(node for node in nodes if ways[node.product] in node.access)


def of_another_access(nodes: Sequence[GpuNode]) -> list[ExcludedNode]:
    """Return the nodes that :func:`with_one_access` leaves out, and why."""
    ways = _ways(nodes)
    if ways is None:
        return []
    found = []
    for node in nodes:
        way = ways[node.product]
        if way not in node.access:
            (offered,) = node.access
            reason = (
                f"its GPUs are allocated for {_WORDS[offered]}, but most GPUs of {node.product} for {_WORDS[way]}: the "
                "pods of a plan use one of the two; to use these nodes, select them alone by spec.hardware.nodeSelector"
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


def _ways(nodes: Collection[GpuNode]) -> dict[str, GpuAccess] | None:
    """Return the way of each product; None if all nodes are those of a device plugin."""
    if all(node.access == BY_RESOURCE for node in nodes):
        return None
    total: dict[str, int] = {}
    by_resource: dict[str, int] = {}
    for node in nodes:
        total[node.product] = total.get(node.product, 0) + node.allocatable
        asked = node.allocatable if "Resource" in node.access else 0
        by_resource[node.product] = by_resource.get(node.product, 0) + asked
    return {product: "Resource" if 2 * by_resource[product] >= gpus else "Claim" for product, gpus in total.items()}
