"""Names of GPU products: the node label, its older spellings, short names, and cloud names.

All names are in the table of products (``data/gpus.json``), so that a node, a spec, an inventory file and a pod's node
affinity agree on the meaning of a name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from energylens.predictor.types import GpuSpec

_PREFIX = "NVIDIA-"


def name_key(name: str) -> str:
    """Return a name in its form for comparison: letter case does not matter, and blanks count as dashes."""
    return "-".join(name.strip().lower().split())


def names_of(gpu: GpuSpec) -> tuple[str, ...]:
    """Return every name of a product, its node label first."""
    return (gpu.product, gpu.name, *gpu.aliases, *gpu.label_values, *gpu.gke_accelerators)


def index_of(gpus: Iterable[GpuSpec]) -> dict[str, str]:
    """Return products by the :func:`name_key` of each of their names."""
    return {name_key(name): gpu.product for gpu in gpus for name in names_of(gpu)}


def node_label_values(gpu: GpuSpec) -> tuple[str, ...]:
    """Return the values of the label ``nvidia.com/gpu.product`` that identify a product's nodes, its own value first.

    Drivers before R470 report names without the prefix ``NVIDIA``, and manual labels are often in lower case.
    Kubernetes compares label values exactly, so only these values identify a node: pods of a plan for the product must
    be able to select them.
    """
    exact = (gpu.product, *gpu.label_values)
    short = gpu.product.removeprefix(_PREFIX)
    return tuple(dict.fromkeys((*exact, short, gpu.product.lower(), short.lower())))


def nearest_first(names: Iterable[str], gpus: Mapping[str, GpuSpec]) -> tuple[str, ...]:
    """Return all products of a table, those with names most similar to ``names`` first."""
    wanted = [name_key(name) for name in names]

    def likeness(product: str) -> float:
        known = {name_key(name) for name in names_of(gpus[product])}
        return max(
            (difflib.SequenceMatcher(None, name, other).ratio() for name in wanted for other in known), default=0.0
        )

    return tuple(sorted(gpus, key=lambda product: (-likeness(product), product)))
