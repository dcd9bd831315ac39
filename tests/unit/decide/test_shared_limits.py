"""The power that budgets leave to deployments that are planned together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.observations import NOW, PRODUCT, deployment

from energylens.api.llmdeployment import LLMDeployment
from energylens.decide.preview import World
from energylens.decide.shared_limits import SharedLimit, UnusableBudgetError, shared_limits
from energylens.planner.types import ClusterSnapshot, GpuAllocation, GpuNode

NODES = (
    GpuNode("a0", PRODUCT, 8, labels={"row": "a"}),
    GpuNode("a1", "NVIDIA-L40S", 8, labels={"row": "a"}),
    GpuNode("b0", PRODUCT, 8, (GpuAllocation("team/other", 1), GpuAllocation("", 3)), labels={"row": "b"}),
)
NAME = "EnergyBudget team/cap"


def budget(status: dict[str, Any] | None = None, namespace: str | None = "team", **spec: Any) -> dict[str, Any]:
    metadata = {"name": "cap", "generation": 2, **({} if namespace is None else {"namespace": namespace})}
    return {"metadata": metadata, "spec": {"powerWatts": 5000, "action": "Deny", **spec}, "status": status or {}}


def other(name: str = "other", watts: int = 1200, gpus: int = 4) -> dict[str, Any]:
    plan = {"hash": "f" * 16, "gpuProduct": PRODUCT, "gpus": gpus, "predicted": {"powerWatts": watts}}
    return {"metadata": {"name": name, "namespace": "team", "uid": "u2"}, "spec": {}, "status": {"plan": plan}}


def world(*budgets: dict[str, Any], **changes: Any) -> World:
    deployments = {("team", "other"): other()}
    return World(**{"snapshot": ClusterSnapshot(NODES), "budgets": budgets, "deployments": deployments, **changes})


def limits(cluster: World, *asked: LLMDeployment, members: tuple[str, ...] = ("team/llama",)) -> list[SharedLimit]:
    return list(shared_limits(asked or (deployment(),), cluster, frozenset(members), NOW))


def test_what_others_commit_is_not_left() -> None:
    assert limits(world(budget())) == [SharedLimit(NAME, 3800.0, frozenset({"team/llama"}), None, ())]
    assert limits(world(budget(), deployments={}))[0].watts == 5000.0


def test_others_that_are_no_members_take_nothing() -> None:
    elsewhere = {("prod", "other"): {**other(), "metadata": {"name": "other", "namespace": "prod"}}}
    assert limits(world(budget(), deployments=elsewhere))[0].watts == 5000.0


def test_less_than_nothing_is_never_left() -> None:
    assert limits(world(budget(powerWatts=1000)))[0].watts == 0.0


def test_each_budget_limits_its_own_members() -> None:
    chat = deployment()
    chat = chat.model_copy(update={"metadata": chat.metadata.model_copy(update={"labels": {"app": "chat"}})})
    batch = deployment()
    batch = batch.model_copy(update={"metadata": batch.metadata.model_copy(update={"name": "batch"})})
    some = budget(selector={"matchLabels": {"app": "chat"}})
    found = limits(world(some, budget()), chat, batch, members=("team/llama", "team/batch"))
    assert [limit.members for limit in found] == [{"team/llama"}, {"team/llama", "team/batch"}]
    # A deployment that cannot be planned is limited by nothing.
    assert [limit.members for limit in limits(world(some, budget()), chat, batch, members=("team/batch",))] == [
        {"team/batch"}
    ]


def test_budgets_that_limit_nobody_are_left_out() -> None:
    assert limits(world(budget(action="Report"))) == []
    assert limits(world(budget(namespace="prod"))) == []
    assert limits(world(budget()), members=()) == []


def test_a_budget_of_nodes_counts_the_products_and_pods_on_them() -> None:
    row = budget(namespace=None, nodeSelector={"row": "b"})
    (found,) = limits(world(row))
    # One of the four GPUs of the other deployment is bound there, and the three unplaced ones may come there.
    assert (found.name, found.watts) == ("ClusterEnergyBudget cap", 3800.0)
    assert (found.products, found.partly) == ({PRODUCT}, (PRODUCT,))
    whole = {("team", "other"): other(gpus=1)}
    both = replace(world(budget(namespace=None, nodeSelector={"row": "a"})), deployments=whole)
    (other_row,) = limits(both)
    assert other_row.watts == 5000.0
    assert (other_row.products, other_row.partly) == ({PRODUCT, "NVIDIA-L40S"}, (PRODUCT,))


def test_energy_that_no_operator_counted_yet_is_all_there() -> None:
    """1,000 kWh from noon of March 1 on are 1,366 W; the limit is offered in steps."""
    asked = budget(powerWatts=None, energyWattHours=1_000_000)
    from_a_file = {**asked, "metadata": {"name": "cap", "namespace": "team"}}
    for body in (asked, from_a_file):
        found = limits(world(body, deployments={}))
        assert found[0].watts == pytest.approx(1_000_000 / (31 * 24 - 12), rel=0.02)


def test_a_budget_that_cannot_be_used_is_named() -> None:
    with pytest.raises(UnusableBudgetError, match=r"^EnergyBudget team/cap: spec\.powerWatts: "):
        limits(world(budget(powerWatts=0)))
    stale = {
        "observedGeneration": 2,
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "MetricsMissing", "message": "no source answers"}
        ],
    }
    with pytest.raises(UnusableBudgetError, match=r"^EnergyBudget team/cap: no source answers$"):
        limits(world(budget(stale)))
