"""Kernels by generation of GPU: each rule against every generation, at both sides of its limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.planner.engines.test_rules import dense, engine

from energylens.data import find_gpu, load_model
from energylens.planner.engines.kernels import capability, missing_kernels
from energylens.predictor.model.architecture import ModelSpec, Quantization
from energylens.predictor.types import GpuSpec

_A10G, _B200 = find_gpu("A10G"), find_gpu("B200")
GPUS: dict[str, GpuSpec] = {
    "7.0": replace(_A10G, name="V100", architecture="volta"),
    "7.5": replace(_A10G, name="T4", architecture="turing"),
    "8.0": find_gpu("A100"),
    "8.9": find_gpu("L40S"),
    "9.0": find_gpu("H100"),
    "10.0": _B200,
    "12.0": find_gpu("RTX-PRO-6000"),
}
EVERY = tuple(GPUS)
NEWER = EVERY[1:]
DENSE = load_model("Qwen/Qwen3-8B")
PLAIN = Quantization()


def of(attention: Quantization, ffn: Quantization, expert: Quantization, method: str = "") -> ModelSpec:
    return replace(
        dense(4096, PLAIN), attention_quant=attention, ffn_quant=ffn, expert_quant=expert, quant_method=method
    )


NVFP4, W8A8 = Quantization("nvfp4", "nvfp4", "group"), Quantization("int8", "int8", "per_channel")
W4A8, FP8 = Quantization("int4", "fp8", "group"), Quantization("fp8", "fp8", "per_tensor")
MLA = load_model("deepseek-ai/DeepSeek-V3")


def served_on(model: ModelSpec, name: str, *arguments: str, image: str | None = None) -> tuple[str, ...]:
    settings = engine(name, *arguments, image=image)
    return tuple(number for number, gpu in GPUS.items() if not missing_kernels(model, gpu, settings))


@pytest.mark.parametrize("number", EVERY)
def test_products_have_the_capability_of_their_generation(number: str) -> None:
    found = capability(GPUS[number])
    assert found is not None
    assert ".".join(map(str, found)) == number


@pytest.mark.parametrize("name", ["VLLM", "SGLang"])
def test_engines_begin_with_turing(name: str) -> None:
    assert served_on(DENSE, name) == NEWER
    assert "needs compute capability 7.5 or newer; V100 has 7.0" in missing_kernels(DENSE, GPUS["7.0"], engine(name))


@pytest.mark.parametrize("name", ["VLLM", "SGLang"])
def test_latent_attention_keeps_an_fp8_cache_from_ada_on(name: str) -> None:
    cached = replace(MLA, kv_bytes_per_element=1.0, expert_quant=PLAIN)
    assert served_on(cached, name) == ("8.9", "9.0", "10.0", "12.0")
    assert served_on(replace(cached, kv_bytes_per_element=2.0), name) == NEWER
    text = missing_kernels(cached, GPUS["8.0"], engine(name))
    assert "A100 (compute capability 8.0) is older: set --kv-cache-dtype=bfloat16" in text


@pytest.mark.parametrize("place", range(3))
def test_one_part_of_the_weights_in_nvfp4_is_enough_to_need_fp4_or_marlin(place: int) -> None:
    quants = [NVFP4 if place == at else PLAIN for at in range(3)]
    model = of(quants[0], quants[1], quants[2])
    assert served_on(model, "VLLM") == ("8.0", "8.9", "9.0", "10.0", "12.0")
    assert served_on(model, "SGLang") == ("8.0", "8.9", "9.0", "10.0", "12.0")
    assert served_on(model, "SGLang", image="lmsysorg/sglang:v0.5.22") == ("10.0", "12.0")


@pytest.mark.parametrize("place", range(3))
def test_one_part_of_the_weights_in_int8_or_int4_limits_the_generation(place: int) -> None:
    eight = [W8A8 if place == at else PLAIN for at in range(3)]
    four = [W4A8 if place == at else PLAIN for at in range(3)]
    assert served_on(of(eight[0], eight[1], eight[2]), "VLLM") == ("7.5", "8.0", "8.9", "9.0")
    assert served_on(of(eight[0], eight[1], eight[2]), "SGLang") == NEWER
    for name in ("VLLM", "SGLang"):
        assert served_on(of(four[0], four[1], four[2]), name) == ("9.0", "10.0", "12.0")
    assert served_on(of(eight[0], eight[1], eight[2], "modelopt"), "VLLM") == ()
    assert served_on(of(PLAIN, Quantization("int4", "bfloat16", "group"), PLAIN), "VLLM") == NEWER


def test_sglang_has_fp8_of_some_checkpoints_from_ada_on() -> None:
    assert served_on(of(PLAIN, PLAIN, FP8), "SGLang") == ("8.9", "9.0", "10.0", "12.0")
    assert served_on(of(PLAIN, PLAIN, FP8), "VLLM") == NEWER
    assert served_on(of(PLAIN, FP8, PLAIN), "SGLang") == NEWER
    assert served_on(of(PLAIN, FP8, PLAIN, "modelopt"), "SGLang") == ("8.9", "9.0", "10.0", "12.0")
    assert served_on(of(PLAIN, FP8, PLAIN, "modelopt"), "VLLM") == NEWER
    assert served_on(DENSE, "SGLang", "--kv-cache-dtype=nvfp4") == ("10.0", "12.0")
    assert served_on(DENSE, "VLLM", "--kv-cache-dtype=nvfp4") == NEWER


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-V3.2", "deepseek-ai/DeepSeek-V4-Flash"])
def test_one_layer_of_sparse_or_latent_attention_is_enough(name: str) -> None:
    sparse = load_model(name)
    mixed = replace(sparse, layers=(*dense(4096, PLAIN).layers, *sparse.layers))
    assert served_on(mixed, "VLLM") == ("9.0", "10.0")
    cached = replace(MLA, layers=(*dense(4096, PLAIN).layers, *MLA.layers), kv_bytes_per_element=1.0)
    assert served_on(cached, "VLLM") == ("8.9", "9.0", "10.0", "12.0")
