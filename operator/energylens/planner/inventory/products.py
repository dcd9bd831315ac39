"""Which GPU product a node has, by its labels, and which products the names in a spec select."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from energylens.predictor.gpu_names import name_key, names_of, node_label_values
from energylens.predictor.types import GpuSpec

PRODUCT_LABEL = "nvidia.com/gpu.product"
"""Written by NVIDIA GPU feature discovery (https://github.com/NVIDIA/k8s-device-plugin, docs/gpu-feature-discovery)."""

GKE_LABEL = "cloud.google.com/gke-accelerator"
"""Written by Google Kubernetes Engine (https://cloud.google.com/kubernetes-engine/docs/how-to/gpus), where GPU feature
discovery is not installed by default."""


def resolve_products(wanted: Iterable[str], at_hand: Iterable[str], gpus: Mapping[str, GpuSpec]) -> tuple[str, ...]:
    """Return the available products that the given names select, sorted.

    A name may be a current or older product label, the short name of a GPU (``H100``), or a GKE accelerator name.
    Letter case does not matter, and blanks count as dashes.
    """
    keys = {name_key(name) for name in wanted}
    return tuple(sorted(product for product in at_hand if keys & _names(product, gpus.get(product))))


def _names(product: str, gpu: GpuSpec | None) -> set[str]:
    names = {product, product.removeprefix("NVIDIA-"), *(names_of(gpu) if gpu is not None else ())}
    return {name_key(name) for name in names}


class NodeLabels:
    """The table of products by node label values.

    Values are compared exactly, as Kubernetes compares them, since the pods of a plan find their nodes by the same
    values (:func:`node_label_values`).
    """

    def __init__(self, gpus: Mapping[str, GpuSpec]) -> None:
        self._by_product_label = {value: gpu.product for gpu in gpus.values() for value in node_label_values(gpu)}
        self._by_gke_label = {value: gpu.product for gpu in gpus.values() for value in gpu.gke_accelerators}
        self._by_key = {name_key(name): gpu.product for gpu in gpus.values() for name in names_of(gpu)}
        self.gpus = gpus

    def product(self, labels: Mapping[str, str]) -> str | None:
        """Return the product that a node's labels name; None if they name no known product.

        The label of feature discovery takes precedence even if its value is unknown, because it distinguishes shared
        and partitioned GPUs.
        """
        if PRODUCT_LABEL in labels:
            return self._by_product_label.get(labels[PRODUCT_LABEL])
        return self._by_gke_label.get(labels.get(GKE_LABEL, ""))

    def of_value(self, value: str) -> str | None:
        """Return the product that a value of the label of feature discovery names; None for an unknown value."""
        return self._by_product_label.get(value)

    def meant(self, name: str) -> str | None:
        """Return the product for any of its names, in any letter case; None if the name is unknown."""
        return self._by_key.get(name_key(name))
