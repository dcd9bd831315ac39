"""From `kubectl apply` to ready pods: what the operator makes of a plan on a real API server."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.operator_cluster import ACCOUNT, OperatorCluster, Team, layout, llmdeployment

from energylens_dev.devcluster import KubectlError, eventually

H100, H200, L40S = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200", "NVIDIA-L40S"


def engine(deployment: dict[str, Any]) -> dict[str, Any]:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


CLAIM: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "weights"},
    "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "500Gi"}}},
}


def endpoints(team: Team) -> int:
    slices = team.kubectl.list("endpointslices", "-l", "kubernetes.io/service-name=llama")
    return sum(len(found.get("endpoints") or ()) for found in slices)


def by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in items}


def product_of(pod: dict[str, Any]) -> str:
    affinity = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    ((expression,),) = [
        [e for e in term["matchExpressions"] if e["key"] == "nvidia.com/gpu.product" and e["operator"] == "In"]
        for term in affinity["nodeSelectorTerms"][:1]
    ]
    (value,) = expression["values"]
    return str(value)


def test_an_applied_deployment_is_planned_served_and_ready(operator: OperatorCluster, team: Team) -> None:
    team.kubectl.apply(CLAIM)
    log = operator.audit()
    team.kubectl.apply(
        llmdeployment(
            model={
                "name": "meta-llama/Llama-3.1-8B-Instruct",
                "tokenSecretRef": {"name": "hub"},
                "cache": {"persistentVolumeClaim": "weights"},
            },
            planning={"overrides": {"replicas": 2}},
            hardware={"maxGPUs": 8},
        )
    )
    status = team.ready()
    plan, children = status["plan"], team.children()
    assert sorted(kind for kind, _ in children) == ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service"]

    deployment = children["Deployment", "llama"]
    container, pod = engine(deployment), deployment["spec"]["template"]["spec"]
    assert deployment["spec"]["replicas"] == plan["replicas"] == 2
    # The engine's arguments carry the plan.
    assert container["args"][0] == "meta-llama/Llama-3.1-8B-Instruct"
    assert f"--tensor-parallel-size={plan['tensorParallel']}" in container["args"]
    assert f"--max-num-seqs={plan['maxBatchSize']}" in container["args"]
    gpus = str(plan["tensorParallel"] * plan["pipelineParallel"] * plan["dataParallel"])
    assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
    assert container["resources"]["requests"]["nvidia.com/gpu"] == gpus
    # Probes, shared memory, affinity, cache and token.
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http", "scheme": "HTTP"}
    volumes = by_name(pod["volumes"])
    assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
    assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == "weights"
    assert by_name(container["env"])["HF_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "HF_TOKEN"}
    assert product_of(pod) == plan["gpuProduct"]
    # The pods run on such GPUs.
    assert len(team.pods()) == 2
    for running in team.pods():
        node = operator.api.get("node", running["spec"]["nodeName"])
        assert node is not None
        assert node["metadata"]["labels"]["nvidia.com/gpu.product"] == plan["gpuProduct"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert running["metadata"]["labels"]["energylens.dev/revision"] == labels["energylens.dev/revision"]
    # The Service and the disruption budget are about these pods.
    selector = children["Service", "llama"]["spec"]["selector"]
    guarded = children["PodDisruptionBudget", "llama"]["spec"]["selector"]["matchLabels"]
    assert (selector | guarded).items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    eventually(lambda: endpoints(team) == 2)
    assert "candidates.csv" in children["ConfigMap", "llama-plan"]["data"]
    # Status says the same, and everything is owned, so that nothing needs a finalizer.
    assert status["activeRevision"]["readyReplicas"] == 2
    assert status["activeRevision"]["planHash"] == plan["hash"]
    assert status["activeRevision"]["workloadRef"]["kind"] == "Deployment"
    body = team.get()
    assert status["observedGeneration"] == body["metadata"]["generation"]
    assert "finalizers" not in body["metadata"]
    for child in children.values():
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("LLMDeployment", body["metadata"]["uid"])
        assert "finalizers" not in child["metadata"]
    eventually(lambda: "BecameReady" in team.events())
    assert "PlanAdopted" not in team.events(), "one event is enough from the apply to the first readiness"
    # The operator never writes spec, and writes little.
    managers = {
        entry["manager"] for entry in body["metadata"].get("managedFields", ()) if "f:spec" in entry["fieldsV1"]
    }
    assert "energylens" not in managers
    writes = [event for event in operator.writes(log, team.namespace) if event.resource != "events"]
    written = {event.resource for event in writes}
    assert written == {"deployments", "services", "poddisruptionbudgets", "configmaps", "llmdeployments"}
    assert len(writes) <= 8, writes
    assert {event.subresource for event in writes if event.resource == "llmdeployments"} == {"status"}


def test_what_kubectl_prints_is_the_plan(team: Team) -> None:
    team.apply()
    plan = team.ready()["plan"]
    header, row = team.kubectl.run("get", "llmd", "llama", "-o", "wide").splitlines()
    assert header.startswith("NAME")
    assert "llama" in row
    assert "L40S" in row
    assert "True" in row
    assert f"TP{plan['tensorParallel']}" in row


def test_a_405b_model_has_time_to_load(team: Team) -> None:
    team.apply(
        model={"name": "meta-llama/Llama-3.1-405B-Instruct"},
        workload={"inputTokens": 512, "outputTokens": 256, "concurrency": 8},
        hardware={"gpuProducts": [H200]},
        planning={"overrides": {"tensorParallel": 8, "replicas": 1}},
    )
    team.ready()
    probe = engine(team.children()["Deployment", "llama"])["startupProbe"]
    # 810 GB of weights from a volume that gives 1 GB/s, then compilation.
    assert probe["periodSeconds"] * probe["failureThreshold"] > 810 + 300


def test_a_replica_over_several_nodes_without_leader_worker_set_is_a_condition(team: Team) -> None:
    team.apply(
        model={"name": "meta-llama/Llama-3.1-405B-Instruct"},
        workload={"inputTokens": 512, "outputTokens": 256, "concurrency": 8},
        hardware={"gpuProducts": [H100]},
        planning={"overrides": {"tensorParallel": 8, "pipelineParallel": 2, "replicas": 1}},
    )
    condition = team.wait("PlanReady", "False", "LeaderWorkerSetMissing")
    assert "leaderworkerset.x-k8s.io" in condition["message"]
    assert team.status()["plan"]["nodesPerReplica"] == 2
    assert team.children() == {}


def test_manual_waits_for_approval_of_the_very_plan(team: Team) -> None:
    team.apply(planning={**layout(), "mode": "Manual"})
    condition = team.wait("PlanReady", "False", "AwaitingApproval")
    found = team.status()["plan"]["hash"]
    assert found in condition["message"]
    assert team.children() == {}
    team.apply(planning={**layout(), "mode": "Manual", "approvedPlanHash": "0" * 16})
    team.wait("PlanReady", "False", "AwaitingApproval")
    assert team.children() == {}
    team.apply(planning={**layout(), "mode": "Manual", "approvedPlanHash": found})
    team.ready()
    # The table of plans is written by the pass after the one that makes the pods of an approved plan.
    eventually(lambda: ("ConfigMap", "llama-plan") in team.children())
    # Another plan waits again, and what runs goes on.
    before = team.standing()
    team.apply(planning={**layout(maxBatchSize=16), "mode": "Manual", "approvedPlanHash": found})
    team.wait("PlanReady", "False", "AwaitingApproval")
    assert team.standing() == before
    # What a foreign hand does to it is put right meanwhile.
    (name,) = [name for kind, name in team.children() if kind == "Deployment"]
    team.kubectl.run("scale", "deployment", name, "--replicas=1")
    eventually(lambda: team.children()["Deployment", name]["spec"]["replicas"] == 2)
    assert team.condition("PlanReady")["reason"] == "AwaitingApproval"


def test_advisory_shows_a_plan_and_runs_nothing(team: Team) -> None:
    team.apply(planning={**layout(replicas=1), "mode": "Advisory", "disaggregation": "Compare"})
    team.wait("PlanReady", "True", "Advisory")
    plan = team.status()["plan"]
    assert plan["replicas"] == 1
    (apart,) = [other for other in plan["alternatives"] if "prefill" in other]
    assert apart["prefill"]["replicas"] == apart["replicas"] == 1
    assert apart["gpus"] == 2
    team.wait("Ready", "False", "NotStarted")
    assert team.children() == {}


def test_suspend_stops_the_replicas_and_keeps_the_plan(team: Team) -> None:
    team.apply()
    plan = team.ready()["plan"]
    team.apply(suspend=True)
    team.wait("Ready", "False", "Suspended")
    eventually(lambda: team.pods() == [])
    assert team.status()["plan"] == plan
    team.apply(suspend=False)
    assert team.ready()["plan"] == plan


def test_pods_that_cannot_be_placed_are_a_reason_that_says_why(team: Team) -> None:
    more_than_any_node = {"containers": [{"name": "engine", "resources": {"requests": {"memory": "64Ti"}}}]}
    team.apply(podTemplate={"spec": more_than_any_node})
    condition = team.wait("Ready", "False", "Unschedulable")
    assert "Insufficient memory" in condition["message"]
    assert team.wait("Progressing", "True", "Starting")
    assert team.status()["activeRevision"]["readyReplicas"] == 0


def test_the_operators_account_can_write_no_spec(operator: OperatorCluster, team: Team) -> None:
    team.apply()
    as_operator = team.kubectl.as_user(operator.cluster.operator_kubeconfig)
    with pytest.raises(KubectlError, match=f'User "{ACCOUNT}" cannot patch resource "llmdeployments"'):
        as_operator.apply(llmdeployment(suspend=True))
