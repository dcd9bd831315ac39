"""Bad input is refused or becomes a condition that says what would work, and nothing that runs is touched."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.support.operator_cluster import MEASURED, OperatorCluster, Team, layout, llmdeployment

from energylens_dev.devcluster import KubectlError, eventually

H100, H200, L40S = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200", "NVIDIA-L40S"

REJECTED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "both loads": (
        {"workload": {"inputTokens": 512, "outputTokens": 128, "requestsPerSecond": 2, "concurrency": 8}},
        ("spec.workload", "requestsPerSecond (2)", "concurrency (8)", "exactly one"),
    ),
    "negative SLO": ({"slo": {"itlMilliseconds": -5}}, ("spec.slo.itlMilliseconds", "-5", "1")),
    "replica larger than all": (
        {"hardware": {"maxGPUs": 4, "maxGPUsPerReplica": 8}},
        ("spec.hardware", "maxGPUsPerReplica (8)", "maxGPUs (4)", "4 or less"),
    ),
}

CONDITIONS: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "unknown model": (
        {"model": {"name": "meta-llama/Llama-3.1-71B-Instruct"}},
        "ModelUnknown",
        ("spec.model.name", "meta-llama/Llama-3.1-71B-Instruct", "meta-llama/Llama-3.1-70B-Instruct"),
    ),
    "no such config": (
        {"model": {"name": "team/own", "configRef": {"name": "own"}}},
        "ModelConfigMissing",
        ("spec.model.configRef", "own"),
    ),
    "model too large": (
        {"model": {"name": "meta-llama/Llama-3.1-405B-Instruct"}, "planning": {}},
        "ModelTooLarge",
        ("meta-llama/Llama-3.1-405B-Instruct", "GB", "NVIDIA-"),
    ),
    "impossible SLO": (
        {"slo": {"itlMilliseconds": 1}, "planning": {}},
        "SLOInfeasible",
        ("spec.slo.itlMilliseconds=1", "ms"),
    ),
    "no such GPUs": (
        {"hardware": {"gpuProducts": ["NVIDIA-GB300"]}},
        "NoMatchingGPUs",
        ("spec.hardware.gpuProducts", "NVIDIA-GB300", "NVIDIA-L40S"),
    ),
    "more GPUs than there are": (
        {"planning": layout(replicas=9)},
        "InsufficientGPUs",
        ("9 x NVIDIA-L40S", "4, 4", "spec.planning.overrides.replicas"),
    ),
    "argument of the plan": (
        {"engine": {"extraArgs": ["--max-num-seqs=4"]}},
        "InvalidEngineSettings",
        ("spec.engine.extraArgs", "--max-num-seqs=4", "spec.planning.overrides.maxBatchSize"),
    ),
    "pod template against the plan": (
        {"podTemplate": {"spec": {"nodeSelector": {"disk": "ssd"}}}},
        "InvalidEngineSettings",
        ("spec.podTemplate.spec.nodeSelector", "spec.hardware.nodeSelector"),
    ),
}


@pytest.mark.parametrize("name", REJECTED)
def test_the_api_server_rejects_it_and_says_what_would_work(team: Team, name: str) -> None:
    spec, words = REJECTED[name]
    team.apply()
    team.ready()
    before, generation = team.standing(), team.get()["metadata"]["generation"]
    with pytest.raises(KubectlError) as caught:
        team.kubectl.apply(llmdeployment(**spec))
    for word in words:
        assert word in caught.value.stderr
    assert team.get()["metadata"]["generation"] == generation
    assert team.standing() == before


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_spec_without_a_plan_is_a_condition_and_runs_nothing(team: Team, name: str) -> None:
    spec, reason, words = CONDITIONS[name]
    team.apply(**spec)
    condition = team.wait("PlanReady", "False", reason)
    for word in words:
        assert word in condition["message"]
    assert team.condition("Ready")["reason"] == "NotStarted"
    assert "plan" not in team.status()
    assert team.children() == {}
    eventually(lambda: "PlanRejected" in team.events())


def test_an_slo_that_nobody_can_meet_names_one_that_works(team: Team) -> None:
    spec: dict[str, Any] = {"hardware": {"gpuProducts": [H100]}, "planning": {}}
    team.apply(slo={"itlMilliseconds": 1}, **spec)
    message = team.wait("SLOFeasible", "False", "SLOInfeasible")["message"]
    found = re.search(r"(\d+) ms", message.replace("itlMilliseconds=1", ""))
    assert found is not None, message
    nearest = int(found[1])
    (relaxation,) = team.status()["relaxations"]
    assert (relaxation["field"], relaxation["allowed"]) == ("spec.slo.itlMilliseconds", str(nearest))
    assert relaxation["joulesPerOutputToken"]
    team.apply(slo={"itlMilliseconds": nearest}, **spec)
    team.wait("SLOFeasible", "True", "Feasible")
    team.ready()
    assert "relaxations" not in team.status()


def test_bad_edits_leave_the_running_deployment_untouched(team: Team) -> None:
    team.apply()
    plan = team.ready()["plan"]
    before = team.standing()
    for spec, reason, _ in CONDITIONS.values():
        team.apply(**spec)
        team.wait("PlanReady", "False", reason)
        assert team.standing() == before
        assert team.condition("Ready")["status"] == "True"
        assert team.status()["plan"] == plan
    team.apply()
    team.wait("PlanReady", "True", "Planned")
    assert team.standing() == before


def test_two_deployments_never_both_get_the_last_gpus(team: Team) -> None:
    team.kubectl.apply([llmdeployment(name, planning=layout(tensorParallel=4)) for name in ("one", "two")])

    def decided() -> tuple[str, str]:
        status = {name: team.condition("PlanReady", name) for name in ("one", "two")}
        assert sorted(c["status"] for c in status.values()) == ["False", "True"], status
        winner, loser = sorted(status, key=lambda name: status[name]["status"], reverse=True)
        assert status[loser]["reason"] == "InsufficientGPUs", status
        return winner, loser

    winner, loser = eventually(decided)
    team.ready(winner)
    assert team.children(loser) == {}
    assert decided() == (winner, loser)
    team.kubectl.run("delete", "llmd", winner)
    team.ready(loser)


def budget(watts: int, action: str) -> dict[str, Any]:
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": "team"},
        "spec": {"powerWatts": watts, "action": action},
    }


def test_a_power_budget_keeps_a_larger_plan_out(team: Team) -> None:
    load = {**MEASURED["workload"], "concurrency": 32}
    team.apply(**MEASURED | {"workload": load}, planning=layout(replicas=1))
    watts = team.ready()["plan"]["predicted"]["powerWatts"]
    team.kubectl.apply(budget(int(watts * 1.3), "Deny"))
    team.wait("WithinEnergyBudget", "True", "WithinBudget")
    before = team.standing()
    team.apply(**MEASURED | {"workload": {**load, "concurrency": 128}}, planning=layout(replicas=4))
    condition = team.wait("PlanReady", "False", "BudgetExceeded")
    assert f"EnergyBudget {team.namespace}/team" in condition["message"]
    assert team.standing() == before
    # Where it only reports, the plan goes through and the condition says so.
    team.kubectl.apply(budget(int(watts * 1.3), "Report"))
    team.wait("WithinEnergyBudget", "False", "OverBudget")
    assert team.ready()["plan"]["replicas"] == 4


def test_a_model_of_ones_own_needs_its_config(operator: OperatorCluster, team: Team) -> None:
    team.apply(model={"name": "team/own", "configRef": {"name": "own"}})
    team.wait("PlanReady", "False", "ModelConfigMissing")
    config = (
        '{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16,'
        ' "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256,'
        ' "head_dim": 64, "torch_dtype": "bfloat16", "max_position_embeddings": 131072, "tie_word_embeddings": true}'
    )
    team.kubectl.run("create", "configmap", "own", f"--from-literal=config.json={config}")
    # ConfigMaps of users are not watched; the next look comes within the resync.
    team.wait("PlanReady", "True")
    team.ready()


def test_somebody_elses_object_of_the_same_name_is_not_taken_over(team: Team) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "llama"},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]},
    }
    team.kubectl.apply(service)
    theirs = team.kubectl.get("service", "llama")
    team.apply()
    message = team.wait("Degraded", "True", "ApplyRefused")["message"]
    assert "Service llama exists and does not belong to this LLMDeployment" in message
    assert team.kubectl.get("service", "llama") == theirs
    team.kubectl.run("delete", "llmd", "llama")
    eventually(lambda: not team.pods())
    assert team.kubectl.get("service", "llama") == theirs
