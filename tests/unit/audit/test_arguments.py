"""What running engines were told, in the spellings that people use."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from energylens.audit.arguments import EngineArguments, RunningLayout, read_engine
from energylens.audit.invocation import Invocation, Unread, find_invocation, version_of_image

OPENAI = "docker.io/vllm/vllm-openai:v0.24.0"


def invoked(line: str, image: str = "registry.example/engines:1", *, has_command: bool = True) -> Invocation | Unread:
    return find_invocation([shlex.split(line)] if line else [], image, has_command=has_command)


def told(line: str, image: str = "registry.example/engines:1", **given: Any) -> EngineArguments:
    found = invoked(line, image, has_command=not line.startswith("-"))
    assert isinstance(found, Invocation), found
    return read_engine(found, (0, 24, 0), **given)


@pytest.mark.parametrize(
    ("line", "layout"),
    [
        ("vllm serve org/m", RunningLayout()),
        ("vllm serve org/m --tensor-parallel-size 4 --max-num-seqs 64", RunningLayout(4, max_batch_size=64)),
        ("vllm serve org/m -tp 4 -pp=2", RunningLayout(4, 2)),
        ("vllm serve --tensor_parallel_size=4 org/m", RunningLayout(4)),
        ("vllm serve org/m --tensor-par 4", RunningLayout(4)),
        ("vllm serve org/m -tp 2 -dp 4 -ep", RunningLayout(2, 1, 8, 4)),
        ("vllm serve org/m -tp 2 --enable-expert-parallel --no-enable-expert-parallel", RunningLayout(2)),
        ("vllm serve org/m -tp 2 -tp 8", RunningLayout(8)),
        ("python3 -m vllm.entrypoints.openai.api_server --model org/m -tp 2", RunningLayout(2)),
        ("numactl -N 0 python -m vllm.entrypoints.cli.main serve org/m -tp 2", RunningLayout(2)),
        ("/opt/venv/bin/vllm serve org/m -tp 2", RunningLayout(2)),
        ("python3 /vllm-workspace/vllm/entrypoints/openai/api_server.py --model org/m -tp 2", RunningLayout(2)),
        ("python3 -m dynamo.vllm --model org/m --tensor-parallel-size 2", RunningLayout(2)),
        ("python -m sglang.launch_server --model-path org/m --tp 8", RunningLayout(8)),
        ("sglang serve --model org/m --tp-size=8 --pp-size 2", RunningLayout(8, 2)),
        ("python -m sglang.launch_server --model-path org/m --tp 8 --dp 8 --enable-dp-attention --ep 8 "
         "--max-running-requests 512", RunningLayout(1, 1, 8, 8, 64)),
        ("python -m sglang.launch_server --model-path org/m --tp 2 --dp 4", RunningLayout(2, 1, 1, 4)),
        ("trtllm-serve org/m --tp_size 4 --ep-size=4 --max_batch_size 128", RunningLayout(4, 1, 4, 1, 128)),
        ("trtllm-serve serve org/m --tp_size=2", RunningLayout(2)),
    ],
)  # fmt: skip
def test_layouts(line: str, layout: RunningLayout) -> None:
    found = told(line)
    assert (found.model, found.layout, found.notes) == ("org/m", layout, ())


def test_the_image_of_vllm_has_a_server_as_its_entrypoint() -> None:
    assert told("--model org/m -tp 2", OPENAI).layout.tensor_parallel == 2
    assert told("--model org/m", "ghcr.io/a/vllm-openai-cu13@sha256:0").model == "org/m"


@pytest.mark.parametrize(
    ("line", "image", "why"),
    [
        ("", "registry.example/own-engine:3", "entrypoint of image registry.example/own-engine:3"),
        ("", "nvcr.io/nim/meta/llama-3.1-8b-instruct:1.8", "NVIDIA NIM"),
        ("--model-id org/m", "ghcr.io/huggingface/text-generation-inference:3.3", "Text Generation Inference"),
    ],
)
def test_entrypoints_that_are_not_read(line: str, image: str, why: str) -> None:
    found = invoked(line, image, has_command=False)
    assert isinstance(found, Unread)
    assert why in found.reason


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("python train.py --vllm serve", "starts no known engine: python train.py"),
        ("ollama serve", "Ollama"),
        ("ray start --head --block", "Ray"),
        ("vllm bench serve", "starts no known engine"),
    ],
)
def test_commands_that_are_not_read(line: str, why: str) -> None:
    found = invoked(line)
    assert isinstance(found, Unread)
    assert why in found.reason


def test_a_script_that_starts_one_of_several_servers_is_not_guessed() -> None:
    lines = [shlex.split("then vllm serve a"), shlex.split("else vllm serve b")]
    found = find_invocation(lines, "i:1", has_command=True)
    assert isinstance(found, Unread)
    assert "several servers: `vllm serve a ...` and `vllm serve b ...`" in found.reason
    assert isinstance(find_invocation([lines[0], lines[0]], "i:1", has_command=True), Invocation)


def test_what_a_plan_sets_is_left_out_and_the_rest_stays_as_an_engine_takes_it() -> None:
    found = told(
        "vllm serve org/m --tensor-parallel-size 4 --gpu-memory-utilization 0.9 --served-model-name a b --port 80 "
        "--hf-overrides.rope_scaling.factor 4 --enable-prefix-caching --revision main"
    )
    assert found.extra_args == (
        "--gpu-memory-utilization=0.9",
        "--served-model-name",
        "a",
        "b",
        "--hf-overrides.rope_scaling.factor=4",
        "--enable-prefix-caching",
    )
    assert found.left_out == ("--tensor-parallel-size=4", "--port=80", "--revision=main")
    assert (found.port, found.served_name, found.revision) == (80, "a", "main")


def test_options_of_a_front_end_are_not_the_engines() -> None:
    found = told("python3 -m dynamo.vllm --model org/m --endpoint dyn://a.b.c --max-model-len 4096")
    assert found.extra_args == ("--max-model-len=4096",)


@pytest.mark.parametrize(
    ("line", "port"),
    [
        ("vllm serve org/m", 8000),
        ("python -m sglang.launch_server --model-path org/m", 30000),
        ("python -m huggingfaceserver --model_id=org/m --model_name=chat", 8080),
        ("python -m huggingfaceserver --model_id=org/m --http_port=9000", 9000),
    ],
)
def test_where_metrics_are(line: str, port: int) -> None:
    found = told(line)
    assert (found.model, found.port) == ("org/m", port)


@pytest.mark.parametrize(
    ("line", "apart"),
    [
        ("python3 -m dynamo.vllm --model org/m --is-prefill-worker", True),
        ("python3 -m sglang.launch_server --model-path org/m --disaggregation-mode decode", True),
        ("""vllm serve org/m --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_producer"}'""", True),
        ("""vllm serve org/m --kv-transfer-config '{"kv_connector":"LMCache","kv_role":"kv_both"}'""", False),
        ("vllm serve org/m", False),
    ],
)
def test_prefill_and_decode_apart(line: str, apart: bool) -> None:
    assert told(line).apart is apart


def test_values_that_only_a_shell_knows_are_told() -> None:
    found = told("vllm serve org/m -tp '$(nvidia-smi -L | wc -l)' --max-num-seqs many")
    assert found.layout == RunningLayout()
    assert found.notes == (
        "-tp: the value of $(nvidia-smi -L | wc -l) is not known here",
        "'--max-num-seqs': 'many' is not a number above 0",
    )


@pytest.mark.parametrize(
    ("line", "model"),
    [
        ("python3 -m huggingfaceserver --model_name=chat --model_dir=/mnt/models -tp 2", "/mnt/models"),
        ("python3 -m huggingfaceserver --model_id=org/m --backend vllm -tp 2", "org/m"),
        ("python3 -m dynamo.vllm --model org/m --is-prefill-worker -tp 2", "org/m"),
    ],
)
def test_options_of_a_front_end_are_read_and_not_passed_on(line: str, model: str) -> None:
    found = told(line)
    assert (found.model, found.layout.tensor_parallel) == (model, 2)
    assert not [word for word in found.extra_args if "model" in word or "worker" in word or "backend" in word]


def test_an_option_that_the_planned_engine_lacks_is_left_out_and_named() -> None:
    line = "vllm serve org/m --num-scheduler-steps 8 -tp 2"
    read = invoked(line, "registry.example/engines:1", has_command=True)
    assert isinstance(read, Invocation)
    # Without a version the options are those of the version that plans use; other versions decide for themselves.
    assert read_engine(read, None).left_out == ("--num-scheduler-steps=8", "-tp=2")
    assert told(line).extra_args == ("--num-scheduler-steps=8",)


def test_words_that_may_hold_any_argument_are_kept_apart() -> None:
    assert told("vllm serve org/m '$EXTRA'").open_words == ("$EXTRA",)
    assert told("vllm serve '$MODEL' -tp 2").model == ""
    assert told("vllm serve --model='$MODEL' -tp 2").open_words == ()
    for word in ("$ARGS", "$MODEL_ARGS", "$(model-options)", "`model`"):
        assert told(f"vllm serve '{word}' -tp 2").open_words == (word,)
    assert told("vllm serve -tp 2 '$MODEL'").open_words == ("$MODEL",)


@pytest.mark.parametrize("word", ["$MODEL", "${MODEL_ID}", "$(HF_MODEL)", "$MODEL_NAME", "${MODEL_PATH:?}"])
def test_a_model_of_unknown_name_leaves_the_other_arguments_readable(word: str) -> None:
    found = told(f"vllm serve '{word}' -tp 2 --max-num-seqs 32")
    assert (found.model, found.open_words) == ("", ())
    assert found.layout == RunningLayout(2, max_batch_size=32)


def test_a_configuration_file_counts_below_the_command_line() -> None:
    line = "vllm serve org/m --config /etc/vllm.yaml --max-num-seqs 32"
    config = {"tensor_parallel_size": 4, "max-num-seqs": 256, "enable-prefix-caching": True, "swap": False, "a": [1, 2]}
    found = told(line, read_file=lambda path: config if path == "/etc/vllm.yaml" else None)
    assert found.layout == RunningLayout(4, max_batch_size=32)
    assert "--enable-prefix-caching" in found.extra_args
    (note,) = told(line).notes
    assert note == "the options in /etc/vllm.yaml (--config) could not be read"


@pytest.mark.parametrize(
    ("image", "version"),
    [
        (OPENAI, "0.24.0"),
        ("lmsysorg/sglang:v0.5.15-cu129", "0.5.15"),
        ("registry:5000/vllm:0.24.1", "0.24.1"),
        ("registry:5000/vllm:0.24", None),
        ("nvcr.io/nvidia/tensorrt-llm/release:1.2", None),
        ("ghcr.io/a/trtllm:1.2.0", "1.2.0"),
        ("kserve/huggingfaceserver:v0.17.0-gpu", None),
        ("nvcr.io/nvidia/ai-dynamo/vllm-runtime:0.7.0", None),
        ("lmcache/vllm-openai:v0.3.5", None),
        ("python:3.12", None),
        ("vllm/vllm-openai:latest", None),
        ("vllm/vllm-openai:v0.24.0@sha256:00", "0.24.0"),
        ("vllm/vllm-openai@sha256:00", None),
        ("registry:5000/vllm", None),
    ],
)
def test_versions(image: str, version: str | None) -> None:
    assert version_of_image(image) == version
