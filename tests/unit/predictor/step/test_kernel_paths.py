"""Which kernels engines run for a format, and what attention costs in prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.predictor.models import layouts

from energylens.data import load_gpus, load_model
from energylens.data.predictor import load_coefficients
from energylens.predictor.load.steady import phase_work
from energylens.predictor.model.architecture import (
    Attention,
    CompressedAttention,
    LatentAttention,
    LayerGroup,
    ModelSpec,
    served_on,
)
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
        {part.einsum.label: part.reach.prompt_flops for op in lower(model).operations for part in op.parts}
        for model in (dense, sparse)
    )
    assert expanded["scores"] == pytest.approx(192 / 576)
    assert expanded["values"] == pytest.approx(128 / 512)
    assert absorbed["scores"] == absorbed["values"] == 1.0


def test_softmax_costs_the_same_for_narrow_heads() -> None:
    wide = load_model("meta-llama/Llama-3.1-8B-Instruct")
    narrow = replace(
        wide,
        layers=tuple(
            replace(g, mixer=replace(g.mixer, head_dim=64)) if isinstance(g.mixer, Attention) else g
            for g in wide.layers
        ),
    )
    found = [mixed(model, GPUS["H200"]) for model in (wide, narrow)]
    one, half = (float(work.prefill_attention_flops[work.labels.index("scores"), 0]) for work in found)
    # Scores and values are products of one size; 270 FLOPs for each exponential come to those of the scores.
    assert one / half == pytest.approx((2 * 2 * 128 + 270) / (2 * 2 * 64 + 270))


def test_deepseek_v4_reads_keys_and_values_from_the_same_entries() -> None:
    model = load_model("deepseek-ai/DeepSeek-V4-Pro")
    assert {("scores", "values"), ("past_scores", "past_values")} <= set(kernels_of(model))
    work = mixed(model, GPUS["B200"])
    assert kernel_of(work, "scores") == "attention_sparse"
    (group, *_) = [g for g in model.layers if isinstance(g.mixer, CompressedAttention)]
    assert isinstance(group.mixer, CompressedAttention)
    layers = sum(g.count for g in model.layers if isinstance(g.mixer, CompressedAttention))
    window = layers * group.mixer.window * group.mixer.head_dim * model.kv_bytes_per_element * 8
    assert work.cache_bytes[work.labels.index("scores"), 0] == window


def kernels_of(model: ModelSpec) -> list[tuple[str, ...]]:
    """Return the labels of the einsums of each kernel."""
    return [tuple(part.einsum.label for part in op.parts) for op in lower(model).operations]


@pytest.mark.parametrize(
    ("name", "merged"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", ("query", "key", "value")),
        ("deepseek-ai/DeepSeek-V3", ("query_down", "latent")),
        ("deepseek-ai/DeepSeek-V4-Pro", ("query_down", "key")),
        ("MiniMaxAI/MiniMax-M3", ("query", "key", "value", "index_query", "index_key")),
        ("nvidia/NVIDIA-Nemotron-Nano-12B-v2", ("input_heads", "input_groups")),
    ],
)
def test_one_kernel_computes_projections_of_merged_weights(name: str, merged: tuple[str, ...]) -> None:
    assert merged in kernels_of(load_model(name))


def test_an_indexer_selects_with_kernels_of_their_own() -> None:
    model = load_model("MiniMaxAI/MiniMax-M3")
    launches = {op.einsum.label: op.launches / op.count for op in lower(model).operations}
    assert launches.pop("index_scores") == 3
    assert set(launches.values()) == {1}


def test_index_heads_of_minimax_m3_are_split_like_kv_heads() -> None:
    model, gpu = load_model("MiniMaxAI/MiniMax-M3"), GPUS["H200"]
    few, many = (
        phase_work(model, gpu, layouts((tp, 1, 1, 1)), Workload(8000, 1000), np.array([8.0]), COEFFICIENTS)[0]
        for tp in (1, 4)
    )
    row = few.labels.index("index_scores")
    assert many.flops[row, 0] == few.flops[row, 0] / 4
    # Every GPU reads the keys, which all heads share.
    assert many.cache_bytes[row, 0] == few.cache_bytes[row, 0]


def test_minimax_m2_exchanges_norms_over_heads() -> None:
    assert lower(load_model("MiniMaxAI/MiniMax-M2.5")).norm_layers == 62
    assert lower(load_model("MiniMaxAI/MiniMax-M3")).norm_layers == 0
