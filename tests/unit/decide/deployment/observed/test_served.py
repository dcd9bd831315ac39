"""The model and the predictor of a spec, and the reason of the condition where there is none."""

from __future__ import annotations

import pytest
from tests.unit.decide.observations import MODEL, deployment, model

from energylens.data import load_predictor
from energylens.decide.deployment.observed.served import ModelProblemError, model_of, predictor_of
from energylens.decide.reasons import Reason
from energylens.predictor.fitted.profiles import UnknownEngineError

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}


def test_a_model_is_of_the_catalogue_or_of_its_config() -> None:
    assert model_of(deployment(), None) == model()
    assert model_of(deployment(), LLAMA) == model()
    asked = deployment(model={"name": MODEL, "configRef": {"name": "shapes"}})
    found = model_of(asked, LLAMA)
    assert (found.name, found.hidden, found.max_position) == (MODEL, 2048, 8192)


def test_an_unknown_model_is_named_with_its_field() -> None:
    with pytest.raises(ModelProblemError, match=r"^spec\.model\.name='meta-llama/Lama': ") as raised:
        model_of(deployment(model={"name": "meta-llama/Lama"}), None)
    assert raised.value.reason is Reason.MODEL_UNKNOWN


@pytest.mark.parametrize("config", [None, {}, {**LLAMA, "architectures": ["MambaForCausalLM"]}])
def test_an_unsupported_config_is_named_with_its_config_map(config: dict[str, object] | None) -> None:
    asked = deployment(model={"name": "in-house", "configRef": {"name": "shapes"}})
    with pytest.raises(ModelProblemError, match=r"^spec\.model\.configRef='shapes': ") as raised:
        model_of(asked, config)
    assert raised.value.reason is Reason.MODEL_UNSUPPORTED


def test_the_predictor_is_of_the_engine_and_the_version_of_its_image() -> None:
    assert predictor_of(deployment()).profile == load_predictor("vllm").profile
    old = {"type": "VLLM", "image": "vllm/vllm-openai:v0.11.0"}
    assert predictor_of(deployment(engine=old)).profile == load_predictor("vllm", "0.11.0").profile
    assert predictor_of(deployment(engine=old)).profile != predictor_of(deployment()).profile
    assert predictor_of(deployment(engine={"type": "SGLang"})).profile == load_predictor("sglang").profile
    with pytest.raises(UnknownEngineError, match=r"0\.0\.1"):
        predictor_of(deployment(engine={"type": "VLLM", "image": "vllm/vllm-openai:v0.0.1"}))
