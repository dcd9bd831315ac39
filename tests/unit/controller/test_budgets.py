"""Watts that budgets leave and GPUs that plans hold: what is promised counts, and what runs is never pushed out."""

from __future__ import annotations

from typing import Any

import pytest

from energylens.api.energybudget import LabelSelector
from energylens.controller.budgets import allowance, selects
from energylens.controller.reasons import Reason
from energylens.controller.reservations import reservation, reserve
from energylens.planner.types import ClusterSnapshot, GpuNode


def member(name: str, watts: int | None = None, **labels: str) -> dict[str, Any]:
    status = {"plan": {"predicted": {"powerWatts": watts}}} if watts is not None else {}
    return {"metadata": {"name": name, "namespace": "team", "labels": labels}, "spec": {}, "status": status}


def budget(watts: int | None = 1000, action: str = "Deny", *, namespace: str = "team", **spec: Any) -> dict[str, Any]:
    limit = {"powerWatts": watts} if watts is not None else {"energyWattHours": 5}
    return {"metadata": {"name": "cap", "namespace": namespace}, "spec": {**limit, "action": action, **spec}}


def test_a_new_member_gets_what_the_others_leave() -> None:
    me = member("me")
    allowed, view = allowance(me, [budget()], [me, member("other", 600)])
    assert allowed is not None
    assert (allowed.watts, allowed.source) == (400.0, "EnergyBudget team/cap")
    assert (view.status, view.reason) == ("True", Reason.WITHIN_BUDGET)


def test_the_tightest_budget_counts() -> None:
    me = member("me")
    tight = {**budget(300), "metadata": {"name": "tight", "namespace": "team"}}
    allowed, _ = allowance(me, [budget(), tight], [me])
    assert allowed is not None
    assert (allowed.watts, allowed.source) == (300.0, "EnergyBudget team/tight")


def test_what_runs_is_never_pushed_out_by_what_others_committed() -> None:
    me = member("me", 700)
    allowed, view = allowance(me, [budget()], [me, member("other", 600)])
    assert allowed is not None
    assert allowed.watts == 700.0
    assert (view.status, view.reason) == ("False", Reason.OVER_BUDGET)
    assert "300 W more than spec.powerWatts=1000" in view.message


def test_a_budget_that_only_reports_limits_nothing_and_still_tells() -> None:
    me = member("me", 1200)
    allowed, view = allowance(me, [budget(action="Report")], [me])
    assert allowed is None
    assert view.status == "False"


def test_a_budget_that_cannot_be_read_allows_no_growth() -> None:
    me = member("me", 700)
    allowed, view = allowance(me, [budget(powerWatts="much")], [me])
    assert allowed is not None
    assert allowed.watts == 700.0
    assert (view.status, view.reason) == ("Unknown", Reason.BUDGET_UNREADABLE)


@pytest.mark.parametrize(
    "other",
    [
        budget(namespace="elsewhere"),
        budget(selector={"matchLabels": {"tier": "gold"}}),
        budget(None),
    ],
    ids=["another namespace", "not selected", "no power"],
)
def test_budgets_that_are_about_something_else_limit_nothing(other: dict[str, Any]) -> None:
    me = member("me", 2000)
    allowed, view = allowance(me, [other], [me])
    assert allowed is None
    assert (view.status, view.reason) == ("True", Reason.NO_BUDGET)


def test_only_selected_neighbours_count() -> None:
    me = member("me", tier="gold")
    others = [member("gold", 300, tier="gold"), member("silver", 600, tier="silver")]
    allowed, _ = allowance(me, [budget(selector={"matchLabels": {"tier": "gold"}})], [me, *others])
    assert allowed is not None
    assert allowed.watts == 700.0


@pytest.mark.parametrize(
    ("operator", "values", "labels", "selected"),
    [
        ("In", ["a"], {"team": "a"}, True),
        ("In", ["a"], {"team": "b"}, False),
        ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"team": "b"}, True),
        ("NotIn", ["a"], {}, True),
        ("NotIn", ["a"], {"team": "a"}, False),
        ("Exists", [], {"team": ""}, True),
        ("Exists", [], {}, False),
        ("DoesNotExist", [], {}, True),
        ("DoesNotExist", [], {"team": "a"}, False),
    ],
)
def test_selectors_select_as_kubernetes_does(
    operator: str, values: list[str], labels: dict[str, str], selected: bool
) -> None:
    selector = LabelSelector.model_validate(
        {"matchExpressions": [{"key": "team", "operator": operator, "values": values}]}
    )
    assert selects(selector, labels) is selected


def promised(gpus: int = 8, *, per_replica: int = 4, nodes: int = 1, **spec: Any) -> dict[str, Any]:
    plan = {
        "gpus": gpus,
        "gpuProduct": "H100",
        "tensorParallel": per_replica,
        "pipelineParallel": 1,
        "dataParallel": 1,
        "nodesPerReplica": nodes,
    }
    return {"metadata": {"name": "other", "namespace": "team"}, "spec": spec, "status": {"plan": plan}}


def two_nodes(free: int = 8) -> ClusterSnapshot:
    return ClusterSnapshot(tuple(GpuNode(f"n{i}", "H100", free) for i in range(2)))


def free(snapshot: ClusterSnapshot) -> list[int]:
    return [node.free_now for node in snapshot.nodes]


def test_a_plan_without_pods_holds_its_gpus() -> None:
    wanted = reservation(promised(), bound_gpus=0)
    assert wanted is not None
    assert (wanted.owner, wanted.gpus_per_pod, wanted.pods) == ("team/other", 4, 2)
    # Both on one node, so that the other stays whole.
    assert free(reserve(two_nodes(), [wanted])) == [0, 8]


def test_bound_pods_are_not_counted_twice() -> None:
    wanted = reservation(promised(), bound_gpus=4)
    assert wanted is not None
    assert wanted.pods == 1
    assert reservation(promised(), bound_gpus=8) is None


def test_a_replica_over_nodes_holds_a_part_of_each() -> None:
    wanted = reservation(promised(16, per_replica=16, nodes=2), bound_gpus=0)
    assert wanted is not None
    assert free(reserve(two_nodes(), [wanted])) == [0, 0]


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"name": "x", "namespace": "team"}, "spec": {}, "status": {}},
        promised(suspend=True),
        promised(planning={"mode": "Advisory"}),
    ],
    ids=["no plan", "suspended", "advisory"],
)
def test_what_will_never_start_holds_nothing(body: dict[str, Any]) -> None:
    assert reservation(body, bound_gpus=0) is None


def test_what_fits_nowhere_takes_nothing_from_others() -> None:
    wanted = reservation(promised(64, per_replica=16), bound_gpus=0)
    assert wanted is not None
    assert free(reserve(two_nodes(), [wanted])) == [8, 8]
