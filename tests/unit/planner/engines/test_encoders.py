"""Encoders beside the text part, whose heads tensor parallelism cuts as well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planner.engines.test_classes import SHAPE
from tests.unit.planner.engines.test_rules import engine, layout, refusal

from energylens.predictor.huggingface.config import model_from_config
from energylens.predictor.model.architecture import ModelSpec, Tower

GLM = {"model_type": "glm4v_vision", "hidden_size": 1536, "num_heads": 12, "depth": 24, "out_hidden_size": 4096}


def multimodal(kind: str, text: str, **towers: Any) -> ModelSpec:
    return model_from_config({"model_type": kind, "text_config": {"model_type": text, **SHAPE}, **towers}, "m")


GLM_4_1V = multimodal("glm4v", "glm4v_text", vision_config=GLM)
VOXTRAL = multimodal(
    "voxtral",
    "llama",
    audio_config={
        "model_type": "voxtral_encoder",
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
    },
)
QWEN_VL = multimodal(
    "qwen2_5_vl",
    "qwen2_5_vl_text",
    vision_config={
        "model_type": "qwen2_5_vl",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "depth": 32,
    },
)
INTERN = multimodal(
    "internvl_chat",
    "qwen2",
    vision_config={"hidden_size": 3200, "intermediate_size": 12800, "num_hidden_layers": 45, "num_attention_heads": 25},
)


def test_heads_of_a_vision_encoder_divide_by_tensor_parallel() -> None:
    """vllm-project/vllm#24004, #49368: AssertionError: 12 is not divisible by 8."""
    found = refusal(GLM_4_1V, layout(tp=8))
    assert "12 heads of the vision encoder are not divisible by tensor parallel (8), as vLLM 0.33.0 requires" in found
    assert "add --mm-encoder-tp-mode=data to spec.engine.extraArgs" in found
    for tp in (1, 2, 4):
        assert refusal(GLM_4_1V, layout(tp=tp)) == ""
    assert refusal(GLM_4_1V, layout(tp=4, pp=2)) == ""


@pytest.mark.parametrize(
    "arguments", [("--mm-encoder-tp-mode=data",), ("--mm-encoder-tp-mode", "data"), ("--language-model-only",)]
)
def test_an_encoder_that_stays_whole_divides_by_anything(arguments: tuple[str, ...]) -> None:
    assert refusal(GLM_4_1V, layout(tp=8), engine("VLLM", *arguments)) == ""
    assert "12 heads" in refusal(GLM_4_1V, layout(tp=8), engine("VLLM", "--mm-encoder-tp-mode=weights"))


def test_sglang_pads_the_heads_of_some_encoders() -> None:
    assert refusal(GLM_4_1V, layout(tp=8), engine("SGLang")) == ""
    assert refusal(INTERN, layout(tp=8), engine("SGLang")) == ""


def test_an_encoder_that_vllm_keeps_whole_by_itself_divides_by_anything() -> None:
    """vllm-project/vllm#8097 is mended: 25 heads of InternViT on 4 GPUs."""
    assert refusal(INTERN, layout(tp=4)) == ""


@pytest.mark.parametrize("name", ["VLLM", "SGLang"])
def test_heads_of_an_audio_encoder_divide_too(name: str) -> None:
    """Whisper has 20; no option keeps it whole."""
    found = refusal(VOXTRAL, layout(tp=8), engine(name))
    assert "20 heads of the audio encoder are not divisible by tensor parallel (8)" in found
    assert "extraArgs" not in found
    assert refusal(VOXTRAL, layout(tp=4), engine(name)) == ""


def test_the_width_of_an_encoder_divides_where_it_is_not_rounded() -> None:
    assert "3420 features of the vision encoder are not divisible by tensor parallel (8)" in refusal(
        QWEN_VL, layout(tp=8)
    )
    assert refusal(QWEN_VL, layout(tp=4)) == ""
    assert refusal(QWEN_VL, layout(tp=8), engine("SGLang")) == ""


def test_heads_that_the_file_does_not_give_are_not_guessed() -> None:
    trimmed = {name: value for name, value in GLM.items() if name != "num_heads"}
    assert refusal(multimodal("glm4v", "glm4v_text", vision_config=trimmed), layout(tp=8)) == ""


def test_an_encoder_that_never_divides_hides_no_other() -> None:
    both = replace(GLM_4_1V, towers=(*INTERN.towers, *GLM_4_1V.towers))
    assert "12 heads of the vision encoder" in refusal(both, layout(tp=8))


def test_sglang_replicates_an_encoder_where_its_switch_is_on() -> None:
    minimax = replace(GLM_4_1V, towers=(Tower("minimax_m3", "vision", heads=3),))
    assert "3 heads of the vision encoder" in refusal(minimax, layout(tp=2), engine("SGLang"))
    assert "add --mm-enable-dp-encoder" in refusal(minimax, layout(tp=2), engine("SGLang"))
    assert refusal(minimax, layout(tp=2), engine("SGLang", "--mm-enable-dp-encoder")) == ""
