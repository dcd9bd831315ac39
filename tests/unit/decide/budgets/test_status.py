"""The status of a budget as users and scripts read it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import pytest
from tests.support.metrics_page import scrape

from energylens.api.energybudget import EnergyBudgetSpec, EnergyBudgetStatus
from energylens.budget.ledger import Entry
from energylens.budget.periods import Span
from energylens.budget.usage import usage
from energylens.controller.endpoints.metrics import Metrics
from energylens.decide.budgets.status import HISTORY_POINTS, MAX_MEMBERS, CountedMember, Look, status_of_budget
from energylens.decide.reasons import BudgetReason

START = datetime(2026, 11, 25, tzinfo=UTC)
DAY = Span(START, START + timedelta(days=1))


def member(name: str = "llama", watts: float = 700.0, **changes: Any) -> CountedMember:
    fields = {
        "key": ("chat", name),
        "uid": name,
        "priority": 0,
        "committed_watts": watts,
        "least_watts": watts,
        "levels_watts": (watts / 2,),
        "is_priced": True,
        "answered_watts": None,
        "whole_watts": None,
        "measured_watts": watts - 50,
        "excess_watts": 0.0,
        "draws": True,
        "is_silent": False,
    }
    return CountedMember(**{**fields, **changes})


def look(*members: CountedMember, hours: float = 12.0, used: float = 1200.0, **changes: Any) -> Look:
    spec = EnergyBudgetSpec.model_validate(changes.pop("spec", {"energyWattHours": 2400, "period": "Day"}))
    now = START + timedelta(hours=hours)
    entries = [Entry("llama", "chat", "llama", now, used * 3600)]
    fields = {
        "spec": spec,
        "generation": 3,
        "before": EnergyBudgetStatus(),
        "members": members or (member(),),
        "entries": entries,
        "period": DAY,
        "now": now,
        "used": usage(spec, entries, DAY, now, None),
        "points": [],
        "problem": None,
    }
    return Look(**{**fields, **changes})


def verdicts(status: EnergyBudgetStatus) -> dict[str, tuple[str, str]]:
    return {c.type: (c.status, c.reason) for c in status.conditions}


def test_what_is_used_left_and_forecast() -> None:
    status = status_of_budget(look())
    assert (status.used, status.remaining) == ("1200/2400 Wh (50 %)", "1200 Wh")
    assert (status.used_percent, status.remaining_watt_hours) == (50, 1200)
    # 650 W are measured; 100 W would last.
    assert (status.burn_rate_watts, status.burn_rate_percent) == (650, 650)
    assert status.exhaustion_time == "2026-11-25T13:50:46Z"
    assert status.forecast == "used up 2026-11-25T13:50:46Z"
    assert verdicts(status)["WithinEnergyBudget"] == ("True", "RunsOut")
    assert (status.period_start, status.reset_time) == ("2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z")


def test_a_budget_that_lasts() -> None:
    status = status_of_budget(look(member(watts=100.0), used=100.0))
    assert (status.forecast, status.exhaustion_time) == ("lasts", None)
    assert verdicts(status) == {
        "Ready": ("True", "Checked"),
        "WithinEnergyBudget": ("True", "Within"),
        "Shedding": ("False", "NothingTaken"),
    }


def test_a_budget_of_power_has_no_forecast() -> None:
    status = status_of_budget(look(spec={"powerWatts": 1000}))
    assert (status.used, status.remaining, status.forecast) == ("700/1000 W (70 %)", "300 W", None)
    assert (status.allowed_power_watts, status.binding_limit) == (1000, "spec.powerWatts")


@pytest.mark.parametrize(
    ("one", "said"),
    [(member(watts=1100.0), "1100 W are committed"), (member(measured_watts=1200.0), "1200 W are measured, 200 W")],
)
def test_power_is_exceeded_by_what_is_committed_or_measured(one: CountedMember, said: str) -> None:
    status = status_of_budget(look(one, spec={"powerWatts": 1000}))
    assert verdicts(status)["WithinEnergyBudget"] == ("False", "Exceeded")
    assert said in next(c.message for c in status.conditions if c.type == "WithinEnergyBudget")


def test_the_measured_power_is_absent_where_a_member_that_draws_is_not_measured() -> None:
    found = status_of_budget(look(member("a"), member("b", measured_watts=None)))
    assert found.measured_power_watts is None
    idle = member("b", measured_watts=None, draws=False)
    assert status_of_budget(look(member("a"), idle)).measured_power_watts == 650


def test_silent_members_make_every_limit_uncheckable() -> None:
    silent = member(is_silent=True)
    status = status_of_budget(look(silent))
    assert verdicts(status)["Ready"] == ("False", "MetricsMissing")
    assert "chat/llama" in status.conditions[0].message
    assert verdicts(status_of_budget(look(silent, spec={"powerWatts": 1000})))["Ready"] == ("False", "MetricsMissing")


def test_a_budget_that_cannot_be_checked_keeps_what_it_took_and_takes_no_more() -> None:
    spec = {"powerWatts": 1000, "action": "Shed"}
    first = status_of_budget(look(member("a", 800.0), member("b", 600.0), spec=spec))
    taken = {m.name: m.allowed_power_watts for m in first.members}
    assert taken == {"a": 400, "b": None}
    missing = (BudgetReason.FORECAST_MISSING, "it does not exist")
    worse = status_of_budget(look(member("a", 800.0), member("b", 900.0), spec=spec, before=first, problem=missing))
    assert {m.name: m.allowed_power_watts for m in worse.members} == taken
    assert verdicts(worse)["Ready"] == ("False", "ForecastMissing")


def test_every_cap_is_remembered_however_many_there_are() -> None:
    many = [member(f"m{i}", 10.0) for i in range(MAX_MEMBERS + 50)]
    found = status_of_budget(look(*many, spec={"powerWatts": 1, "action": "Shed"}))
    assert sum(m.allowed_power_watts is not None for m in found.members) == len(many)
    plain = status_of_budget(look(*many, spec={"powerWatts": 1, "action": "Deny"}))
    assert (len(plain.members), plain.member_count) == (MAX_MEMBERS, len(many))


def test_a_budget_of_the_whole_cluster_stays_a_small_object() -> None:
    many = [member(f"deployment-{i:04d}", 300.0) for i in range(5000)]
    entries = [
        Entry(str(uuid5(NAMESPACE_DNS, m.key[1])), *m.key, START, 1e9, 1e9, 1e6, 1e9, m.committed_watts) for m in many
    ]
    status = status_of_budget(look(*many, entries=entries, spec={"energyWattHours": 10**9, "period": "Month"}))
    text = json.dumps(status.model_dump(mode="json", by_alias=True, exclude_none=True))
    # As much again is in managedFields, which has an entry for each account.
    assert len(text) < 128_000
    assert (status.member_count, status.committed_power_watts) == (5000, 5000 * 300)
    assert sum(entry.measured_joules for entry in status.ledger) == 5000 * 10**9


def test_the_burn_down_has_a_bounded_number_of_points_and_begins_anew() -> None:
    status = EnergyBudgetStatus()
    for minute in range(0, 24 * 60, 5):
        status = status_of_budget(look(hours=minute / 60, used=float(minute), before=status))
    assert len(status.history) == HISTORY_POINTS
    assert [p.used_watt_hours for p in status.history] == sorted(p.used_watt_hours for p in status.history)
    tomorrow = Span(DAY.end, DAY.end + timedelta(days=1))
    fresh = status_of_budget(look(hours=24, used=0.0, before=status, period=tomorrow))
    assert [p.used_watt_hours for p in fresh.history] == [0]


def test_transition_times_stay_while_nothing_turns() -> None:
    first = status_of_budget(look())
    again = status_of_budget(look(hours=12.1, before=first))
    assert {c.last_transition_time for c in again.conditions} == {"2026-11-25T12:00:00Z"}


async def test_the_series_of_a_budget_come_and_go_with_its_figures() -> None:
    metrics = Metrics()
    metrics.observe_budget("chat", "cap", status_of_budget(look(used=1800.0)))
    found = (await scrape(metrics)).of("cap")
    assert found["energylens_budget_used_ratio"] == 0.75
    assert found["energylens_budget_remaining_watt_hours"] == 600
    assert found["energylens_budget_burn_rate_ratio"] == pytest.approx(650 / 50)
    assert found["energylens_budget_exhaustion_timestamp_seconds"] > START.timestamp()
    assert found["energylens_budget_checked"] == 1
    metrics.observe_budget("chat", "cap", status_of_budget(look(member(watts=60.0), used=10.0)))
    assert "energylens_budget_exhaustion_timestamp_seconds" not in (await scrape(metrics)).of("cap")
    shedding = look(member(), spec={"powerWatts": 500, "action": "Shed"}, problem=None)
    metrics.observe_budget("chat", "cap", status_of_budget(shedding))
    found = (await scrape(metrics)).of("cap")
    # The one replica that is left draws 350 W: less than half of it cannot be taken.
    assert found["energylens_budget_shed_watts"] == 350
    assert "energylens_budget_used_ratio" not in found
    metrics.forget_budget("chat", "cap")
    assert (await scrape(metrics)).of("cap") == {}
