"""Small hand-made architectures of every family, and layouts, for the predictor's tests."""

from __future__ import annotations

import numpy as np

from energylens.predictor.model.architecture import (
    Attention,
    DenseFfn,
    LatentAttention,
    LayerGroup,
    Mamba2,
    ModelSpec,
    MoeFfn,
    Quantization,
)
from energylens.predictor.types import Layouts

FP8_BLOCK = Quantization("fp8", "fp8", "block")
MXFP4 = Quantization("mxfp4", "bfloat16", "group")


def dense() -> ModelSpec:
    group = LayerGroup(2, Attention(heads=8, kv_heads=2, head_dim=16), DenseFfn(256))
    return ModelSpec("dense", "llama", hidden=128, vocab=1000, layers=(group,))


def mixture(quant: Quantization | None = None) -> ModelSpec:
    group = LayerGroup(3, Attention(heads=8, kv_heads=4, head_dim=16), MoeFfn(experts=32, top_k=4, intermediate=128))
    return ModelSpec(
        "mixture", "qwen3_moe", hidden=128, vocab=1000, layers=(group,), expert_quant=quant or Quantization()
    )


def sliding() -> ModelSpec:
    local = LayerGroup(5, Attention(8, 4, 16, window=64), DenseFfn(256))
    whole = LayerGroup(1, Attention(8, 4, 16), DenseFfn(256))
    return ModelSpec("sliding", "gemma3", hidden=128, vocab=1000, layers=(local, whole))


def latent() -> ModelSpec:
    mixer = LatentAttention(
        heads=8, q_lora_rank=48, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16
    )
    ffn = MoeFfn(experts=16, top_k=2, intermediate=128, shared_intermediate=128)
    return ModelSpec("latent", "deepseek_v3", hidden=128, vocab=1000, layers=(LayerGroup(2, mixer, ffn),))


def hybrid() -> ModelSpec:
    recurrent = LayerGroup(3, Mamba2(heads=8, head_dim=16, state_size=32, groups=2, conv_kernel=4), None)
    forward = LayerGroup(3, None, DenseFfn(256, gated=False))
    whole = LayerGroup(1, Attention(8, 2, 16), None)
    return ModelSpec("hybrid", "nemotron_h", hidden=128, vocab=1000, layers=(recurrent, forward, whole))


def layouts(*rows: tuple[int, int, int, int], batch: int = 64, cap: float = np.nan) -> Layouts:
    """Return layouts of (TP, PP, EP, DP)."""
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    n = columns.shape[1]
    return Layouts(
        tensor_parallel=columns[0],
        pipeline_parallel=columns[1],
        expert_parallel=columns[2],
        data_parallel=columns[3],
        max_batch_size=np.full(n, batch, dtype=np.int64),
        power_cap_watts=np.full(n, cap),
    )
