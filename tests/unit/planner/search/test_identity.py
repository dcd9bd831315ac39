from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.planner import plan, plan_inputs_hash
from energylens.planner.search.identity import action_hash, identified, is_made_from, sealed, serving_hash
from energylens.planner.types import ClusterSnapshot, Feasible, GpuAllocation, PowerAllowance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

H100, H200, L40S = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200", "NVIDIA-L40S"
Deploy = Callable[..., LLMDeployment]
Snapshot = Callable[..., ClusterSnapshot]


@pytest.fixture
def hash_of(
    models: dict[str, ModelSpec], gpus: dict[str, GpuSpec], make_snapshot: Snapshot, make_deployment: Deploy
) -> Callable[..., str]:
    def build(
        snapshot: ClusterSnapshot | None = None,
        version: str = "1",
        allowance: PowerAllowance | None = None,
        shape: str = "70b",
        **parts: Any,
    ) -> str:
        cluster = snapshot or make_snapshot((H100, 8, 2), (H200, 8, 1))
        return plan_inputs_hash(make_deployment(**parts), models[shape], cluster, gpus, version, allowance=allowance)

    return build


def test_a_plan_says_what_it_was_made_from(
    models: dict[str, ModelSpec],
    gpus: dict[str, GpuSpec],
    make_snapshot: Snapshot,
    make_deployment: Deploy,
    predictor: Any,
) -> None:
    snapshot, deployment = make_snapshot((H100, 8, 2)), make_deployment(model_part={"quantization": "FP8"})
    result = plan(deployment, models["70b"], snapshot, gpus, predictor)
    assert isinstance(result, Feasible)
    inputs = plan_inputs_hash(deployment, models["70b"], snapshot, gpus, predictor.version)
    assert is_made_from(result.plan, inputs)
    assert not is_made_from(result.plan, plan_inputs_hash(make_deployment(), models["70b"], snapshot, gpus, "2"))
    assert len(result.plan.hash) == len(inputs) == 16


@pytest.mark.parametrize(
    "parts",
    [
        {"slo": {"itlMilliseconds": 40}},
        {"slo": {"percentile": "P99"}},
        {"workload": {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": "3"}},
        {"workload": {"inputTokens": 300, "outputTokens": 400, "concurrency": 3}},
        {"hardware": {"maxGPUs": 8}},
        {"hardware": {"gpuProducts": ["H100"]}},
        {"energy": {"objective": "MinimizeGPUs"}},
        {"energy": {"powerCap": {"mode": "Plan"}}},
        {"energy": {"budget": {"powerWatts": 900, "action": "Enforce"}}},
        {"planning": {"overrides": {"tensorParallel": 4}}},
        {"engine": {"type": "SGLang"}},
        {"engine": {"extraArgs": ["--max-num-batched-tokens=4096"]}},
        {"planning": {"safetyMarginPercent": 0}},
        {"planning": {"disaggregation": "Compare"}},
        {"model": "some/other-name"},
        {"model_part": {"revision": "v2"}},
    ],
)
def test_what_planning_reads_changes_the_hash(parts: dict[str, Any], hash_of: Callable[..., str]) -> None:
    assert hash_of(**parts) != hash_of()


@pytest.mark.parametrize(
    "parts",
    [
        {"planning": {"mode": "Advisory"}},
        {"planning": {"mode": "Manual", "approvedPlanHash": "abc"}},
        {"planning": {"replan": {"cooldownSeconds": 5}}},
        {"planning": {"followLoad": "Auto"}},
        {"energy": {"budget": {"powerWatts": 900, "action": "Warn"}}},
        {"energy": {"budget": {"energyWattHours": 900, "action": "Enforce"}}},
        {"engine": {"extraArgs": ["--enable-prefix-caching"], "image": "example.org/vllm:1"}},
        {"rollout": {"strategy": "Recreate"}},
        {"validation": {"source": "None"}},
        {"podTemplate": {"metadata": {"labels": {"team": "a"}}}},
        {"model_part": {"cache": {"hostPath": "/models"}, "tokenSecretRef": {"name": "hf"}}},
        {"suspend": True},
        {"slo": {"percentile": "P95"}},
    ],
)
def test_what_planning_does_not_read_keeps_the_hash(parts: dict[str, Any], hash_of: Callable[..., str]) -> None:
    assert hash_of(**parts) == hash_of()


def test_inventory_predictor_model_and_allowance_change_the_hash(
    hash_of: Callable[..., str], make_snapshot: Snapshot
) -> None:
    hashes = [
        hash_of(),
        hash_of(snapshot=make_snapshot((H100, 8, 3), (H200, 8, 1))),
        hash_of(snapshot=make_snapshot((H100, 4, 2), (H200, 8, 1))),
        hash_of(version="2"),
        hash_of(shape="405b"),
        hash_of(allowance=PowerAllowance(1000, "EnergyBudget team-a/cap")),
        hash_of(allowance=PowerAllowance(2000, "EnergyBudget team-a/cap")),
    ]
    assert len(set(hashes)) == len(hashes)


def test_what_passes_keeps_the_hash(hash_of: Callable[..., str], make_snapshot: Snapshot) -> None:
    """Free GPUs, node names, their order and cordons come and go; a restart or somebody's pod must not re-plan."""
    cluster = make_snapshot((H100, 8, 2), (H200, 8, 1))
    busy = make_snapshot((H100, 8, 2), (H200, 8, 1), used=5)
    renamed = ClusterSnapshot(tuple(replace(n, name=f"x{i}") for i, n in enumerate(reversed(cluster.nodes))))
    cordoned = ClusterSnapshot(tuple(replace(n, schedulable=False) for n in cluster.nodes))
    own = ClusterSnapshot(tuple(replace(n, allocations=(GpuAllocation("team-a/chat", 8),)) for n in cluster.nodes))
    assert {hash_of(snapshot=s) for s in (busy, renamed, cordoned, own)} == {hash_of()}


def test_nodes_that_the_spec_may_not_use_do_not_count(hash_of: Callable[..., str], make_snapshot: Snapshot) -> None:
    few, more = make_snapshot((H100, 8, 2)), make_snapshot((H100, 8, 2), (L40S, 4, 3))
    only_h100 = {"hardware": {"gpuProducts": ["H100"]}}
    selected = {"hardware": {"nodeSelector": {"pool": H100}}}
    assert hash_of(snapshot=few, **only_h100) == hash_of(snapshot=more, **only_h100)
    assert hash_of(snapshot=few, **selected) == hash_of(snapshot=more, **selected)
    assert hash_of(snapshot=few) != hash_of(snapshot=more)


def test_the_hash_is_stable_across_releases(hash_of: Callable[..., str]) -> None:
    """A new operator version that hashes differently would plan every deployment again."""
    assert hash_of() == hash_of()
    assert hash_of() == "fb3567519346ac2b"


@pytest.fixture
def chosen(
    models: dict[str, ModelSpec],
    gpus: dict[str, GpuSpec],
    make_snapshot: Snapshot,
    make_deployment: Deploy,
    predictor: Any,
) -> Callable[..., PlanStatus]:
    """Return a function that plans under a spec and in a cluster."""

    def build(snapshot: ClusterSnapshot | None = None, version: str = "1", **parts: Any) -> PlanStatus:
        parts.setdefault("planning", {"overrides": {"tensorParallel": 4, "replicas": 1, "maxBatchSize": 16}})
        asked = make_deployment(**parts)
        made = copy.copy(predictor)
        made.version = version
        result = plan(asked, models["70b"], snapshot or make_snapshot((H100, 8, 2)), gpus, made)
        assert isinstance(result, Feasible), result
        return result.plan

    return build


def test_the_hash_of_a_plan_is_that_of_what_it_does(chosen: Callable[..., PlanStatus], make_snapshot: Snapshot) -> None:
    """A node more, a newer predictor, another objective: the person who approved the action need not do so again."""
    before = chosen()
    for after in (
        chosen(make_snapshot((H100, 8, 3))),
        chosen(version="2"),
        chosen(slo={"itlMilliseconds": 500}),
        chosen(workload={"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": "0.9"}),
        chosen(podTemplate={"metadata": {"labels": {"team": "a"}}}),
        chosen(engine={"env": []}),
    ):
        assert after.hash == before.hash
        assert after.hash == action_hash(after)


@pytest.mark.parametrize(
    "parts",
    [
        {"planning": {"overrides": {"tensorParallel": 8, "replicas": 1, "maxBatchSize": 16}}},
        {"planning": {"overrides": {"tensorParallel": 4, "replicas": 2, "maxBatchSize": 16}}},
        {"planning": {"overrides": {"tensorParallel": 4, "replicas": 1, "maxBatchSize": 32}}},
        {"energy": {"powerCap": {"mode": "Fixed", "wattsPerGPU": 500}}},
        {"model": "some/other-name"},
        {"model_part": {"revision": "v2"}},
        {"model_part": {"quantization": "FP8"}},
        {"engine": {"type": "SGLang"}},
        {"engine": {"image": "example.org/vllm:1"}},
        {"engine": {"extraArgs": ["--enable-prefix-caching"]}},
        {"engine": {"env": [{"name": "VLLM_ATTENTION_BACKEND", "value": "FLASHINFER"}]}},
    ],
)
def test_another_action_has_another_hash(parts: dict[str, Any], chosen: Callable[..., PlanStatus]) -> None:
    assert chosen(**parts).hash != chosen().hash


def test_another_gpu_product_is_another_action(chosen: Callable[..., PlanStatus], make_snapshot: Snapshot) -> None:
    assert chosen(make_snapshot((H200, 8, 2))).hash != chosen().hash


@pytest.mark.parametrize(
    "edit",
    [
        {"replicas": 3},
        {"gpu_product": "no-such-gpu"},
        {"max_batch_size": 17},
        {"serving_hash": "0" * 16},
        {"power_cap_watts_per_gpu": 300},
        {"shed_from_replicas": 4},
    ],
)
def test_a_plan_that_somebody_edited_does_not_have_its_hash_any_more(
    edit: dict[str, Any], chosen: Callable[..., PlanStatus]
) -> None:
    edited = chosen().model_copy(update=edit)
    assert edited.hash != action_hash(edited)


def test_what_a_budget_took_is_of_the_plan_that_was_approved(chosen: Callable[..., PlanStatus]) -> None:
    whole = chosen(planning={"overrides": {"tensorParallel": 4, "replicas": 2, "maxBatchSize": 16}})
    fewer = whole.model_copy(update={"replicas": 1, "gpus": 4, "shed_by": "EnergyBudget a/b", "shed_from_replicas": 2})
    assert action_hash(fewer) == whole.hash


def test_a_seal_holds_for_its_inputs_and_its_figures_only(chosen: Callable[..., PlanStatus]) -> None:
    made = sealed(chosen(), "inputs")
    assert is_made_from(made, "inputs")
    assert not is_made_from(made, "other inputs")
    cheaper = made.predicted.model_copy(update={"power_watts": 1})
    assert not is_made_from(made.model_copy(update={"predicted": cheaper}), "inputs")
    assert not is_made_from(sealed(made, ""), "")


def test_a_plan_under_another_engine_is_another_action(
    chosen: Callable[..., PlanStatus], make_deployment: Deploy
) -> None:
    before = chosen()
    under = identified(before, make_deployment(engine={"image": "example.org/vllm:2"}).spec)
    assert under.hash == action_hash(under) != before.hash


def test_what_clusters_store_keeps_its_hash_across_releases(
    chosen: Callable[..., PlanStatus], make_deployment: Deploy, hash_of: Callable[..., str]
) -> None:
    """Another hash of what pods serve replaces every pod; another seal or hash of inputs plans everything again."""
    engine = {"image": "example.org/vllm:1", "extraArgs": ["--max-num-seqs=8"]}
    assert serving_hash(make_deployment().spec) == "1a7d23c0a931889c"
    assert serving_hash(make_deployment(engine=engine, model_part={"quantization": "FP8"}).spec) == "201910ad25bbf296"
    assert sealed(chosen(), "inputs").inputs_hash == "3408b44b27c97b11"
    assert hash_of(allowance=PowerAllowance(1000, "EnergyBudget a/b")) == "3c3d2b62be6e14f5"


def test_the_power_of_the_hours_is_an_input(hash_of: Callable[..., str]) -> None:
    flat = PowerAllowance(1000, "EnergyBudget a/b")
    hours = replace(flat, hours=(1000.0,) * 168)
    assert len({hash_of(allowance=flat), hash_of(allowance=hours)}) == 2


def test_the_start_of_a_job_is_no_input_and_its_deadline_is(hash_of: Callable[..., str]) -> None:
    def job(**parts: Any) -> str:
        load = {
            "inputTokens": 300,
            "outputTokens": 400,
            "job": {"requests": 100, "completeWithinSeconds": 3600} | parts,
        }
        return hash_of(workload=load)

    assert job(start={"completeBy": "2026-11-28T00:00:00Z", "tariffConfigMapRef": {"name": "prices"}}) == job()
    assert job(completeWithinSeconds=7200) != job()
    assert job(startSeconds=50) != job()
