from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, PredictedFigures
from energylens.data import load_model
from energylens.predictor.model.architecture import ModelSpec


@pytest.fixture(scope="session")
def models() -> dict[str, ModelSpec]:
    names = {
        "8b": "meta-llama/Llama-3.1-8B-Instruct",
        "70b": "meta-llama/Llama-3.1-70B-Instruct",
        "405b": "meta-llama/Llama-3.1-405B-Instruct",
        "405b-fp8": "meta-llama/Llama-3.1-405B-Instruct-FP8",
        "moe": "Qwen/Qwen3-235B-A22B-Instruct-2507",
    }
    return {key: load_model(name) for key, name in names.items()}


@pytest.fixture(scope="session")
def make_deployment() -> Callable[..., LLMDeployment]:
    """Build an LLMDeployment named ``chat``; keyword arguments replace the parts of the spec, as on the wire."""

    def build(model: str = "meta-llama/Llama-3.1-70B-Instruct", name: str = "chat", **parts: Any) -> LLMDeployment:
        workload = {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": "2"}
        model_part = {"name": model} | parts.pop("model_part", {})
        metadata = {"name": name, "namespace": "team-a", "uid": "0b1c"}
        return LLMDeployment.model_validate(
            {"metadata": metadata, "spec": {"model": model_part, "workload": workload} | parts}
        )

    return build


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., PlanStatus]:
    """Build a plan; keyword arguments replace its fields, ``gpus`` follows from them."""

    def build(**fields: Any) -> PlanStatus:
        predicted = PredictedFigures(
            joules_per_output_token="412m",
            joules_per_output_token_low="350m",
            joules_per_output_token_high="480m",
            power_watts=1648,
            idle_power_watts=500,
            output_tokens_per_second=4000,
            concurrency=40,
            ttft_milliseconds=120,
            itl_milliseconds=31,
        )
        values = {
            "hash": "0123456789abcdef",
            "predictor_version": "1+test",
            "confidence": "Interpolated",
            "binding_constraint": "None",
            "gpu_product": "NVIDIA-H100-80GB-HBM3",
            "replicas": 1,
            "tensor_parallel": 1,
            "pipeline_parallel": 1,
            "expert_parallel": 1,
            "data_parallel": 1,
            "max_batch_size": 64,
            "predicted": predicted,
        } | fields
        per_replica = values["tensor_parallel"] * values["pipeline_parallel"] * values["data_parallel"]
        return PlanStatus(gpus=per_replica * values["replicas"], **values)

    return build
