"""Which kernels engines run for a format, and what attention costs in prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from energylens.data import load_gpus, load_model
from energylens.data.predictor import load_coefficients
from energylens.predictor.load.steady import phase_work
from energylens.predictor.model.architecture import LatentAttention, LayerGroup, ModelSpec, served_on
from energylens.predictor.model.lowering import lower
from energylens.predictor.step.kernels import KERNELS
from energylens.predictor.step.work import Work
from energylens.predictor.types import GpuSpec, Layouts, Workload

GPUS = {gpu.name: gpu for gpu in load_gpus().values()}
COEFFICIENTS = load_coefficients()


def one_gpu() -> Layouts:
    def one(value: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.array([value])

    return Layouts(one(8), one(1), one(1), one(1), one(256), np.array([np.nan]))


def mixed(model: ModelSpec, gpu: GpuSpec, prompt: float = 8000.0) -> Work:
    served = served_on(model, fp4_arithmetic=gpu.flops_fp4 > 0)
    return phase_work(served, gpu, one_gpu(), Workload(prompt, 1000), np.array([8.0]), COEFFICIENTS)[1]


def kernel_of(work: Work, label: str) -> str:
    return KERNELS[int(work.kernel[work.labels.index(label)])]


def test_mxfp8_is_weights_only_before_blackwell() -> None:
    model = load_model("MiniMaxAI/MiniMax-M3-MXFP8")
    assert model.expert_quant.bytes_per_weight == pytest.approx(1.0 + 1 / 32)
    assert kernel_of(mixed(model, GPUS["H200"]), "experts") == "moe:8bit"
    assert kernel_of(mixed(model, GPUS["H200"]), "query") == "gemm:8bit"
    assert kernel_of(mixed(model, GPUS["B200"]), "experts") == "moe:fp8"


def test_latent_prompts_attend_with_expanded_keys_and_sparse_ones_with_the_cache() -> None:
    dense = load_model("deepseek-ai/DeepSeek-V3")
    (first, *_) = [g for g in dense.layers if isinstance(g.mixer, LatentAttention)]
    assert isinstance(first.mixer, LatentAttention)
    sparse = replace(
        dense,
        layers=tuple(
            LayerGroup(g.count, replace(g.mixer, top_k_tokens=100_000), g.ffn)
            if isinstance(g.mixer, LatentAttention)
            else g
            for g in dense.layers
        ),
    )
    expanded, absorbed = (
        {op.einsum.label: op.reach.prompt_flops for op in lower(model).operations} for model in (dense, sparse)
    )
    assert expanded["scores"] == pytest.approx(192 / 576)
    assert expanded["values"] == pytest.approx(128 / 512)
    assert absorbed["scores"] == absorbed["values"] == 1.0


def test_softmax_costs_the_same_for_narrow_heads() -> None:
    wide = load_model("meta-llama/Llama-3.1-8B-Instruct")
    work = mixed(wide, GPUS["H200"])
    scores, values = (float(work.prefill_attention_flops[work.labels.index(name), 0]) for name in ("scores", "values"))
    # Scores and values are products of one size; 270 FLOPs for each exponential come to those of the scores.
    assert scores / values == pytest.approx((2 * 128 + 270) / (2 * 128))


def test_deepseek_v4_reads_keys_and_values_from_the_same_entries() -> None:
    labels = {op.einsum.label for op in lower(load_model("deepseek-ai/DeepSeek-V4-Pro")).operations}
    assert {"scores", "values", "past_scores", "past_values"} <= labels
    work = mixed(load_model("deepseek-ai/DeepSeek-V4-Pro"), GPUS["B200"])
    assert kernel_of(work, "scores") == "attention_sparse"
    rows = [work.labels.index(name) for name in ("past_scores", "past_values")]
    assert work.cache_bytes[rows[0], 0] > 0.0
    assert work.cache_bytes[rows[1], 0] == 0.0


def test_minimax_m2_exchanges_norms_over_heads() -> None:
    assert lower(load_model("MiniMaxAI/MiniMax-M2.5")).norm_layers == 62
    assert lower(load_model("MiniMaxAI/MiniMax-M3")).norm_layers == 0
