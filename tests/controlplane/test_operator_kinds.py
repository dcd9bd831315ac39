"""Kinds that go and come back while the operator runs: it lives on, and what waited moves without a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from tests.controlplane.test_operator_rollouts import LEADER_WORKER_SETS, TWO_NODES
from tests.support.operator_cluster import MEASURED, Object, OperatorCluster, Team, layout, llmdeployment

from energylens_dev.devcluster import Kubectl, eventually

BUDGETS = "energybudgets.energylens.dev"
GROUPS = LEADER_WORKER_SETS["metadata"]["name"]


def without_history(body: Object) -> Object:
    """Return an object as it may be made again."""
    metadata = {name: body["metadata"][name] for name in ("name", "labels", "annotations") if name in body["metadata"]}
    return {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, "spec": body["spec"]}


def serve(api: Kubectl, definition: Object, *arguments: str) -> None:
    name = definition["metadata"]["name"]
    api.apply(definition, *arguments)
    # kubectl refuses to wait for a condition while there is no status at all.
    eventually(lambda: api.run("wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s"))


@contextmanager
def unserved(api: Kubectl, name: str) -> Iterator[Object]:
    """Take a definition away, with all objects of its kind; it is there again afterwards."""
    body = api.get("crd", name)
    assert body is not None
    definition = without_history(body)
    try:
        api.run("delete", "crd", name, "--timeout=60s")
        yield definition
    finally:
        # As the chart's own, so that an upgrade finds no other owner of its fields.
        serve(api, definition, "--field-manager=helm")


def budget(watts: int) -> Object:
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": "cap"},
        "spec": {"powerWatts": watts, "action": "Deny"},
    }


def replicas(count: int) -> Object:
    return {"overrides": {"tensorParallel": 1, "replicas": count}}


def set_served(api: Kubectl, served: bool) -> None:
    patch = json.dumps([{"op": "replace", "path": "/spec/versions/0/served", "value": served}])
    api.run("patch", "crd", BUDGETS, "--type=json", "--field-manager=helm", "-p", patch)


def test_leader_worker_set_comes_goes_and_comes_again(operator: OperatorCluster, team: Team) -> None:
    pid = operator.cluster.operator_pid
    team.apply(**TWO_NODES)
    team.wait("PlanReady", "False", "LeaderWorkerSetMissing")
    try:
        for _ in range(2):
            serve(operator.api, LEADER_WORKER_SETS)
            # The waiting object moves by itself.
            (body,) = eventually(lambda: team.kubectl.list("leaderworkersets"))
            assert body["metadata"]["labels"]["energylens.dev/llmdeployment"] == "llama"
            team.wait("PlanReady", "True", "Planned")
            operator.api.run("delete", "crd", GROUPS, "--timeout=60s")
            team.wait("PlanReady", "False", "LeaderWorkerSetMissing")
        # Others are served meanwhile.
        team.apply("one")
        team.ready("one")
    finally:
        operator.api.run("delete", "crd", GROUPS, "--ignore-not-found", "--timeout=60s")
    assert eventually(lambda: operator.metric("energylens_leading") == 1.0)
    assert operator.cluster.operator_pid == pid


def test_energy_budgets_that_are_out_of_sight_for_a_while_cap_all_the_same(
    operator: OperatorCluster, team: Team
) -> None:
    pid = operator.cluster.operator_pid
    elsewhere = Team(operator.api.within("default"))
    team.apply(**MEASURED, planning=replicas(1))
    watts = team.ready()["plan"]["predicted"]["powerWatts"]
    team.kubectl.apply(budget(int(watts * 1.1)))
    team.wait("WithinEnergyBudget", "True", "WithinBudget")
    before = team.standing()
    set_served(operator.api, False)
    try:
        team.wait("WithinEnergyBudget", "Unknown", "BudgetNotChecked")
        # What was under a budget may not grow, and nothing is taken; what never was is served.
        team.apply(**MEASURED, planning=replicas(3))
        team.wait("PlanReady", "False", "BudgetExceeded")
        assert team.standing() == before
        elsewhere.apply("free")
        elsewhere.ready("free")
    finally:
        set_served(operator.api, True)
        elsewhere.clear()
    # In sight again it binds, and what waits moves as soon as it is raised.
    team.wait("WithinEnergyBudget", "False", "GrowthDenied")
    assert team.standing() == before
    eventually(lambda: team.kubectl.apply(budget(100 * watts)))
    eventually(lambda: team.children()["Deployment", "llama"]["spec"]["replicas"] == 3)
    team.ready()
    assert operator.cluster.operator_pid == pid


def test_energy_budgets_that_were_deleted_with_their_definition_cap_nothing(
    operator: OperatorCluster, team: Team
) -> None:
    pid = operator.cluster.operator_pid
    team.apply()
    team.ready()
    team.kubectl.apply(budget(1))
    team.wait("WithinEnergyBudget", "False", "OverBudget")
    with unserved(operator.api, BUDGETS):
        team.wait("WithinEnergyBudget", "Unknown", "BudgetNotChecked")
        team.apply(planning=layout(replicas=3))
        team.ready()
    team.wait("WithinEnergyBudget", "True", "NoBudget")
    # A budget that is made now is looked at.
    eventually(lambda: team.kubectl.apply(budget(1)))
    team.wait("WithinEnergyBudget", "False", "OverBudget")
    eventually(lambda: (team.kubectl.get("eb", "cap") or {})["status"]["memberCount"] == 1)
    assert operator.cluster.operator_pid == pid


def test_the_operators_own_kind_goes_and_comes_again(operator: OperatorCluster, team: Team) -> None:
    pid = operator.cluster.operator_pid
    team.apply()
    team.ready()
    with unserved(operator.api, "llmdeployments.energylens.dev"):
        # Its children go by their owner references.
        eventually(lambda: not team.pods())
    eventually(lambda: team.kubectl.apply(llmdeployment()))
    team.ready()
    assert operator.cluster.operator_pid == pid


DEPLOYMENTS = "llmdeployments.energylens.dev"
SINCE = (("plan", "kvCacheTokens"), ("plan", "predicted", "utilizationPercent"), ("plan", "alternatives", "reason"))
"""Fields of a status that an older definition does not have; of a list the fields of its elements."""


@contextmanager
def older(api: Kubectl) -> Iterator[None]:
    """Serve a definition without some fields of the status."""
    body = api.get("crd", DEPLOYMENTS)
    assert body is not None
    schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    removals, additions = [], []
    for path in SINCE:
        where, at = "/spec/versions/0/schema/openAPIV3Schema/properties/status", schema
        for name in path:
            inside = "items" in at
            where += f"{'/items' if inside else ''}/properties/{name}"
            at = (at["items"] if inside else at)["properties"][name]
        removals.append({"op": "remove", "path": where})
        additions.append({"op": "add", "path": where, "value": at})
    # As the chart's own, so that an upgrade finds no other owner of its fields.
    patch = ("patch", "crd", DEPLOYMENTS, "--type=json", "--field-manager=helm", "-p")
    api.run(*patch, json.dumps(removals))
    try:
        yield
    finally:
        api.run(*patch, json.dumps(additions))


def test_an_operator_that_is_newer_than_its_definition_writes_what_that_declares(
    operator: OperatorCluster, team: Team
) -> None:
    priorities = count(1)

    def written(undeclared: int) -> Object:
        """Let another status be written; return it once so many fields are known not to be declared."""
        team.apply(planning={"overrides": {"tensorParallel": 1}}, energy={"priority": next(priorities)})
        plan: Object = team.ready()["plan"]
        found = operator.metric('energylens_undeclared_status_fields{kind="LLMDeployment"}')
        assert found == undeclared
        return plan

    with older(operator.api):
        # The API server goes by the former definition for a moment.
        plan = eventually(lambda: written(len(SINCE)))
        assert "kvCacheTokens" not in plan
        assert plan["predicted"]["powerWatts"] > 0
        assert "utilizationPercent" not in plan["predicted"]
        assert plan["alternatives"]
        assert not any("reason" in other for other in plan["alternatives"])
    # Nothing has to be done but to install the definition, which is noticed within seconds.
    plan = eventually(lambda: written(0))
    assert plan["kvCacheTokens"] > 0
    assert all("reason" in other for other in plan["alternatives"])
