"""Plans with separate prefill and decode that are adopted: only pairs that can be served, and only where they win."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.search.test_disaggregation import H100, Setup, apart

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, describe_plan
from energylens.api.quantity import parse_quantity
from energylens.data import load_gpus, load_model
from energylens.data.predictor import load_predictor
from energylens.planner import adoption
from energylens.planner.engines import EngineSettings
from energylens.planner.engines.disaggregation import interrupts, refuses_roles
from energylens.planner.explain.disaggregation import WITHIN_ERROR
from energylens.planner.pairs import plan_pair_again
from energylens.planner.search.identity import action_hash, identified, serving_hash
from energylens.planner.search.ranking import Risk, clearly_lower
from energylens.planner.types import ClusterSnapshot, Feasible, Infeasible, PlanningResult, PowerAllowance

ROUTING = {
    "inferencePool": {"endpointPicker": {"name": "epp"}},
    "disaggregation": {"router": "LLMD", "sidecarImage": "llm-d/sidecar:v1"},
}
PARTS: dict[str, Any] = {
    "workload": {"inputTokens": 4000, "outputTokens": 200, "requestsPerSecond": "10"},
    "slo": {"ttftMilliseconds": 1000, "itlMilliseconds": 20},
    "hardware": {"maxGPUs": 12, "maxGPUsPerReplica": 2},
}
"""Prompts that break the inter-token latency of replicas that process both phases, unless many share them."""
Snapshots = Callable[..., ClusterSnapshot]


@pytest.fixture(scope="module")
def setup(make_deployment: Callable[..., LLMDeployment]) -> Setup:
    """With the coefficients of today: the arithmetic predictor knows no reason to separate the roles."""
    names = {"8b": "meta-llama/Llama-3.1-8B-Instruct", "70b": "meta-llama/Llama-3.1-70B-Instruct"}
    models = {key: load_model(name) for key, name in names.items()}
    return Setup(models, dict(load_gpus()), load_predictor("vllm"), make_deployment)


def follow(setup: Setup, snapshot: ClusterSnapshot, model: str = "8b", **parts: Any) -> PlanningResult:
    planning = {"disaggregation": "Follow"} | parts.pop("planning", {})
    return setup.plan(model, snapshot, planning=planning, routing=ROUTING, **(PARTS | parts))


def winning(setup: Setup, snapshot: ClusterSnapshot) -> tuple[PlanStatus, Feasible, dict[str, Any]]:
    """Return a plan with roles, the answer with it, and the spec."""
    result = follow(setup, snapshot)
    assert isinstance(result, Feasible)
    assert result.plan.prefill is not None
    return result.plan, result, PARTS


def test_the_better_pair_is_the_plan(setup: Setup, make_snapshot: Snapshots) -> None:
    snapshot = make_snapshot((H100, 8, 1))
    found, answer, parts = winning(setup, snapshot)
    prefill = found.prefill
    assert prefill is not None
    assert found.gpus == found.replicas * found.tensor_parallel + prefill.replicas * prefill.tensor_parallel
    assert "; prompts on " in describe_plan(found)
    assert found.hash == action_hash(found)
    shown = [row for row in answer.table if row["chosen"]]
    assert [row["prefill"] is not None for row in shown] == [True]
    assert all(a.prefill is None for a in found.alternatives)
    without = setup.plan("8b", snapshot, planning={"disaggregation": "Never"}, **parts)
    mine = parse_quantity(found.predicted.joules_per_output_token)
    if isinstance(without, Feasible):
        assert mine < parse_quantity(without.plan.predicted.joules_per_output_token)
        assert found.alternatives[-1].replicas == without.plan.replicas
        lowest = without.plan.lowest_power_watts
        assert lowest is not None
        assert lowest != found.predicted.power_watts
        assert found.lowest_power_watts == min(lowest, found.predicted.power_watts)
    compared = setup.plan("8b", snapshot, planning={"disaggregation": "Compare"}, **parts)
    if isinstance(compared, Feasible):
        assert compared.plan.prefill is None
        assert parse_quantity(apart(compared).joules_per_output_token) <= mine


@pytest.mark.parametrize("model", ["8b", "70b"])
@pytest.mark.parametrize("rate", ["500m", "2", "6"])
@pytest.mark.parametrize("pools", [[(H100, 4, 2)], [(H100, 8, 1), (H100, 2, 2)]])
def test_a_followed_pair_can_be_served(
    setup: Setup, make_snapshot: Snapshots, model: str, rate: str, pools: list[Any]
) -> None:
    load = {"inputTokens": 4000, "outputTokens": 100, "requestsPerSecond": rate}
    result = follow(setup, make_snapshot(*pools), model, workload=load, slo={"itlMilliseconds": 40}, hardware={})
    if not isinstance(result, Feasible) or result.plan.prefill is None:
        return
    found, prefill = result.plan, result.plan.prefill
    for part in (found, prefill):
        assert (part.pipeline_parallel, part.data_parallel) == (1, 1)
    assert found.nodes_per_replica == 1
    sizes = sorted((found.tensor_parallel, prefill.tensor_parallel))
    assert sizes[1] % sizes[0] == 0
    free = [node.allocatable for node in make_snapshot(*pools).nodes]
    assert found.gpus <= sum(free)


def test_a_pair_is_the_plan_where_nothing_else_meets_the_spec(setup: Setup, make_snapshot: Snapshots) -> None:
    load = PARTS["workload"] | {"requestsPerSecond": "12"}
    few: dict[str, Any] = PARTS | {"workload": load, "hardware": {"maxGPUs": 3, "maxGPUsPerReplica": 2}}
    snapshot = make_snapshot((H100, 4, 1))
    alone = setup.plan("8b", snapshot, planning={"disaggregation": "Never"}, **{k: dict(v) for k, v in few.items()})
    assert isinstance(alone, Infeasible)
    both = follow(setup, snapshot, **few)
    assert isinstance(both, Feasible)
    assert both.plan.prefill is not None
    assert both.plan.alternatives == ()
    assert [row["chosen"] for row in both.table] == [True]


def test_where_no_plan_meets_the_spec_the_best_pair_says_why(setup: Setup, make_snapshot: Snapshots) -> None:
    result = follow(setup, make_snapshot((H100, 8, 1)), slo={"ttftMilliseconds": 20, "itlMilliseconds": 20})
    assert isinstance(result, Infeasible)
    assert "; with separate prefill and decode, on " in result.message
    assert "TTFT P95" in result.message.rpartition("with separate prefill and decode")[2]
    tight = PARTS | {"slo": {"ttftMilliseconds": 20, "itlMilliseconds": 20}}
    compared = setup.plan("8b", make_snapshot((H100, 8, 1)), **tight)
    assert isinstance(compared, Infeasible)
    assert "separate prefill and decode" not in compared.message


def test_overrides_that_no_pair_can_have_leave_a_plan_without_roles(setup: Setup, make_snapshot: Snapshots) -> None:
    overrides = {"overrides": {"pipelineParallel": 2}}
    result = follow(setup, make_snapshot((H100, 8, 1)), planning=overrides)
    assert isinstance(result, Feasible)
    assert result.plan.prefill is None


def test_a_pair_that_is_not_the_plan_says_why(setup: Setup, make_snapshot: Snapshots) -> None:
    short: dict[str, Any] = {"workload": {"inputTokens": 200, "outputTokens": 400, "requestsPerSecond": "10"}}
    result = follow(setup, make_snapshot((H100, 8, 1)), **short)
    assert isinstance(result, Feasible)
    assert result.plan.prefill is None
    pair = apart(result)
    better = parse_quantity(pair.joules_per_output_token) < parse_quantity(
        result.plan.predicted.joules_per_output_token
    )
    assert better is (WITHIN_ERROR in pair.reason)


@pytest.mark.parametrize(
    ("value", "deviation", "wins"), [(0.99, 0.0, True), (1.0, 0.0, False), (0.99, 0.1, False), (0.7, 0.1, True)]
)
def test_what_lower_means(value: float, deviation: float, wins: bool) -> None:
    assert clearly_lower(value, 1.0, Risk(np.array([deviation, 0.0]), np.array([deviation, 0.0]))) is wins


# --- the running pair under today's inputs ---------------------------------------------------------------------------


def again(setup: Setup, running: PlanStatus, snapshot: ClusterSnapshot, allowance: Any = None, **parts: Any) -> Any:
    deployment = setup.make_deployment(**parts, planning={"disaggregation": "Follow"}, routing=ROUTING)
    return plan_pair_again(
        deployment, setup.models["8b"], snapshot, setup.gpus, setup.predictor, running, allowance=allowance
    )


def test_the_running_pair_keeps_its_figures(setup: Setup, make_snapshot: Snapshots) -> None:
    snapshot = make_snapshot((H100, 8, 1))
    running, _, parts = winning(setup, snapshot)
    found = again(setup, running, snapshot, **parts)
    assert isinstance(found, Feasible)
    assert (found.plan.hash, found.plan.predicted) == (running.hash, running.predicted)


def test_the_running_pair_is_judged_by_todays_spec(setup: Setup, make_snapshot: Snapshots) -> None:
    snapshot = make_snapshot((H100, 8, 1))
    running, _, parts = winning(setup, snapshot)
    tight = again(setup, running, snapshot, **(parts | {"slo": {"ttftMilliseconds": 19}}))
    assert isinstance(tight, Infeasible)
    assert "TTFT" in tight.message
    few = again(setup, running, make_snapshot((H100, 1, 1)), **parts)
    assert isinstance(few, Infeasible)
    assert few.reason == "InsufficientGPUs"
    poor = again(setup, running, snapshot, PowerAllowance(1.0, "EnergyBudget team-a/cap"), **parts)
    assert isinstance(poor, Infeasible)
    assert "EnergyBudget team-a/cap" in poor.message
    other = running.model_copy(update={"max_batch_size": 7})
    assert isinstance(again(setup, other, snapshot, **parts), Infeasible)


def test_a_spec_without_roles_forbids_the_running_pair(setup: Setup, make_snapshot: Snapshots) -> None:
    snapshot = make_snapshot((H100, 8, 1))
    running, _, parts = winning(setup, snapshot)
    asked = setup.make_deployment(**parts, planning={"disaggregation": "Never"})
    text = adoption.pinned_to(asked, running, setup.gpus)
    assert text == "spec.planning.disaggregation is Never, and the running plan separates prefill and decode"


def test_another_prefill_role_is_another_plan(setup: Setup, make_snapshot: Snapshots) -> None:
    running, _, parts = winning(setup, make_snapshot((H100, 8, 1)))
    assert running.prefill is not None
    spec = setup.make_deployment(**parts).spec
    more = running.prefill.model_copy(update={"replicas": running.prefill.replicas + 1})
    other = identified(running.model_copy(update={"prefill": more}), spec)
    assert other.hash != running.hash
    assert not adoption.same_layout(other, running)
    alone = identified(running.model_copy(update={"prefill": None}), spec)
    assert alone.hash not in (running.hash, other.hash)
    assert running.serving_hash == serving_hash(spec)


# --- what cannot be separated ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "settings", "text"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", EngineSettings(), ""),
        ("meta-llama/Llama-3.1-8B-Instruct", EngineSettings(version=(0, 32, 1)), "vLLM 0.32.1 is older than vLLM 0.33"),
        ("meta-llama/Llama-3.1-8B-Instruct", EngineSettings("SGLang", (0, 5, 23)), ""),
        (
            "meta-llama/Llama-3.1-8B-Instruct",
            EngineSettings("SGLang", (0, 5, 15)),
            "SGLang 0.5.15 is older than SGLang",
        ),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", EngineSettings(), "a recurrent state"),
        ("Qwen/Qwen3-VL-8B-Instruct", EngineSettings(), "an encoder"),
    ],
)
def test_why_roles_are_refused(model: str, settings: EngineSettings, text: str) -> None:
    found = refuses_roles(load_model(model), settings)
    assert found.startswith(text) if not text or text[0].isupper() or text.startswith("vLLM") else text in found
    assert bool(found) is bool(text)


def test_sglangs_roles_have_one_tensor_parallel_size(setup: Setup, make_snapshot: Snapshots) -> None:
    _, _, parts = winning(setup, make_snapshot((H100, 8, 1)))
    result = follow(setup, make_snapshot((H100, 8, 1)), engine={"type": "SGLang"}, **parts)
    assert isinstance(result, Feasible)
    plan = result.plan
    assert plan.prefill is not None
    assert plan.prefill.tensor_parallel == plan.tensor_parallel


@pytest.mark.parametrize(
    ("engine", "before", "after", "stops"),
    [
        ("VLLM", "none", "tp2", False),
        ("SGLang", None, "tp2", False),
        ("SGLang", "none", "tp2", True),
        ("SGLang", "tp2", "none", False),
        ("SGLang", "tp2", "tp4", True),
        ("SGLang", "tp2", "more", False),
    ],
)
def test_what_interrupts_serving(
    engine: str, before: str | None, after: str, stops: bool, setup: Setup, make_snapshot: Snapshots
) -> None:
    _, _, parts = winning(setup, make_snapshot((H100, 8, 1)))
    result = follow(setup, make_snapshot((H100, 8, 1)), **parts)
    assert isinstance(result, Feasible)
    running = result.plan
    assert running.prefill is not None
    plans = {
        "none": running.model_copy(update={"prefill": None}),
        "tp2": running.model_copy(update={"tensor_parallel": 2}),
        "tp4": running.model_copy(update={"tensor_parallel": 4}),
        "more": running.model_copy(update={"tensor_parallel": 2, "replicas": 5}),
    }
    assert bool(interrupts(engine, None if before is None else plans[before], plans[after])) is stops


def test_a_version_without_the_feature_plans_without_roles(setup: Setup, make_snapshot: Snapshots) -> None:
    _, _, parts = winning(setup, make_snapshot((H100, 8, 1)))
    old = {"image": "vllm/vllm-openai:v0.20.0"}
    result = follow(setup, make_snapshot((H100, 8, 1)), engine=old, **parts)
    assert not isinstance(result, Feasible) or result.plan.prefill is None


def test_what_binds_a_pair_is_found_by_its_gpus_where_they_are_minimised(
    setup: Setup, make_snapshot: Snapshots
) -> None:
    result = follow(setup, make_snapshot((H100, 8, 1)), energy={"objective": "MinimizeGPUs"})
    assert isinstance(result, Feasible)
    assert (result.plan.prefill is not None, result.plan.gpus) == (True, 3)
    # Two GPUs without roles would do, and miss the objective.
    assert result.plan.binding_constraint == "spec.slo.itlMilliseconds"


@pytest.mark.parametrize("watts", [None, 1e6])
def test_power_that_is_limited_may_have_ruled_out_better_pairs(
    watts: float | None, setup: Setup, make_snapshot: Snapshots
) -> None:
    allowance = None if watts is None else PowerAllowance(watts, "EnergyBudget team-a/cap")
    result = follow(setup, make_snapshot((H100, 8, 1)), allowance=allowance)
    assert isinstance(result, Feasible)
    assert result.plan.prefill is not None
    assert result.restricted is (watts is not None)
