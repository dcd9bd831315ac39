"""Names of GPU products: node labels, short names, and the label that a managed cluster uses instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from energylens.predictor.types import GpuSpec

PRODUCT_LABEL = "nvidia.com/gpu.product"
"""Written by NVIDIA GPU feature discovery (https://github.com/NVIDIA/k8s-device-plugin, docs/gpu-feature-discovery)."""

GKE_LABEL = "cloud.google.com/gke-accelerator"
"""Written by Google Kubernetes Engine, where GPU feature discovery is not installed by default."""

GKE_ACCELERATORS: dict[str, str] = {
    "nvidia-tesla-a100": "NVIDIA-A100-SXM4-40GB",
    "nvidia-a100-80gb": "NVIDIA-A100-SXM4-80GB",
    "nvidia-h100-80gb": "NVIDIA-H100-80GB-HBM3",
    "nvidia-h100-mega-80gb": "NVIDIA-H100-80GB-HBM3",
    "nvidia-h200-141gb": "NVIDIA-H200",
    "nvidia-b200": "NVIDIA-B200",
    "nvidia-gb200": "NVIDIA-GB200",
    "nvidia-l4": "NVIDIA-L4",
}
"""GKE's accelerator names (https://cloud.google.com/kubernetes-engine/docs/how-to/gpus) to the product label."""


def gke_accelerators(product: str) -> tuple[str, ...]:
    """Return the GKE accelerator names of a product label, sorted; empty when GKE has none."""
    return tuple(sorted(name for name, label in GKE_ACCELERATORS.items() if label == product))


def resolve_products(wanted: Iterable[str], at_hand: Iterable[str], gpus: Mapping[str, GpuSpec]) -> tuple[str, ...]:
    """Return the products at hand that the wanted names mean, sorted.

    A wanted name is a product label, the short name of a GPU (``H100``) or a GKE accelerator name; letter case does
    not matter and blanks count as dashes.
    """
    keys = {_key(name) for name in wanted}
    return tuple(sorted(product for product in at_hand if keys & _names(product, gpus.get(product))))


def _names(product: str, gpu: GpuSpec | None) -> set[str]:
    names = {product, product.removeprefix("NVIDIA-"), *gke_accelerators(product)}
    if gpu is not None:
        names.add(gpu.name)
    return {_key(name) for name in names}


def _key(name: str) -> str:
    return name.strip().lower().replace(" ", "-")
