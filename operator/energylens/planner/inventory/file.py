"""A cluster described by hand as a short list of node pools, for planning without a cluster.

.. code-block:: yaml

    nodes:
    - {product: NVIDIA-H100-80GB-HBM3, gpus: 8, count: 2}
    - {product: L40S, gpus: 4, count: 3, used: 1}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from energylens.planner.inventory.node_gpus import MOST_GPUS
from energylens.planner.inventory.products import PRODUCT_LABEL
from energylens.planner.types import ClusterSnapshot, GpuAllocation, GpuNode, Taint

_FIELDS = ("product", "gpus", "count", "used", "labels", "taints")
_MOST_NODES = 10_000


class InventoryError(ValueError):
    """The inventory is invalid. The message names the entry, the field, the value and what is allowed."""


def snapshot_from_inventory(document: object, product_label: Callable[[str], str]) -> ClusterSnapshot:
    """Return the cluster that a parsed inventory describes.

    Args:
        document: A mapping with ``nodes``, a list of pools: ``product`` and ``gpus`` (per node), and optionally
            ``count`` (1), ``used`` (GPUs taken on each node, 0), ``labels`` and ``taints``.
        product_label: Returns the product label for a product's name; its LookupError lists the known names.

    Raises:
        InventoryError: A field is missing, unknown or out of range.
    """
    if not isinstance(document, Mapping) or "nodes" not in document:
        raise InventoryError(
            "the inventory must have a list `nodes` of {product, gpus, count}, or be a List of Kubernetes objects as "
            "`kubectl get nodes,pods -A -o json` prints it"
        )
    pools = document["nodes"]
    if not isinstance(pools, list) or not pools:
        raise InventoryError(f"nodes={pools!r}: must be a list of {{product, gpus, count}} with at least one entry")
    nodes: list[GpuNode] = []
    for number, pool in enumerate(pools):
        nodes += _pool(pool, f"nodes[{number}]", product_label)
    width = len(str(len(nodes) - 1))
    return ClusterSnapshot(tuple(replace(node, name=f"node-{i:0{width}}") for i, node in enumerate(nodes)))


def _pool(pool: object, where: str, product_label: Callable[[str], str]) -> list[GpuNode]:
    if not isinstance(pool, Mapping):
        raise InventoryError(f"{where}: must be a mapping with {', '.join(_FIELDS)}, not {pool!r}")
    unknown = sorted(str(key) for key in pool if key not in _FIELDS)
    if unknown:
        raise InventoryError(f"{where}: unknown field {unknown[0]!r}; allowed: {', '.join(_FIELDS)}")
    for field in ("product", "gpus"):
        if field not in pool:
            raise InventoryError(f"{where}: must have {field}; the entry has {', '.join(pool) or 'no field'}")
    name = pool["product"]
    if not isinstance(name, str) or not name:
        raise InventoryError(f"{where}.product={name!r}: must be a GPU product such as NVIDIA-H100-80GB-HBM3 or H100")
    try:
        product = product_label(name)
    except LookupError as error:
        raise InventoryError(f"{where}.product={name!r}: {error.args[0] if error.args else error}") from error
    gpus = _whole(pool["gpus"], f"{where}.gpus", 1, MOST_GPUS)
    count = _whole(pool.get("count", 1), f"{where}.count", 1, _MOST_NODES)
    used = _whole(pool.get("used", 0), f"{where}.used", 0, gpus)
    labels = pool.get("labels") or {}
    if not isinstance(labels, Mapping):
        raise InventoryError(f"{where}.labels={labels!r}: must be a mapping of node labels")
    node = GpuNode(
        name="",
        product=product,
        allocatable=gpus,
        allocations=(GpuAllocation("", used),) if used else (),
        labels={PRODUCT_LABEL: product, **{str(key): str(value) for key, value in labels.items()}},
        taints=_taints(pool.get("taints") or [], f"{where}.taints"),
    )
    return [node] * count


def _taints(taints: Any, where: str) -> tuple[Taint, ...]:
    if not isinstance(taints, list) or not all(isinstance(taint, Mapping) and taint.get("key") for taint in taints):
        raise InventoryError(f"{where}={taints!r}: must be a list of {{key, value, effect}}")
    return tuple(
        Taint(str(taint["key"]), str(taint.get("value") or ""), str(taint.get("effect") or "NoSchedule"))
        for taint in taints
    )


def _whole(value: object, where: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InventoryError(f"{where}={value!r}: must be a whole number from {least} to {most}")
    return value
