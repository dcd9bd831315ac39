"""What one budget leaves to one deployment, and what is said of several budgets together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from tests.unit.decide.budgets.test_allowance import allowance, budget, counted, member, taken, watts

from energylens.api.energybudget import EnergyBudgetSpec, EnergyBudgetStatus
from energylens.budget.periods import period_at
from energylens.budget.usage import EnergyAllowed, Growth, PowerAllowed
from energylens.decide.budgets.allowance import _by_hour, _measured_above
from energylens.decide.budgets.claim import BudgetClaim
from energylens.decide.budgets.counted import NO_WATTS, QUARTERS, CountedWatts
from energylens.decide.planned import HOURS, WeekWatts
from energylens.decide.reasons import Reason
from energylens.planner.types import PowerAllowance

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SPEC = EnergyBudgetSpec.model_validate(
    {"powerWatts": 1000, "energyWattHours": 24000, "period": "Day", "action": "Deny"}
)
POWER = Growth(PowerAllowed(1000.0, "spec.powerWatts"))
ENERGY = Growth(energy=EnergyAllowed(1e9, 800.0 * 24, 12.0, 24.0, 1.0, "spec.energyWattHours"))


def claim(**changes: Any) -> BudgetClaim:
    fields = {
        "name": "EnergyBudget team/cap",
        "spec": SPEC,
        "status": EnergyBudgetStatus(used_watt_hours=1200),
        "own": 300.0,
        "granted": 350.0,
        "own_share": 1.0,
        "others": CountedWatts(500.0, 600.0),
        "growth": POWER,
        "problem": "",
        "cap": None,
        "period": period_at("Day", ZoneInfo("UTC"), NOW),
        "now": NOW,
    }
    return BudgetClaim(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, 400.0),
        ({"beyond": 50.0}, 350.0),
        # What runs is not pushed out, and one watt is always asked for.
        ({"others": CountedWatts(0.0, 900.0)}, 300.0),
        ({"others": CountedWatts(0.0, 900.0), "own": 0.0}, 100.0),
        ({"others": CountedWatts(0.0, 1000.0), "own": 0.0}, 1.0),
        ({"problem": "not counted"}, 350.0),
        ({"problem": "not counted", "granted": 0.0}, 1.0),
        ({"cap": 120.5}, 120.5),
        ({"cap": 120.0, "problem": "not counted"}, 120.0),
        ({"growth": None}, float("inf")),
        ({"ceiling": PowerAllowed(200.0, "spec.powerWatts")}, 200.0),
        ({"ceiling": PowerAllowed(0.5, "spec.powerWatts")}, 1.0),
        ({"ceiling": PowerAllowed(900.0, "spec.powerWatts")}, 400.0),
    ],
)
def test_a_budget_leaves_what_others_do_not_reserve(changes: dict[str, Any], left: float) -> None:
    assert claim(**changes).left == left


def test_the_allowance_names_the_limit_behind_it() -> None:
    power = claim().allowance
    assert str(power) == "EnergyBudget team/cap=400 W (of spec.powerWatts=1000 W)"
    assert power.limit is not None
    assert power.limit.others_watts == 600.0
    energy = claim(growth=ENERGY, beyond=20.0).allowance
    assert str(energy) == "EnergyBudget team/cap=300 W (of spec.energyWattHours=24000 Wh)"
    assert energy.limit is not None
    assert energy.limit.others_watts == 620.0
    assert energy.limit.energy is not None
    assert energy.limit.energy.used_watt_hours == 1200.0
    carbon = claim(
        growth=Growth(energy=EnergyAllowed(1e9, 900.0 * 24, 12.0, 24.0, 1.0, "spec.carbon.kilograms"))
    ).allowance
    assert str(carbon) == "EnergyBudget team/cap=300 W (by spec.carbon.kilograms)"
    assert carbon.limit is None


def test_power_that_was_taken_and_a_budget_that_is_not_checked_have_no_limit() -> None:
    shed = claim(cap=120.9).allowance
    assert (shed.watts, shed.sheds, shed.limit) == (120.0, True, None)
    closed = claim(problem="it is not counted").allowance
    assert (closed.watts, closed.because, closed.awaits_look) == (350.0, "it is not counted", False)
    assert not claim(problem="x", awaits_look=True).allowance.awaits_look
    assert claim(problem="x", awaits_look=True, own=0.0).allowance.awaits_look


def test_an_own_budget_speaks_of_its_own_field() -> None:
    own = {"name": "spec.energy.budget", "path": "spec.energy.budget.", "others": NO_WATTS}
    power = claim(**own, ceiling=POWER.power).allowance
    assert str(power) == "spec.energy.budget.powerWatts=1000"
    energy = claim(**own, growth=ENERGY).allowance
    assert str(energy) == "spec.energy.budget.energyWattHours=24000 (800 W)"
    assert claim(**own).is_own
    assert not claim().is_own
    least = claim(**own, own=0.0, growth=ENERGY, ceiling=PowerAllowed(1.0, "spec.powerWatts")).allowance
    assert (least.watts, least.source) == (1.0, "spec.energy.budget.powerWatts")
    # The ceiling binds where it is no more than what is left.
    assert claim(**own, growth=ENERGY, ceiling=PowerAllowed(800.0, "spec.powerWatts")).allowance.source.endswith(
        "powerWatts"
    )
    assert claim(**own, growth=ENERGY, ceiling=PowerAllowed(801.0, "spec.powerWatts")).allowance.source.endswith(
        "Hours"
    )


@pytest.mark.parametrize(
    ("changes", "limits", "is_held"),
    [
        ({}, True, False),
        ({"problem": "x"}, True, True),
        ({"cap": 1.0}, True, True),
        ({"growth": None}, False, False),
        ({"spec": SPEC.model_copy(update={"action": "Report"}), "problem": "x"}, False, False),
    ],
)
def test_a_budget_that_reports_or_has_no_limit_limits_nothing(
    changes: dict[str, Any], limits: bool, is_held: bool
) -> None:
    assert (claim(**changes).limits, claim(**changes).is_held) == (limits, is_held)


def test_the_power_that_counts_is_the_share_of_the_own_plan_and_that_of_the_others() -> None:
    assert claim(own_share=0.5).used == 650
    assert claim().value("spec.powerWatts") == "spec.powerWatts=1000 W"
    assert claim().value("spec.energyWattHours") == "spec.energyWattHours=24000 Wh"
    assert claim().value("spec.carbon.kilograms") == "spec.carbon.kilograms"


def weekly(watts_at_eight: float = 500.0) -> CountedWatts:
    """Return others that reserve power on Mondays from 8 to 9 o'clock only."""
    slots = np.zeros(QUARTERS)
    slots[32:36] = watts_at_eight
    return CountedWatts(0.0, 100.0, {"UTC": slots})


def test_each_hour_leaves_what_others_reserve_in_it() -> None:
    week = WeekWatts("UTC", 0)
    found = claim(others=weekly(), week=week).left_by_hour
    assert found is not None
    assert [hour for hour in range(HOURS) if found[hour] == 400.0] == [8]
    assert set(found) == {400.0, 900.0}
    # Replicas that start half an hour early draw their power in the hour before, too.
    early = claim(others=weekly(), week=WeekWatts("UTC", 1800)).left_by_hour
    assert early is not None
    assert [hour for hour in range(HOURS) if early[hour] == 400.0] == [8, 9]
    own = claim(others=weekly(900.0), week=week).left_by_hour
    assert own is not None
    assert own[8] == 300.0
    none = claim(others=weekly(900.0), week=week, own=0.0, beyond=50.0).left_by_hour
    assert none is not None
    assert (none[8], none[9]) == (1.0, 850.0)
    ceiling = claim(others=weekly(), week=week, ceiling=PowerAllowed(700.5, "spec.powerWatts")).left_by_hour
    assert ceiling is not None
    assert set(ceiling) == {400.0, 700.0}
    low = claim(others=weekly(), week=week, ceiling=PowerAllowed(0.0, "spec.powerWatts")).left_by_hour
    assert low is not None
    assert set(low) == {1.0}


@pytest.mark.parametrize(
    "changes", [{"week": None}, {"others": NO_WATTS}, {"cap": 5.0}, {"problem": "x"}, {"growth": None}]
)
def test_hours_that_do_not_differ_are_one(changes: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"week": WeekWatts("UTC", 0), "others": weekly(), **changes}
    assert claim(**fields).left_by_hour is None


def test_several_budgets_leave_the_least_of_each_hour() -> None:
    by_hour, flat = claim(others=weekly(), week=WeekWatts("UTC", 0)), claim(others=CountedWatts(0.0, 300.0))
    both = _by_hour(PowerAllowance(400.0, "a"), [by_hour, flat])
    assert both.hours is not None
    assert (both.hours[8], both.hours[9], both.watts) == (400.0, 700.0, 700.0)
    alone = _by_hour(PowerAllowance(400.0, "a"), [by_hour])
    assert alone.hours is not None
    assert (alone.hours[8], alone.hours[9], alone.watts) == (400.0, 900.0, 900.0)
    tight = claim(others=CountedWatts(0.0, 700.0))
    for claims in ([flat], [by_hour, tight], [by_hour, claim(problem="x")]):
        assert _by_hour(PowerAllowance(300.0, "a"), claims) == PowerAllowance(300.0, "a")
    low = claim(others=weekly(900.0), week=WeekWatts("UTC", 0))
    assert _by_hour(PowerAllowance(300.0, "a"), [low, claim(problem="x")]) == PowerAllowance(300.0, "a")
    shed = PowerAllowance(50.0, "a", sheds=True)
    assert _by_hour(shed, [by_hour]) == shed


@pytest.mark.parametrize(
    ("excess", "limit", "beyond"),
    [(0, 1000, 0.0), (1, 1000, 10.0), (10, 1000, 10.0), (11, 1000, 20.0), (3, 50, 3.0), (None, 1000, 0.0)],
)
def test_power_above_the_plans_counts_in_steps_of_a_hundredth(excess: int | None, limit: int, beyond: float) -> None:
    spec = SPEC.model_copy(update={"power_watts": limit})
    assert _measured_above(spec, EnergyBudgetStatus(excess_power_watts=excess)) == beyond
    assert (
        _measured_above(SPEC.model_copy(update={"power_watts": None}), EnergyBudgetStatus(excess_power_watts=9)) == 0.0
    )


def named(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {**body, "metadata": {"name": name, "namespace": "team"}}


def test_the_tightest_cap_is_told_first() -> None:
    me = member("me", 700)
    loose, tight = (
        taken(named(budget(2000, "Shed"), "loose"), "me", 600),
        taken(named(budget(2000, "Shed"), "tight"), "me", 450),
    )
    found = allowance(me, [loose, tight], [me])
    assert found.view.reason is Reason.POWER_TAKEN
    assert (
        found.view.message
        == "EnergyBudget team/tight binds: it leaves 450 W to this deployment, by spec.energy.priority"
    )
    assert watts(found) == 450.0


def test_budgets_that_are_not_checked_are_all_told_and_close_only_where_one_limits() -> None:
    me = member("me", 70)
    shows, denies = named(budget(None, "Report"), "shows"), named(budget(None), "denies")
    both = allowance(me, [shows, denies], [me]).view
    assert both.message == (
        "EnergyBudget team/shows: its energy is not counted yet; EnergyBudget team/denies: its energy is not counted "
        "yet; until it is, no plan may draw more than the running one"
    )
    assert allowance(me, [shows], [me]).view.message == "EnergyBudget team/shows: its energy is not counted yet"


@pytest.mark.parametrize(
    ("others", "text"), [(0, ""), (1, "; 1 other budget is met, too"), (2, "; 2 other budgets are met, too")]
)
def test_other_budgets_that_are_met_are_counted(others: int, text: str) -> None:
    me = member("me", 100)
    more = [named(budget(5000), f"b{at}") for at in range(others)]
    found = allowance(me, [budget(), *more], [me])
    assert found.view.message == f"EnergyBudget team/cap binds: spec.powerWatts=1000 W{text}"


def test_a_budget_that_only_reports_is_said_to() -> None:
    me = member("me", 100)
    found = allowance(me, [budget(action="Report")], [me])
    assert found.view.message == "EnergyBudget team/cap only reports: spec.powerWatts=1000 W"


@pytest.mark.parametrize(
    ("own", "action", "reason", "text"),
    [
        # 1,200 Wh are left for 12 hours.
        (100, "Deny", Reason.WITHIN_BUDGET, "EnergyBudget team/cap binds: spec.energyWattHours=2400 Wh"),
        (101, "Deny", Reason.RUNS_OUT, "does not last at the power that is committed; no plan may draw more"),
        (101, "Report", Reason.RUNS_OUT, "EnergyBudget team/cap: spec.energyWattHours=2400 Wh does not last"),
    ],
)
def test_energy_that_does_not_last_is_told(own: int, action: str, reason: Reason, text: str) -> None:
    me = member("me", own)
    found = allowance(me, [counted(budget(None, action))], [me]).view
    assert (found.reason, found.status) == (reason, "True")
    assert text in found.message
    assert found.message.endswith("no plan may draw more") is (action == "Deny" and own > 100)


def own_budget(watts_now: int, **spec: Any) -> dict[str, Any]:
    me = member("me", watts_now)
    return {**me, "spec": {"energy": {"budget": spec}}}


def test_an_own_budget_is_told_with_its_figures() -> None:
    me = own_budget(700, powerWatts=1000)
    assert allowance(me, [], [me]).view.message == (
        "spec.energy.budget only reports: 700 W are committed of 1000 W (spec.energy.budget.powerWatts)"
    )
    over = own_budget(1200, powerWatts=1000)
    found = allowance(over, [], [over]).view
    assert (found.status, found.reason) == ("False", Reason.OVER_BUDGET)
    assert found.message == (
        "spec.energy.budget: 1200 W are committed, 200 W more than spec.energy.budget.powerWatts=1000"
    )
    energy = own_budget(700, energyWattHours=240, period="Day")
    fast = allowance(energy, [], [energy]).view
    assert fast.reason is Reason.RUNS_OUT
    assert fast.message.startswith(
        "spec.energy.budget: 700 W are committed, and spec.energy.budget.energyWattHours=240 Wh lasts"
    )


def test_used_up_energy_is_told_with_the_time_until_it_comes_back() -> None:
    me = member("me", 70)
    gone = counted(budget(None), usedWattHours=2400, remainingWattHours=0, resetTime="2026-11-26T00:00:00Z")
    found = allowance(me, [gone], [me])
    assert found.view.message == (
        "EnergyBudget team/cap: all of spec.energyWattHours=2400 Wh is used until 2026-11-26T00:00:00Z"
    )
    # An account that cannot be trusted now says nothing of it.
    dark = counted(budget(None), ready="False", usedWattHours=2400, remainingWattHours=0)
    assert allowance(me, [dark], [me]).view.reason is Reason.BUDGET_NOT_CHECKED
    power = {**budget(50), "status": {"remainingWattHours": 0, "resetTime": "2026-11-26T00:00:00Z"}}
    assert "until" not in allowance(me, [power], [me]).view.message
