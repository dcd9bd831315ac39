"""Names of GPU products: the node label, older spellings of it, short names, and a cloud's names.

All of them stand in the table of products (``data/gpus.json``), so that a node, a spec, an inventory file and a pod's
node affinity agree on what a name means.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from energylens.predictor.types import GpuSpec

_PREFIX = "NVIDIA-"


def name_key(name: str) -> str:
    """Return a name as names are compared: letter case does not matter, and blanks count as dashes."""
    return "-".join(name.strip().lower().split())


def names_of(gpu: GpuSpec) -> tuple[str, ...]:
    """Return every name of a product, its node label first."""
    return (gpu.product, gpu.name, *gpu.aliases, *gpu.label_values, *gpu.gke_accelerators)


def index_of(gpus: Iterable[GpuSpec]) -> dict[str, str]:
    """Return the product by :func:`name_key` of each of its names."""
    return {name_key(name): gpu.product for gpu in gpus for name in names_of(gpu)}


def node_label_values(gpu: GpuSpec) -> tuple[str, ...]:
    """Return the values of the label ``nvidia.com/gpu.product`` by which nodes of a product are known, its own first.

    Drivers before R470 report names without the prefix ``NVIDIA``; people who label nodes by hand write small letters.
    Label values match letter by letter in Kubernetes, so that a node is known by these values and no others: pods of a
    plan for the product must be able to ask for them.
    """
    exact = (gpu.product, *gpu.label_values)
    short = gpu.product.removeprefix(_PREFIX)
    return tuple(dict.fromkeys((*exact, short, gpu.product.lower(), short.lower())))


def nearest_first(names: Iterable[str], gpus: Mapping[str, GpuSpec]) -> tuple[str, ...]:
    """Return all products of a table, those with a name most like one of ``names`` first."""
    wanted = [name_key(name) for name in names]

    def likeness(product: str) -> float:
        known = {name_key(name) for name in names_of(gpus[product])}
        return max(
            (difflib.SequenceMatcher(None, name, other).ratio() for name in wanted for other in known), default=0.0
        )

    return tuple(sorted(gpus, key=lambda product: (-likeness(product), product)))
