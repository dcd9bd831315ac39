"""Calibrated constants as rates of one GPU product: the cost of a byte, a FLOP and a launch.

A constant is dimensionless (a fraction of the data sheet's peak) or has its unit in its name. The same names serve
prediction, where a constant is a number, and fitting, where it is an array over the runs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from energylens.predictor.step.kernels import KERNELS
from energylens.predictor.types import BoolArray, FloatArray, GpuSpec
from energylens.records import dataclass

Number = float | FloatArray
Constants = Mapping[str, Number]


@dataclass(frozen=True)
class DataSheet:
    """Peaks of a GPU product; numbers, or arrays over runs when fitting."""

    bandwidth: Number
    flops_bf16: Number
    flops_fp8: Number
    flops_fp4: Number
    link_bandwidth: Number
    """Bandwidth of NVLink; without NVLink, of the host link, which all messages then use."""
    host_link_bandwidth: Number
    """Bandwidth of PCIe, which messages beyond an NVLink island use."""
    power_limit: Number
    network_bandwidth: Number = 0.0
    """Bandwidth from a node to other nodes; 0 if it is unknown."""


@dataclass(frozen=True)
class KernelRates:
    """Rates of the kernel classes, each an array of shape (len(KERNELS),) or (len(KERNELS), runs)."""

    bandwidth: FloatArray
    """Bytes per second for weights and activations."""
    cache_bandwidth: FloatArray
    flops: FloatArray
    dense_flops: FloatArray
    """FLOP per second of one large matrix product of the same kind."""
    prefill_flops: FloatArray
    """FLOP per second of attention over a prompt."""
    launch: FloatArray
    """Seconds per launch beyond the transfer or the arithmetic."""
    table_factor: FloatArray
    """Factor on the time in the kernel tables."""
    joules_per_byte: FloatArray
    joules_per_cache_byte: FloatArray
    joules_per_flop: FloatArray


_PREFILL = {
    "state": "state_prefill_flops",
    "attention_latent": "attention_latent_flops",
    "attention_sparse": "attention_sparse_flops",
}
"""Constants of the arithmetic of prompts by kernel class; other classes use that of plain attention."""


def data_sheet(gpu: GpuSpec) -> DataSheet:
    """Return the peaks of a product."""
    return DataSheet(
        gpu.memory_bandwidth,
        gpu.flops_bf16,
        gpu.flops_fp8 or gpu.flops_bf16,
        gpu.flops_fp4 or gpu.flops_fp8 or gpu.flops_bf16,
        gpu.nvlink_bandwidth or gpu.pcie_bandwidth,
        gpu.pcie_bandwidth,
        gpu.power_limit_watts,
        gpu.network_bandwidth,
    )


def _native_four_bit(sheet: DataSheet) -> BoolArray:
    """Return whether the GPU multiplies 4-bit weights directly, with 8-bit activations (Blackwell).

    Older GPUs widen them.
    """
    return np.asarray(np.greater(sheet.flops_fp4, sheet.flops_fp8))


def _arithmetic(kernel: str, sheet: DataSheet) -> Number:
    if kernel.endswith("4bit"):
        return np.where(_native_four_bit(sheet), sheet.flops_fp8, sheet.flops_bf16)
    if "fp8" in kernel or kernel.endswith("int8"):
        return sheet.flops_fp8
    if kernel.endswith("fp4"):
        return sheet.flops_fp4
    return sheet.flops_bf16


def _flop_energy(kernel: str, c: Constants, sheet: DataSheet) -> Number:
    if kernel.endswith("4bit"):
        return np.where(_native_four_bit(sheet), c["energy_flop_fp8_pj"], c["energy_flop_bf16_pj"])
    if "fp8" in kernel or kernel.endswith("int8"):
        return c["energy_flop_fp8_pj"]
    if kernel.endswith("fp4"):
        return c["energy_flop_fp4_pj"]
    return c["energy_flop_bf16_pj"]


def _byte_energy(kernel: str, c: Constants) -> Number:
    if kernel.endswith("4bit"):
        return c["energy_4bit_byte_pj"]  # includes widening four bits to sixteen
    plain = c["energy_moe_byte_pj"] if kernel.startswith("moe") else c["energy_byte_pj"]
    if kernel.endswith("8bit"):
        # A byte has one weight to widen to sixteen bits, instead of two.
        return plain + 0.5 * np.maximum(c["energy_4bit_byte_pj"] - c["energy_moe_byte_pj"], 0.0)
    return plain


def kernel_rates(c: Constants, sheet: DataSheet) -> KernelRates:
    """Return the rates of every kernel class."""
    rows: dict[str, list[Number]] = {name: [] for name in KernelRates.__dataclass_fields__}

    def put(**values: Number) -> None:
        for name, value in values.items():
            rows[name].append(value)

    for kernel in KERNELS:
        moe = kernel.startswith("moe")
        triton = moe and "fp8_block" not in kernel
        flops = c["moe_flops"] if moe else c["gemm_flops"]
        bandwidth = c["moe_bandwidth"] if moe else c["gemm_bandwidth"]
        if kernel == "moe:fp4":
            flops, bandwidth = c["moe_fp4_flops"], c["moe_fp4_bandwidth"]
        if kernel == "moe:8bit":
            flops, bandwidth = c["moe_8bit_flops"], c["moe_8bit_bandwidth"]
        launch = c["gemm_launch_us"]
        if kernel.startswith("attention"):
            launch = c["attention_floor_us"]
        elif kernel == "state":
            launch, bandwidth = c["state_floor_us"], c["state_bandwidth"]
        elif moe:
            launch = c["moe_8bit_floor_us" if kernel == "moe:8bit" else "moe_floor_us"]
        if kernel.endswith("fp8_block"):
            launch = launch + c["moe_fp8_block_extra_us" if moe else "gemm_fp8_block_extra_us"]
        elif kernel.endswith((":fp8", "int8")):
            launch = launch + c["gemm_fp8_extra_us"]
        factor = c.get("table_" + kernel.removeprefix("moe:"), c["table_bfloat16"]) if moe else 1.0
        state = kernel == "state"
        put(
            bandwidth=bandwidth * sheet.bandwidth,
            cache_bandwidth=(c["state_bandwidth"] if state else c["cache_bandwidth"]) * sheet.bandwidth,
            flops=flops * _arithmetic(kernel, sheet),
            dense_flops=c["gemm_flops"] * _arithmetic(kernel, sheet),
            prefill_flops=c[_PREFILL.get(kernel, "attention_flops")] * sheet.flops_bf16,
            launch=launch * 1e-6,
            table_factor=factor,
            joules_per_byte=_byte_energy(kernel, c) * 1e-12,
            joules_per_cache_byte=c["energy_state_byte_pj" if state else "energy_cache_byte_pj"] * 1e-12,
            joules_per_flop=_flop_energy(kernel, c, sheet) * (c["energy_moe_flop_factor"] if triton else 1.0) * 1e-12,
        )
    return KernelRates(**{name: _stack(values) for name, values in rows.items()})


def _stack(values: list[Number]) -> FloatArray:
    return np.stack(np.broadcast_arrays(*[np.asarray(v, dtype=np.float64) for v in values]))


def per_operation(rate: FloatArray, kernel: npt.NDArray[np.int64]) -> FloatArray:
    """Return a kernel class's rate for every operation.

    Args:
        rate: Shape (classes,), or (classes, n) with different rates per candidate.
        kernel: Class of each operation, shape (k,), or (k, n) if candidates differ in model.

    Returns:
        Shape (k, 1) or (k, n).
    """
    if kernel.ndim == 2:
        return np.asarray(rate[kernel, np.arange(kernel.shape[1])[None, :]] if rate.ndim == 2 else rate[kernel])
    return np.asarray(rate[kernel] if rate.ndim == 2 else rate[kernel][:, None])
