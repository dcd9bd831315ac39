"""Rollouts on a real API server: nothing restarts or stops without need, and what holds pods up is told."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.operator_cluster import OperatorCluster, Team, layout

from energylens_dev.devcluster import KubectlError, eventually

H100 = "NVIDIA-H100-80GB-HBM3"
LWS = "leaderworkerset.sigs.k8s.io"
TWO_NODES: dict[str, Any] = {
    "hardware": {"gpuProducts": [H100]},
    "planning": layout(replicas=1, tensorParallel=8, pipelineParallel=2),
}
QUOTA: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "gpus"},
    "spec": {"hard": {"requests.nvidia.com/gpu": "1"}},
}

LEADER_WORKER_SETS: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "leaderworkersets.leaderworkerset.x-k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"},
    },
    "spec": {
        "group": "leaderworkerset.x-k8s.io",
        "scope": "Namespaced",
        "names": {
            "kind": "LeaderWorkerSet",
            "listKind": "LeaderWorkerSetList",
            "plural": "leaderworkersets",
            "singular": "leaderworkerset",
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}


@pytest.fixture
def groups(operator: OperatorCluster, team: Team) -> Iterator[None]:
    """Serve LeaderWorkerSets, with nobody but the test to run them."""
    operator.stop_operator()
    operator.api.apply(LEADER_WORKER_SETS)
    operator.api.run("wait", "--for=condition=Established", "crd/leaderworkersets.leaderworkerset.x-k8s.io")
    try:
        operator.start_operator()
        yield
    finally:
        team.kubectl.run("delete", "statefulsets", "--all")
        team.clear()
        operator.stop_operator()
        operator.api.run("delete", "crd", "leaderworkersets.leaderworkerset.x-k8s.io")
        operator.start_operator()


def refused(team: Team, *words: str) -> None:
    """Wait until both conditions say that the API server refuses pods, and how."""
    for kind, status in (("Ready", "False"), ("Degraded", "True")):
        message = team.wait(kind, status, "PodsRefused", seconds=60)["message"]
        for word in words:
            assert word in message


def test_a_quota_on_pods_is_told_of_and_a_rollout_ends_within_it(team: Team) -> None:
    team.kubectl.apply(QUOTA)
    team.apply()
    refused(team, "exceeded quota: gpus", "requests.nvidia.com/gpu=1")
    team.apply(planning=layout(replicas=1))
    team.ready()
    # No second pod is allowed beside the first, though GPUs are free.
    before = [pod["metadata"]["uid"] for pod in team.pods()]
    team.apply(planning=layout(replicas=1, maxBatchSize=16))
    eventually(lambda: any("that old ones hold" in note for note in team.events().get("RolloutStarted", ())), 120)
    team.ready()
    assert [pod["metadata"]["uid"] for pod in team.pods()] != before


def test_pod_security_is_told_of(operator: OperatorCluster, team: Team) -> None:
    operator.api.run("label", "namespace", team.namespace, "pod-security.kubernetes.io/enforce=restricted")
    team.apply()
    refused(team, "violates PodSecurity", "runAsNonRoot")
    pod = {"spec": {"securityContext": {"runAsNonRoot": True, "runAsUser": 2000, "fsGroup": 2000}}}
    team.apply(podTemplate=pod)
    team.ready()
    assert team.condition("Degraded")["status"] == "False"


def test_more_and_fewer_replicas_restart_nothing(team: Team) -> None:
    team.apply()
    before_hash = team.ready()["plan"]["hash"]
    first = {pod["metadata"]["uid"] for pod in team.pods()}
    team.apply(planning=layout(replicas=3))
    assert team.ready()["plan"]["hash"] != before_hash
    more = {pod["metadata"]["uid"] for pod in team.pods()}
    assert len(more) == 3
    assert first < more
    team.apply(planning=layout(replicas=1))
    eventually(lambda: len(team.pods()) == 1)
    team.ready()
    assert {pod["metadata"]["uid"] for pod in team.pods()} < more
    assert "RolloutStarted" not in team.events()


def endpoints(team: Team) -> set[str]:
    """Return the names of the ready pods behind the Service."""
    slices = team.kubectl.list("endpointslices", "-l", "kubernetes.io/service-name=llama")
    return {
        found["targetRef"]["name"]
        for one in slices
        for found in one.get("endpoints") or ()
        if found["conditions"].get("ready")
    }


def stateful_set(template: dict[str, Any], group: int, worker: int, *, gpus: bool) -> dict[str, Any]:
    """Return what runs one pod of a group, as a LeaderWorkerSet would label it."""
    pod = copy.deepcopy(template)
    name = f"group-{group}-{worker}"
    pod["metadata"]["labels"] |= {f"{LWS}/group-index": str(group), f"{LWS}/worker-index": str(worker), "set": name}
    for container in pod["spec"]["containers"]:
        if not gpus:
            del container["resources"]
    spec = {"replicas": 1, "selector": {"matchLabels": {"set": name}}, "serviceName": name, "template": pod}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": spec}


def run_groups(team: Team, body: dict[str, Any], count: int, *, gpus: bool = False) -> None:
    template = body["spec"]["leaderWorkerTemplate"]
    kinds = ("leaderTemplate", "workerTemplate")
    sets = [stateful_set(template[kinds[w]], g, w, gpus=gpus) for g in range(count) for w in range(2)]
    team.kubectl.apply(sets)


def evict(team: Team, pod: str) -> None:
    eviction = f'{{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {{"name": "{pod}"}}}}'
    path = f"/api/v1/namespaces/{team.namespace}/pods/{pod}/eviction"
    team.kubectl.run("create", "--raw", path, "-f", "-", stdin=eviction)


@pytest.mark.usefixtures("groups")
def test_a_plan_that_moves_to_several_nodes_and_back_never_stops_serving(team: Team) -> None:
    team.apply()
    team.ready()
    (old, *_) = serving = eventually(lambda: sorted(endpoints(team)) if len(endpoints(team)) == 2 else [])
    team.apply(**TWO_NODES)
    (body,) = eventually(lambda: team.kubectl.list("leaderworkersets"))
    assert body["spec"]["leaderWorkerTemplate"]["size"] == 2
    message = team.wait("Ready", "False", "PodsNotReady")["message"]
    assert "2 replicas of the previous revision still serve" in message
    assert team.condition("Progressing")["reason"] == "RollingSurge"
    assert team.status()["activeRevision"]["workloadRef"]["kind"] == "LeaderWorkerSet"
    assert sorted(endpoints(team)) == serving
    # Two groups run, so that there is one that an eviction must not reach.
    run_groups(team, body, 2)
    eventually(lambda: endpoints(team) == {*serving, "group-0-0-0", "group-1-0-0"})
    assert old in endpoints(team)
    status = {"observedGeneration": body["metadata"]["generation"]}
    status |= dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas"), 1)
    team.kubectl.run(
        "patch",
        "leaderworkersets",
        "llama-group",
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": status}),
    )
    team.ready()
    eventually(lambda: endpoints(team) == {"group-0-0-0", "group-1-0-0"})
    assert not team.kubectl.list("deployments")

    # A follower takes its group with it: no pod of another group may go before it is back.
    def allowed() -> bool:
        budget = team.kubectl.get("poddisruptionbudget", "llama") or {}
        return bool(budget["status"]["expectedPods"] == 4 and budget["status"]["disruptionsAllowed"] == 1)

    eventually(allowed)
    # The fast pods of this cluster would be back before the second eviction: hold the first one in its end.
    hold = '{"metadata": {"finalizers": %s}}'
    team.kubectl.run("patch", "pod", "group-0-1-0", "--type=merge", "-p", hold % '["tests.energylens.dev/held"]')
    evict(team, "group-0-1-0")
    for other in ("group-1-1-0", "group-1-0-0"):
        with pytest.raises(KubectlError, match="disruption budget"):
            evict(team, other)
    team.kubectl.run("patch", "pod", "group-0-1-0", "--type=merge", "-p", hold % "null")

    team.apply()
    eventually(lambda: not team.kubectl.list("leaderworkersets"))
    team.ready()
    eventually(lambda: len(endpoints(team) - {"group-0-0-0", "group-1-0-0"}) == 2)


@pytest.mark.usefixtures("groups")
def test_where_gpus_are_short_the_old_object_loses_one_replica_and_the_rest_goes_on(team: Team) -> None:
    team.apply(hardware={"gpuProducts": [H100]}, planning=layout(replicas=2, tensorParallel=8))
    team.ready()
    before = {pod["metadata"]["uid"] for pod in team.pods()}
    team.apply(**TWO_NODES)
    (body,) = eventually(lambda: team.kubectl.list("leaderworkersets"))
    run_groups(team, body, 1, gpus=True)

    def one_less() -> dict[str, Any]:
        (deployment,) = team.kubectl.list("deployments")
        assert deployment["spec"]["replicas"] == 1
        assert deployment["status"]["readyReplicas"] == 1
        found: dict[str, Any] = deployment
        return found

    deployment = eventually(one_less, 60)
    # Only the number changed: what goes on serving was not restarted.
    (left,) = [
        pod for pod in team.pods() if pod["metadata"]["uid"] in before and "deletionTimestamp" not in pod["metadata"]
    ]
    assert left["metadata"]["name"] in endpoints(team)
    assert "energylens.dev/scaled-down-at" in deployment["metadata"]["annotations"]
    assert [note for note in team.events()["RolloutStarted"] if note.startswith("Recreate: too few GPUs are free")]
    assert team.condition("Progressing")["reason"] == "RollingRecreate"
