"""vLLM itself on our command lines: `make engine-test`. Not collected by `make test`: it needs vLLM, some 10 GB.

Every layout that the rules offer for a sample of models and products goes through vLLM's own argument parser and
configuration, in vLLM's own environment (VLLM_PYTHON), and so do arguments that our reading of ``extraArgs`` judges.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from energylens.api.llmdeployment import Engine, LLMDeployment, Overrides, PlanStatus, PowerCap, PredictedFigures
from energylens.data import find_gpu
from energylens.data.catalogue import load_config, load_model
from energylens.planner.engines import PROVED, EngineSettings, SettingError, refusals
from energylens.planner.engines.kernels import capability
from energylens.planner.engines.options import options_of
from energylens.planner.search.space import enumerate_space
from energylens.predictor.model.rules import unsupported_reasons
from energylens.predictor.types import Workload
from energylens.serving import Strategy, manifests

HARNESS = Path(__file__).with_name("vllm_harness.py")
GOLDEN = Path(__file__).parents[1] / "unit" / "serving" / "golden"
OPTIONS = Path(__file__).parents[2] / "operator" / "energylens" / "planner" / "engines" / "vllm_options.py"
VERSION = PROVED["VLLM"]
Ask = Callable[[Any], Any]
ARCHITECTURES = {
    "meta-llama/Llama-3.1-8B-Instruct": "LlamaForCausalLM",
    "meta-llama/Llama-3.1-70B-Instruct": "LlamaForCausalLM",
    "meta-llama/Llama-3.1-405B-Instruct": "LlamaForCausalLM",
    "meta-llama/Llama-3.1-405B-Instruct-FP8": "LlamaForCausalLM",
    "Qwen/Qwen3-32B": "Qwen3ForCausalLM",
    "Qwen/Qwen3-32B-FP8": "Qwen3ForCausalLM",
    "Qwen/Qwen2.5-72B-Instruct-AWQ": "Qwen2ForCausalLM",
    "Qwen/Qwen3-30B-A3B": "Qwen3MoeForCausalLM",
    "Qwen/Qwen3-235B-A22B-Instruct-2507": "Qwen3MoeForCausalLM",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "MixtralForCausalLM",
}
MORE = {
    "awq": {"zero_point": True, "version": "gemm"},
    "fbgemm_fp8": {"activation_scale_ub": 1200.0, "modules_to_not_convert": []},
    "fp8": {"activation_scheme": "dynamic"},
}
"""Fields of quantization_config that vLLM wants and that set no shape, which the catalogue leaves out."""
PRODUCTS = ("H100", "A100", "B200", "L40S")
EACH = 4
"""Layouts of every model and product."""
ARGUMENTS = (
    ["--gpu_memory_utilization", "0.5"],
    ["--gpu-mem=0.5"],
    ["--gpu-memory-utilization=90%"],
    ["--gpu-memory-utilization"],
    ["--max-num-batched-tokens=16k"],
    ["--max-num-batched-tokens=auto"],
    ["--max-model-len=1e5"],
    ["--max-model-len", "8K"],
    ["--kv-cache-dtype=fp8"],
    ["--kv-cache-dtype=FP8"],
    ["--kv-cache-memory=10G"],
    ["--kv-cache-memory-bytes=10Gi"],
    ["--block_size=32"],
    ["--block-size=0"],
    ["--block-size=x"],
    ["-O3"],
    ["-O", "2"],
    ["-O=1"],
    ["-O4"],
    ["-cc.mode=3"],
    ["-sc", '{"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 4}'],
    ["--hf-overrides.a=1", "--hf-overrides", '{"b": 2}'],
    ["--dtype=half"],
    ["--dtype=int8"],
    ["--performance-mode=fast"],
    ["--seed", "-1"],
    ["--seed 1"],
    ["--no-enable-prefix-caching"],
    ["--enable-prefx-caching"],
    ["--enable-l"],
    ["--enforce-eager=true"],
    ["--enable-chunked-prefill", "True"],
    ["--disable-log-requests"],
    ["--swap-space=4"],
    ["--task=generate"],
    ["--max-num-partial-prefills=2"],
    ["--cuda-graph-sizes", "1", "2"],
    ["--MAX-MODEL-LEN=100"],
    ["loose"],
)


@pytest.fixture(scope="session")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Start vLLM's Python once, since the import takes minutes, and return what asks it a question."""
    python = os.environ.get("VLLM_PYTHON", "")
    assert python, "VLLM_PYTHON does not name the Python of an environment with vLLM; run `make engine-test`"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    environment.pop("PYTHONPATH", None)
    log = tmp_path_factory.mktemp("vllm") / "stderr"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [python, str(HARNESS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
            env=environment,
        ) as process,
    ):  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        def answer(question: Any) -> Any:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                if line.startswith("ANSWER "):
                    return json.loads(line.removeprefix("ANSWER "))
            pytest.fail(f"{python} could not be asked; is vLLM {VERSION} installed there?\n{log.read_text()[-2000:]}")

        yield answer
        process.stdin.close()


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A folder with config.json for each model."""
    found = {}
    for name, architecture in ARCHITECTURES.items():
        folder = tmp_path_factory.mktemp("models") / name.replace("/", "_")
        folder.mkdir()
        config = load_config(name) | {"architectures": [architecture], "torch_dtype": "bfloat16"}
        if "quantization_config" in config:
            quant = config["quantization_config"]
            config["quantization_config"] = MORE[quant["quant_method"]] | quant
        (folder / "config.json").write_text(json.dumps(config))
        found[name] = str(folder)
    return found


def plans() -> Iterator[tuple[str, str, PlanStatus]]:
    """Layouts spread over those that the rules offer for two nodes of eight."""
    settings, workload = EngineSettings(), Workload(300, 400)
    for name in ARCHITECTURES:
        model = load_model(name)
        for product in PRODUCTS:
            gpu = find_gpu(product)
            space = enumerate_space(model, gpu, [8, 8], Overrides(max_batch_size=64), PowerCap())
            refused = refusals(model, gpu, space.layouts, space.nodes_per_replica, workload, settings)
            layouts = space.layouts
            apart = (space.nodes_per_replica > 1) & (
                space.gpus_per_node % (layouts.tensor_parallel * layouts.pipeline_parallel) != 0
            )
            broken = (layouts.data_parallel > 1) & apart
            kept = np.flatnonzero((refused == "") & (unsupported_reasons(model, layouts) == "") & ~broken)
            for i in kept[np.unique(np.linspace(0, kept.size - 1, EACH).astype(int))]:
                yield name, product, status(gpu.product, layouts, int(i), int(space.nodes_per_replica[i]))


def status(product: str, layouts: Any, i: int, nodes: int) -> PlanStatus:
    degrees = {
        name: int(getattr(layouts, name)[i])
        for name in ("tensor_parallel", "pipeline_parallel", "expert_parallel", "data_parallel", "max_batch_size")
    }
    figures = PredictedFigures(
        joules_per_output_token="1", joules_per_output_token_low="1", joules_per_output_token_high="1", power_watts=1,
        idle_power_watts=1, output_tokens_per_second=1, concurrency=1, ttft_milliseconds=1, itl_milliseconds=1,
    )  # fmt: skip
    return PlanStatus(
        hash="0123456789abcdef", predictor_version="1", confidence="Extrapolated", binding_constraint="None",
        gpu_product=product, gpus=int(layouts.gpus[i]), replicas=1, nodes_per_replica=nodes, predicted=figures,
        **degrees,
    )  # fmt: skip


def argvs(document: dict[str, Any], nodes: int) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The arguments of ``vllm serve`` in every kind of pod, as Kubernetes and the shell would expand them."""
    spec = document["spec"]
    group = spec.get("leaderWorkerTemplate", spec)
    for kind in ("template", "leaderTemplate", "workerTemplate"):
        if kind not in group:
            continue
        container = group[kind]["spec"]["containers"][0]
        env = {e["name"]: str(e["value"]) for e in container["env"] if e["name"].startswith("VLLM_") and "value" in e}
        index = "1" if kind == "workerTemplate" else "0"
        values = {"LWS_GROUP_SIZE": str(nodes), "LWS_WORKER_INDEX": index, "LWS_LEADER_ADDRESS": "127.0.0.1"}
        values["POD_IP"] = "127.0.0.1"
        args = [_expanded(arg, values) for arg in container["args"]]
        script = next((text for text in container["command"] if text.startswith("exec vllm")), "")
        ranks = re.search(r"LWS_WORKER_INDEX \* (\d+)", script)
        if ranks:
            args.append(f"--data-parallel-start-rank={int(index) * int(ranks[1])}")
        elif "--headless" not in args:
            args.append("--host=::")
        yield args, env


def _expanded(argument: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        argument = argument.replace(f"$({name})", value)
    return argument


def stub(product: str) -> dict[str, Any]:
    gpu = find_gpu(product)
    return {
        "capability": capability(gpu),
        "name": gpu.product.replace("-", " "),
        "memory": gpu.memory_bytes,
        "count": 8,
    }


def test_vllm_configures_every_layout_that_is_offered_as_it_was_planned(folders: dict[str, str], ask: Ask) -> None:
    cases, wanted = [], []
    for name, product, plan in plans():
        deployment = LLMDeployment.model_validate(
            {
                "metadata": {"name": "chat", "namespace": "a", "uid": "1"},
                "spec": {
                    "model": {"name": name},
                    "workload": {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": "1"},
                },
            }
        )
        workload = manifests(deployment, plan, load_model(name), strategy=Strategy("Surge", 1, 0))[0]
        for argv, env in argvs(workload, plan.nodes_per_replica):
            cases.append({"argv": [folders[name], *argv[1:]], "gpu": stub(product), "env": env})
            wanted.append((name, plan))
    assert len(cases) >= 100
    wrong = []
    for case, (name, plan), answer in zip(cases, wanted, ask(cases), strict=True):
        expected = {
            "tensor": plan.tensor_parallel,
            "pipeline": plan.pipeline_parallel,
            "data": plan.data_parallel,
            "expert": plan.expert_parallel > 1,
            "batch": plan.max_batch_size,
        }
        found = {key: answer.get(key) for key in expected}
        if "error" in answer or found != expected:
            wrong.append((name, plan.gpu_product, plan.layout, case["argv"][1:], answer.get("error", found)))
    assert not wrong, f"{len(wrong)} of {len(cases)}: {wrong[:5]}"


def test_vllm_parses_the_golden_command_lines(folders: dict[str, str], ask: Ask) -> None:
    cases = []
    for path in sorted(GOLDEN.glob("*.yaml")):
        if "sglang" in path.name:
            continue
        # Prefill and decode are two Deployments.
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] not in ("Deployment", "LeaderWorkerSet"):
                continue
            for argv, env in argvs(document, 2):
                cases.append({"argv": [folders[_model_of(argv)], *argv[1:]], "gpu": stub("H200"), "env": env})
    errors = [
        (case["argv"], answer["error"]) for case, answer in zip(cases, ask(cases), strict=True) if "error" in answer
    ]
    assert not errors


def _model_of(argv: list[str]) -> str:
    """Return the model that a command line serves; its weights may be in a folder of another name."""
    served = [argument.partition("=")[2] for argument in argv if argument.startswith("--served-model-name=")]
    return served[0] if served else argv[0]


def test_extra_arguments_are_judged_as_vllm_judges_them(folders: dict[str, str], ask: Ask) -> None:
    folder = folders["Qwen/Qwen3-32B"]
    cases = [{"argv": [folder, *given], "gpu": stub("H100"), "env": {}} for given in ARGUMENTS]
    answers = ask(cases)
    for given, answer in zip(ARGUMENTS, answers, strict=True):
        assert _is_refused(given) is ("error" in answer), (given, answer)


def _is_refused(arguments: list[str]) -> bool:
    try:
        EngineSettings.of(Engine(type="VLLM", extra_args=tuple(arguments))).check()
    except SettingError:
        return True
    return False


def test_the_options_are_those_of_the_parser(ask: Ask) -> None:
    lines = ask("options")
    if os.environ.get("UPDATE_OPTIONS"):
        head = OPTIONS.read_text().partition('OPTIONS = """')[0]
        OPTIONS.write_text(head + 'OPTIONS = """\\\n' + "\n".join(lines) + '\n"""\n')
    assert lines == sorted(
        " ".join(option.spellings) + option.values + "|".join(option.choices) + (option.number and f":{option.number}")
        for option in options_of("VLLM")
    )
