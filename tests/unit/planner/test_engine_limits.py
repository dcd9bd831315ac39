from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from energylens.api.llmdeployment import Engine, LLMDeployment
from energylens.data import find_gpu
from energylens.planner import plan
from energylens.planner.engine_limits import EngineLimits, default_step_tokens
from energylens.planner.types import ClusterSnapshot, Feasible, Infeasible
from energylens.predictor.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

H100 = "NVIDIA-H100-80GB-HBM3"


@pytest.mark.parametrize(
    ("gpu", "tokens"), [("B200", 16384), ("H200", 8192), ("H100", 8192), ("A100-SXM4-80GB", 2048), ("L40S", 2048)]
)
def test_the_tokens_of_a_step_follow_from_the_gpu(gpu: str, tokens: int) -> None:
    assert default_step_tokens(find_gpu(gpu)) == tokens


@pytest.mark.parametrize(
    ("arguments", "tokens"),
    [
        ((), None),
        (("--max-num-batched-tokens=4096",), 4096),
        (("--max-num-batched-tokens", "16384", "--enforce-eager"), 16384),
        (("--max_num_batched_tokens=16k",), 16000),
        (("--max-num-batched-tokens=2K",), 2048),
        (("--max-num-batched-tokens",), None),
    ],
)
def test_arguments_set_the_tokens_of_a_step(arguments: tuple[str, ...], tokens: int | None) -> None:
    assert EngineLimits.of(Engine(extra_args=arguments)).step_tokens == tokens


@pytest.fixture
def attempt(
    models: dict[str, ModelSpec],
    gpus: dict[str, GpuSpec],
    predictor: Any,
    make_snapshot: Callable[..., ClusterSnapshot],
    make_deployment: Callable[..., LLMDeployment],
) -> Callable[..., Feasible | Infeasible]:
    def build(**parts: Any) -> Feasible | Infeasible:
        return plan(make_deployment(**parts), models["8b"], make_snapshot((H100, 2, 2)), gpus, predictor)

    return build


def test_a_batch_that_vllm_refuses_is_no_plan(attempt: Callable[..., Feasible | Infeasible]) -> None:
    planning = {"overrides": {"maxBatchSize": 9000}}
    refused = attempt(planning=planning)
    assert isinstance(refused, Infeasible)
    assert refused.reason == "InvalidOverride"
    assert "max batch 9000 is more than the 8192 tokens of a step on H100" in refused.message
    assert isinstance(attempt(planning=planning, engine={"type": "SGLang"}), Feasible)
    raised = {"extraArgs": ["--max-num-batched-tokens=16384"]}
    assert isinstance(attempt(planning=planning, engine=raised), Feasible)


def test_sglang_copies_of_a_dense_model_stay_on_one_node(attempt: Callable[..., Feasible | Infeasible]) -> None:
    planning = {"overrides": {"dataParallel": 4, "tensorParallel": 1, "pipelineParallel": 1}}
    assert isinstance(attempt(planning=planning), Feasible)
    refused = attempt(planning=planning, engine={"type": "SGLang"})
    assert isinstance(refused, Infeasible)
    assert "SGLang runs data-parallel copies of a dense model on one node only" in refused.message


def test_memory_is_compared_as_nvml_reports_it() -> None:
    exact = dataclasses.replace(find_gpu("H100"), memory_bytes=70 * 2**30)
    assert default_step_tokens(exact) == 8192
    assert default_step_tokens(dataclasses.replace(exact, memory_bytes=70 * 2**30 - 1)) == 2048
