from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from energylens.data import known_models, load_config, load_model
from energylens.predictor.huggingface.config import UnsupportedConfigError, model_from_config
from energylens.predictor.model.architecture import (
    Attention,
    CompressedAttention,
    DenseFfn,
    GatedDeltaNet,
    LatentAttention,
    ModelSpec,
    MoeFfn,
    Quantization,
)
from energylens.predictor.model.parameters import parameter_count
from energylens.predictor.model.requantize import UnsupportedQuantizationError, with_quantization

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
MOE: dict[str, Any] = {
    **LLAMA,
    "model_type": "qwen3_moe",
    "head_dim": 128,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 768,
}


def read(**changes: Any) -> ModelSpec:
    return model_from_config({**LLAMA, **changes}, "a/model")


def read_moe(**changes: Any) -> ModelSpec:
    return model_from_config({**MOE, **changes}, "a/model")


def windows(model: ModelSpec) -> dict[int | None, int]:
    return {g.mixer.window: g.count for g in model.layers if isinstance(g.mixer, Attention)}


def test_a_plain_config() -> None:
    (group,) = read().layers
    assert group.count == 4
    assert group.mixer == Attention(heads=32, kv_heads=8, head_dim=128)
    assert group.ffn == DenseFfn(14336, gated=True)


def test_missing_key_value_heads_mean_one_per_query_head() -> None:
    (group,) = read(num_key_value_heads=None).layers
    assert isinstance(group.mixer, Attention)
    assert group.mixer.kv_heads == 32


def test_the_text_part_of_a_multimodal_model_is_read() -> None:
    text = {**LLAMA, "model_type": "qwen3_vl_text"}
    outer = {
        "model_type": "qwen3_vl",
        "text_config": text,
        "tie_word_embeddings": True,
        "vision_config": {"hidden_size": 1152, "depth": 27, "intermediate_size": 4304},
    }
    model = model_from_config(outer, "a/model")
    assert (model.family, model.tied_embeddings) == ("qwen3_vl", True)
    layers = 27 * (4 * 1152**2 + 2 * 1152 * 4304)
    # Patches of 16 x 16 pixels in three colours over two frames, a table of positions, four mergers of 2 x 2 patches.
    ends = 2 * 3 * 16**2 * 1152 + 2304 * 1152 + 4 * ((4 * 1152) ** 2 + 4 * 1152 * 3584)
    assert model.extra_weight_bytes == 2 * (layers + ends)


def test_the_family_may_be_named_by_its_class_alone() -> None:
    text = {key: value for key, value in LLAMA.items() if key != "model_type"}
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {**text, "sliding_window": 1024}}
    model = model_from_config(config, "a/model")
    assert (model.family, model.tied_embeddings) == ("gemma3", True)
    assert windows(model) == {1024: 4}


def test_an_unknown_type_of_known_shape_works() -> None:
    said = {"hidden_act": "silu", "tie_word_embeddings": False}
    assert read(model_type="brandnew", **said).layers == read().layers
    assert read_moe(model_type="brandnew_moe", **said).layers == read_moe().layers


@pytest.mark.parametrize(
    ("field", "value"), [("ssm_cfg_layers", 4), ("num_memory_slots", 16), ("expert_dim_scale", 2), ("router_rank", 8)]
)
def test_an_unknown_type_of_unknown_shape_is_refused_by_field(field: str, value: int) -> None:
    assert read(**{field: value}).layer_count == 4
    with pytest.raises(UnsupportedConfigError, match=rf"{field} is {value}; allowed: absent.*brandnew.*remove"):
        read(model_type="brandnew", hidden_act="silu", tie_word_embeddings=False, **{field: value})


def test_an_unknown_type_whose_activation_may_or_may_not_be_gated_is_refused() -> None:
    with pytest.raises(UnsupportedConfigError, match=r"hidden_act is 'gelu'.*silu.*relu2"):
        read(model_type="brandnew", hidden_act="gelu")


@pytest.mark.parametrize("field", sorted(set(LLAMA) - {"num_key_value_heads"}))
def test_a_missing_field_is_named(field: str) -> None:
    config = {key: value for key, value in LLAMA.items() if key != field}
    with pytest.raises(UnsupportedConfigError, match=rf"config\.json of a/model: .*{field}.* missing; allowed: "):
        model_from_config(config, "a/model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "4096"}, r"hidden_size is '4096'; allowed: an integer from 1 to"),
        ({"hidden_size": True}, r"hidden_size is True"),
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers is 1000000000; allowed: an integer from 1 to 2048"),
        ({"num_key_value_heads": 5}, r"num_key_value_heads is 5; allowed: a divisor of the 32 attention heads"),
        ({"num_attention_heads": 24, "head_dim": None}, r"head_dim missing.*no multiple of 24"),
        ({"layer_types": ["full_attention"] * 3}, r"layer_types.*one entry for each of the 4 layers"),
        ({"layer_types": ["full_attention"] * 3 + ["retention"]}, r"layer_types is 'retention'; allowed: .*'sliding"),
        ({"layer_types": ["sliding_attention"] * 4}, r"sliding_window missing"),
        ({"sliding_window": 4096}, r"layer_types missing.*sliding_window is set"),
        ({"num_kv_shared_layers": 2}, r"num_kv_shared_layers is 2; allowed: 0"),
        ({"attn_type_list": [1, 0, 1, 1]}, r"attn_type_list.*allowed: all 1"),
        ({"is_encoder_decoder": True}, r"is_encoder_decoder is True; allowed: false"),
        ({"tie_word_embeddings": "yes"}, r"tie_word_embeddings is 'yes'; allowed: true or false"),
        ({"quantization_config": "fp8"}, r"quantization_config is 'fp8'; allowed: an object"),
        ({"quantization_config": {"quant_method": "tea"}}, r"quantization_config\.quant_method is 'tea'.*fp8, fbgemm"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP3"}}, r"quant_algo is 'FP3'.*NVFP4"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, r"bits is 3; allowed: 4 or 8"),
        ({"quantization_config": {"quant_method": "fp8", "ignored_layers": ["re:("]}}, r"is 're:\('.*valid regular"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedConfigError, match=message):
        read(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts_per_tok": 9}, r"num_experts_per_tok is 9; allowed: an integer from 1 to 8"),
        ({"num_experts_per_tok": None}, r"num_experts_per_tok .*missing"),
        ({"mlp_only_layers": ["x"]}, r"mlp_only_layers is 'x'; allowed: layer numbers"),
        ({"mlp_layer_types": ["sparse"] * 3 + ["odd"]}, r"mlp_layer_types is 'odd'"),
    ],
)
def test_a_bad_expert_field_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedConfigError, match=message):
        read_moe(**changes)


def test_latent_attention_with_windows_is_not_taken_for_full_attention() -> None:
    config = {**load_config("deepseek-ai/DeepSeek-V3"), "layer_types": ["sliding_attention"] * 61}
    with pytest.raises(
        UnsupportedConfigError, match=r"layer_types is 'sliding_attention'; allowed: .*'full_attention'"
    ):
        model_from_config(config, "a/model")


def test_something_that_is_no_object_is_refused() -> None:
    with pytest.raises(UnsupportedConfigError, match="allowed: a JSON object"):
        model_from_config([1, 2], "a/model")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 128}, {128: 2, None: 2}),
        ({"sliding_window": 128, "sliding_window_pattern": 2}, {128: 2, None: 2}),
        ({"sliding_window": 128, "use_sliding_window": False}, {None: 4}),
        ({"sliding_window": 128, "max_window_layers": 3}, {None: 3, 128: 1}),
        ({"sliding_window": 128, "model_type": "mistral"}, {128: 4}),
        ({"sliding_window": 128, "model_type": "gemma2", "head_dim": 128}, {128: 2, None: 2}),
        ({"attention_chunk_size": 64, "model_type": "llama4"}, {64: 3, None: 1}),
        ({"no_rope_layers": [1, 0, 1, 0], "attention_chunk_size": 64, "model_type": "llama4"}, {64: 2, None: 2}),
    ],
)
def test_windows(changes: dict[str, Any], expected: dict[int | None, int]) -> None:
    assert windows(read(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "sparse"),
    [
        ({}, 4),
        ({"first_k_dense_replace": 1}, 3),
        ({"moe_layer_freq": [0, 1, 1, 0]}, 2),
        ({"decoder_sparse_step": 2}, 2),
        ({"mlp_only_layers": [0, 3]}, 2),
        ({"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}, 3),
        ({"moe_layers_enum": "1,2,3"}, 3),
    ],
)
def test_which_layers_have_experts(changes: dict[str, Any], sparse: int) -> None:
    model = read_moe(**changes)
    assert sum(g.count for g in model.layers if isinstance(g.ffn, MoeFfn)) == sparse


@pytest.mark.parametrize(
    ("changes", "shared"),
    [
        ({"n_shared_experts": 2}, 2 * 768),
        ({"shared_expert_intermediate_size": 512}, 512),
        ({"share_expert_dim": 1280, "n_shared_experts": 1}, 1280),
        ({}, 0),
    ],
)
def test_shared_experts(changes: dict[str, Any], shared: int) -> None:
    ffn = read_moe(**changes).layers[0].ffn
    assert isinstance(ffn, MoeFfn)
    assert ffn.shared_intermediate == shared


def test_special_attention_keeps_what_matters_for_bytes() -> None:
    gemma = [g.mixer for g in load_model("google/gemma-4-26B-A4B").layers]
    assert Attention(16, 2, 512, shared_kv_projection=True) in gemma
    mixers = [g.mixer for g in load_model("zai-org/GLM-5.2").layers]
    assert {(m.top_k_tokens, m.index_heads) for m in mixers if isinstance(m, LatentAttention)} == {
        (2048, 32),
        (2048, 0),
    }
    sparse = [g.mixer for g in load_model("MiniMaxAI/MiniMax-M3").layers]
    assert {m.top_k_tokens for m in sparse if isinstance(m, Attention)} == {None, 16 * 128}
    compressed = [g.mixer for g in load_model("deepseek-ai/DeepSeek-V4-Pro").layers]
    assert {m.compress_ratio for m in compressed if isinstance(m, CompressedAttention)} == {4, 128}
    kimi = [g.mixer for g in load_model("moonshotai/Kimi-K3").layers]
    assert {type(m) for m in kimi} == {GatedDeltaNet, LatentAttention}


COMPRESSED: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
            "input_activations": {"num_bits": 8, "type": "float"},
        }
    },
}


def group(**weights: Any) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, Quantization("fp8", "fp8", "block")),
        ({"quant_method": "fp8", "activation_scheme": "static"}, Quantization("fp8", "fp8", "per_tensor")),
        ({"quant_method": "fbgemm_fp8"}, Quantization("fp8", "fp8", "per_channel")),
        (COMPRESSED, Quantization("fp8", "fp8", "per_channel")),
        (group(num_bits=4, type="int", group_size=128, strategy="group"), Quantization("int4", "bfloat16", "group")),
        (group(num_bits=4, type="int", group_size=32), Quantization("int4", "bfloat16", "group", 32)),
        (group(num_bits=4, type="float", group_size=32), Quantization("mxfp4", "bfloat16", "group")),
        (group(num_bits=4, type="float", group_size=16), Quantization("nvfp4", "bfloat16", "group")),
        ({"quant_algo": "NVFP4"}, Quantization("nvfp4", "nvfp4", "group")),
        ({"quant_method": "awq", "bits": 4}, Quantization("int4", "bfloat16", "group")),
        ({"quant_method": "gptq", "bits": 8}, Quantization("int8", "bfloat16", "group")),
    ],
)
def test_quantisation_methods(config: dict[str, Any], expected: Quantization) -> None:
    model = read(quantization_config=config)
    assert model.attention_quant == model.ffn_quant == expected
    assert model.head_quant == Quantization()


@pytest.mark.parametrize("key", ["ignore", "modules_to_not_convert", "ignored_layers", "exclude_modules"])
@pytest.mark.parametrize(
    "pattern",
    ["self_attn", "re:.*self_attn.*", "*self_attn*", "model.layers.{}.self_attn", "model.layers.{}.self_attn*"],
)
def test_parts_left_in_16_bit(key: str, pattern: str) -> None:
    entries = [pattern.format(i) for i in range(4)]
    model = read(quantization_config={"quant_method": "fp8", key: entries})
    assert (model.attention_quant.weight, model.ffn_quant.weight) == ("bfloat16", "fp8")


def test_the_router_is_not_taken_for_an_expert() -> None:
    model = read_moe(
        quantization_config={"quant_method": "fp8", "modules_to_not_convert": ["gate", "mlp.gate", "lm_head"]}
    )
    assert model.expert_quant.weight == "fp8"


def test_a_few_layers_left_out_do_not_decide_for_all() -> None:
    model = read(quantization_config={"quant_method": "fp8", "ignore": ["model.layers.0.*"]})
    assert model.attention_quant.weight == "fp8"


def test_listed_modules_may_have_formats_of_their_own() -> None:
    listed = {f"model.layers.{i}.self_attn.q_proj": {"quant_algo": "FP8"} for i in range(4)}
    listed["lm_head"] = {"quant_algo": "W4A16_NVFP4"}
    config = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": listed}
    model = read(quantization_config=config)
    assert [q.weight for q in (model.attention_quant, model.ffn_quant, model.head_quant)] == [
        "fp8",
        "bfloat16",
        "nvfp4",
    ]


@pytest.mark.parametrize(
    ("scheme", "expected"), [("FP8", 1.0), ({"num_bits": 8, "type": "float"}, 1.0), (None, 2.0), ("NVFP4", 0.5625)]
)
def test_the_checkpoint_sets_the_cache_format(scheme: object, expected: float) -> None:
    quant = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": scheme}
    assert read(quantization_config=quant).kv_bytes_per_element == expected


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_scales_of_a_cache_in_fp8_do_not_set_its_format(scheme: str) -> None:
    quant = {"quant_method": "fp8", "activation_scheme": "static", "kv_cache_scheme": scheme}
    assert read(quantization_config=quant).kv_bytes_per_element == 2.0
    with pytest.raises(UnsupportedConfigError, match=f"kv_cache_scheme is '{scheme}'; allowed: FP8, INT8 or NVFP4"):
        read(quantization_config={"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": scheme})


def test_int4_bytes_follow_the_group_size() -> None:
    assert Quantization("int4", "bfloat16", "group").bytes_per_weight == 0.515625
    assert Quantization("int4", "bfloat16", "group", 32).bytes_per_weight == 0.5625


def test_a_16_bit_checkpoint_can_be_served_in_fp8() -> None:
    model = with_quantization(load_model("Qwen/Qwen3-30B-A3B"), "FP8")
    assert {model.attention_quant.weight, model.expert_quant.weight} == {"fp8"}
    assert model.head_quant.weight == "bfloat16"
    assert parameter_count(model) == parameter_count(load_model("Qwen/Qwen3-30B-A3B"))


def test_a_format_that_the_checkpoint_has_is_no_change() -> None:
    for name, requested in (
        ("openai/gpt-oss-120b", "MXFP4"),
        ("deepseek-ai/DeepSeek-V3.1", "FP8"),
        ("Qwen/Qwen3-8B", "None"),
        ("Qwen/Qwen3-8B", None),
    ):
        assert with_quantization(load_model(name), requested) is load_model(name)


@pytest.mark.parametrize(
    ("name", "requested", "message"),
    [
        ("Qwen/Qwen3-8B", "NVFP4", "stored as bfloat16; use FP8"),
        ("openai/gpt-oss-120b", "FP8", "stored as mxfp4; leave spec.model.quantization unset"),
        ("openai/gpt-oss-120b", "None", "quantization None cannot be created"),
        ("Qwen/Qwen3-8B", "FP3", "'FP3' is unknown; allowed: None, FP8"),
    ],
)
def test_a_format_that_cannot_be_had_is_refused(name: str, requested: str, message: str) -> None:
    with pytest.raises(UnsupportedQuantizationError, match=message):
        with_quantization(load_model(name), requested)


# One model per family: corrupting them reaches every reader.
SAMPLES = sorted({load_config(name)["model_type"]: name for name in known_models()}.values())
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**40), max_value=2**40),
    st.sampled_from([0, -1, 1, 3, 7, 10**12]),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(-5, 5), st.text(max_size=4), st.none()), max_size=4),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.data())
def test_a_broken_config_gives_a_clear_error_or_a_model(data: st.DataObject) -> None:
    config = copy.deepcopy(load_config(data.draw(st.sampled_from(SAMPLES))))
    for _ in range(data.draw(st.integers(1, 3))):
        target = config
        nested = [key for key in config if isinstance(config[key], dict)]
        if nested and data.draw(st.booleans()):  # type: ignore[arg-type]
            target = config[data.draw(st.sampled_from(nested))]
        if not target:
            continue
        field = data.draw(st.sampled_from(sorted(target)))
        if data.draw(st.booleans()):
            del target[field]
        else:
            target[field] = data.draw(JUNK)
    try:
        model = model_from_config(config, "a/model")
    except UnsupportedConfigError as error:
        message = str(error)
    else:
        message = ""
        assert parameter_count(model) > 0
        assert math.isfinite(model.kv_bytes_per_element)
    assert not message or "allowed: " in message
