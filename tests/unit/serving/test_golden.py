"""Whole manifests as they are applied. Run with UPDATE_GOLDEN=1 after a wanted change, then read the diff."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, PrefillReplicas
from energylens.data import load_gpus
from energylens.planner.engines import PROVED
from energylens.planner.engines.arguments import read_arguments
from energylens.predictor.model.architecture import ModelSpec
from energylens.serving import Placement, Strategy, manifests

GOLDEN = Path(__file__).parent / "golden"
WITH_ROLES: dict[str, Any] = {
    "planning": {"disaggregation": "Follow"},
    "routing": {
        "inferencePool": {"endpointPicker": {"name": "chat-epp"}},
        "disaggregation": {"router": "LLMD", "sidecarImage": "registry.example.com/sidecar:v1"},
    },
}
PREFILL = PrefillReplicas(
    replicas=2, tensor_parallel=2, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=4
)
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "8b-tp1": (
        "8b",
        {"model": "meta-llama/Llama-3.1-8B-Instruct", "engine": {"extraArgs": ["--enable-prefix-caching"]}},
        {"replicas": 2, "gpu_product": "NVIDIA-L40S", "max_batch_size": 256},
    ),
    "70b-tp4": (
        "70b",
        {
            "model_part": {
                "revision": "1605565",
                "quantization": "FP8",
                "tokenSecretRef": {"name": "huggingface"},
                "cache": {"persistentVolumeClaim": "models"},
            },
            "hardware": {"nodeSelector": {"pool": "llm"}, "tolerations": [{"key": "team", "value": "a"}]},
        },
        {"tensor_parallel": 4},
    ),
    "405b-tp8": (
        "405b-fp8",
        {"model": "meta-llama/Llama-3.1-405B-Instruct-FP8", "model_part": {"cache": {"hostPath": "/var/lib/models"}}},
        {"tensor_parallel": 8, "gpu_product": "NVIDIA-H200", "max_batch_size": 128},
    ),
    "405b-two-nodes": (
        "405b",
        {"model": "meta-llama/Llama-3.1-405B-Instruct"},
        {"tensor_parallel": 8, "pipeline_parallel": 2, "nodes_per_replica": 2, "replicas": 2},
    ),
    "wide-ep-two-nodes": (
        "moe",
        {"model": "Qwen/Qwen3-235B-A22B-Instruct-2507"},
        {"tensor_parallel": 2, "data_parallel": 8, "expert_parallel": 16, "nodes_per_replica": 2},
    ),
    "8b-from-an-image": (
        "8b",
        {
            "model": "meta-llama/Llama-3.1-8B-Instruct",
            "model_part": {
                "source": {
                    "image": {"reference": "registry.example.com/llama-8b:1", "path": "model", "pullPolicy": "Never"}
                }
            },
        },
        {"gpu_product": "NVIDIA-L40S"},
    ),
    "8b-sglang-from-a-claim": (
        "8b",
        {
            "model": "meta-llama/Llama-3.1-8B-Instruct",
            "engine": {"type": "SGLang"},
            "model_part": {"source": {"persistentVolumeClaim": {"claimName": "weights", "path": "llama/8b"}}},
        },
        {"gpu_product": "NVIDIA-L40S"},
    ),
    "8b-from-a-mirror": (
        "8b",
        {
            "model": "meta-llama/Llama-3.1-8B-Instruct",
            "model_part": {
                "cache": {"persistentVolumeClaim": "models"},
                "source": {
                    "hub": {"endpoint": "https://hub.example.com/", "offline": True, "caRef": {"name": "site-ca"}}
                },
            },
        },
        {"gpu_product": "NVIDIA-L40S"},
    ),
    "moe-sglang": (
        "moe",
        {"model": "Qwen/Qwen3-235B-A22B-Instruct-2507", "engine": {"type": "SGLang"}},
        {"tensor_parallel": 4, "data_parallel": 2, "expert_parallel": 8, "gpu_product": "NVIDIA-H200"},
    ),
    "8b-short-steps": (
        "8b",
        {"model": "meta-llama/Llama-3.1-8B-Instruct"},
        {"gpu_product": "NVIDIA-L40S", "max_batched_tokens": 1024},
    ),
    "moe-sglang-short-steps": (
        "moe",
        {"model": "Qwen/Qwen3-235B-A22B-Instruct-2507", "engine": {"type": "SGLang"}},
        {
            "tensor_parallel": 4,
            "data_parallel": 2,
            "expert_parallel": 8,
            "gpu_product": "NVIDIA-H200",
            "max_batched_tokens": 2048,
        },
    ),
    "70b-prefill-decode": (
        "70b",
        {
            **WITH_ROLES,
        },
        {
            "tensor_parallel": 4,
            "serving_hash": "89abcdef01234567",
            "prefill": PREFILL,
        },
    ),
    "70b-sglang-prefill-decode": (
        "70b",
        {
            "engine": {"type": "SGLang", "extraArgs": ["--disaggregation-ib-device=mlx5_0"]},
            **WITH_ROLES,
        },
        {
            "tensor_parallel": 2,
            "serving_hash": "89abcdef01234567",
            "prefill": PREFILL,
        },
    ),
    "405b-sglang-two-nodes": (
        "405b",
        {"model": "meta-llama/Llama-3.1-405B-Instruct", "engine": {"type": "SGLang"}},
        {"tensor_parallel": 8, "pipeline_parallel": 2, "nodes_per_replica": 2},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_manifests(
    case: str,
    models: dict[str, ModelSpec],
    make_deployment: Callable[..., LLMDeployment],
    make_plan: Callable[..., PlanStatus],
) -> None:
    model, parts, plan = CASES[case]
    deployment = make_deployment(**parts)
    table = [{"gpuProduct": "NVIDIA-H200", "reason": "uses 12 % more energy"}]
    made = make_plan(**plan)
    gpu = load_gpus()[made.gpu_product]
    objects = manifests(
        deployment, made, models[model], strategy=Strategy("Surge", 1, 0), placement=Placement(gpu), table=table
    )
    path, text = GOLDEN / f"{case}.yaml", yaml.safe_dump_all(objects, sort_keys=False, width=120)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    # As text, since the order of keys is what commands print, and what a diff of the file would show.
    assert text == path.read_text()


@pytest.mark.parametrize("name", [name for name in CASES if "sglang" in name])
def test_sglang_knows_every_argument(name: str) -> None:
    for body in yaml.safe_load_all((GOLDEN / f"{name}.yaml").read_text()):
        spec = body.get("spec", {})
        parts = spec.get("leaderWorkerTemplate", spec)
        for part in ("template", "leaderTemplate", "workerTemplate"):
            for container in parts.get(part, {}).get("spec", {}).get("containers", ()):
                expanded = [arg.replace("$(LWS_WORKER_INDEX)", "1") for arg in container["args"]]
                assert read_arguments(expanded, "SGLang", PROVED["SGLang"]).problems == ()
