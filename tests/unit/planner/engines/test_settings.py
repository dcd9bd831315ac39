"""Numbers, bounds and context of an engine's arguments."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.planner.engines.test_rules import engine

from energylens.data import find_gpu, load_model
from energylens.planner.engines import SettingError
from energylens.planner.engines.layouts import longest_request

PHI = load_model("microsoft/phi-4")
"""Its context is 16,384 tokens."""


@pytest.mark.parametrize(
    ("suffix", "size"),
    [
        *(("k", 10**3), ("m", 10**6), ("g", 10**9), ("t", 10**12)),
        *(("K", 2**10), ("M", 2**20), ("G", 2**30), ("T", 2**40)),
    ],
)
def test_every_suffix_of_vllm_has_its_size(suffix: str, size: int) -> None:
    assert engine("VLLM", f"--kv-cache-memory-bytes=3{suffix}").kv_cache_bytes == 3.0 * size


@pytest.mark.parametrize(
    ("suffix", "size"),
    [
        *(("k", 10**3), ("M", 10**6), ("G", 10**9), ("T", 10**12)),
        *(("Ki", 2**10), ("Mi", 2**20), ("Gi", 2**30), ("Ti", 2**40)),
    ],
)
def test_every_suffix_of_sglang_has_its_size(suffix: str, size: int) -> None:
    assert engine("SGLang", f"--max-total-tokens=3{suffix}").cache_tokens == 3 * size


@pytest.mark.parametrize(
    ("name", "dtype", "size"),
    [
        ("VLLM", "nvfp4", 0.5625),
        ("SGLang", "fp4_e2m1", 0.5625),
        ("VLLM", "int4_per_token_head", 0.5),
        ("VLLM", "int8_per_token_head", 1.0),
        ("SGLang", "fp8_e4m3", 1.0),
        ("SGLang", "bf16", 2.0),
        ("VLLM", "bfloat16", 2.0),
        ("VLLM", "float16", 2.0),
        ("VLLM", "turboquant_k8v4", None),
    ],
)
def test_every_format_of_the_cache_has_its_bytes(name: str, dtype: str, size: float | None) -> None:
    assert engine(name, f"--kv-cache-dtype={dtype}").kv_bytes_per_element == size


@pytest.mark.parametrize(("text", "share"), [("1", 1.0), ("1e-3", 0.001), ("0", None), ("1.001", None), ("most", None)])
def test_a_share_of_memory_is_above_nothing_and_at_most_everything(text: str, share: float | None) -> None:
    settings = engine("VLLM", f"--gpu-memory-utilization={text}")
    if share is not None:
        assert settings.memory_utilization == share
        return
    with pytest.raises(SettingError, match=f"is '{text}'; allowed: a number above 0 and at most 1"):
        settings.check()


@pytest.mark.parametrize(
    ("kind", "argument", "name", "value"),
    [
        ("VLLM", "--max-model-len=1", "context_tokens", 1),
        ("SGLang", "--page-size=1", "block_tokens", 1),
        ("VLLM", "--block-size=16", "block_tokens", 16),
    ],
)
def test_the_smallest_values_are_accepted(kind: str, argument: str, name: str, value: int) -> None:
    settings = engine(kind, argument)
    settings.check()
    assert getattr(settings, name) == value


@pytest.mark.parametrize(
    ("arguments", "fixed", "planned"),
    [
        ((), False, True),
        (("--max-num-batched-tokens=4096",), True, False),
        (("--no-enable-chunked-prefill",), False, False),
        (("--max-num-scheduled-tokens=64",), False, False),
    ],
)
def test_the_plan_chooses_steps_unless_an_argument_does(arguments: tuple[str, ...], fixed: bool, planned: bool) -> None:
    settings = engine("VLLM", *arguments)
    assert (settings.fixes_steps, settings.plans_steps) == (fixed, planned)


@pytest.mark.parametrize(
    ("name", "arguments", "gpu", "ranks", "tokens"),
    [
        ("VLLM", (), "H100", 4, 8192),
        ("SGLang", (), "H100", 1, 8192),
        ("SGLang", (), "H100", 4, 2048),
        ("SGLang", (), "H100", 9000, 1),
        ("SGLang", ("--chunked-prefill-size=512",), "H100", 4, 512),
        ("VLLM", ("--max-num-batched-tokens=512",), None, 1, 512),
        ("VLLM", (), None, 1, None),
    ],
)
def test_a_plan_without_steps_runs_those_of_the_engine(
    name: str, arguments: tuple[str, ...], gpu: str | None, ranks: int, tokens: int | None
) -> None:
    """SGLang divides the tokens of a step by the data-parallel ranks."""
    settings = engine(name, *arguments)
    assert settings.own_steps(None if gpu is None else find_gpu(gpu), ranks) == tokens


@pytest.mark.parametrize(
    ("name", "scaling", "context"),
    [
        ("VLLM", {"rope_type": "linear", "factor": 2}, 32_768),
        ("VLLM", {"type": "dynamic", "factor": 1.5}, 24_576),
        ("VLLM", {"rope_type": "linear", "factor": True}, 16_384),
        ("VLLM", {"rope_type": "linear", "factor": "2"}, 16_384),
        ("VLLM", {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 8192}, 16_384),
        ("VLLM", {"rope_type": "llama3", "factor": 8}, 16_384),
        ("SGLang", {"rope_type": "llama3", "factor": 8}, 16_384),
        ("SGLang", {"rope_type": "linear", "factor": 8, "original_max_position_embeddings": 4096}, 16_384),
        ("SGLang", {"rope_type": "linear", "factor": 8}, 131_072),
        ("SGLang", {"rope_type": "yarn", "factor": 8}, 131_072),
        ("VLLM", "linear", 16_384),
    ],
)
def test_an_override_of_the_position_scaling_sets_the_context(name: str, scaling: object, context: int) -> None:
    option = "--hf-overrides" if name == "VLLM" else "--json-model-override-args"
    settings = engine(name, option, json.dumps({"rope_scaling": scaling}))
    assert settings.context_of(PHI) == context


@pytest.mark.parametrize(("given", "context"), [(1, 1), (0, 16_384), (-1, 16_384), (True, 16_384), ("8", 16_384)])
def test_an_override_of_the_context_is_a_whole_number_above_0(given: object, context: int) -> None:
    settings = engine("VLLM", "--hf-overrides", json.dumps({"max_position_embeddings": given}))
    assert settings.context_of(PHI) == context


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        ({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 8192}, 32_768),
        ({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": True}, 65_536),
        ({"rope_type": "yarn", "factor": 4}, 65_536),
        ({"rope_type": "linear", "factor": 4, "original_max_position_embeddings": 8192}, 65_536),
    ],
)
def test_older_versions_multiply_the_context_of_yarn(scaling: dict[str, Any], context: int) -> None:
    """Only YaRN scales the context of its training; the others scale the context of the checkpoint."""
    settings = engine("VLLM", "--hf-overrides", json.dumps({"rope_scaling": scaling}), image="vllm/vllm-openai:v0.29.0")
    assert settings.context_of(PHI) == context


@pytest.mark.parametrize(
    ("arguments", "tokens"),
    [
        ((), 16_384),
        (("--max-model-len=8192",), 8192),
        (("--num-gpu-blocks-override=100",), 1600),
        (("--max-model-len=1000", "--num-gpu-blocks-override=100"), 1000),
        (("--max-model-len=2000", "--num-gpu-blocks-override=100"), 1600),
    ],
)
def test_the_longest_request_fits_into_context_and_cache(arguments: tuple[str, ...], tokens: int) -> None:
    assert longest_request(PHI, engine("VLLM", *arguments)) == tokens
