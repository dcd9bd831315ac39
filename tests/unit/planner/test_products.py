from __future__ import annotations

import pytest

from energylens.data import load_gpus
from energylens.planner.products import GKE_ACCELERATORS, gke_accelerators, resolve_products
from energylens.predictor.types import GpuSpec

H100, H200 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([H100], (H100,)),
        (["h100"], (H100,)),
        (["NVIDIA H200"], (H200,)),
        (["H200", "H100"], (H100, H200)),
        (["nvidia-h100-mega-80gb"], (H100,)),
        (["A100"], ()),
        ([], ()),
    ],
)
def test_resolve_products(wanted: list[str], expected: tuple[str, ...], gpus: dict[str, GpuSpec]) -> None:
    assert resolve_products(wanted, [H200, H100], gpus) == expected


def test_a_product_without_figures_still_has_its_label() -> None:
    assert resolve_products(["NVIDIA-X1"], ["NVIDIA-X1"], {}) == ("NVIDIA-X1",)


def test_the_names_of_gke_lead_to_known_products() -> None:
    assert set(GKE_ACCELERATORS.values()) <= set(load_gpus())
    assert gke_accelerators(H100) == ("nvidia-h100-80gb", "nvidia-h100-mega-80gb")
    assert gke_accelerators("NVIDIA-H100-NVL") == ()
