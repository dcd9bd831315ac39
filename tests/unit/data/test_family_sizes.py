"""Sizes of every family against counts that others made, and refusals of what cannot be counted.

``family_shapes.json`` has short typed shapes, one a line. Its counts are those of transformers 5.24.0, which built the
named class from the same shape without weights (torch's meta device); of families that it does not have, those of the
publisher's page.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from energylens.data import known_models, load_config
from energylens.predictor.huggingface.config import KNOWN_FAMILIES, UnsupportedConfigError, model_from_config
from energylens.predictor.huggingface.families import UNMODELLED_FAMILIES
from energylens.predictor.huggingface.towers import unserved_parts
from energylens.predictor.model.architecture import Attention, DenseFfn, ModelSpec
from energylens.predictor.model.parameters import kv_bytes_per_token, parameter_count, served_parameter_count

SHAPES: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("family_shapes.json").read_text(encoding="utf-8")
)


def read(name: str, **changes: Any) -> ModelSpec:
    config = {**SHAPES[name]["config"], **changes}
    return model_from_config({k: v for k, v in config.items() if v != "absent"}, name)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_family_is_counted_as_others_count_it(name: str) -> None:
    assert served_parameter_count(read(name)) == pytest.approx(SHAPES[name]["parameters"], rel=0.005)


def test_every_known_family_has_a_count_to_hold_it_to() -> None:
    families = {read(name).family for name in SHAPES}
    catalogue = {load_config(name).get("model_type", "gemma3").removesuffix("_text") for name in known_models()}
    # A second name of DeepSeek V4 and the flat text parts of what the catalogue has whole.
    assert KNOWN_FAMILIES - families - catalogue == {"deepseek_ref", "mistral3"}


def test_the_page_lists_the_known_families() -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    table = page[page.index("| Known `model_type` |") : page.index("**Multimodal models**")]
    assert set(re.findall(r"`(\S+)`", table)) - {"model_type"} == KNOWN_FAMILIES | {"RefinedWeb", "RefinedWebModel"}


# Layers x two tensors x KV heads x head width x two bytes, by hand from each family's own words for KV heads.
KV_BYTES_PER_TOKEN = {
    "Qwen/Qwen-72B": 80 * 2 * 64 * 128 * 2,
    "tiiuae/falcon-7b": 32 * 2 * 1 * 64 * 2,
    "tiiuae/falcon-7b of 2023": 32 * 2 * 1 * 64 * 2,
    "tiiuae/falcon-40b": 60 * 2 * 8 * 64 * 2,
    "tiiuae/falcon-40b of 2023": 60 * 2 * 8 * 64 * 2,
    "tiiuae/falcon-180B": 80 * 2 * 8 * 64 * 2,
    "tiiuae/falcon-rw-1b": 24 * 2 * 32 * 64 * 2,
    "bigcode/starcoder": 40 * 2 * 1 * 128 * 2,
    "bigcode/starcoder2-7b": 32 * 2 * 4 * 128 * 2,
    "THUDM/chatglm3-6b": 28 * 2 * 2 * 128 * 2,
    "databricks/dbrx-instruct": 40 * 2 * 8 * 128 * 2,
    "mosaicml/mpt-7b": 32 * 2 * 32 * 128 * 2,
    "bigscience/bloom": 70 * 2 * 112 * 128 * 2,
    "ibm-granite/granite-4.0-micro": 40 * 2 * 8 * 64 * 2,
    "ibm-granite/granite-4.0-h-small": 4 * 2 * 8 * 128 * 2,
}


@pytest.mark.parametrize("name", sorted(KV_BYTES_PER_TOKEN))
def test_kv_heads_are_read_in_the_words_of_the_family(name: str) -> None:
    assert kv_bytes_per_token(read(name)) == KV_BYTES_PER_TOKEN[name]


@pytest.mark.parametrize(
    ("name", "changes", "kv_heads"),
    [
        ("tiiuae/falcon-7b", {"multi_query": "absent"}, 1),
        ("tiiuae/falcon-7b", {"multi_query": False}, 71),
        ("tiiuae/falcon-40b", {"num_kv_heads": "absent"}, 128),
        ("bigcode/starcoder", {"multi_query": False}, 48),
        ("bigcode/starcoder", {"multi_query": "absent"}, 1),
        ("THUDM/chatglm3-6b", {"multi_query_attention": False}, 32),
        ("mosaicml/mpt-7b", {"attn_config": {"attn_type": "multiquery_attention"}}, 1),
        ("mosaicml/mpt-7b", {"attn_config": {"attn_type": "grouped_query_attention", "kv_n_heads": 8}}, 8),
        ("mosaicml/mpt-7b", {"attn_config": "absent"}, 32),
        ("databricks/dbrx-instruct", {"attn_config": {}}, 1),
    ],
)
def test_multi_query_flags_and_their_defaults(name: str, changes: dict[str, Any], kv_heads: int) -> None:
    mixers = [group.mixer for group in read(name, **changes).layers]
    assert {mixer.kv_heads for mixer in mixers if isinstance(mixer, Attention)} == {kv_heads}


def test_the_width_of_the_first_qwen_is_half_of_what_its_file_says() -> None:
    assert {group.ffn for group in read("Qwen/Qwen-14B").layers} == {DenseFfn(13696)}
    with pytest.raises(UnsupportedConfigError, match="intermediate_size is 27393; allowed: an even number"):
        read("Qwen/Qwen-14B", intermediate_size=27393)


def test_the_width_of_the_values_of_minicpm3_is_computed_where_the_file_has_none() -> None:
    assert read("openbmb/MiniCPM3-4B", v_head_dim="absent") == read("openbmb/MiniCPM3-4B")
    assert parameter_count(read("openbmb/MiniCPM3-4B", v_head_dim=32)) < parameter_count(read("openbmb/MiniCPM3-4B"))


@pytest.mark.parametrize(
    ("name", "tied"),
    [
        ("bigcode/starcoder2-3b", True),
        ("bigcode/starcoder2-15b", False),
        ("HuggingFaceTB/SmolLM3-3B", True),
        ("tiiuae/falcon-7b", True),
        ("tiiuae/falcon-11B", False),
        ("bigscience/bloom", True),
        ("facebook/opt-66b", True),
        ("baidu/ERNIE-4.5-0.3B", True),
        ("CohereLabs/command-r", True),
        ("EleutherAI/gpt-neox-20b", False),
        ("gemma-3-4b", True),
    ],
)
def test_the_head_is_tied_as_the_family_has_it(name: str, tied: bool) -> None:
    assert read(name).tied_embeddings is tied


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("THUDM/chatglm3-6b", {"ffn_hidden_size": "absent"}, r"ffn_hidden_size missing"),
        ("THUDM/chatglm3-6b", {"multi_query_group_num": 5}, r"allowed: a divisor of the 32 attention heads"),
        ("THUDM/chatglm3-6b", {"position_encoding_2d": True}, r"position_encoding_2d is True; allowed: false"),
        ("bigcode/starcoder", {"n_embd": "wide"}, r"n_embd is 'wide'; allowed: an integer"),
        ("openai-community/gpt2", {"n_layer": "absent"}, r"n_layer missing"),
        ("mosaicml/mpt-7b", {"attn_config": {"attn_type": "odd"}}, r"attn_config\.attn_type is 'odd'; allowed: multi"),
        ("mosaicml/mpt-7b", {"ffn_config": {"ffn_type": "mptglu"}}, r"ffn_config\.ffn_type is 'mptglu'"),
        ("databricks/dbrx-instruct", {"ffn_config": "absent"}, r"ffn_config missing"),
        ("databricks/dbrx-instruct", {"ffn_config": {"moe_top_k": 9}}, r"ffn_config\.moe_top_k is 9; .*from 1 to 4"),
        ("facebook/opt-1.3b", {"word_embed_proj_dim": 512}, r"word_embed_proj_dim is 512"),
        ("ibm-granite/granite-4.0-h-small", {"mamba_d_head": 32}, r"mamba_d_head is 32; allowed: mamba_expand"),
        ("tencent/Hunyuan-A13B-Instruct", {"moe_topk": [8, 4] * 16}, r"moe_topk is \[8, 4, .*the same number for each"),
        ("tencent/Hunyuan-A13B-Instruct", {"use_cla": True}, r"use_cla is True; allowed: false"),
        ("baidu/ERNIE-4.5-21B-A3B-PT", {"moe_layer_interval": 2}, r"moe_layer_interval is 2; allowed: 1"),
        ("baidu/ERNIE-4.5-21B-A3B-PT", {"moe_layer_end_index": 9}, r"moe_layer_end_index is 9; allowed: -1 or 27"),
        ("ibm-ai-platform/Bamba-9B", {"attn_layer_indices": [99]}, r"attn_layer_indices is 99; allowed: layer numbers"),
    ],
)
def test_messages_name_the_field_as_the_file_has_it(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedConfigError, match=message):
        read(name, **changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("multi_query", True),
        ("multi_query_group_num", 2),
        ("num_kv_heads", 1),
        ("num_key_value_groups", 8),
        ("n_head_kv", 4),
        ("attn_config", {"kv_n_heads": 8}),
        ("ffn_config", {"ffn_hidden_size": 10752}),
        ("kv_channels", 64),
        ("ffn_dim", 8192),
    ],
)
def test_a_shape_in_the_words_of_another_family_is_refused(field: str, value: object) -> None:
    with pytest.raises(UnsupportedConfigError, match=rf"{field} is .*; allowed: absent, as the model_type 'granite'"):
        read("ibm-granite/granite-3.3-8b", **{field: value})


def test_the_same_shape_in_other_words_is_no_contradiction() -> None:
    plain = read("ibm-granite/granite-3.3-8b")
    assert read("ibm-granite/granite-3.3-8b", num_kv_heads=8, kv_channels=128, ffn_dim=12800, n_inner=None) == plain
    assert read("ibm-granite/granite-3.3-8b", num_key_value_groups=4, multi_query_attention=True) == plain
    assert read("ibm-granite/granite-3.3-8b", num_key_value_heads=1, multi_query=True).layers != plain.layers


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("multi_query", True),
        ("parallel_attn", True),
        ("new_decoder_architecture", True),
        ("use_gated_mlp", False),
        ("glu_mlp", True),
        ("attn_type", "grouped"),
        ("ffn_type", "mptglu"),
        ("mlp_ratio", 2.5),
        ("ffn_multiplier_per_group", 1.5),
        ("layer_plan", ["attention", "retention"]),
        ("memory", {"slots": 4}),
    ],
)
def test_an_unknown_family_is_refused_for_every_field_that_is_not_understood(field: str, value: object) -> None:
    assert read("ibm-granite/granite-3.3-8b", model_type="brandnew", hidden_act="silu").family == "brandnew"
    with pytest.raises(UnsupportedConfigError, match=rf"{field} is .*; allowed: absent.*'brandnew'"):
        read("ibm-granite/granite-3.3-8b", model_type="brandnew", hidden_act="silu", **{field: value})


def test_an_unknown_family_without_an_activation_is_refused() -> None:
    with pytest.raises(UnsupportedConfigError, match=r"hidden_act missing; allowed: silu.*not known by name"):
        read("ibm-granite/granite-3.3-8b", model_type="brandnew")


@pytest.mark.parametrize("activation", ["relu2", "relu", "gelu", "gelu_new"])
def test_an_activation_that_some_families_gate_and_others_do_not_tells_nothing(activation: str) -> None:
    assert read("microsoft/bitnet shape").layers[0].ffn == DenseFfn(6912, gated=True)
    assert read("inceptionai/Jais-2-8B").layers[0].ffn == DenseFfn(26624, gated=False)
    with pytest.raises(UnsupportedConfigError, match=rf"hidden_act is '{activation}'; allowed: silu"):
        read("microsoft/bitnet shape", model_type="brandnew", hidden_act=activation)


@pytest.mark.parametrize(
    ("inner", "outer", "tied"),
    [
        (True, True, True),
        (False, False, False),
        (True, False, False),
        (False, True, False),
        ("absent", True, True),
        (True, "absent", True),
        ("absent", "absent", False),
    ],
)
def test_a_head_is_tied_where_no_part_of_the_file_says_otherwise(inner: Any, outer: Any, tied: bool) -> None:
    text = {**SHAPES["llava-1.5-7b"]["config"]["text_config"], "tie_word_embeddings": inner}
    text = {key: value for key, value in text.items() if value != "absent"}
    assert read("llava-1.5-7b", text_config=text, tie_word_embeddings=outer).tied_embeddings is tied


def test_layer_types_may_be_named_as_newer_transformers_name_them() -> None:
    name = "ibm-granite/granite-4.0-h-tiny"
    newer = {"attention": "full_attention", "mamba": "linear_attention"}
    assert read(name, layer_types=[newer[kind] for kind in SHAPES[name]["config"]["layer_types"]]) == read(name)
    hybrid = load_config("nvidia/NVIDIA-Nemotron-Nano-9B-v2")
    words = {"M": "linear_attention", "*": "full_attention", "-": "mlp"}
    listed = {**hybrid, "layers_block_type": [words[letter] for letter in hybrid["hybrid_override_pattern"]]}
    assert model_from_config(listed, "a/model").layers == model_from_config(hybrid, "a/model").layers
    sparse = load_config("deepseek-ai/DeepSeek-V3.2")
    kinds = {"layer_types": ["indexed_attention"] * sparse["num_hidden_layers"]}
    assert model_from_config({**sparse, **kinds}, "a/model") == model_from_config(sparse, "a/model")


def test_an_unknown_family_says_whether_its_head_is_tied() -> None:
    with pytest.raises(
        UnsupportedConfigError, match=r"tie_word_embeddings missing; allowed: true or false, .*brandnew"
    ):
        read("ibm-granite/granite-3.3-8b", model_type="brandnew", hidden_act="silu", tie_word_embeddings="absent")


@pytest.mark.parametrize("family", sorted(UNMODELLED_FAMILIES))
def test_families_that_are_not_modelled_are_refused_by_name_before_their_fields(family: str) -> None:
    for config in ({"model_type": family}, {"model_type": family, "text_config": {"model_type": f"{family}_text"}}):
        with pytest.raises(UnsupportedConfigError, match=rf"model_type is '{family}'; allowed: .*not modelled: \w"):
            model_from_config(config, "a/model")


def test_an_unmodelled_feature_is_named_before_an_activation_that_does_not_tell() -> None:
    text = {"model_type": "brandnew_text", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2048}
    with pytest.raises(UnsupportedConfigError, match=r"text_config\.hidden_size_per_layer_input is 256; allowed: 0"):
        model_from_config({"text_config": {**text, "hidden_size_per_layer_input": 256}}, "a/model")
    shape = {**SHAPES["ibm-granite/granite-3.3-8b"]["config"], "model_type": "brandnew"}
    with pytest.raises(UnsupportedConfigError, match=r": hidden_activation is 'gelu_pytorch_tanh'; allowed: silu"):
        model_from_config({**shape, "hidden_activation": "gelu_pytorch_tanh"}, "a/model")


def test_what_a_nested_text_part_leaves_out_is_as_in_its_class() -> None:
    text = SHAPES["llava-1.5-7b"]["config"]["text_config"]
    assert "hidden_size" not in text
    assert read("llava-1.5-7b").hidden == 4096
    with pytest.raises(UnsupportedConfigError, match="hidden_size missing"):
        model_from_config(text, "a/model")


@pytest.mark.parametrize(
    "name", ["llava-1.5-7b", "paligemma-3b", "InternVL3-8B-hf", "Voxtral-Mini-3B", "aya-vision-8b"]
)
def test_a_nested_text_part_that_names_no_type_is_of_the_usual_one(name: str) -> None:
    text = {key: value for key, value in SHAPES[name]["config"]["text_config"].items() if key != "model_type"}
    assert read(name, text_config=text) == read(name)


def test_a_null_in_a_nested_text_part_is_not_left_out() -> None:
    text = {**SHAPES["llava-next-mistral-7b"]["config"]["text_config"]}
    assert text["sliding_window"] is None
    assert {g.mixer.window for g in read("llava-next-mistral-7b").layers if isinstance(g.mixer, Attention)} == {None}
    del text["sliding_window"]
    mixers = [g.mixer for g in read("llava-next-mistral-7b", text_config=text).layers]
    assert {mixer.window for mixer in mixers if isinstance(mixer, Attention)} == {4096}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "gemma-3-4b",
            {"vision_config": {"model_type": "odd_vit"}},
            r"vision_config\.model_type is 'odd_vit'; .*siglip",
        ),
        ("gemma-3-4b", {"audio_config": {"model_type": "whisper"}}, r"model_type is 'gemma3'; .*audio_config is known"),
        ("gemma-3-4b", {"depth_config": {"hidden_size": 64}}, r"depth_config is .*; allowed: absent \(a part with"),
        ("Qwen/Qwen-7B", {"audio": {"n_layer": 32, "n_state": 1280}}, r"audio is .*; allowed: absent \(a part with"),
        (
            "Qwen/Qwen-7B",
            {"vision_tower": "openai/clip-vit-large-patch14"},
            r"vision_tower is 'openai.*; allowed: absent",
        ),
        ("Qwen/Qwen-7B", {"visual": {"width": 1664}}, r"visual is .*; allowed: absent \(it names weights without"),
        ("llava-1.5-7b", {"model_type": "llava_new"}, r"model_type is 'llava_new'; .*vision_config is known"),
        ("InternVL3-78B", {"downsample_ratio": 7}, r"downsample_ratio is 7"),
        ("Qwen2-VL-7B flat", {"vision_config": {"mlp_ratio": "4"}}, r"vision_config\.mlp_ratio is '4'"),
        ("Voxtral-Mini-3B", {"audio_config": {"hidden_size": "w"}}, r"audio_config\.hidden_size is 'w'"),
    ],
)
def test_a_part_that_cannot_be_counted_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedConfigError, match=message):
        read(name, **changes)


def test_a_tower_takes_memory_beside_the_text_part() -> None:
    voxtral = read("Voxtral-Mini-3B")
    # Whisper's encoder (two convolutions, positions, 32 layers) and the two layers that project.
    encoder = 3 * 1280 * (128 + 1280) + 1500 * 1280 + 32 * (4 * 1280**2 + 2 * 1280 * 5120)
    assert voxtral.extra_weight_bytes == 2 * (encoder + 5120 * 3072 + 3072**2)
    assert served_parameter_count(voxtral) == parameter_count(voxtral) + voxtral.extra_weight_bytes / 2


def test_parts_of_a_checkpoint_that_engines_leave_out_are_known() -> None:
    assert unserved_parts(SHAPES["Qwen3-Omni-30B-A3B"]["config"]) == ("talker", "vocoder")
    assert unserved_parts({"text_config": {"num_nextn_predict_layers": 1}}) == ("multi-token prediction",)
    assert unserved_parts(SHAPES["Qwen/Qwen-7B"]["config"]) == ()


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**40), max_value=2**40),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.integers(-5, 5), st.text(max_size=4)), max_size=4),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.data())
def test_a_broken_file_of_any_family_gives_a_clear_error_or_a_model(data: st.DataObject) -> None:
    config = copy.deepcopy(SHAPES[data.draw(st.sampled_from(sorted(SHAPES)))]["config"])
    for _ in range(data.draw(st.integers(1, 3))):
        target = config
        while (nested := sorted(k for k in target if isinstance(target[k], dict))) and data.draw(st.booleans()):  # type: ignore[arg-type]
            target = target[data.draw(st.sampled_from(nested))]
        if target:
            target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JUNK)
    try:
        model = model_from_config(config, "a/model")
    except UnsupportedConfigError as error:
        message = str(error)
    else:
        message = ""
        assert served_parameter_count(model) > 0
    assert not message or "allowed: " in message
