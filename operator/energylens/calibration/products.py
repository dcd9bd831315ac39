"""Constants of GPU products without serving runs: the constants of a measured relative, corrected by data sheets."""

from __future__ import annotations

from collections.abc import Mapping

from energylens.predictor.types import GpuSpec

RELATIVE = {"blackwell": "B200", "hopper": "H100", "ampere": "H100", "ada-lovelace": "H100"}

MEMORY_ENERGY = {"ampere": 1.1, "ada-lovelace": 2.6}
"""Energy per byte relative to the relative's: HBM2e against HBM3, and GDDR6, for which published measurements give 250
to 410 pJ per byte against 105 to 135 for HBM."""
FLOP_ENERGY = {"ampere": 1.25, "ada-lovelace": 1.1}
"""Energy per FLOP relative to the relative's, from peak FLOP rates and power limits of the data sheets."""
LAUNCH = {"ampere": 1.2, "ada-lovelace": 1.2}
"""Floors of kernels and launches relative to the relative's, from the aiconfigurator kernel tables."""


_BYTE_ENERGIES = (
    "energy_byte_pj",
    "energy_moe_byte_pj",
    "energy_cache_byte_pj",
    "energy_state_byte_pj",
    "energy_4bit_byte_pj",
)
_FLOP_ENERGIES = ("energy_flop_bf16_pj", "energy_flop_fp8_pj")
_FLOORS = ("gemm_launch_us", "attention_floor_us", "small_kernel_us", "moe_floor_us")


def relative_of(gpu: GpuSpec) -> str | None:
    """Return the product whose corrected constants a product without serving runs uses; None if there is none."""
    return RELATIVE.get(gpu.architecture)


def derived_ratios(gpu: GpuSpec, relative: GpuSpec) -> dict[str, float]:
    """Return the ratio of a product's constants to its relative's, without ratios of 1.

    Fractions of peak are similar within and between architectures. Energies per byte and FLOP follow the memory
    technology and the architecture. Static power is product data.
    """
    memory = MEMORY_ENERGY.get(gpu.architecture, 1.0)
    if gpu.architecture == "blackwell" and gpu.memory_bandwidth < 3e12:
        memory = MEMORY_ENERGY["ada-lovelace"]  # the workstation and server cards have GDDR7
    ratios = dict.fromkeys(_BYTE_ENERGIES, memory)
    ratios |= dict.fromkeys(_FLOP_ENERGIES, FLOP_ENERGY.get(gpu.architecture, 1.0))
    ratios |= dict.fromkeys(_FLOORS, LAUNCH.get(gpu.architecture, 1.0))
    ratios["static_watts"] = gpu.loaded_idle_watts / relative.loaded_idle_watts
    limit = min(gpu.power_limit_watts / relative.power_limit_watts, 1.0)
    ratios |= dict.fromkeys(("active_watts", "sampler_watts"), limit)
    return ratios


def derived_constants(
    fitted: Mapping[str, Mapping[str, float]], gpus: Mapping[str, GpuSpec]
) -> dict[str, dict[str, float]]:
    """Return the fitted constants and the derived constants of every other product."""
    out = {name: dict(values) for name, values in fitted.items()}
    for name, gpu in gpus.items():
        relative = relative_of(gpu)
        if name in out or relative is None or relative not in fitted or relative not in gpus:
            continue
        ratios = derived_ratios(gpu, gpus[relative])
        out[name] = {constant: value * ratios.get(constant, 1.0) for constant, value in fitted[relative].items()}
    return out
