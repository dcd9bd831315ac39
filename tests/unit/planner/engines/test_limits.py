"""What a user tells an engine about memory, requests and steps changes what is offered, with the shipped predictor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from energylens.api.llmdeployment import LLMDeployment, Overrides, PowerCap
from energylens.data import find_gpu, load_model, load_predictor
from energylens.planner.engines import refusals
from energylens.planner.engines.settings import EngineSettings
from energylens.planner.planning import problem_for
from energylens.planner.search.problem import Problem
from energylens.planner.search.space import enumerate_space
from energylens.planner.types import ClusterSnapshot
from energylens.predictor.types import GpuSpec, Layouts, Workload

Deploy = Callable[..., LLMDeployment]
H100 = find_gpu("H100")
MODEL = "meta-llama/Llama-3.1-70B-Instruct"
REQUEST = Workload(300, 400)


@pytest.fixture
def problem(make_deployment: Deploy) -> Callable[..., Problem]:
    def build(engine: str, *arguments: str, model: str = MODEL) -> Problem:
        deployment = make_deployment(model, engine={"type": engine, "extraArgs": list(arguments)})
        predictor = load_predictor(engine.lower())
        return problem_for(deployment, load_model(model), ClusterSnapshot(()), {}, predictor, None, None)

    return build


def layout(tp: int, batch: int = 64) -> Layouts:
    one, size = np.ones(1, dtype=np.int64), np.asarray([tp], dtype=np.int64)
    return Layouts(size, one, one, one, batch * one, np.asarray([np.nan]))


def capacity(problem: Problem, tp: int = 4, gpu: GpuSpec = H100) -> float:
    return float(problem.predictor.memory(problem.model, gpu, layout(tp), REQUEST).kv_capacity_tokens[0])


def fits(problem: Problem, tp: int, gpu: GpuSpec = H100) -> bool:
    return bool(problem.predictor.memory(problem.model, gpu, layout(tp), REQUEST).fits[0])


def offered(problem: Problem, gpu: GpuSpec = H100) -> set[tuple[int, ...]]:
    """Layouts that engine and memory permit on two nodes of eight GPUs: TP, PP, DP and batch."""
    space = enumerate_space(problem.model, gpu, [8, 8], Overrides(), PowerCap())
    settings = EngineSettings.of(problem.spec.engine)
    refused = refusals(problem.model, gpu, space.layouts, space.nodes_per_replica, REQUEST, settings)
    kept = space.layouts.take(
        problem.predictor.memory(problem.model, gpu, space.layouts, REQUEST).fits & (refused == "")
    )
    columns = (kept.tensor_parallel, kept.pipeline_parallel, kept.data_parallel, kept.max_batch_size)
    return {tuple(row) for row in np.stack(columns, axis=1).tolist()}


@pytest.mark.parametrize(
    ("engine", "arguments"),
    [
        ("VLLM", ("--gpu-memory-utilization=0.5",)),
        ("VLLM", ("--gpu_memory_utilization", "0.5")),
        ("SGLang", ("--mem-fraction-static=0.5",)),
        ("SGLang", ("--mem-fraction-static", "0.5")),
    ],
)
def test_a_smaller_share_of_the_gpu_needs_more_gpus(
    engine: str, arguments: tuple[str, ...], problem: Callable[..., Problem]
) -> None:
    """70B weights are 141 GB: two halves of 0.5 x 80 GB do not hold them, four do."""
    usual, half = problem(engine), problem(engine, *arguments)
    assert (fits(usual, 4), fits(half, 4)) == (True, True)
    assert capacity(half) < capacity(usual)
    assert not fits(half, 2)
    assert (2, 2, 1, 16) in offered(usual)
    assert offered(half) < offered(usual)


@pytest.mark.parametrize(
    ("engine", "arguments", "ratio"),
    [
        ("VLLM", ("--kv-cache-dtype=fp8",), 2.0),
        ("VLLM", ("--kv_cache_dtype", "fp8_e4m3"), 2.0),
        ("VLLM", ("--kv-cache-dtype=bfloat16",), 1.0),
        ("SGLang", ("--kv-cache-dtype=fp8_e5m2",), 2.0),
        ("SGLang", ("--kv-cache-dtype", "bf16"), 1.0),
        ("SGLang", ("--kv-cache-d=fp8_e4m3",), 2.0),
    ],
)
def test_a_smaller_cache_format_holds_more_tokens(
    engine: str, arguments: tuple[str, ...], ratio: float, problem: Callable[..., Problem]
) -> None:
    assert capacity(problem(engine, *arguments)) == pytest.approx(ratio * capacity(problem(engine)), rel=1e-6)


def test_bytes_of_the_cache_are_taken_as_they_are_told(problem: Callable[..., Problem]) -> None:
    """A token of the 70B model takes 80 layers x 2 x 8 heads x 128 x 2 bytes, a quarter of which is on each of four."""
    assert capacity(problem("VLLM", "--kv-cache-memory-bytes=8G")) == pytest.approx(8 * 2**30 / 81920, rel=1e-6)


@pytest.mark.parametrize(
    "spelling", [("--max-model-len=100k",), ("--max_model_len", "100000"), ("--max-model=100000",)]
)
def test_vllms_cache_must_hold_one_request_of_the_context_that_is_told(
    spelling: tuple[str, ...], problem: Callable[..., Problem]
) -> None:
    """On two H100 the weights leave a few thousand tokens: enough for the workload, not for 100,000."""
    assert fits(problem("VLLM", "--max-model-len=1k"), 2) == fits(problem("VLLM"), 2)
    told = problem("VLLM", *spelling)
    assert fits(told, 8)
    small = problem("VLLM", *spelling, "--kv-cache-memory-bytes=1G")
    assert not fits(small, 4)
    assert fits(problem("VLLM", "--max-model-len=1k", "--kv-cache-memory-bytes=1G"), 4)
    assert offered(small) < offered(problem("VLLM", "--kv-cache-memory-bytes=1G"))


@pytest.mark.parametrize(
    ("engine", "arguments"),
    [
        ("VLLM", ("--max-model-len=600",)),
        ("VLLM", ("--max_model_len", "600")),
        ("SGLang", ("--context-length=600",)),
        ("SGLang", ("--context-l", "600")),
    ],
)
def test_nothing_is_offered_where_requests_are_longer_than_the_context_that_is_told(
    engine: str, arguments: tuple[str, ...], problem: Callable[..., Problem]
) -> None:
    assert offered(problem(engine))
    assert offered(problem(engine, *arguments)) == set()


@pytest.mark.parametrize(
    ("engine", "arguments"),
    [
        ("VLLM", ("--max-num-batched-tokens=64k",)),
        ("VLLM", ("--max_num_batched_tokens", "64000")),
        ("SGLang", ("--chunked-prefill-size=64000",)),
        ("SGLang", ("--chunked-p", "64000")),
    ],
)
def test_larger_steps_take_memory_from_the_cache(
    engine: str, arguments: tuple[str, ...], problem: Callable[..., Problem]
) -> None:
    assert capacity(problem(engine, *arguments)) < capacity(problem(engine))


def test_vllms_batch_is_no_larger_than_a_step_that_is_told(problem: Callable[..., Problem]) -> None:
    def largest(*arguments: str) -> int:
        return max(row[3] for row in offered(problem("VLLM", *arguments)))

    assert largest("--max-num-batched-tokens=64") == 64
    assert largest("--max_num_batched_tokens", "64") == 64
    assert largest() > 64


def test_what_is_told_changes_the_hash_of_the_plan(problem: Callable[..., Problem]) -> None:
    told: list[Any] = [
        EngineSettings.of(problem("VLLM", *arguments).spec.engine).planning_inputs()
        for arguments in ((), ("--kv-cache-dtype=fp8",), ("--max-num-batched-tokens=64",), ("--max-model-len=1k",))
    ]
    assert len({str(inputs) for inputs in told}) == 4
