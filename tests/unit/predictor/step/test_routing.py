"""How evenly tokens are spread over experts, and what of a layer's experts is one launch."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.data import find_gpu, load_model
from energylens.predictor.load.workloads import RANDOM_WEIGHTS, loaded
from energylens.predictor.step.kernels import KERNEL_INDEX, fused_experts
from energylens.predictor.step.moe import evenly_hit, experts_hit
from energylens.predictor.step.routing import BALANCED_SKEW, ROUTING_SKEW, routing_skew


@pytest.mark.parametrize(
    ("name", "skew"),
    [
        ("MiniMaxAI/MiniMax-M2.5", BALANCED_SKEW),
        ("deepseek-ai/DeepSeek-V3", BALANCED_SKEW),
        ("Qwen/Qwen3-30B-A3B", ROUTING_SKEW),
        ("openai/gpt-oss-120b", ROUTING_SKEW),
    ],
)
def test_routers_with_a_bias_per_expert_are_nearly_even(name: str, skew: float) -> None:
    assert routing_skew(load_model(name)) == skew


@pytest.mark.parametrize("task", sorted(RANDOM_WEIGHTS))
def test_random_weights_route_evenly(task: str) -> None:
    model = load_model("Qwen/Qwen3-30B-A3B")
    assert routing_skew(loaded(task, model)) == 0.0
    assert routing_skew(loaded("lm-arena-chat", model)) == ROUTING_SKEW


def test_tokens_dealt_out_in_turn_hit_most_experts() -> None:
    tokens = np.array([1.0, 8.0, 16.0, 17.0, 1000.0])
    assert evenly_hit(128, 8, tokens).tolist() == [8.0, 64.0, 128.0, 128.0, 128.0]
    assert (evenly_hit(128, 8, tokens) >= experts_hit(128, 8, tokens) - 1e-9).all()


@pytest.mark.parametrize(
    ("kernel", "gpu", "fused"),
    [
        ("moe:fp4", "B200", True),
        ("moe:fp8_block", "B300", True),
        ("moe:fp8_block", "H200", False),
        ("moe:4bit", "H100", False),
        ("moe:bfloat16", "B200", False),
        ("gemm:fp4", "B200", False),
    ],
)
def test_experts_are_one_launch_in_the_kernels_of_tensorrt_llm(kernel: str, gpu: str, fused: bool) -> None:
    kernels = np.array([KERNEL_INDEX["attention"], KERNEL_INDEX[kernel]])
    assert fused_experts(kernels, find_gpu(gpu)) is fused
