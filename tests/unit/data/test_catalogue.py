from __future__ import annotations

import re

import pytest

from energylens.data import UnknownModelError, known_models, load_config, load_model, model_sources
from energylens.data.catalogue import _document
from energylens.predictor.huggingface.config import model_from_config
from energylens.predictor.model.architecture import Attention, GatedDeltaNet, LatentAttention, Mamba2, MoeFfn
from energylens.predictor.model.parameters import (
    active_parameter_count,
    kv_bytes_per_token,
    kv_cache_bytes,
    parameter_count,
    routed_expert_parameters,
    state_bytes_per_sequence,
    weight_bytes,
)

SERVED = """
meta-llama/Llama-3.1-8B-Instruct meta-llama/Llama-3.1-70B-Instruct meta-llama/Llama-3.1-405B-Instruct
meta-llama/Meta-Llama-3.1-8B-Instruct meta-llama/Meta-Llama-3.1-70B-Instruct meta-llama/Meta-Llama-3.1-405B-Instruct
meta-llama/Llama-3.1-405B-Instruct-FP8 nvidia/Llama-3.1-8B-Instruct-FP8 nvidia/Llama-3.1-70B-Instruct-FP8
nvidia/Llama-3.1-405B-Instruct-FP8 RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8 RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8
meta-llama/Llama-3.2-1B-Instruct meta-llama/Llama-3.2-3B-Instruct meta-llama/Llama-3.3-70B-Instruct
meta-llama/Llama-4-Scout-17B-16E-Instruct meta-llama/Llama-4-Maverick-17B-128E-Instruct
meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8 RedHatAI/Llama-4-Scout-17B-16E-Instruct-FP8-dynamic
Qwen/Qwen3-0.6B Qwen/Qwen3-1.7B Qwen/Qwen3-4B Qwen/Qwen3-8B Qwen/Qwen3-14B Qwen/Qwen3-32B
Qwen/Qwen3-30B-A3B Qwen/Qwen3-30B-A3B-Instruct-2507 Qwen/Qwen3-30B-A3B-Thinking-2507
Qwen/Qwen3-30B-A3B-FP8 Qwen/Qwen3-30B-A3B-Instruct-2507-FP8 Qwen/Qwen3-30B-A3B-Thinking-2507-FP8
Qwen/Qwen3-235B-A22B Qwen/Qwen3-235B-A22B-Instruct-2507 Qwen/Qwen3-235B-A22B-Thinking-2507
Qwen/Qwen3-235B-A22B-FP8 Qwen/Qwen3-235B-A22B-Instruct-2507-FP8 Qwen/Qwen3-235B-A22B-Thinking-2507-FP8
Qwen/Qwen3-Coder-30B-A3B-Instruct Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8
Qwen/Qwen3-Coder-480B-A35B-Instruct Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8
Qwen/Qwen2.5-7B-Instruct Qwen/Qwen2.5-14B-Instruct Qwen/Qwen2.5-32B-Instruct Qwen/Qwen2.5-72B-Instruct Qwen/QwQ-32B
Qwen/Qwen3.5-27B Qwen/Qwen3.5-35B-A3B Qwen/Qwen3.5-122B-A10B Qwen/Qwen3.5-397B-A17B
google/gemma-3-4b-it google/gemma-3-12b-it google/gemma-3-27b-it google/gemma-4-26B-A4B
openai/gpt-oss-20b openai/gpt-oss-120b
deepseek-ai/DeepSeek-V3 deepseek-ai/DeepSeek-V3.1 deepseek-ai/DeepSeek-R1 deepseek-ai/DeepSeek-R1-0528
deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B deepseek-ai/DeepSeek-R1-Distill-Qwen-7B
deepseek-ai/DeepSeek-R1-Distill-Llama-8B deepseek-ai/DeepSeek-R1-Distill-Qwen-14B
deepseek-ai/DeepSeek-R1-Distill-Qwen-32B deepseek-ai/DeepSeek-R1-Distill-Llama-70B
mistralai/Mistral-7B-Instruct-v0.3 mistralai/Mistral-Nemo-Instruct-2407 mistralai/Mistral-Small-24B-Instruct-2501
mistralai/Mistral-Large-Instruct-2407 mistralai/Mixtral-8x7B-Instruct-v0.1 mistralai/Mixtral-8x22B-Instruct-v0.1
microsoft/phi-4 nvidia/NVIDIA-Nemotron-Nano-9B-v2 nvidia/NVIDIA-Nemotron-Nano-12B-v2
moonshotai/Kimi-K2-Instruct zai-org/GLM-4.5 zai-org/GLM-4.6
""".split()  # noqa: SIM905

# Totals that the publishers' safetensors metadata or model cards give for the text part, in billions.
TOTALS = {
    "meta-llama/Llama-3.1-8B-Instruct": 8.030,
    "meta-llama/Llama-3.3-70B-Instruct": 70.55,
    "meta-llama/Llama-3.1-405B-Instruct": 405.85,
    "meta-llama/Llama-3.2-1B-Instruct": 1.236,
    "meta-llama/Llama-3.2-3B-Instruct": 3.213,
    "Qwen/Qwen3-0.6B": 0.596,
    "Qwen/Qwen3-1.7B": 1.721,
    "Qwen/Qwen3-4B": 4.022,
    "Qwen/Qwen3-8B": 8.191,
    "Qwen/Qwen3-14B": 14.768,
    "Qwen/Qwen3-32B": 32.762,
    "Qwen/Qwen3-30B-A3B": 30.532,
    "Qwen/Qwen3-235B-A22B": 235.094,
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": 480.155,
    "Qwen/Qwen2.5-7B-Instruct": 7.616,
    "Qwen/Qwen2.5-14B-Instruct": 14.770,
    "Qwen/Qwen2.5-32B-Instruct": 32.764,
    "Qwen/Qwen2.5-72B-Instruct": 72.706,
    "Qwen/Qwen3.5-397B-A17B": 397.0,
    "google/gemma-3-27b-it": 27.01,
    "google/gemma-4-26B-A4B": 25.2,
    "google/gemma-4-31B-it": 30.7,
    "openai/gpt-oss-20b": 20.91,
    "openai/gpt-oss-120b": 116.83,
    "deepseek-ai/DeepSeek-V2-Lite": 15.706,
    "deepseek-ai/DeepSeek-V2": 235.741,
    "deepseek-ai/DeepSeek-V3.1": 671.026,
    "mistralai/Mistral-Large-3-675B-Instruct-2512": 673.0,
    "deepseek-ai/DeepSeek-V4-Flash": 284.0,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1.777,
    "mistralai/Mistral-7B-Instruct-v0.3": 7.248,
    "mistralai/Mistral-Nemo-Instruct-2407": 12.248,
    "mistralai/Mistral-Small-24B-Instruct-2501": 23.572,
    "mistralai/Mistral-Large-Instruct-2407": 122.610,
    "mistralai/Mixtral-8x7B-v0.1": 46.703,
    "mistralai/Mixtral-8x22B-v0.1": 140.621,
    "microsoft/phi-4": 14.660,
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2": 8.888,
    "nvidia/NVIDIA-Nemotron-Nano-12B-v2": 12.310,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 31.6,
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": 49.867,
    "moonshotai/Kimi-K2-Instruct": 1026.47,
    "zai-org/GLM-4.5": 355.0,
    "zai-org/GLM-5": 744.0,
    "MiniMaxAI/MiniMax-M2.5": 230.0,
    "XiaomiMiMo/MiMo-V2-Flash": 309.0,
    "stepfun-ai/Step-3.7-Flash": 196.0,
}

# Active parameters as the model cards round them, in billions; ours count embedding and output head, too.
ACTIVE = {
    "Qwen/Qwen3-30B-A3B": 3.3,
    "Qwen/Qwen3-235B-A22B": 22.0,
    "Qwen/Qwen3-Coder-480B-A35B-Instruct": 35.0,
    "Qwen/Qwen3.5-397B-A17B": 17.0,
    "deepseek-ai/DeepSeek-V3": 37.0,
    "mistralai/Mistral-Large-3-675B-Instruct-2512": 39.0,
    "moonshotai/Kimi-K2-Instruct": 32.6,
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": 17.2,
    "mistralai/Mixtral-8x7B-v0.1": 12.9,
    "mistralai/Mixtral-8x22B-v0.1": 39.1,
    "google/gemma-4-26B-A4B": 3.8,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 3.6,
}


@pytest.mark.parametrize("name", SERVED)
def test_the_models_people_serve_are_known(name: str) -> None:
    model = load_model(name)
    assert model.name == name
    assert model.layer_count > 0


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_shapes_add_up_to_the_published_parameter_count(name: str) -> None:
    assert parameter_count(load_model(name)) / 1e9 == pytest.approx(TOTALS[name], rel=0.01)


@pytest.mark.parametrize("name", sorted(ACTIVE))
def test_shapes_add_up_to_the_published_active_parameters(name: str) -> None:
    assert active_parameter_count(load_model(name)) / 1e9 == pytest.approx(ACTIVE[name], rel=0.03)


@pytest.mark.parametrize("key", sorted(_document()["configs"]))
def test_each_config_has_a_source_and_agrees_with_its_own_total(key: str) -> None:
    entry = _document()["configs"][key]
    assert entry["source"].startswith("https://huggingface.co/")
    model = model_from_config(entry["config"], key)
    if "parameters" in entry:
        vision = model.extra_weight_bytes / 2 if entry.get("parameters_include_vision") else 0
        assert parameter_count(model) + vision == pytest.approx(entry["parameters"], rel=0.01)


@pytest.mark.parametrize("name", known_models())
def test_every_id_loads_with_its_sources(name: str) -> None:
    model = load_model(name)
    assert parameter_count(model) > 5e8
    assert all(model_sources(name))


# Hand counts: layers x tensors x heads x width x bytes.
KV_PER_TOKEN = {
    "meta-llama/Llama-3.1-8B-Instruct": 32 * 2 * 8 * 128 * 2,
    "meta-llama/Llama-3.1-70B-Instruct": 80 * 2 * 8 * 128 * 2,
    "meta-llama/Llama-3.1-405B-Instruct": 126 * 2 * 8 * 128 * 2,
    "nvidia/Llama-3.1-70B-Instruct-FP8": 80 * 2 * 8 * 128 * 1,
    "Qwen/Qwen3-235B-A22B": 94 * 2 * 4 * 128 * 2,
    "deepseek-ai/DeepSeek-V3": 61 * (512 + 64) * 2,
    "moonshotai/Kimi-K2-Instruct": 61 * (512 + 64) * 2,
    "Qwen/Qwen3.5-27B": 16 * 2 * 4 * 256 * 2,
    "nvidia/NVIDIA-Nemotron-Nano-12B-v2": 6 * 2 * 8 * 128 * 2,
    "google/gemma-4-26B-A4B": 25 * 2 * 8 * 256 * 2 + 5 * 2 * 2 * 512 * 2,
    "XiaomiMiMo/MiMo-V2-Flash": (9 * 4 + 39 * 8) * (192 + 128) * 2,
    "deepseek-ai/DeepSeek-V3.2": 61 * (512 + 64 + 128) * 2,
}


@pytest.mark.parametrize("name", sorted(KV_PER_TOKEN))
def test_kv_cache_bytes_per_token(name: str) -> None:
    assert kv_bytes_per_token(load_model(name)) == KV_PER_TOKEN[name]


def test_sliding_windows_stop_the_cache_from_growing() -> None:
    gemma = load_model("google/gemma-3-27b-it")
    per_layer = 2 * 16 * 128 * 2
    assert kv_cache_bytes(gemma, 8192) == (52 * 1024 + 10 * 8192) * per_layer
    gpt_oss = load_model("openai/gpt-oss-120b")
    assert kv_cache_bytes(gpt_oss, 8192) == (18 * 128 + 18 * 8192) * 2 * 8 * 64 * 2
    assert kv_cache_bytes(load_model("Qwen/Qwen3-8B"), 8192) == 8192 * 36 * 2 * 8 * 128 * 2


def test_compressed_attention_caches_a_window_and_one_entry_per_block() -> None:
    flash = load_model("deepseek-ai/DeepSeek-V4-Flash")
    # 43 layers: 2 see their window only, 21 keep one entry per 4 tokens and an index key, 20 one per 128 tokens.
    window, tokens = 43 * 128 * 512, 8192
    assert kv_cache_bytes(flash, tokens) == 2 * (window + 21 * tokens / 4 * (512 + 128) + 20 * tokens / 128 * 512)


def test_recurrent_state_is_per_sequence() -> None:
    nemotron = load_model("nvidia/NVIDIA-Nemotron-Nano-12B-v2")
    state, convolution = 128 * 80 * 128 * 2, (128 * 80 + 2 * 8 * 128) * 3 * 2
    assert state_bytes_per_sequence(nemotron) == 28 * (state + convolution)
    qwen = load_model("Qwen/Qwen3.5-27B")
    assert state_bytes_per_sequence(qwen) == 48 * (48 * 128 * 128 * 4 + (2 * 16 * 128 + 48 * 128) * 3 * 2)
    assert state_bytes_per_sequence(load_model("Qwen/Qwen3-8B")) == 0


# Sizes of the published checkpoints in bytes, from their model cards or safetensors indices.
CHECKPOINTS = {
    "openai/gpt-oss-120b": 65.25e9,
    "openai/gpt-oss-20b": 13.76e9,
    "moonshotai/Kimi-K2-Thinking": 594e9,
    "meta-llama/Llama-3.1-8B-Instruct": 16.06e9,
    "nvidia/NVIDIA-Nemotron-Nano-12B-v2": 24.62e9,
}


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_weight_bytes_match_the_published_checkpoint(name: str) -> None:
    assert weight_bytes(load_model(name)) == pytest.approx(CHECKPOINTS[name], rel=0.01)


def test_deepseek_checkpoint_less_its_prediction_module() -> None:
    # 688.6 GB are published, of which one extra layer (multi-token prediction, FP8) and a second copy of embedding and
    # output head (BF16) are not served.
    model = load_model("deepseek-ai/DeepSeek-V3")
    extra = 11.5e9 + 2 * 2 * 129280 * 7168
    assert weight_bytes(model) + extra == pytest.approx(688.6e9, rel=0.01)


def test_fp8_releases_keep_the_parts_that_their_publishers_left() -> None:
    meta = load_model("meta-llama/Llama-3.1-405B-Instruct-FP8")
    assert (meta.attention_quant.weight, meta.ffn_quant.weight) == ("bfloat16", "fp8")
    maverick = load_model("meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8")
    assert {maverick.attention_quant.weight, maverick.ffn_quant.weight} == {"bfloat16"}
    assert maverick.expert_quant.weight == "fp8"
    qwen = load_model("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8")
    assert (qwen.expert_quant.scaling, qwen.expert_quant.activation) == ("block", "fp8")
    assert qwen.head_quant.weight == "bfloat16"
    gpt_oss = load_model("openai/gpt-oss-120b")
    assert (gpt_oss.expert_quant.weight, gpt_oss.attention_quant.weight) == ("mxfp4", "bfloat16")


def test_families_have_the_mixers_that_their_papers_describe() -> None:
    nemotron = load_model("nvidia/NVIDIA-Nemotron-Nano-12B-v2")
    counts = {type(g.mixer): g.count for g in nemotron.layers if g.mixer is not None}
    assert counts == {Mamba2: 28, Attention: 6}
    assert nemotron.layer_count == 62
    qwen = load_model("Qwen/Qwen3.5-397B-A17B")
    assert {type(g.mixer): g.count for g in qwen.layers} == {GatedDeltaNet: 45, Attention: 15}
    assert all(g.mixer.output_gate for g in qwen.layers if isinstance(g.mixer, Attention))
    deepseek = load_model("deepseek-ai/DeepSeek-R1-0528")
    assert {type(g.mixer) for g in deepseek.layers} == {LatentAttention}
    assert [g.count for g in deepseek.layers] == [3, 58]
    scout = load_model("meta-llama/Llama-4-Scout-17B-16E-Instruct")
    assert {g.mixer.window: g.count for g in scout.layers if isinstance(g.mixer, Attention)} == {8192: 36, None: 12}
    maverick = load_model("meta-llama/Llama-4-Maverick-17B-128E-Instruct")
    assert sum(g.count for g in maverick.layers if isinstance(g.ffn, MoeFfn)) == 24


def test_latent_experts_work_in_their_narrow_space() -> None:
    model = load_model("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16")
    ffn = next(g.ffn for g in model.layers if isinstance(g.ffn, MoeFfn))
    assert ffn.latent == 1024
    assert routed_expert_parameters(ffn, model.hidden) == 512 * 2 * 1024 * 2688


def test_letter_case_does_not_matter() -> None:
    assert load_model("QWEN/qwen3-8b") is load_model("Qwen/Qwen3-8B")


def test_releases_differ_from_their_base_only_where_they_say() -> None:
    base, release = load_config("Qwen/Qwen3-30B-A3B"), load_config("Qwen/Qwen3-30B-A3B-Instruct-2507")
    assert {key for key in base if base[key] != release[key]} == {"max_position_embeddings"}
    assert load_model("Qwen/Qwen3-30B-A3B-Instruct-2507").max_position == 262_144


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("meta-llama/Llama-3.1-70B-Instrct", "meta-llama/Llama-3.1-70B-Instruct"),
        ("Qwen3-32B", "Qwen/Qwen3-32B"),
        ("someone/gpt-oss-120b", "openai/gpt-oss-120b"),
    ],
)
def test_an_unknown_model_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownModelError, match=re.escape(repr(name))) as error:
        load_model(name)
    assert error.value.nearest[0] == nearest
    assert nearest in str(error.value)
    assert "configRef" in str(error.value)


def test_a_name_like_no_other_still_says_what_to_do() -> None:
    with pytest.raises(UnknownModelError, match="configRef") as error:
        load_model("zzzz")
    assert error.value.nearest == ()
