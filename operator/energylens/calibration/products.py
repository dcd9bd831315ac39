"""Constants of GPU products without serving runs: those of a measured relative, corrected by data sheets."""

from __future__ import annotations

from collections.abc import Mapping

from energylens.predictor.types import GpuSpec

RELATIVE = {"blackwell": "B200", "hopper": "H100", "ampere": "H100", "ada-lovelace": "H100"}

MEMORY_ENERGY = {"ampere": 1.1, "ada-lovelace": 2.6}
"""Energy per byte over the relative's: HBM2e against HBM3, and GDDR6, which published measurements put at 250 to 410 pJ
per byte against 105 to 135 for HBM."""
FLOP_ENERGY = {"ampere": 1.25, "ada-lovelace": 1.1}
"""Energy per FLOP over the relative's: from peak FLOP rates and power limits of the data sheets."""
LAUNCH = {"ampere": 1.2, "ada-lovelace": 1.2}
"""Floors of kernels and launches over the relative's, from the aiconfigurator kernel tables."""


def derived_constants(
    fitted: Mapping[str, Mapping[str, float]], gpus: Mapping[str, GpuSpec]
) -> dict[str, dict[str, float]]:
    """Return the fitted constants and those of every other product.

    Fractions of peak carry over within and between architectures; energies per byte and FLOP follow the memory
    technology and the architecture; static power is the data of the product.
    """
    out = {name: dict(values) for name, values in fitted.items()}
    for name, gpu in gpus.items():
        if name in out or gpu.architecture not in RELATIVE:
            continue
        relative = RELATIVE[gpu.architecture]
        if relative not in fitted or relative not in gpus:
            continue
        values = dict(fitted[relative])
        memory = MEMORY_ENERGY.get(gpu.architecture, 1.0)
        if gpu.architecture == "blackwell" and gpu.memory_bandwidth < 3e12:
            memory = MEMORY_ENERGY["ada-lovelace"]  # the workstation and server cards have GDDR7
        for constant in (
            "energy_byte_pj",
            "energy_moe_byte_pj",
            "energy_cache_byte_pj",
            "energy_state_byte_pj",
            "energy_4bit_byte_pj",
        ):
            values[constant] *= memory
        for constant in ("energy_flop_bf16_pj", "energy_flop_fp8_pj"):
            values[constant] *= FLOP_ENERGY.get(gpu.architecture, 1.0)
        for constant in ("gemm_launch_us", "attention_floor_us", "small_kernel_us", "moe_floor_us"):
            values[constant] *= LAUNCH.get(gpu.architecture, 1.0)
        values["static_watts"] = (
            fitted[relative]["static_watts"] * gpu.loaded_idle_watts / gpus[relative].loaded_idle_watts
        )
        ratio = gpu.power_limit_watts / gpus[relative].power_limit_watts
        values["active_watts"] *= min(ratio, 1.0)
        values["sampler_watts"] *= min(ratio, 1.0)
        if not gpu.nvlink_bandwidth:
            # PCIe without peer access: NCCL floors, and less of the link's peak.
            for group in (2, 4, 8):
                values[f"reduce_floor_{group}_us"] *= 2.0
        out[name] = values
    return out
