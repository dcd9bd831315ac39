"""The fitted constants: prior mean, how far data may move them, and how they differ between GPU products.

Each constant has one value that all products share, and a ratio per product, both log-normal. The prior of the ratio
connects the products: thirty layouts do not determine fifty constants, so physics does most of it.
"""

from __future__ import annotations

from energylens.records import dataclass


@dataclass(frozen=True)
class Constant:
    """One constant on the reference product (H100), log-normal prior."""

    name: str
    prior: float
    spread: float
    """Standard deviation of its logarithm; 0 keeps it fixed."""
    ratio: float = 1.0
    """Prior of the B200's value over the H100's."""
    ratio_spread: float = 0.15


CONSTANTS = (
    Constant("gemm_bandwidth", 0.81, 0.07, 0.88, 0.05),
    Constant("gemm_flops", 0.75, 0.05, 0.95, 0.05),
    Constant("gemm_launch_us", 2.0, 0.25, 1.0, 0.15),
    Constant("gemm_fp8_block_extra_us", 4.0, 0.5, 1.0, 0.3),
    Constant("gemm_fp8_extra_us", 2.0, 0.3, 1.0, 0.2),
    Constant("cache_bandwidth", 0.88, 0.05, 1.0, 0.05),
    Constant("attention_floor_us", 7.0, 0.25, 0.8, 0.15),
    Constant("attention_flops", 0.75, 0.15, 1.0, 0.1),
    Constant("attention_latent_flops", 0.70, 0.25, 1.0, 0.15),
    Constant("attention_sparse_flops", 0.25, 0.5, 0.9, 0.15),
    Constant("state_bandwidth", 0.50, 0.3, 1.0, 0.15),
    Constant("state_floor_us", 20.0, 0.4, 1.0, 0.2),
    Constant("state_prefill_flops", 0.05, 0.5, 1.0, 0.2),
    Constant("small_kernel_us", 4.0, 0.3, 1.0, 0.2),
    Constant("small_moe_weight", 3.0, 0.3, 1.0, 0.0),
    Constant("small_state_weight", 3.0, 0.3, 1.0, 0.0),
    Constant("small_bandwidth", 0.5, 0.2, 1.0, 0.1),
    Constant("moe_bandwidth", 0.70, 0.1, 0.95, 0.1),
    Constant("moe_flops", 0.45, 0.15, 0.9, 0.1),
    Constant("moe_fp4_bandwidth", 0.85, 0.3, 1.0, 0.1),
    Constant("moe_fp4_flops", 0.35, 0.3, 1.0, 0.0),
    Constant("moe_floor_us", 10.0, 0.3, 1.0, 0.2),
    Constant("moe_8bit_bandwidth", 0.75, 0.1, 1.0, 0.0),
    Constant("moe_8bit_flops", 0.20, 0.3, 1.0, 0.0),
    Constant("moe_8bit_floor_us", 25.0, 0.3, 1.0, 0.0),
    Constant("moe_fp8_block_extra_us", 30.0, 0.5, 1.0, 0.2),
    Constant("aligned_rows", 1.0, 0.0),
    Constant("table_kernels", 1.0, 0.0),
    Constant("moe_aligned_flops", 0.5, 0.2, 0.85, 0.2),
    Constant("padding_energy", 0.5, 0.4, 1.0, 0.15),
    Constant("collective_activity", 0.5, 0.4, 1.0, 0.0),
    Constant("table_bfloat16", 1.06, 0.07, 1.05, 0.07),
    Constant("coarse_tiles", 0.4, 0.4, 1.5, 0.3),
    Constant("table_fp8_block", 0.9, 0.15, 0.9, 0.12),
    Constant("table_fp8_block_latent", 1.65, 0.2, 1.0, 0.12),
    Constant("table_fp8", 1.0, 0.15, 0.9, 0.12),
    Constant("table_4bit", 0.9, 0.12, 1.0, 0.15),
    Constant("reduce_floor_2_us", 6.0, 0.2, 1.1, 0.1),
    Constant("reduce_floor_4_us", 8.0, 0.2, 1.1, 0.1),
    Constant("reduce_floor_8_us", 10.0, 0.2, 1.1, 0.1),
    Constant("link_bandwidth", 0.5, 0.15, 1.0, 0.1),
    Constant("launch_mixer_us", 200.0, 0.4, 1.2, 0.25),
    Constant("launch_latent_us", 800.0, 0.4, 1.2, 0.25),
    Constant("launch_state_us", 1500.0, 0.4, 1.0, 0.25),
    Constant("launch_moe_us", 200.0, 0.4, 1.2, 0.25),
    Constant("launch_fused_us", 100.0, 0.4, 1.2, 0.25),
    Constant("launch_ffn_us", 40.0, 0.4, 1.0, 0.25),
    Constant("eager_mixer_us", 300.0, 0.4, 1.0, 0.25),
    Constant("piecewise_share", 0.6, 0.3, 1.0, 0.0),
    Constant("host_step_ms", 0.8, 0.25, 1.4, 0.2),
    Constant("host_multi", 1.5, 0.15, 1.0, 0.05),
    Constant("host_sequence_us", 8.0, 0.35, 1.1, 0.15),
    Constant("frontend_us", 75.0, 0.2, 0.8, 0.1),
    Constant("prompt_spread", 0.9, 0.3, 1.0, 0.0),
    Constant("host_prefill_ms", 1.0, 0.5, 1.0, 0.2),
    Constant("sampler_us", 14.0, 0.3, 0.75, 0.15),
    Constant("sampler_sort_us", 35.0, 0.3, 0.75, 0.15),
    Constant("static_watts", 115.0, 0.06, 1.75, 0.06),
    Constant("active_watts", 100.0, 0.3, 1.6, 0.2),
    Constant("energy_byte_pj", 105.0, 0.10, 1.0, 0.08),
    Constant("energy_moe_byte_pj", 80.0, 0.25, 1.0, 0.1),
    Constant("sampler_watts", 250.0, 0.4, 1.6, 0.2),
    Constant("energy_moe_flop_factor", 1.8, 0.3, 1.0, 0.0),
    Constant("energy_4bit_byte_pj", 250.0, 0.3, 0.5, 0.25),
    Constant("energy_cache_byte_pj", 105.0, 0.2, 1.0, 0.1),
    Constant("energy_state_byte_pj", 200.0, 0.3, 1.0, 0.1),
    Constant("energy_flop_bf16_pj", 0.8, 0.12, 0.62, 0.1),
    Constant("energy_flop_fp8_pj", 0.45, 0.25, 0.85, 0.15),
    Constant("energy_flop_fp4_pj", 0.2, 0.3, 0.7, 0.0),
    Constant("energy_link_byte_pj", 66.0, 0.2, 1.0, 0.1),
    Constant("power_ceiling", 0.99, 0.01, 0.99, 0.005),
)
"""Priors: peak fractions and floors from the kernel tables and data sheets, energies from published measurements of
H100 and B200 (static 115 and 206 W loaded; 105 to 135 pJ per HBM byte; 0.6 to 1.0 pJ per bfloat16 FLOP)."""

REFERENCE = "H100"
RATIO_PRODUCT = "B200"

ENGINE_SPREADS: dict[str, float] = {
    "host_step_ms": 0.5,
    "host_multi": 0.15,
    "host_sequence_us": 0.5,
    "host_prefill_ms": 0.5,
    "launch_mixer_us": 0.5,
    "launch_latent_us": 0.5,
    "launch_state_us": 0.5,
    "launch_moe_us": 0.7,
    "launch_fused_us": 0.5,
    "launch_ffn_us": 0.3,
    "small_kernel_us": 0.3,
    "frontend_us": 0.3,
    "sampler_us": 0.3,
    "sampler_sort_us": 0.3,
    "reduce_floor_2_us": 0.3,
    "reduce_floor_4_us": 0.3,
    "reduce_floor_8_us": 0.3,
    "link_bandwidth": 0.2,
    "gemm_fp8_block_extra_us": 0.4,
    "moe_fp8_block_extra_us": 0.4,
    "attention_floor_us": 0.3,
    "attention_flops": 0.3,
    "attention_latent_flops": 0.3,
    "attention_sparse_flops": 0.3,
    "moe_fp4_bandwidth": 0.1,
    "moe_fp4_flops": 0.2,
    "state_floor_us": 0.3,
    "state_bandwidth": 0.2,
    "state_prefill_flops": 0.3,
    "gemm_bandwidth": 0.04,
    "gemm_flops": 0.12,
    "moe_bandwidth": 0.1,
    "moe_flops": 0.25,
    "moe_floor_us": 0.3,
    "table_bfloat16": 0.15,
    "table_fp8": 0.2,
    "table_fp8_block": 0.2,
    "table_fp8_block_latent": 0.25,
    "table_4bit": 0.2,
    "active_watts": 0.15,
    "energy_moe_byte_pj": 0.15,
    "energy_4bit_byte_pj": 0.2,
    "energy_flop_fp8_pj": 0.15,
}
"""Standard deviation of the logarithm of an engine's factor on a constant: host and launch terms depend on its own
code, kernels mostly on shared libraries, memory and arithmetic on the GPU."""
