"""Tokens of a step as a lever: where a plan takes other ones than the engine's default, and where it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from energylens.api.llmdeployment import LLMDeployment, Overrides, PlanStatus
from energylens.data import find_gpu, load_gpus, load_model, load_predictor
from energylens.planner import plan
from energylens.planner.adoption import pinned_to
from energylens.planner.engines import EngineSettings
from energylens.planner.explain.whynot import Choice, why_not
from energylens.planner.planning import problem_for
from energylens.planner.search.identity import action_hash
from energylens.planner.search.space import enumerate_space
from energylens.planner.search.steps import STEP_TOKENS, with_steps
from energylens.planner.types import ClusterSnapshot, Feasible, GpuNode, Infeasible, PlanningResult
from energylens.predictor.model.memory import memory
from energylens.predictor.types import Layouts, Workload

H100 = "NVIDIA-H100-80GB-HBM3"
CLUSTER = ClusterSnapshot((GpuNode(name="a", product=H100, allocatable=4),))
MODEL = "Qwen/Qwen3-8B"
ONE = np.ones(1, dtype=np.int64)


def deployment(*arguments: str, engine: str = "VLLM", **parts: Any) -> LLMDeployment:
    """Long prompts, of which one in sixteen steps computes some: more than a percentile of 95 leaves out."""
    spec = {
        "model": {"name": MODEL},
        "engine": {"type": engine, "extraArgs": list(arguments)},
        "workload": {"inputTokens": 6000, "outputTokens": 300, "requestsPerSecond": "2500m"},
        "slo": {"percentile": "P95", "ttftMilliseconds": 3000, "itlMilliseconds": 60},
    } | parts
    return LLMDeployment.model_validate({"metadata": {"name": "long", "namespace": "team-a"}, "spec": spec})


def planned(asked: LLMDeployment) -> PlanningResult:
    predictor = load_predictor("vllm" if asked.spec.engine.type == "VLLM" else "sglang")
    return plan(asked, load_model(MODEL), CLUSTER, load_gpus(), predictor)


def plan_of(asked: LLMDeployment) -> PlanStatus:
    found = planned(asked)
    assert isinstance(found, Feasible), found
    return found.plan


@pytest.fixture(scope="module")
def smoothed() -> PlanStatus:
    return plan_of(deployment())


def test_shorter_steps_let_half_of_the_gpus_do(smoothed: PlanStatus) -> None:
    own = plan_of(deployment(planning={"overrides": {"maxBatchedTokens": 0}}))
    assert (smoothed.gpus, own.gpus) == (1, 2)
    assert (smoothed.max_batched_tokens, own.max_batched_tokens) == (1024, None)
    assert smoothed.predicted.itl_milliseconds < 60
    beside = next(a for a in smoothed.alternatives if a.gpus == 1 and a.max_batched_tokens is None)
    assert beside.reason.startswith("ITL P95")
    assert "no run had steps of 1024 tokens" in smoothed.confidence_reason


def test_objectives_that_hold_leave_the_engine_alone() -> None:
    found = plan_of(deployment(slo={"percentile": "P95", "ttftMilliseconds": 3000, "itlMilliseconds": 120}))
    assert (found.gpus, found.max_batched_tokens) == (1, None)


def test_longer_steps_are_not_taken_to_hide_long_ones_beyond_a_percentile() -> None:
    # With 16384 tokens fewer than one step in twenty would have prompts, and P95 of ITL would be that of the others.
    found = plan_of(deployment(slo={"percentile": "P95", "ttftMilliseconds": 3000, "itlMilliseconds": 40}))
    assert found.max_batched_tokens is None
    assert found.gpus == 2


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--max-num-batched-tokens=8192"], {}),
        (["--no-enable-chunked-prefill"], {}),
        (["--max-num-scheduled-tokens=8192"], {}),
        ([], {"planning": {"overrides": {"maxBatchedTokens": 8192}}}),
    ],
)
def test_what_fixes_the_steps_leaves_no_choice(arguments: list[str], parts: dict[str, Any]) -> None:
    found = plan_of(deployment(*arguments, **parts))
    assert (found.gpus, found.max_batched_tokens) == (2, None)


def test_an_override_is_what_the_plan_has() -> None:
    found = plan_of(deployment(planning={"overrides": {"maxBatchedTokens": 1536}}))
    assert found.max_batched_tokens == 1536


def test_shorter_steps_let_half_of_the_gpus_do_for_a_number_of_requests_in_flight() -> None:
    load = {"inputTokens": 6000, "outputTokens": 200, "concurrency": 16}
    found = plan_of(deployment(workload=load))
    own = plan_of(deployment(workload=load, planning={"overrides": {"maxBatchedTokens": 0}}))
    assert (found.gpus, own.gpus) == (1, 2)
    assert (found.max_batched_tokens, own.max_batched_tokens) == (1024, None)
    assert found.predicted.itl_milliseconds < 60
    # With 300 output tokens, fewer than one step in twenty has prompts: no step length matters.
    rare = {"inputTokens": 6000, "outputTokens": 300, "concurrency": 12}
    assert plan_of(deployment(workload=rare)).max_batched_tokens is None


def test_a_job_without_latencies_keeps_the_engines_steps() -> None:
    job = {"inputTokens": 6000, "outputTokens": 200, "job": {"requests": 2000, "completeWithinSeconds": 7200}}
    assert plan_of(deployment(workload=job, slo={})).max_batched_tokens is None


def test_sglang_takes_whole_pages_only() -> None:
    slo = {"percentile": "P95", "ttftMilliseconds": 6000, "itlMilliseconds": 60}
    free = plan_of(deployment(engine="SGLang", slo=slo))
    assert free.max_batched_tokens in STEP_TOKENS
    paged = plan_of(deployment("--page-size=48", engine="SGLang", slo=slo))
    assert paged.max_batched_tokens is None
    overrides = {"overrides": {"maxBatchedTokens": 1024, "replicas": 1}}
    refused = planned(deployment("--page-size=48", engine="SGLang", planning=overrides))
    assert isinstance(refused, Infeasible)
    assert any("multiple of the 48 tokens of a page" in rejection.message for rejection in refused.rejections)


def test_a_step_without_chunks_holds_the_context() -> None:
    overrides = {"overrides": {"maxBatchedTokens": 4096}}
    refused = planned(deployment("--no-enable-chunked-prefill", planning=overrides))
    assert isinstance(refused, Infeasible)
    assert any("must hold the 40960 tokens of the context" in rejection.message for rejection in refused.rejections)


def test_a_plan_without_steps_of_its_own_is_the_plan_of_older_releases(smoothed: PlanStatus) -> None:
    plain = smoothed.model_copy(update={"max_batched_tokens": None, "serving_hash": "0123456789abcdef"})
    assert action_hash(plain) == "98e2585b052b7d00"
    assert action_hash(plain) != action_hash(plain.model_copy(update={"max_batched_tokens": 1024}))


@pytest.mark.parametrize("steps", [None, 1024])
def test_a_running_plan_is_judged_with_the_steps_that_it_has(smoothed: PlanStatus, steps: int | None) -> None:
    running = smoothed.model_copy(update={"max_batched_tokens": steps})
    pinned = pinned_to(deployment(), running, load_gpus())
    assert not isinstance(pinned, str)
    found = planned(pinned)
    if steps is None:
        assert isinstance(found, Infeasible)
        assert "ITL P95" in found.message
    else:
        assert isinstance(found, Feasible)
        assert (found.plan.hash, found.plan.max_batched_tokens) == (smoothed.hash, 1024)


@pytest.mark.parametrize(
    ("asked", "steps", "why"),
    [
        (deployment("--max-num-batched-tokens=2048"), 1024, "extraArgs has '--max-num-batched-tokens=2048'"),
        (deployment(planning={"overrides": {"maxBatchedTokens": 2048}}), 1024, "maxBatchedTokens=2048"),
        (deployment(planning={"overrides": {"maxBatchedTokens": 2048}}), None, "maxBatchedTokens=2048"),
        (deployment(planning={"overrides": {"maxBatchedTokens": 0}}), 1024, "maxBatchedTokens=0"),
        (deployment(planning={"overrides": {"maxBatchedTokens": 8192}}), None, ""),
        (deployment(planning={"overrides": {"maxBatchedTokens": 0}}), None, ""),
        (deployment("--max-num-batched-tokens=2048"), None, ""),
    ],
)
def test_a_running_plan_with_other_steps_than_asked_for_does_not_stay(
    smoothed: PlanStatus, asked: LLMDeployment, steps: int | None, why: str
) -> None:
    found = pinned_to(asked, smoothed.model_copy(update={"max_batched_tokens": steps}), load_gpus())
    assert (why in found) if isinstance(found, str) else not why


def test_steps_are_asked_about_like_every_choice() -> None:
    asked = deployment()
    problem = problem_for(asked, load_model(MODEL), CLUSTER, load_gpus(), load_predictor("vllm"), None, None)
    chosen = why_not(problem, Choice(overrides=Overrides(tensor_parallel=1, replicas=1, max_batched_tokens=1024)))
    assert chosen.verdict == "Chosen"
    layout = Overrides(tensor_parallel=1, pipeline_parallel=1, replicas=1, max_batched_tokens=8192)
    own = why_not(problem, Choice(overrides=layout))
    assert own.verdict == "Removed"
    assert "ITL P95" in own.message
    other = why_not(problem, Choice(overrides=Overrides(tensor_parallel=1, max_batched_tokens=1536)))
    assert other.winning[0].changes[0].field == "spec.planning.overrides.maxBatchedTokens"


def layouts(data_parallel: int, tokens: int = 0) -> Layouts:
    return Layouts(ONE, ONE, ONE, ONE * data_parallel, ONE * 16, np.full(1, np.nan), ONE * tokens)


@pytest.mark.parametrize(
    ("engine", "model", "data_parallel", "tokens", "limit"),
    [
        ("VLLM", "Qwen/Qwen3-30B-A3B", 4, 0, 8192),
        ("SGLang", "Qwen/Qwen3-30B-A3B", 4, 0, 2048),
        ("SGLang", "Qwen/Qwen3-30B-A3B", 4, 4096, 4096),
        ("SGLang", MODEL, 4, 0, 8192),
    ],
)
def test_sglang_shares_a_step_out_among_attention_ranks(
    engine: str, model: str, data_parallel: int, tokens: int, limit: int
) -> None:
    settings = EngineSettings(engine)
    found = settings.step_limits(load_model(model), find_gpu("H100"), layouts(data_parallel, tokens))
    assert found.tolist() == [limit]


def test_the_engines_own_number_is_no_other_one() -> None:
    model, gpu, settings = load_model(MODEL), find_gpu("H100"), EngineSettings()
    assert with_steps(layouts(1), 8192, model, gpu, settings).max_batched_tokens.tolist() == [0]
    assert with_steps(layouts(1), 4096, model, gpu, settings).max_batched_tokens.tolist() == [4096]


def test_steps_take_the_memory_of_their_activations() -> None:
    model, gpu, load = load_model(MODEL), find_gpu("H100"), Workload(6000, 300)
    held = [memory(model, gpu, layouts(1, n), load, 0.9).reserved_bytes[0] for n in (1024, 8192, 0, 16384)]
    assert held[0] < held[1] == held[2] < held[3]


def test_the_space_has_the_engines_own_steps_only() -> None:
    asked = deployment().spec
    space = enumerate_space(load_model(MODEL), find_gpu("H100"), [4], Overrides(), asked.energy.power_cap)
    assert not space.layouts.max_batched_tokens.any()
