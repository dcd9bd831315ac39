"""The budget in a deployment's own spec: its account over periods, and its figures as those of any budget."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from energylens.api.llmdeployment import DeploymentBudget, EnergyAccount
from energylens.budget.ledger import Entry
from energylens.decide.budgets.own_budget import (
    account_status,
    budget_spec,
    entry_of,
    in_period,
    means_the_same,
    own_status,
    period_of,
    used_watt_hours,
    with_account,
)

NOW = datetime(2026, 11, 25, 12, 0, 0, 500_000, tzinfo=UTC)
WHOLE = NOW.replace(microsecond=0)
KEY = ("team", "llama")
DAY = DeploymentBudget.model_validate({"energyWattHours": 100, "period": "Day"})
POWER = DeploymentBudget.model_validate({"powerWatts": 1000})
TODAY = period_of(DAY, NOW)


def account(**changes: Any) -> EnergyAccount:
    fields = {
        "period_start": "2026-11-25T00:00:00Z",
        "reset_time": "2026-11-26T00:00:00Z",
        "measured_joules": 36_000,
        "predicted_joules": 3_600,
        "predicted_watts": 300,
        "accounted_until": "2026-11-25T11:00:00Z",
    }
    return EnergyAccount(**{**fields, **changes})


def entry(found: EnergyAccount | None, now: datetime = NOW) -> Entry:
    return entry_of(found, "u1", KEY, TODAY, now)


def test_an_account_begins_empty_and_now() -> None:
    assert entry(None) == Entry("u1", *KEY, WHOLE)


def test_an_account_goes_on_where_it_was_left() -> None:
    found = entry(account())
    assert (found.until, found.measured_joules, found.predicted_joules, found.predicted_watts) == (
        WHOLE - timedelta(hours=1), 36_000.0, 3_600.0, 300.0,
    )  # fmt: skip
    # Another machine's clock may be ahead.
    assert entry(account(accounted_until="2026-11-25T12:03:00Z")).until == WHOLE


def test_time_in_which_no_pod_held_a_gpu_costs_nothing() -> None:
    assert entry(account(predicted_watts=0)).until == WHOLE


@pytest.mark.parametrize(
    ("start", "joules"),
    [("2026-11-24T00:00:00Z", 0.0), ("2026-11-25T00:00:00Z", 36_000.0), ("2026-11-25T06:00:00Z", 36_000.0)],
)
def test_a_new_period_begins_without_energy_and_an_earlier_start_loses_none(start: str, joules: float) -> None:
    assert entry(account(period_start=start)).measured_joules == joules


def test_the_account_of_the_status_is_whole() -> None:
    made = Entry("u1", *KEY, WHOLE, measured_joules=1.6, predicted_joules=2.4, predicted_watts=99.5)
    found = account_status(made, TODAY, None)
    assert (found.measured_joules, found.predicted_joules, found.predicted_watts) == (2, 2, 100)
    assert (found.period_start, found.reset_time) == ("2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z")
    assert (found.accounted_until, found.not_measured_since) == ("2026-11-25T12:00:00Z", None)
    assert account_status(made, TODAY, WHOLE).not_measured_since == "2026-11-25T12:00:00Z"
    assert used_watt_hours(account()) == 11.0


def test_the_account_of_now_keeps_since_when_nothing_was_measured() -> None:
    assert in_period(account(), POWER, NOW) is None
    found = in_period(account(not_measured_since="2026-11-25T10:00:00Z"), DAY, NOW)
    assert found is not None
    assert found.not_measured_since == "2026-11-25T10:00:00Z"
    fresh = in_period(None, DAY, NOW)
    assert fresh is not None
    assert (fresh.measured_joules, fresh.not_measured_since) == (0, None)


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({}, True),
        ({"measured_joules": 36_001}, True),
        ({"accounted_until": "2026-11-25T11:30:00Z", "predicted_watts": 1}, True),
        ({"predicted_watts": 0}, False),
        ({"not_measured_since": "2026-11-25T11:00:00Z"}, False),
        ({"period_start": "2026-11-24T00:00:00Z"}, False),
        ({"reset_time": "2026-11-27T00:00:00Z"}, False),
        # 100 Wh are allowed.
        ({"measured_joules": 356_400}, False),
        ({"measured_joules": 353_000}, True),
    ],
)
def test_only_an_account_that_changes_a_decision_is_written(changes: dict[str, Any], is_same: bool) -> None:
    assert means_the_same(account(), account(**changes), 100) is is_same
    assert not means_the_same(None, account(), 100)


def test_the_figures_are_those_of_a_budget_with_one_member() -> None:
    found = own_status(DAY, account(), 700, 650)
    assert (found.used_watt_hours, found.remaining_watt_hours, found.used_percent) == (11, 89, 11)
    assert (found.predicted_watt_hours, found.energy_limit) == (1, "spec.energyWattHours")
    assert (found.committed_power_watts, found.measured_power_watts) == (700, 650)
    assert (found.period_start, found.reset_time) == ("2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z")
    assert own_status(DAY, account(measured_joules=720_000), 700, None).remaining_watt_hours == 0
    both = DeploymentBudget.model_validate({"energyWattHours": 100, "powerWatts": 1000, "period": "Day"})
    assert own_status(both, account(), 700, None).used_percent == 11
    power = own_status(POWER, None, 705, None)
    assert (power.used_percent, power.remaining_watt_hours, power.energy_limit, power.used_watt_hours) == (
        70,
        None,
        None,
        None,
    )
    assert own_status(DAY, None, 700, None).used_percent is None
    assert own_status(DAY, account(predicted_joules=36_000), 700, None).predicted_watt_hours == 10


@pytest.mark.parametrize(
    ("since", "status", "reason", "message"),
    [
        (None, "True", "Checked", ""),
        (
            "2026-11-25T11:00:00Z",
            "False",
            "MetricsMissing",
            "its pods have not been measured since 2026-11-25T11:00:00Z",
        ),
    ],
)
def test_a_budget_without_measurement_is_not_ready(since: str | None, status: str, reason: str, message: str) -> None:
    (ready,) = own_status(DAY, account(not_measured_since=since), 700, None).conditions
    assert (ready.type, ready.status, ready.reason, ready.message) == ("Ready", status, reason, message)


@pytest.mark.parametrize(("action", "expected"), [("Enforce", "Deny"), ("Warn", "Report")])
def test_the_spec_is_that_of_a_shared_budget(action: str, expected: str) -> None:
    own = DeploymentBudget.model_validate({"energyWattHours": 100, "powerWatts": 5, "period": "Day", "action": action})
    found = budget_spec(own)
    assert (found.action, found.energy_watt_hours, found.power_watts, found.period) == (expected, 100, 5, "Day")


def test_another_account_replaces_the_one_in_the_status() -> None:
    body = {"kind": "LLMDeployment", "status": {"plan": 1, "energyAccount": {"measuredJoules": 9}}}
    assert with_account(body, None) == {"kind": "LLMDeployment", "status": {"plan": 1}}
    found = with_account(body, account())["status"]
    assert found["plan"] == 1
    assert found["energyAccount"]["measuredJoules"] == 36_000
    assert "notMeasuredSince" not in found["energyAccount"]
    assert with_account({"status": None}, None) == {"status": {}}
