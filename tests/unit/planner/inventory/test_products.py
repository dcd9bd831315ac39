from __future__ import annotations

import pytest

from energylens.data import load_gpus
from energylens.planner.inventory.products import GKE_LABEL, PRODUCT_LABEL, NodeLabels, resolve_products
from energylens.predictor.gpu_names import nearest_first, node_label_values
from energylens.predictor.types import GpuSpec

H100, H200 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([H100], (H100,)),
        (["h100"], (H100,)),
        (["NVIDIA H200"], (H200,)),
        (["H200", "H100"], (H100, H200)),
        (["A100"], ()),
        ([], ()),
    ],
)
def test_resolve_products(wanted: list[str], expected: tuple[str, ...], gpus: dict[str, GpuSpec]) -> None:
    assert resolve_products(wanted, [H200, H100], gpus) == expected


def test_a_product_without_figures_still_has_its_label() -> None:
    assert resolve_products(["NVIDIA-X1"], ["NVIDIA-X1"], {}) == ("NVIDIA-X1",)


GKE_NAMES = {
    "nvidia-tesla-a100": "NVIDIA-A100-SXM4-40GB",
    "nvidia-a100-80gb": "NVIDIA-A100-SXM4-80GB",
    "nvidia-h100-80gb": H100,
    "nvidia-h100-mega-80gb": H100,
    "nvidia-h200-141gb": H200,
    "nvidia-b200": "NVIDIA-B200",
    "nvidia-b300": "NVIDIA-B300-SXM6-AC",
    "nvidia-gb200": "NVIDIA-GB200",
    "nvidia-gb300": "NVIDIA-GB300",
    "nvidia-l4": "NVIDIA-L4",
    "nvidia-rtx-pro-6000": "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition",
}


@pytest.mark.parametrize("name", GKE_NAMES)
def test_a_name_of_gke_means_the_same_on_a_node_and_in_a_spec(name: str) -> None:
    gpus = load_gpus()
    product = NodeLabels(gpus).product({GKE_LABEL: name})
    assert product == GKE_NAMES[name]
    assert resolve_products([name.upper()], list(gpus), gpus) == (product,)


@pytest.mark.parametrize(
    ("label", "product"),
    [
        ("A100-SXM4-80GB", "NVIDIA-A100-SXM4-80GB"),
        ("A100-SXM4-40GB", "NVIDIA-A100-SXM4-40GB"),
        ("A100-PCIE-80GB", "NVIDIA-A100-80GB-PCIe"),
        ("A100-80GB-PCIe", "NVIDIA-A100-80GB-PCIe"),
        ("H100-PCIe", "NVIDIA-H100-PCIe"),
        ("NVIDIA-H200-SXM5-141GB", H200),
        ("nvidia-h100-80gb-hbm3", H100),
        ("NVIDIA-B300-SXM6-PC", "NVIDIA-B300-SXM6-AC"),
        # One name for several products is none, nor is a spelling that no pod asks for.
        ("H100", None),
        ("A100", None),
        ("Nvidia-H100-80gb-HBM3", None),
        ("NVIDIA-DGX-Display", None),
    ],
)
def test_older_labels_name_the_product(label: str, product: str | None) -> None:
    assert NodeLabels(load_gpus()).product({PRODUCT_LABEL: label}) == product


def test_the_label_of_feature_discovery_decides() -> None:
    names = NodeLabels(load_gpus())
    assert names.product({PRODUCT_LABEL: "NVIDIA-X1", GKE_LABEL: "nvidia-l4"}) is None
    assert names.product({PRODUCT_LABEL: H200, GKE_LABEL: "nvidia-l4"}) == H200
    assert names.product({}) is None


def test_no_name_means_two_products() -> None:
    gpus = load_gpus()
    values = [value for gpu in gpus.values() for value in node_label_values(gpu)]
    assert len(values) == len(set(values))
    for gpu in gpus.values():
        assert node_label_values(gpu)[0] == gpu.product
        assert resolve_products(node_label_values(gpu), list(gpus), gpus) == (gpu.product,)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("H10O", H100),
        ("NVIDIA-A100-PCIE-40GB", "NVIDIA-A100-80GB-PCIe"),
        ("h200-nvl2", "NVIDIA-H200-NVL"),
        ("RTX PRO 6000 Workstation", "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition"),
    ],
)
def test_the_nearest_product_comes_first(name: str, nearest: str) -> None:
    gpus = load_gpus()
    found = nearest_first([name], gpus)
    assert found[0] == nearest
    assert sorted(found) == sorted(gpus)
