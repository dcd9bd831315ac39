"""What engines do not implement for some model classes: whole families, pipeline stages, data-parallel attention."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.planner.engines.test_rules import engine, layout, refusal

from energylens.data import load_model
from energylens.predictor.huggingface.config import model_from_config
from energylens.predictor.model.architecture import ModelSpec

SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 8,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
EXPERTS: dict[str, Any] = {"num_local_experts": 8, "num_experts_per_tok": 2}


def model(kind: str, architecture: str | None = None, **more: Any) -> ModelSpec:
    named = {} if architecture is None else {"architectures": [architecture]}
    return model_from_config({"model_type": kind, **SHAPE, **named, **more}, "m")


QWEN = model("qwen", num_key_value_heads=32)


def test_a_family_that_vllm_dropped_is_refused_with_the_last_version_that_serves_it() -> None:
    """Its registry says so and ends (model_executor/models/registry.py, _PREVIOUSLY_SUPPORTED_MODELS)."""
    found = refusal(QWEN, layout())
    assert "vLLM 0.33.0 no longer serves QWenLMHeadModel; vLLM 0.23.0 is the last version that does" in found
    assert "spec.engine.image" in found
    assert refusal(QWEN, layout(), engine(image="vllm/vllm-openai:v0.23.1")) == ""
    assert "no longer serves" in refusal(QWEN, layout(), engine(image="vllm/vllm-openai:v0.24.0"))
    assert refusal(QWEN, layout(), engine("SGLang")) == ""


@pytest.mark.parametrize(
    ("kind", "architecture", "last"),
    [
        ("internlm", None, "0.23.0"),
        ("baichuan", "BaiChuanForCausalLM", "0.23.0"),
        ("llama", "XverseForCausalLM", "0.23.0"),
    ],
)
def test_the_class_decides_before_the_family(kind: str, architecture: str | None, last: str) -> None:
    assert f"vLLM {last} is the last version" in refusal(model(kind, architecture), layout())


def test_sglang_has_no_falcon() -> None:
    falcon = model("falcon", new_decoder_architecture=True, num_kv_heads=8, num_key_value_heads=None)
    assert "does not serve FalconForCausalLM; set spec.engine.type to VLLM" in refusal(
        falcon, layout(), engine("SGLang")
    )
    assert refusal(falcon, layout()) == ""


@pytest.mark.parametrize(
    "name",
    [
        "google/gemma-3-27b-it",
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        "stepfun-ai/Step-3.7-Flash-FP8",
        "XiaomiMiMo/MiMo-7B-Base",
    ],
)
def test_models_without_stages_in_sglang_get_none(name: str) -> None:
    """It asserts that the class takes pp_proxy_tensors (model_executor/model_runner.py)."""
    spec = load_model(name)
    assert "has no pipeline parallelism for" in refusal(spec, layout(tp=2, pp=2), engine("SGLang"))
    assert refusal(spec, layout(tp=2, pp=2)) == ""


@pytest.mark.parametrize(
    "name",
    [
        "meta-llama/Llama-3.1-70B-Instruct",
        "Qwen/Qwen3-32B",
        "Qwen/Qwen3-235B-A22B",
        "deepseek-ai/DeepSeek-V3",
        "openai/gpt-oss-120b",
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "google/gemma-4-31B-it",
        "moonshotai/Kimi-K2-Instruct",
    ],
)
def test_models_with_stages_in_both_engines_keep_them(name: str) -> None:
    spec = load_model(name)
    for kind in ("VLLM", "SGLang"):
        assert refusal(spec, layout(tp=2, pp=2), engine(kind)) == ""


def test_a_text_model_and_its_multimodal_sibling_are_two_classes() -> None:
    experts: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 8192}
    alone = model("llama4_text", "Llama4ForCausalLM", **experts)
    assert refusal(alone, layout(pp=2), engine("SGLang")) == ""
    assert "Llama4ForConditionalGeneration" in refusal(model("llama4", **experts), layout(pp=2), engine("SGLang"))


def test_vllm_has_no_stages_for_idefics3() -> None:
    """``SupportsPP`` is missing (config/model.py); vllm-project/vllm#16231 and #33685 are of other classes."""
    idefics = model("idefics3", text_config={"model_type": "llama", **SHAPE})
    assert "no pipeline parallelism for Idefics3ForConditionalGeneration; use pipelineParallel=1" in refusal(
        idefics, layout(pp=2)
    )
    assert refusal(idefics, layout(tp=2)) == ""


def test_sglang_has_data_parallel_attention_for_some_mixtures_only() -> None:
    mixtral = model("mixtral", **EXPERTS)
    found = refusal(mixtral, layout(tp=2, ep=4, dp=2), engine("SGLang"))
    assert "has no data-parallel attention for MixtralForCausalLM; use dataParallel=1" in found
    assert refusal(mixtral, layout(tp=2, ep=4, dp=2)) == ""
    assert refusal(load_model("Qwen/Qwen3-235B-A22B"), layout(tp=2, ep=4, dp=2), engine("SGLang")) == ""


def test_phi_moe_has_data_parallel_attention_with_one_gpu_a_rank() -> None:
    """sglang models/phimoe.py, reject_attn_tp_shard_with_tp_reduce."""
    phi = model("phimoe", **EXPERTS)
    assert "only with one GPU per rank" in refusal(phi, layout(tp=2, ep=4, dp=2), engine("SGLang"))
    assert refusal(phi, layout(tp=1, ep=4, dp=4), engine("SGLang")) == ""


@pytest.mark.parametrize("name", ["Qwen2ForSequenceClassification", "Qwen2ForRewardModel", "LlamaEmbeddingModel"])
def test_a_checkpoint_whose_head_makes_no_text_is_refused(name: str) -> None:
    """Such as the one of vllm-project/vllm#11671."""
    for kind in ("VLLM", "SGLang"):
        assert f"{name} generates no text" in refusal(model("qwen2", name), layout(), engine(kind))


def test_an_unknown_class_is_left_to_the_engine() -> None:
    for kind in ("VLLM", "SGLang"):
        assert refusal(model("llama", "MyForCausalLM"), layout(tp=2, pp=2), engine(kind)) == ""
