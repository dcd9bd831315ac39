"""What others do to the operator's objects while it runs: approvals, edits of the status, loops, policies."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.operator_cluster import OperatorCluster, Team, layout

from energylens.api.llmdeployment import PlanStatus
from energylens.planner.search.identity import action_hash
from energylens_dev.devcluster import Kubectl, KubectlError, eventually

L40S = "NVIDIA-L40S"
LOOP_SECONDS = 15.0


@pytest.fixture
def another_node(operator: OperatorCluster) -> Iterator[dict[str, Any]]:
    """Return a node like those of the test's GPUs, to be applied; it is removed after the test."""
    (like, *_) = operator.api.list("nodes", "-l", f"nvidia.com/gpu.product={L40S}")
    name = "l40s-added"
    metadata = {
        "name": name,
        "labels": {**like["metadata"]["labels"], "kubernetes.io/hostname": name},
        "annotations": {k: v for k, v in like["metadata"].get("annotations", {}).items() if "kwok" in k},
    }
    status = {part: like["status"][part] for part in ("allocatable", "capacity")}
    yield {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}, "status": status}
    operator.api.run("delete", "node", name, "--ignore-not-found", "--wait=false")


def test_an_approval_holds_when_a_node_is_added(team: Team, another_node: dict[str, Any]) -> None:
    team.apply(planning={**layout(), "mode": "Manual"})
    team.wait("PlanReady", "False", "AwaitingApproval")
    before = team.status()["plan"]
    assert "PlanAdopted" not in team.events()
    team.kubectl.apply(another_node)
    team.kubectl.run(
        "patch", "node", another_node["metadata"]["name"], "--subresource=status", "--type=merge",
        "-p", json.dumps({"status": another_node["status"]}),
    )  # fmt: skip

    # A node is no reason to look at once; an edit that changes no plan is.
    team.apply(planning={**layout(), "mode": "Manual"}, podTemplate={"metadata": {"labels": {"team": "a"}}})
    eventually(lambda: team.status()["plan"]["inputsHash"] != before["inputsHash"])
    assert team.status()["plan"]["hash"] == before["hash"]
    wrong = before["hash"][:8]
    team.apply(planning={**layout(), "mode": "Manual", "approvedPlanHash": wrong})
    condition = team.wait("PlanReady", "False", "AwaitingApproval")
    assert f"approvedPlanHash={wrong} is only the first 8" in condition["message"]
    assert before["hash"] in condition["message"]
    team.apply(planning={**layout(), "mode": "Manual", "approvedPlanHash": before["hash"]})
    assert team.ready()["activeRevision"]["planHash"] == before["hash"]
    # What runs is shown, also while another plan is pending.
    team.apply(planning={**layout(replicas=3), "mode": "Manual", "approvedPlanHash": before["hash"]})
    team.wait("PlanReady", "False", "AwaitingApproval")
    row = team.kubectl.run("get", "llmd", "llama", "--no-headers").split()
    assert row[1:6] == [row[1], L40S, "2", "TP1", "True"]
    assert "AwaitingApproval" in row


def test_an_edit_of_the_status_is_undone_and_scales_nothing(team: Team) -> None:
    team.apply()
    team.ready()
    before, standing = team.status(), team.standing()
    plan = {**before["plan"], "replicas": 3, "gpus": 3}
    for edit in (
        {"plan": {"replicas": 3}},
        {"plan": {**plan, "hash": action_hash(PlanStatus.model_validate(plan))}},
        {"plan": {"gpuProduct": "no-such-gpu", "shedBy": "nobody"}, "planAdoptionTime": "yesterday"},
    ):
        team.kubectl.run(
            "patch", "llmd", "llama", "--subresource=status", "--type=merge", "--field-manager=somebody",
            "-p", json.dumps({"status": edit}),
        )  # fmt: skip
        eventually(lambda: team.status()["plan"] == before["plan"])
        assert team.status()["planAdoptionTime"] == before["planAdoptionTime"]
    assert team.standing() == standing
    (told, *_) = team.events()["StatusRestored"]
    assert "somebody" in told


def test_a_writer_in_a_loop_gets_a_handful_of_answers_and_is_named(team: Team) -> None:
    team.apply()
    team.ready()
    (name,) = [name for kind, name in team.children() if kind == "Deployment"]
    before = team.children()["Deployment", name]["metadata"]["generation"]
    end = time.monotonic() + LOOP_SECONDS
    while time.monotonic() < end:
        team.kubectl.run(
            "patch", "deployment", name, "--type=merge", "--field-manager=replicas-bot", "-p", '{"spec":{"replicas":1}}'
        )
    # Every answer is followed by one more edit: both count.
    assert team.children()["Deployment", name]["metadata"]["generation"] - before <= 14
    condition = team.wait("Degraded", "True", "FieldManagerConflict")
    assert "replicas-bot repeatedly changes spec.replicas" in condition["message"]
    # Until it is plain that somebody fights, all replicas may be there after an answer; then not for a moment.
    assert len(team.events().get("BecameUnready", ())) <= 3
    assert team.condition("Ready")["status"] == "False"
    # It stops: its last edit is put right.
    eventually(lambda: team.children()["Deployment", name]["spec"]["replicas"] == 2)


def test_a_policy_that_is_lifted_is_noticed_within_a_minute(operator: OperatorCluster, team: Team) -> None:
    policy = f"no-services-{team.namespace}"
    match = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}}}
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["services"]}]
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": policy}}
    team.kubectl.apply(
        {
            **head,
            "kind": "ValidatingAdmissionPolicy",
            "spec": {
                "matchConstraints": {"resourceRules": rules},
                "validations": [{"expression": "false", "message": "no services here"}],
            },
        }
    )
    team.kubectl.apply(
        {
            **head,
            "kind": "ValidatingAdmissionPolicyBinding",
            "spec": {"policyName": policy, "validationActions": ["Deny"], "matchResources": match},
        }
    )
    try:
        eventually(lambda: _is_refused(team.kubectl))
        team.apply()
        condition = team.wait("Degraded", "True", "ApplyRefused")
        assert "no services here" in condition["message"]
    finally:
        operator.api.run("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", policy)
    team.wait("Degraded", "False", "AsExpected", seconds=60)
    team.ready()


def _is_refused(kubectl: Kubectl) -> bool:
    """Return whether the policy is in force; API servers take a moment."""
    try:
        kubectl.run("create", "service", "clusterip", "probe", "--tcp=80", "--dry-run=server")
    except KubectlError as error:
        return "no services here" in str(error)
    return False
