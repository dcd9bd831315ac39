from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.runs.test_table import GOOD, csv_of

from energylens.data import load_model
from energylens.predictor.model.architecture import Quantization
from energylens.runs import Run, parse_runs, resolver, weight_precision


def run(**changed: Any) -> Run:
    (read,) = parse_runs(csv_of(GOOD), "in.csv", measured=False).runs
    return replace(read, **changed)


def test_catalogue_and_gpu_names_are_found() -> None:
    found = resolver()(run())
    assert found.error == ""
    assert found.model is not None
    assert found.gpu is not None
    assert (found.model.hidden, found.gpu.name) == (4096, "H100")


def test_unknown_names_are_errors_that_show_the_way() -> None:
    resolve = resolver()
    assert (
        "model_id='Qwen/Qwen3-9B' is not in the catalogue; nearest known: Qwen/Qwen3-8B"
        in resolve(run(model_id="Qwen/Qwen3-9B")).error
    )
    assert "'H1000'" in resolve(run(gpu_model="H1000")).error
    assert "MIG slice" in resolve(run(gpu_model="NVIDIA-H100-80GB-HBM3-MIG-1g.10gb")).error


def test_a_precision_that_differs_from_the_checkpoint_is_made_while_loading_or_that_of_the_usual_release() -> None:
    resolve = resolver()
    online = resolve(run(model_id="Qwen/Qwen2.5-7B-Instruct", weight_precision="fp8")).model
    assert online is not None
    assert weight_precision(online) == "fp8"
    assert online.ffn_quant == Quantization("fp8", "fp8", "per_tensor")
    four_bit = resolve(run(weight_precision="nvfp4")).model
    assert four_bit is not None
    assert four_bit.ffn_quant == Quantization("nvfp4", "nvfp4", "group")
    assert four_bit.attention_quant == Quantization()
    published = resolve(run(model_id="openai/gpt-oss-120b", weight_precision="mxfp4")).model
    assert published is not None
    assert weight_precision(published) == "mxfp4"


@pytest.mark.parametrize(
    ("model_id", "precision", "released"),
    [
        ("Qwen/Qwen3-8B", "fp8", "Qwen/Qwen3-8B-FP8"),
        ("MiniMaxAI/MiniMax-M3", "fp8", "MiniMaxAI/MiniMax-M3-MXFP8"),
        ("MiniMaxAI/MiniMax-M2.5", "nvfp4", "nvidia/MiniMax-M2.5-NVFP4"),
    ],
)
def test_a_precision_that_a_release_is_known_for_is_that_release(model_id: str, precision: str, released: str) -> None:
    found = resolver()(run(model_id=model_id, weight_precision=precision)).model
    assert found is not None
    assert found.name == released
    own = replace(load_model(model_id), hidden=load_model(model_id).hidden * 2)
    given_by_the_user = resolver({model_id: own})(run(model_id=model_id, weight_precision=precision)).model
    assert given_by_the_user is not None
    assert given_by_the_user.hidden == own.hidden


def test_given_models_come_before_the_catalogue() -> None:
    known = resolver()(run()).model
    assert known is not None
    own = replace(known, hidden=128)
    assert resolver({"qwen/qwen3-8b": own})(run()).model is own


@pytest.mark.parametrize(
    ("model_id", "precision", "what_if"),
    [
        ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4", "nvfp4", "NVFP4"),
        ("someone/GLM-4.6-FP8", "fp8", "FP8"),
        ("someone/qwen3-32b-gptq-int4", "int4", "INT4"),
        ("RedHatAI/Qwen2.5-72B-Instruct-FP8-dynamic", "fp8", "FP8"),
        ("someone/gpt-oss-120b-BF16", "bfloat16", "bfloat16"),
    ],
)
def test_an_unknown_release_of_a_known_model_is_a_what_if_in_the_format_of_its_name(
    model_id: str, precision: str, what_if: str
) -> None:
    found = resolver()(run(model_id=model_id, weight_precision=None))
    assert (found.error, found.what_if) == ("", what_if)
    assert found.model is not None
    assert (found.model.name, weight_precision(found.model)) == (model_id, precision)


def test_an_unknown_release_is_an_error_if_its_model_or_its_format_is_unknown_or_the_run_contradicts_it() -> None:
    resolve = resolver()
    for model_id, precision in (
        ("someone/Qwen9-32B-FP8", None),
        ("someone/Qwen3-32B-EXL3", None),
        ("someone/Qwen3-32B-tuned-FP8", None),
        ("someone/GLM-4.6-FP8", "int4"),
    ):
        assert "is not in the catalogue" in resolve(run(model_id=model_id, weight_precision=precision)).error


def test_sixteen_bits_of_a_quantized_checkpoint_are_named_as_in_the_runs() -> None:
    assert resolver()(run(model_id="openai/gpt-oss-120b", weight_precision="bfloat16")).what_if == "bfloat16"
