"""Who belongs to a budget, and which part of a member's power and GPUs counts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide.budgets.test_hours import NOW, constant, weekly

from energylens.api.energybudget import ClusterEnergyBudgetSpec, EnergyBudgetSpec
from energylens.decide.budgets.counted import QUARTERS, counted_watts, quarters_ahead
from energylens.decide.budgets.membership import (
    Surroundings,
    bound_gpus,
    counted_nodes,
    held_gpus,
    is_member,
    share,
)
from energylens.decide.planned import PlannedDeployment, planned
from energylens.planner.types import GpuAllocation, GpuNode

ROW = ClusterEnergyBudgetSpec.model_validate({"powerWatts": 1000, "nodeSelector": {"row": "b"}})
EVERYWHERE = ClusterEnergyBudgetSpec(power_watts=1000)


def member(gpus: int | None = 4, selector: dict[str, str] | None = None, **labels: str) -> PlannedDeployment:
    plan = {"predicted": {"powerWatts": 800}, "gpus": gpus, "gpuProduct": "H100"}
    spec: dict[str, Any] = {"hardware": {"nodeSelector": selector or {}}}
    status = {} if gpus is None else {"plan": plan}
    return planned({"metadata": {"name": "me", "namespace": "team", "labels": labels}, "spec": spec, "status": status})


def node(name: str, row: str, held: int = 0, **labels: str) -> GpuNode:
    return GpuNode(name, "H100", 8, (GpuAllocation("team/me", held),) if held else (), {"row": row, **labels})


def around(*nodes: GpuNode) -> Surroundings:
    return Surroundings({"team": {"tier": "gold"}}, nodes)


EMPTY = around(node("n1", "b"), node("n2", "c"))


@pytest.mark.parametrize(("namespace", "belongs"), [("team", True), ("other", False), ("", True)])
def test_a_budget_of_a_namespace_has_members_of_its_own(namespace: str, belongs: bool) -> None:
    spec = EnergyBudgetSpec(power_watts=1) if namespace else EVERYWHERE
    assert is_member(spec, namespace, member(), EMPTY) is belongs


@pytest.mark.parametrize(
    ("spec", "labels", "belongs"),
    [
        ({"selector": {"matchLabels": {"app": "chat"}}}, {"app": "chat"}, True),
        ({"selector": {"matchLabels": {"app": "chat"}}}, {}, False),
        ({"namespaceSelector": {"matchLabels": {"tier": "gold"}}}, {}, True),
        ({"namespaceSelector": {"matchLabels": {"tier": "iron"}}}, {}, False),
    ],
)
def test_selectors_choose_the_members_of_a_cluster_budget(
    spec: dict[str, Any], labels: dict[str, str], belongs: bool
) -> None:
    asked = ClusterEnergyBudgetSpec.model_validate({"powerWatts": 1, **spec})
    assert is_member(asked, "", member(4, None, **labels), EMPTY) is belongs


@pytest.mark.parametrize(
    ("deployment", "nodes", "expected"),
    [
        # Unplaced pods may come to the row.
        (member(), (node("n1", "b"), node("n2", "c")), 1.0),
        (member(None), (node("n1", "b"),), 1.0),
        (member(selector={"row": "c"}), (node("n1", "b"), node("n2", "c")), 0.0),
        (member(None, {"row": "c"}), (node("n1", "b"), node("n2", "c")), 0.0),
        # One node of the row suffices.
        (member(selector={"zone": "x"}), (node("n1", "b", zone="x"), node("n2", "b", zone="y")), 1.0),
        (member(), (node("n1", "b", 1), node("n2", "c", 3)), 0.25),
        (member(), (node("n1", "b", 1), node("n2", "c", 1)), 0.75),
        (member(selector={"row": "c"}), (node("n1", "b", 1), node("n2", "c", 1)), 0.25),
        # A rollout holds more GPUs than its plan.
        (member(), (node("n1", "b", 6),), 1.0),
        (member(0), (node("n1", "b", 2),), 0.0),
    ],
)
def test_the_share_is_that_of_the_gpus_on_the_budgets_nodes(
    deployment: PlannedDeployment, nodes: tuple[GpuNode, ...], expected: float
) -> None:
    assert share(ROW, deployment, around(*nodes)) == expected
    assert is_member(ROW, "", deployment, around(*nodes)) is (expected > 0 or not deployment.node_selector)
    assert share(EVERYWHERE, deployment, around(*nodes)) == 1.0


def test_gpus_are_counted_on_the_budgets_nodes_and_anywhere() -> None:
    found = around(node("n1", "b", 1), node("n2", "c", 3))
    assert (held_gpus(ROW, member(), found), bound_gpus(member(), found)) == (1, 4)
    assert held_gpus(EVERYWHERE, member(), found) == 4
    assert (held_gpus(ROW, member(), EMPTY), bound_gpus(member(), EMPTY)) == (0, 0)
    assert counted_nodes(ROW, found) == {"n1"}
    assert counted_nodes(EVERYWHERE, found) is None
    assert counted_nodes(EnergyBudgetSpec(power_watts=1), found) is None


def test_the_share_of_power_counts_now_and_in_every_hour() -> None:
    rows = Surroundings(
        {},
        [
            GpuNode("n1", "H100", 8, (GpuAllocation("team/noon", 1), GpuAllocation("team/base", 1)), {"row": "b"}),
            GpuNode("n2", "H100", 8, (GpuAllocation("team/noon", 3),), {"row": "c"}),
        ],
    )
    noon = counted_watts(ROW, "", weekly("noon", [(12, 900), (14, 100)], now=600, gpus=4), rows)
    assert noon is not None
    assert (noon.committed, noon.constant, noon.reserved(NOW)) == (150.0, 0.0, 225.0)
    assert set(noon.by_slot("UTC", NOW)) == {225.0, 25.0}
    part = counted_watts(ROW, "", constant("base", 300), around(node("n1", "b"), node("n2", "c")))
    assert part is not None
    assert (part.committed, part.constant) == (300.0, 300.0)
    half = counted_watts(ROW, "", member(), around(node("n1", "b", 2), node("n2", "c", 2)))
    assert half is not None
    assert (half.committed, half.constant) == (400.0, 400.0)
    assert counted_watts(EnergyBudgetSpec(power_watts=1), "other", constant("base", 300), rows) is None


@pytest.mark.parametrize(
    ("seconds", "quarters"), [(0.0, 0), (1.0, 1), (900.0, 1), (901.0, 2), (604_800.0, QUARTERS - 1)]
)
def test_replicas_start_whole_quarters_early_and_less_than_a_week(seconds: float, quarters: int) -> None:
    assert quarters_ahead(seconds) == quarters
