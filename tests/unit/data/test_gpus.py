from __future__ import annotations

import dataclasses

import pytest

from energylens.data import PartitionedGpuError, UnknownGpuError, find_gpu, gpu_for_label, gpu_sources, load_gpus

# gpu.memory as GPU feature discovery writes it, in MiB.
MEMORY_MIB = {
    "NVIDIA-A100-SXM4-40GB": 40960,
    "NVIDIA-A100-SXM4-80GB": 81920,
    "NVIDIA-A100-80GB-PCIe": 81920,
    "NVIDIA-H100-80GB-HBM3": 81559,
    "NVIDIA-H100-PCIe": 81559,
    "NVIDIA-H100-NVL": 95830,
    "NVIDIA-H200": 143771,
    "NVIDIA-H200-NVL": 143771,
    "NVIDIA-H20": 97871,
    "NVIDIA-B200": 183359,
    "NVIDIA-B300-SXM6-AC": 275040,
    "NVIDIA-GB200": 189471,
    "NVIDIA-GB300": 284208,
    "NVIDIA-L4": 23034,
    "NVIDIA-L40S": 46068,
    "NVIDIA-A10G": 23028,
    "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition": 97887,
}


def test_products_are_keyed_by_their_node_label() -> None:
    gpus = load_gpus()
    assert set(gpus) == set(MEMORY_MIB)
    assert all(gpu.product == label for label, gpu in gpus.items())


@pytest.mark.parametrize("label", sorted(MEMORY_MIB))
def test_figures_are_plausible_and_sourced(label: str) -> None:
    gpu = load_gpus()[label]
    assert gpu.memory_bytes == MEMORY_MIB[label] * 2**20
    assert gpu.power_limit_min_watts < gpu.power_limit_watts <= gpu.power_limit_max_watts
    assert 0 < gpu.idle_watts < gpu.loaded_idle_watts < 0.5 * gpu.power_limit_watts
    assert gpu.nvlink_bandwidth == 0 or gpu.nvlink_bandwidth > gpu.pcie_bandwidth
    # A matrix unit does at least twice the work in half the bits, where it has that path at all.
    assert gpu.flops_fp8 == 0 or gpu.flops_fp8 == pytest.approx(2 * gpu.flops_bf16, rel=0.02)
    assert gpu.flops_fp4 == 0 or gpu.flops_fp4 >= 1.95 * gpu.flops_fp8
    # Seconds to stream the whole memory once: HBM about 20 to 40 ms, GDDR up to 80 ms.
    assert 0.015 < gpu.memory_bytes / gpu.memory_bandwidth < 0.085
    assert len(gpu_sources(label)) >= 2
    floats = [f.name for f in dataclasses.fields(gpu) if str(f.type) == "float"]
    assert all(isinstance(getattr(gpu, name), float) for name in floats)


def test_precision_paths_follow_the_architecture() -> None:
    for gpu in load_gpus().values():
        assert (gpu.flops_fp8 > 0) == (gpu.architecture != "ampere")
        assert (gpu.flops_fp4 > 0) == (gpu.architecture == "blackwell")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("H100", "NVIDIA-H100-80GB-HBM3"),
        ("h200", "NVIDIA-H200"),
        ("B200", "NVIDIA-B200"),
        ("A100", "NVIDIA-A100-SXM4-80GB"),
        ("L40S", "NVIDIA-L40S"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA-H100-80GB-HBM3"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition"),
        ("nvidia-h100-mega-80gb", "NVIDIA-H100-80GB-HBM3"),
        ("nvidia-tesla-a100", "NVIDIA-A100-SXM4-40GB"),
        ("nvidia-h200-141gb", "NVIDIA-H200"),
        ("NVIDIA-B300-SXM6-PC", "NVIDIA-B300-SXM6-AC"),
    ],
)
def test_short_nvml_and_cloud_names_are_understood(name: str, label: str) -> None:
    assert find_gpu(name).product == label
    assert gpu_for_label(name) == load_gpus()[label]


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("NVIDIA-H100-80GB-HBM3-SHARED", "shared"),
        ("NVIDIA-A10G-SHARED", "shared"),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "MIG"),
        ("NVIDIA-A100-SXM4-80GB-MIG-INVALID", "MIG"),
        ("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb-SHARED", "shared"),
    ],
)
def test_parts_of_a_gpu_are_refused(label: str, why: str) -> None:
    with pytest.raises(PartitionedGpuError, match=why):
        gpu_for_label(label)
    with pytest.raises(PartitionedGpuError, match=label):
        find_gpu(label)


def test_an_unknown_product_is_no_error_for_a_label_but_one_for_a_request() -> None:
    assert gpu_for_label("Tesla-T4") is None
    with pytest.raises(UnknownGpuError, match="'H10O' is not known") as error:
        find_gpu("H10O")
    assert str(error.value).index("NVIDIA-H100-80GB-HBM3") < str(error.value).index("NVIDIA-L4")
    with pytest.raises(UnknownGpuError):
        gpu_sources("H100")


def test_a_caller_cannot_change_the_table() -> None:
    load_gpus().clear()
    assert load_gpus()
