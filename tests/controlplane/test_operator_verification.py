"""New plans are measured on one replica first, with the replay exporter's counters of real runs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.controlplane.test_operator_rollouts import TWO_NODES, endpoints, groups, run_groups
from tests.support.operator_cluster import OperatorCluster, Team

from energylens_dev.devcluster import eventually

__all__ = ["groups"]

H100, B200 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-B200"
ROLE = "energylens.dev/role"
EAGER = {"replan": {"minEnergySavingPercent": 0, "cooldownSeconds": 0}}
SPEC: dict[str, Any] = {
    "hardware": {"gpuProducts": [H100]},
    "workload": {"inputTokens": 512, "outputTokens": 512, "concurrency": 64},
    "planning": EAGER,
    "slo": {"percentile": "P50", "itlMilliseconds": 200},
    "rollout": {"verify": "Measured"},
    "validation": {"source": "DCGMExporter", "warmupSeconds": 0, "windowSeconds": 10},
}
WITH_BETTER = {**SPEC, "hardware": {"gpuProducts": [H100, B200]}}
VERIFIED = "PlanVerified"


@pytest.fixture(autouse=True)
def healthy_exporter(operator: OperatorCluster) -> None:
    operator.break_exporter()


def split(team: Team) -> tuple[set[str], set[str]]:
    """Return the names of the pods of the plan, and of those of the replica that verifies another."""
    beside = {pod["metadata"]["name"] for pod in team.pods() if pod["metadata"]["labels"].get(ROLE) == "canary"}
    return {pod["metadata"]["name"] for pod in team.pods()} - beside, beside


def uids(team: Team) -> set[str]:
    return {pod["metadata"]["uid"] for pod in team.pods() if pod["metadata"]["labels"].get(ROLE) != "canary"}


def begin(team: Team, **spec: Any) -> set[str]:
    """Serve on H100 and let better GPUs come; return the pods that run once one replica of the new plan serves."""
    team.apply(**{**SPEC, **spec})
    team.ready()
    before = uids(team)
    team.apply(**{**WITH_BETTER, **spec})
    team.wait(VERIFIED, "Unknown", "Verifying")
    eventually(lambda: len(split(team)[1]) == 1)
    main, beside = split(team)
    eventually(lambda: endpoints(team) == main | beside)
    return before


def test_a_better_plan_is_followed_once_one_replica_held_it_also_over_a_restart(
    operator: OperatorCluster, team: Team
) -> None:
    team.kubectl.apply(
        {
            "apiVersion": "energylens.dev/v1alpha1",
            "kind": "EnergyBudget",
            "metadata": {"name": "cap"},
            "spec": {"powerWatts": 100_000, "action": "Deny"},
        }
    )
    before = begin(team)
    status = team.status()
    assert status["plan"]["gpuProduct"] == H100
    assert status["verification"]["plan"]["gpuProduct"] == B200
    assert team.condition("Ready")["status"] == "True"
    assert uids(team) == before
    both = status["plan"]["predicted"]["powerWatts"] + status["verification"]["plan"]["predicted"]["powerWatts"]
    eventually(lambda: (team.kubectl.get("eb", "cap") or {})["status"]["committedPowerWatts"] == both)
    # Each side is measured apart, at its half of the load.
    operator.break_exporter("dead-engine@canary")
    operator.restart_operator()
    assert team.status()["verification"]["plan"]["hash"] == status["verification"]["plan"]["hash"]
    team.wait("EnergyMetricsAvailable", "True", "Measured")
    eventually(lambda: 31_000 <= int(team.status()["measured"]["runningRequests"].removesuffix("m")) <= 33_000)
    eventually(lambda: "TokensMissing" in team.condition(VERIFIED)["message"])
    assert uids(team) == before
    operator.break_exporter()
    team.wait(VERIFIED, "True", "Verified")
    found = team.ready()
    assert found["plan"]["gpuProduct"] == B200
    assert not uids(team) & before
    eventually(lambda: not split(team)[1])
    assert not [d for d in team.kubectl.list("deployments") if d["metadata"]["name"] == "llama-canary"]
    (note,) = [note for note in team.events()["PlanAdopted"] if note.startswith("Verified: ")]
    assert "J per output token at the planned load" in note
    standing = team.standing()
    operator.restart_operator()
    assert team.standing() == standing


def test_a_plan_that_breaks_is_given_up_with_its_figures_and_not_tried_again(
    operator: OperatorCluster, team: Team
) -> None:
    operator.break_exporter("slow@canary")
    before = begin(team)
    message = team.wait(VERIFIED, "False", "GivenUp")["message"]
    assert "ITL P50" in message
    assert "> 200 ms" in message
    (left,) = team.status()["verification"]["givenUp"]
    assert (left["gpuProduct"], left["reason"]) == (B200, "SLOViolation")
    eventually(lambda: not split(team)[1])
    assert uids(team) == before
    assert team.ready()["plan"]["gpuProduct"] == H100
    (note,) = team.events()["PlanGivenUp"]
    assert note.startswith("SLOViolation: ")
    operator.restart_operator()
    samples = team.status().get("prediction", {}).get("samples", 0)
    eventually(lambda: team.status()["prediction"]["samples"] >= samples + 2)
    assert len(team.events()["VerificationStarted"]) == 1
    assert not split(team)[1]
    # What is asked for is another thing now; in the middle of that it is asked for what runs.
    team.apply(**{**WITH_BETTER, "slo": {"percentile": "P50", "itlMilliseconds": 190}})
    team.wait(VERIFIED, "Unknown", "Verifying")
    team.apply(**SPEC)
    team.wait(VERIFIED, "Unknown", "NotVerified")
    eventually(lambda: not split(team)[1])
    assert uids(team) == before
    assert "plan" not in team.status()["verification"]


def test_a_plan_that_takes_more_energy_than_the_running_one_is_given_up(operator: OperatorCluster, team: Team) -> None:
    operator.break_exporter("hungrier@canary")
    before = begin(team)
    message = team.wait(VERIFIED, "False", "GivenUp")["message"]
    assert "the running plan" in message
    (left,) = team.status()["verification"]["givenUp"]
    assert left["reason"] == "HigherEnergy"
    assert uids(team) == before


def test_a_replica_that_never_starts_is_given_up_and_what_runs_goes_on(team: Team) -> None:
    team.apply(**SPEC)
    team.ready()
    quota = {"hard": {"requests.nvidia.com/gpu": "1"}}
    team.kubectl.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "gpus"}, "spec": quota})
    before = uids(team)
    team.apply(**{**WITH_BETTER, "rollout": {"verify": "Measured", "progressDeadlineSeconds": 60}})
    eventually(lambda: "exceeded quota" in team.wait(VERIFIED, "Unknown", "Verifying")["message"])
    assert team.condition("Ready")["status"] == "True"
    message = team.wait(VERIFIED, "False", "GivenUp")["message"]
    assert "was not ready within 60 s" in message
    assert uids(team) == before
    assert team.ready()["plan"]["gpuProduct"] == H100
    eventually(lambda: len(team.kubectl.list("deployments")) == 1)


def test_without_room_a_saving_waits(team: Team) -> None:
    team.apply(**{**SPEC, "hardware": {"gpuProducts": [H100], "maxGPUs": 1}})
    team.ready()
    before = uids(team)
    team.apply(**{**WITH_BETTER, "hardware": {"gpuProducts": [H100, B200], "maxGPUs": 1}})
    message = team.wait(VERIFIED, "Unknown", "NoRoomToVerify")["message"]
    assert "spec.hardware.maxGPUs=1" in message
    assert uids(team) == before


def test_an_approved_plan_is_verified_too(operator: OperatorCluster, team: Team) -> None:
    one = {"overrides": {"tensorParallel": 1, "replicas": 1, "maxBatchSize": 64}}
    team.apply(**{**SPEC, "planning": {**one, "mode": "Manual"}})
    team.wait("PlanReady", "False", "AwaitingApproval")
    first = team.status()["plan"]["hash"]
    team.apply(**{**SPEC, "planning": {**one, "mode": "Manual", "approvedPlanHash": first}})
    team.ready()
    # The plan of the pods is known once its table is written, by the pass after the one that makes the pods.
    eventually(lambda: ("ConfigMap", "llama-plan") in team.children())
    before = uids(team)
    other = {"mode": "Manual", "overrides": {**one["overrides"], "maxBatchSize": 128}}
    team.apply(**{**SPEC, "planning": {**other, "approvedPlanHash": first}})
    team.wait("PlanReady", "False", "AwaitingApproval")
    pending = team.status()["plan"]["hash"]
    assert not split(team)[1]
    operator.break_exporter("dead-engine@canary")
    team.apply(**{**SPEC, "planning": {**other, "approvedPlanHash": pending}})
    team.wait(VERIFIED, "Unknown", "Verifying")
    assert team.status()["plan"]["hash"] == first
    assert uids(team) == before
    operator.restart_operator()
    assert team.status()["verification"]["plan"]["hash"] == pending
    operator.break_exporter()
    team.wait(VERIFIED, "True", "Verified")
    assert team.ready()["plan"]["hash"] == pending


@pytest.mark.usefixtures("groups")
def test_a_replica_over_two_nodes_is_one_group_beside_the_running_pods(team: Team) -> None:
    asked: dict[str, Any] = {"rollout": {"verify": "Measured"}, "validation": {"source": "Auto"}}
    team.apply(**asked)
    team.ready()
    before = uids(team)
    team.apply(**TWO_NODES, **asked)
    (body,) = eventually(lambda: team.kubectl.list("leaderworkersets"))
    assert body["metadata"]["name"] == "llama-canary"
    assert (body["spec"]["replicas"], body["spec"]["leaderWorkerTemplate"]["size"]) == (1, 2)
    main = endpoints(team)
    assert len(main) == 2
    # Its leader answers requests, and its follower does not.
    run_groups(team, body, 1)
    eventually(lambda: endpoints(team) == main | {"group-0-0-0"})
    eventually(lambda: "readyTime" in team.status()["verification"])
    assert team.condition("Ready")["status"] == "True"
    assert before < {pod["metadata"]["uid"] for pod in team.pods()}
    team.apply(**asked)
    eventually(lambda: not team.kubectl.list("leaderworkersets"))
    assert team.status()["activeRevision"]["workloadRef"]["kind"] == "Deployment"
