"""A restart writes nothing, foreign edits are put right, deletion leaves nothing, and rollouts end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.operator_cluster import GRACE_SECONDS, OperatorCluster, Team, layout, read_metric

from energylens_dev.devcluster import eventually
from energylens_dev.devcluster.operators import operator_command
from energylens_dev.devcluster.ports import LOOPBACK
from energylens_dev.devcluster.processes import start_identity

H100, H200, L40S = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200", "NVIDIA-L40S"
NODE = "h100-80gb-hbm3-x8-0"


def test_a_restart_writes_nothing(operator: OperatorCluster, team: Team) -> None:
    team.apply("one")
    team.apply("two", planning=layout(replicas=1), hardware={"gpuProducts": [H200]})
    team.apply("wrong", slo={"itlMilliseconds": 1})
    team.ready("one")
    team.ready("two")
    team.wait("PlanReady", "False", name="wrong")
    operator.idle()
    operator.stop_operator()
    log = operator.audit()
    operator.start_operator()
    operator.idle()
    assert operator.writes(log) == []


def test_foreign_edits_of_a_child_are_put_right(operator: OperatorCluster, team: Team) -> None:
    team.apply()
    team.ready()
    before = team.children()["Deployment", "llama"]["spec"]
    log = operator.audit()
    team.kubectl.run("scale", "deployment", "llama", "--replicas=4")
    eventually(lambda: team.children()["Deployment", "llama"]["spec"]["replicas"] == 2)
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/args/1", "value": "--port=1"}]
    team.kubectl.run("patch", "deployment", "llama", "--type=json", "-p", json.dumps(patch))
    eventually(lambda: team.children()["Deployment", "llama"]["spec"]["template"] == before["template"])
    team.kubectl.run("patch", "service", "llama", "--type=json", "-p", '[{"op":"remove","path":"/spec/selector"}]')
    eventually(lambda: team.children()["Service", "llama"]["spec"].get("selector"))
    team.ready()
    operator.idle()
    healed = [event for event in operator.writes(log, team.namespace) if event.resource in ("deployments", "services")]
    assert len(healed) <= 6, "the operator fights over a field"


def test_what_others_add_to_a_child_stays(operator: OperatorCluster, team: Team) -> None:
    team.apply()
    team.ready()
    log = operator.audit()
    team.kubectl.run("annotate", "service", "llama", "team.example/owner=someone")
    team.kubectl.run("label", "deployment", "llama", "cost-centre=42")
    # Another change that does need a write shows that the ones before were seen.
    team.kubectl.run("scale", "deployment", "llama", "--replicas=1")
    eventually(lambda: team.children()["Deployment", "llama"]["spec"]["replicas"] == 2)
    children = team.children()
    assert children["Service", "llama"]["metadata"]["annotations"]["team.example/owner"] == "someone"
    assert children["Deployment", "llama"]["metadata"]["labels"]["cost-centre"] == "42"
    assert [event.resource for event in operator.writes(log, team.namespace) if event.resource == "services"] == []


@pytest.mark.parametrize("kind", ["Deployment", "Service", "ConfigMap", "PodDisruptionBudget"])
def test_a_deleted_child_comes_back(team: Team, kind: str) -> None:
    team.apply()
    team.ready()
    ((_, name),) = [key for key in team.children() if key[0] == kind]
    old = team.children()[kind, name]["metadata"]["uid"]
    team.kubectl.run("delete", kind, name)

    def back() -> bool:
        child = team.children().get((kind, name))
        return child is not None and child["metadata"]["uid"] != old

    # PodDisruptionBudgets are not watched but listed at every resync.
    eventually(back)
    team.ready()


def test_deleting_the_deployment_removes_every_child(operator: OperatorCluster, team: Team) -> None:
    team.apply()
    team.ready()
    assert "finalizers" not in team.get()["metadata"]
    team.kubectl.run("delete", "llmd", "llama", "--timeout=60s")
    eventually(lambda: not team.children() and not team.pods() and not team.kubectl.list("replicasets"))


def test_deleting_works_while_the_operator_does_not_run(operator: OperatorCluster, team: Team) -> None:
    team.apply()
    team.ready()
    operator.stop_operator()
    try:
        team.kubectl.run("delete", "llmd", "llama", "--timeout=60s")
        eventually(lambda: not team.children() and not team.pods())
    finally:
        operator.start_operator()


def test_a_deployment_made_anew_under_its_old_name_owns_its_children(team: Team) -> None:
    team.apply()
    team.ready()
    old = team.get()["metadata"]["uid"]
    team.kubectl.run("delete", "llmd", "llama")
    team.apply()
    new = team.get()["metadata"]["uid"]
    assert new != old

    def owned() -> bool:
        children = team.children()
        owners = {reference["uid"] for child in children.values() for reference in child["metadata"]["ownerReferences"]}
        return len(children) == 4 and owners == {new}

    eventually(owned)
    team.ready()
    eventually(owned)


def full_node(**overrides: int) -> dict[str, Any]:
    """Two replicas of four GPUs on one node of eight."""
    return {
        "hardware": {"gpuProducts": [H100], "nodeSelector": {"kubernetes.io/hostname": NODE}},
        "planning": layout(tensorParallel=4, replicas=2, **overrides),
    }


def rolled_out(team: Team, old: str) -> str:
    """Wait until another plan than ``old`` runs and nothing else does; return its hash."""

    def complete() -> str:
        new: str = team.status()["plan"]["hash"]
        assert new != old
        assert team.condition("Progressing")["reason"] == "Complete"
        return new

    new = eventually(complete)
    team.ready()
    return new


def test_a_rollout_does_not_hang_when_all_gpus_are_taken(team: Team) -> None:
    team.apply(**full_node(maxBatchSize=32))
    old = team.ready()["plan"]["hash"]
    before = {pod["metadata"]["uid"] for pod in team.pods()}
    team.apply(**full_node(maxBatchSize=64))
    rolled_out(team, old)
    assert team.children()["Deployment", "llama"]["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    # Pods of the old plan may still be ending.
    eventually(lambda: before.isdisjoint(pod["metadata"]["uid"] for pod in team.pods()))
    (note,) = eventually(lambda: team.events()["RolloutStarted"])
    assert note.startswith("Recreate: "), note


def test_a_rollout_to_larger_pods_does_not_hang_when_all_gpus_are_taken(team: Team) -> None:
    team.apply(**full_node())
    team.ready()
    wide = full_node()
    wide["planning"] = layout(tensorParallel=8, replicas=1)
    team.apply(**wide)
    eventually(lambda: team.status()["plan"]["tensorParallel"] == 8)
    team.ready()
    narrow = full_node()
    narrow["planning"] = layout(tensorParallel=2, replicas=4)
    team.apply(**narrow)
    eventually(lambda: team.status()["plan"]["tensorParallel"] == 2)
    team.ready()


def test_a_rollout_with_free_gpus_starts_new_replicas_first(team: Team) -> None:
    team.apply(hardware={"gpuProducts": [H100]})
    old = team.ready()["plan"]["hash"]
    team.apply(hardware={"gpuProducts": [H100]}, planning=layout(maxBatchSize=64))
    rolled_out(team, old)
    assert team.children()["Deployment", "llama"]["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 1,
        "maxUnavailable": 0,
    }
    (note,) = eventually(lambda: team.events()["RolloutStarted"])
    assert note.startswith("Surge: "), note


@pytest.fixture
def second(operator: OperatorCluster) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Another operator on the same cluster, and where its metrics are."""
    (first_port,) = [int(operator.cluster.metrics_url.split(":")[2].split("/")[0])]
    port = first_port + 1 if first_port < 65_000 else first_port - 1
    config = operator.cluster.directory / "operator-settings.yaml"
    command = operator_command(operator.cluster.operator_kubeconfig, port, [f"--config={config}"])
    environment = {**os.environ, "POD_NAMESPACE": "energylens-system", "POD_NAME": "second"}
    with subprocess.Popen(command, env=environment, stderr=sys.stderr) as process:
        yield process, f"http://{LOOPBACK}:{port}/metrics"
        process.terminate()
        process.wait(timeout=30)


def test_a_second_operator_waits_for_the_lease_and_takes_over(
    operator: OperatorCluster, team: Team, second: tuple[subprocess.Popen[bytes], str]
) -> None:
    process, url = second

    def leading() -> float:
        try:
            return read_metric(url, "energylens_leading")
        except OSError:
            return -1.0

    eventually(lambda: leading() == 0.0)
    team.apply()
    team.ready()
    assert leading() == 0.0
    assert process.poll() is None
    pid = operator.cluster.operator_pid
    assert pid is not None
    log = operator.audit()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: start_identity(pid) is None)
    eventually(lambda: leading() == 1.0)
    team.apply(planning=layout(replicas=1))
    eventually(lambda: team.status()["plan"]["replicas"] == 1)
    team.ready()
    takeover = [event for event in operator.writes(log) if event.namespace != team.namespace]
    assert takeover == [], "the second operator wrote what the first had written"
    process.terminate()
    assert process.wait(timeout=GRACE_SECONDS) == 0
    operator.start_operator()
    eventually(lambda: operator.metric("energylens_leading") == 1.0)
