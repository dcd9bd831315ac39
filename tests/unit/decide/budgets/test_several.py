"""Budgets that cannot be read, that shed a share, that only report, and whose energy is counted, beside each other."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide.budgets.test_allowance import NOW, allowance, budget, cluster_budget, member, row, taken, watts
from tests.unit.decide.budgets.test_claim import named, own_budget

from energylens.api.energybudget import EnergyBudgetSpec, EnergyBudgetStatus
from energylens.decide.budgets.allowance import _measured_above
from energylens.decide.budgets.budget import growth_of
from energylens.decide.reasons import Reason

UNREADABLE = named(budget(powerWatts="much"), "broken")


def test_budgets_after_one_of_another_namespace_still_count() -> None:
    me = member("me")
    assert watts(allowance(me, [budget(10, namespace="elsewhere"), budget(300)], [me])) == 300.0


def test_a_budget_that_cannot_be_read_leaves_one_watt_to_a_deployment_that_draws_none() -> None:
    assert watts(allowance(member("new"), [UNREADABLE], [])) == 1.0


def test_a_limit_of_the_own_spec_holds_while_another_budget_cannot_be_read() -> None:
    me = own_budget(700, powerWatts=500, action="Enforce")
    found = allowance(me, [UNREADABLE], [me])
    assert watts(found) == 500.0
    assert found.view.reason is Reason.BUDGET_UNREADABLE


def test_the_limit_of_the_own_spec_is_all_for_the_deployment() -> None:
    me = own_budget(700, powerWatts=1000, action="Enforce")
    assert watts(allowance(me, [], [me, member("other", 600)])) == 1000.0


def test_of_equal_power_the_budget_that_cannot_be_read_is_named() -> None:
    me = member("me", 700)
    found = allowance(me, [budget(), UNREADABLE], [me, member("other", 600)]).allowance
    assert found is not None
    assert (found.watts, found.source) == (700.0, "EnergyBudget team/broken")


def test_power_left_to_the_part_in_one_row_allows_more_for_the_whole() -> None:
    me = member("me", 800)
    me["spec"] = {"hardware": {"nodeSelector": {"row": "c"}}}
    around = row(("n1", "team/me", 4), ("n2", "team/me", 4), rows={"n1": "b", "n2": "c"})
    body = taken(cluster_budget(500, nodeSelector={"row": "b"}, action="Shed"), "me", 200)
    found = allowance(me, [body], [me], around)
    assert found.allowance is not None
    assert (found.allowance.sheds, found.allowance.watts) == (True, 400.0)


def test_of_budgets_that_only_report_the_fullest_is_named() -> None:
    me = member("me", 100)
    bodies = [
        {**named(budget(action="Report"), name), "status": {"usedPercent": percent}}
        for name, percent in (("a", 10), ("b", 90), ("c", 50))
    ]
    found = allowance(me, bodies, [me])
    assert found.status is not None
    assert found.status.name == "EnergyBudget team/b"


def test_only_a_budget_that_counts_energy_is_reset() -> None:
    power, energy = own_budget(700, powerWatts=1000), own_budget(700, energyWattHours=24000, period="Day")
    status = {"periodStart": "2026-11-25T00:00:00Z", "resetTime": "2026-11-26T00:00:00Z", "measuredJoules": 3600}
    account = {**status, "predictedJoules": 0, "predictedWatts": 700, "accountedUntil": "2026-11-25T11:59:00Z"}
    energy["status"]["energyAccount"] = account
    found = [allowance(me, [], [me]).status for me in (power, energy)]
    assert [each and each.reset_time for each in found] == [None, "2026-11-26T00:00:00Z"]


@pytest.mark.parametrize("limit", [100, 99, 1])
def test_steps_are_a_watt_at_least(limit: int) -> None:
    spec = EnergyBudgetSpec(power_watts=limit)
    assert _measured_above(spec, EnergyBudgetStatus(excess_power_watts=1)) == 1.0


def growth(spec: dict[str, Any], **status: Any) -> tuple[float | None, str]:
    fields = {
        "observedGeneration": 1,
        "periodStart": "2026-11-25T00:00:00Z",
        "usedWattHours": 0,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Checked", "message": ""}],
        **status,
    }
    asked = EnergyBudgetSpec.model_validate({"period": "Day", **spec})
    found, problem = growth_of(1, asked, EnergyBudgetStatus.model_validate(fields), NOW)
    tightest = None if found is None else found.tightest()
    return None if tightest is None else tightest.watts, problem


def test_energy_allows_the_mean_power_of_a_period_in_whole_steps() -> None:
    left = {"remainingWattHours": 47, "energyLimit": "spec.energyWattHours"}
    assert growth({"energyWattHours": 47}, **left) == (1.0, "")
    assert growth({"energyWattHours": 48}, **left, usedWattHours=1) == (2.0, "")


def test_a_carbon_limit_is_counted_before_it_allows_anything() -> None:
    carbon = {"carbon": {"gramsPerPeriod": 1000, "forecastConfigMapRef": {"name": "grid"}}}
    assert growth(carbon, conditions=[]) == (None, "its energy is not counted yet")
    assert growth(carbon, periodStart="2026-11-24T00:00:00Z") == (
        None,
        "its energy of this period is not counted yet",
    )
    counted = growth(carbon, remainingWattHours=1200, energyLimit="spec.carbon.gramsPerPeriod")
    assert counted == (100.0, "")
