"""Power and energy that budgets take, on a real API server: how far they go, and what a deployment limits itself to."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from tests.support.operator_cluster import MEASURED, Object, OperatorCluster, Team, layout

from energylens_dev.devcluster import eventually

NAMES = ("a", "b", "c", "d")


def budget(watts: int) -> Object:
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": "cap"},
        "spec": {
            "powerWatts": watts,
            "action": "Shed",
            "shed": {"cooldownSeconds": 5, "hysteresisPercent": 5},
        },
    }


def plans(team: Team) -> list[Object]:
    return [team.status(name)["plan"] for name in NAMES]


def committed(team: Team) -> int:
    return sum(int(plan["predicted"]["powerWatts"]) for plan in plans(team))


def running(team: Team) -> list[int]:
    return [int(team.children(name)["Deployment", name]["spec"]["replicas"]) for name in NAMES]


def verdict(team: Team, kind: str) -> Object:
    """Return a condition of the budget that is about its spec as it is now."""
    body = team.kubectl.get("eb", "cap")
    assert body is not None
    status = body.get("status", {})
    assert status.get("observedGeneration") == body["metadata"]["generation"], "not seen yet"
    (found,) = [c for c in status["conditions"] if c["type"] == kind]
    return dict(found)


def test_four_members_are_taken_from_until_they_are_at_or_below_the_cap_and_get_all_back(team: Team) -> None:
    load = {**MEASURED["workload"], "concurrency": 96}
    for name in NAMES:
        team.apply(name, **MEASURED | {"workload": load}, planning=layout(replicas=3))
    for name in NAMES:
        team.ready(name)

    def priced() -> list[int]:
        return [min(level["powerWatts"] for level in plan["fewerReplicas"]) for plan in plans(team)]

    total, least = committed(team), sum(eventually(priced))
    cap = (total + 2 * least) // 3
    team.kubectl.apply(budget(cap))

    def held() -> bool:
        assert committed(team) <= cap, (committed(team), cap, running(team), verdict(team, "Shedding"))
        found = verdict(team, "WithinEnergyBudget")
        assert found["status"] == "True", found
        # What was decided is what runs.
        return running(team) == [plan["replicas"] for plan in plans(team)]

    eventually(held)
    assert any(plan.get("shedBy") == f"EnergyBudget {team.namespace}/cap" for plan in plans(team))
    team.kubectl.apply(budget(2 * total))
    eventually(lambda: running(team) == [3, 3, 3, 3])
    for name in NAMES:
        team.ready(name)


moment = datetime.fromisoformat


def own(**spec: Any) -> Object:
    return {**MEASURED, "energy": {"budget": {"period": "Day", **spec}}, "planning": layout()}


def test_a_deployment_warns_of_its_own_limit_and_counts_over_a_restart(operator: OperatorCluster, team: Team) -> None:
    # A watt-hour is used up within seconds, and Warn stops nothing.
    team.apply(**own(energyWattHours=1))
    team.ready()
    message = team.wait("WithinEnergyBudget", "False", "OverBudget")["message"]
    assert "spec.energy.budget.energyWattHours=1" in message
    standing = team.standing()
    assert team.status()["budget"]["name"] == "spec.energy.budget"
    eventually(lambda: any("energyWattHours=1" in note for note in team.events()["BudgetExceeded"]))
    before = team.status()["energyAccount"]
    assert before["measuredJoules"] > 0
    used = (before["measuredJoules"] + before["predictedJoules"]) / 3600
    operator.restart_operator()
    # A limit that holds for some seconds more: what was counted before the restart counts towards it.
    limit = math.ceil(used) + 3
    team.apply(**own(energyWattHours=limit))

    def used_up() -> Object:
        assert f"energyWattHours={limit}" in team.wait("WithinEnergyBudget", "False", "OverBudget")["message"]
        account: Object = team.status()["energyAccount"]
        return account

    after = eventually(used_up)
    assert after["periodStart"] == before["periodStart"]
    assert after["measuredJoules"] >= before["measuredJoules"]
    # Within what the pods can have drawn since then, so that nothing was counted twice.
    seconds = (moment(after["accountedUntil"]) - moment(before["accountedUntil"])).total_seconds()
    since = after["measuredJoules"] + after["predictedJoules"] - 3600 * used
    assert 0 < since <= 2 * team.status()["plan"]["predicted"]["powerWatts"] * seconds
    assert team.standing() == standing


def test_enforce_refuses_a_plan_that_the_period_cannot_hold_and_names_the_limit_that_can(team: Team) -> None:
    team.apply(**own(energyWattHours=10**6, action="Enforce"))
    watts = team.ready()["plan"]["predicted"]["powerWatts"]
    standing = team.standing()
    team.apply(**own(energyWattHours=24 * watts - 1, action="Enforce"))
    message = team.wait("PlanReady", "False", "BudgetExceeded")["message"]
    assert f"spec.energy.budget.energyWattHours={24 * watts - 1}" in message
    (named,) = [r for r in team.status()["relaxations"] if r["field"] == "spec.energy.budget.energyWattHours"]
    assert team.standing() == standing
    team.apply(**own(energyWattHours=int(named["allowed"]), action="Enforce"))
    team.wait("PlanReady", "True", "Planned")
    team.wait("WithinEnergyBudget", "True")
    assert team.standing() == standing
