"""Figures of a budget at their edges: rounding, silence, the burn-down, members, and what shedding took."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.budgets.test_status import START, look, member, verdicts

from energylens.api.energybudget import EnergyBudgetStatus
from energylens.api.energybudget_status import BudgetMember, UsagePoint
from energylens.api.timestamp import timestamp
from energylens.decide.budgets.status import (
    HISTORY_POINTS,
    MAX_MEMBERS,
    decide,
    status_of_budget,
    unreadable_status,
)
from energylens.decide.reasons import BudgetReason

POWER = {"powerWatts": 1000, "action": "Deny"}
SHED = {"powerWatts": 1000, "action": "Shed"}


def conditions(status: EnergyBudgetStatus) -> dict[str, Any]:
    return {condition.type: condition for condition in status.conditions}


def test_the_measured_power_is_that_of_all_members_that_draw() -> None:
    idle = member("idle", 100.0, draws=False, measured_watts=None)
    assert status_of_budget(look(member(), idle)).measured_power_watts == 650
    assert status_of_budget(look(member(), member("dark", measured_watts=None))).measured_power_watts is None
    assert status_of_budget(look(member(), member("b", 500.0))).measured_power_watts == 1100


def test_power_beyond_the_prediction_is_summed_and_never_negative() -> None:
    more, less = member(excess_watts=30.4), member("b", excess_watts=-10.0)
    assert status_of_budget(look(more, less)).excess_power_watts == 20
    assert status_of_budget(look(less)).excess_power_watts == 0


@pytest.mark.parametrize(
    ("silent", "text"),
    [(1, "chat/m0"), (3, "chat/m0, chat/m1, chat/m2"), (5, "chat/m0, chat/m1, chat/m2 and 2 more")],
)
def test_members_without_metrics_are_named(silent: int, text: str) -> None:
    members = [member(f"m{at}", 10.0, is_silent=True) for at in range(silent)]
    status = status_of_budget(look(*members, member("heard"), spec={**POWER, "action": "Report"}))
    ready = conditions(status)["Ready"]
    assert (ready.status, ready.reason) == ("False", "MetricsMissing")
    assert ready.message == f"nothing is measured of {text}; they count with their predicted power"
    closed = conditions(status_of_budget(look(*members, spec=POWER)))["Ready"]
    assert closed.message.endswith("meanwhile no plan may draw more than the running one")
    assert conditions(status_of_budget(look()))["Ready"].message == ""


def test_energy_that_cannot_be_counted_keeps_what_was_known() -> None:
    before = EnergyBudgetStatus(used_watt_hours=7, predicted_watt_hours=3, shed_time="2026-11-25T01:00:00Z")
    problem = (BudgetReason.FORECAST_MISSING, "the forecast ended")
    status = status_of_budget(look(before=before, problem=problem, used=1.0))
    assert status.shed_time == "2026-11-25T01:00:00Z"
    unknown = status_of_budget(replaced(look(before=before, problem=problem), used=None))
    assert (unknown.used_watt_hours, unknown.predicted_watt_hours, unknown.remaining_watt_hours) == (7, 3, None)
    assert (unknown.forecast, unknown.exhaustion_time, unknown.burn_rate_percent, unknown.history) == (
        None,
        None,
        None,
        (),
    )
    assert verdicts(unknown)["WithinEnergyBudget"] == ("Unknown", "ForecastMissing")
    assert verdicts(unknown)["Ready"] == ("False", "ForecastMissing")


def replaced(found: Any, **changes: Any) -> Any:
    return type(found)(**{**{name: getattr(found, name) for name in found.__dataclass_fields__}, **changes})


def test_a_power_limit_has_a_share_and_a_rest() -> None:
    status = status_of_budget(look(member(), spec=POWER))
    assert (status.used, status.remaining, status.used_percent) == ("700/1000 W (70 %)", "300 W", 70)
    over = status_of_budget(look(member(watts=1200.0), spec=POWER))
    assert (over.remaining, over.used_percent) == ("0 W", 120)
    assert verdicts(over)["WithinEnergyBudget"] == ("False", "Exceeded")
    # With an energy limit beside it, the share is of the energy.
    both = status_of_budget(look(spec={**POWER, "energyWattHours": 2400, "period": "Day"}))
    assert both.used_percent == 50


def test_the_burn_rate_is_relative_to_what_would_last() -> None:
    assert status_of_budget(look(used=0.0)).burn_rate_percent == round(100 * 650 / (2400 / 12))
    # Nothing is left, or no time is.
    assert status_of_budget(look(used=2400.0)).burn_rate_percent is None
    assert status_of_budget(look(hours=24.0)).burn_rate_percent is None
    assert status_of_budget(look(used=2400.0)).forecast == "used up"


def points(*hours: float) -> tuple[UsagePoint, ...]:
    return tuple(UsagePoint(time=timestamp(START + timedelta(hours=hour)), used_watt_hours=1) for hour in hours)


def test_the_burn_down_has_a_point_for_each_part_of_the_period() -> None:
    step = 24.0 / HISTORY_POINTS
    kept = {"period_start": timestamp(START)}
    for last, count in ((12.0 - step, 2), (12.0 - step + 0.01, 1)):
        before = EnergyBudgetStatus(**kept, history=points(last))
        assert len(status_of_budget(look(before=before)).history) == count
    assert status_of_budget(look()).history[-1].used_watt_hours == 1200
    old = EnergyBudgetStatus(period_start="2026-11-24T00:00:00Z", history=points(1.0))
    assert len(status_of_budget(look(before=old)).history) == 1


def test_the_largest_members_are_listed_and_all_that_gave_power() -> None:
    many = [member(f"m{at:03d}", float(at)) for at in range(MAX_MEMBERS + 5)]
    status = status_of_budget(look(*many))
    assert status.member_count == MAX_MEMBERS + 5
    assert [m.committed_power_watts for m in status.members] == list(range(MAX_MEMBERS + 4, 4, -1))
    same = status_of_budget(look(member("b", key=("a", "b")), member("a", key=("b", "a")), member("a", key=("a", "a"))))
    assert [(m.namespace, m.name) for m in same.members] == [("a", "a"), ("a", "b"), ("b", "a")]
    (listed,) = status_of_budget(look()).members
    assert (listed.used_watt_hours, listed.measured_power_watts, listed.allowed_power_watts) == (1200, 650, None)


def capped(name: str = "llama", watts: int = 500, former: int | None = 700) -> BudgetMember:
    return BudgetMember(name=name, namespace="chat", allowed_power_watts=watts, former_power_watts=former)


def test_power_is_taken_and_told_of() -> None:
    rest = member("rest", 700.0, priority=1)
    low = member("low", 700.0, least_watts=350.0, levels_watts=(350.0,))
    found = decide(look(low, rest, spec={**SHED, "powerWatts": 1100}))
    status = found.status
    assert verdicts(status)["Shedding"] == ("True", "PowerTaken")
    assert conditions(status)["Shedding"].message == "300 W are taken from 1 member, lowest spec.energy.priority first"
    assert status.shed_time == timestamp(START + timedelta(hours=12))
    assert found.is_unsettled
    (first, *_) = status.members
    assert (first.name, first.allowed_power_watts, first.former_power_watts) == ("low", 400, 700)
    floor = decide(look(member("low", 1400.0, least_watts=1400.0, levels_watts=()), spec=SHED)).status
    assert verdicts(floor)["Shedding"][1] in ("AtTheFloor", "NothingTaken")
    assert verdicts(decide(look(spec=POWER)).status)["Shedding"] == ("False", "NothingTaken")


def test_a_budget_that_cannot_be_checked_keeps_what_it_took() -> None:
    before = EnergyBudgetStatus(members=(capped(), capped("gone")), shed_time="2026-11-25T01:00:00Z")
    problem = (BudgetReason.METRICS_MISSING, "dark")
    status = status_of_budget(look(before=before, problem=problem, spec=SHED))
    (kept,) = status.members
    assert (kept.allowed_power_watts, kept.former_power_watts) == (500, 700)
    assert conditions(status)["Shedding"].message == "200 W are taken from 1 member, lowest spec.energy.priority first"
    unknown = status_of_budget(replaced(look(before=before, spec=SHED), used=None))
    assert unknown.members[0].allowed_power_watts == 500
    # A budget that sheds no more gives all power back.
    assert status_of_budget(look(before=before, spec=POWER)).members[0].allowed_power_watts is None
    assert status_of_budget(replaced(look(before=before, spec=POWER), used=None)).members[0].allowed_power_watts is None


def test_without_the_power_before_the_taken_power_counts_as_none() -> None:
    before = EnergyBudgetStatus(members=(capped(former=None),))
    status = status_of_budget(look(before=before, problem=(BudgetReason.METRICS_MISSING, ""), spec=SHED))
    assert status.members[0].former_power_watts == 500
    assert conditions(status)["Shedding"].message.startswith("0 W are taken")


def test_a_spec_that_cannot_be_read_closes_the_budget_and_keeps_its_account() -> None:
    before = status_of_budget(look())
    status = unreadable_status(before, 9, "spec.powerWatts=much is no number", START)
    assert status.observed_generation == 9
    assert status.used_watt_hours == before.used_watt_hours
    ready = conditions(status)["Ready"]
    assert (ready.status, ready.reason, ready.observed_generation) == ("False", "InvalidSpec", 9)
    assert ready.message.endswith("; until it is corrected, no plan may draw more than the running one")
    assert {c.type for c in status.conditions} == {c.type for c in before.conditions}
