"""The budget in an LLMDeployment's own spec, treated as an EnergyBudget with a single member. Pure.

``Warn`` corresponds to the action ``Report`` of an EnergyBudget, and ``Enforce`` to ``Deny``. With ``Enforce``, every
plan, including the running one, must also keep to ``powerWatts``, and to ``energyWattHours`` over a whole period.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from energylens.api.base import Condition
from energylens.api.energybudget import EnergyBudgetSpec, EnergyBudgetStatus
from energylens.api.llmdeployment import DeploymentBudget, EnergyAccount
from energylens.api.timestamp import moment_of, timestamp
from energylens.budget.ledger import Entry, begin
from energylens.budget.periods import Span, period_at
from energylens.decide.planned import Body

FIELD = "spec.energy.budget"
GENERATION = 0
"""Generation of the budget in the form of other budgets: the deployment's spec and account always come from the same
pass."""


def with_account(deployment: Body, account: EnergyAccount | None) -> dict[str, Any]:
    """Return a deployment with another account in its status."""
    status = {name: value for name, value in (deployment.get("status") or {}).items() if name != "energyAccount"}
    if account is not None:
        status["energyAccount"] = account.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {**deployment, "status": status}


def budget_spec(own: DeploymentBudget) -> EnergyBudgetSpec:
    """Return the spec of an equal EnergyBudget whose only member is this deployment."""
    return EnergyBudgetSpec(
        power_watts=own.power_watts,
        energy_watt_hours=own.energy_watt_hours,
        period=own.period,
        time_zone=own.time_zone,
        action="Deny" if own.action == "Enforce" else "Report",
    )


def period_of(own: DeploymentBudget, now: datetime) -> Span:
    """Return the period that contains ``now``."""
    return period_at(own.period, ZoneInfo(own.time_zone), now)


def entry_of(account: EnergyAccount | None, uid: str, key: tuple[str, str], period: Span, now: datetime) -> Entry:
    """Return the ledger entry from which counting continues in a period: empty at ``now`` without an account.

    If an edit of the spec moved the start of the period to an earlier time, the entry keeps all counted energy.
    """
    start = now.replace(microsecond=0)
    if account is None:
        return Entry(uid, *key, start)
    entry = Entry(
        uid,
        *key,
        until=min(start, datetime.fromisoformat(account.accounted_until).astimezone(UTC)),
        measured_joules=float(account.measured_joules),
        predicted_joules=float(account.predicted_joules),
        predicted_watts=float(account.predicted_watts),
    )
    if not account.predicted_watts:
        # No pod held a GPU at that time; the account is written as soon as a pod holds one.
        entry = replace(entry, until=start)
    if period.start > datetime.fromisoformat(account.period_start):
        (entry,) = begin([entry], period)
    return entry


def account_status(entry: Entry, period: Span, not_measured_since: datetime | None) -> EnergyAccount:
    """Return the account for the status."""
    return EnergyAccount(
        period_start=timestamp(period.start),
        reset_time=timestamp(period.end),
        measured_joules=round(entry.measured_joules),
        predicted_joules=round(entry.predicted_joules),
        predicted_watts=round(entry.predicted_watts),
        accounted_until=timestamp(entry.until),
        not_measured_since=None if not_measured_since is None else timestamp(not_measured_since),
    )


def in_period(account: EnergyAccount | None, own: DeploymentBudget, now: datetime) -> EnergyAccount | None:
    """Return the account at ``now``, without the energy drawn since the last check; None without an energy limit."""
    if own.energy_watt_hours is None:
        return None
    period = period_of(own, now)
    silent = account.not_measured_since if account is not None else None
    return account_status(entry_of(account, "", ("", ""), period, now), period, moment_of(silent))


def used_watt_hours(account: EnergyAccount) -> float:
    """Return the energy of an account, measured and predicted, Wh."""
    return (account.measured_joules + account.predicted_joules) / 3600.0


def means_the_same(before: EnergyAccount | None, now: EnergyAccount, limit: int) -> bool:
    """Return whether two accounts differ in nothing that a decision depends on, for a limit in Wh."""

    def meaning(found: EnergyAccount) -> tuple[object, ...]:
        return (
            found.period_start,
            found.reset_time,
            found.not_measured_since is None,
            found.predicted_watts > 0,
            round(used_watt_hours(found)) >= limit,
        )

    return before is not None and meaning(before) == meaning(now)


def own_status(
    own: DeploymentBudget, account: EnergyAccount | None, committed_watts: int, measured_watts: int | None
) -> EnergyBudgetStatus:
    """Return the status of the equal EnergyBudget (:func:`budget_spec`).

    Args:
        own: The budget.
        account: Account in the current period; None without an energy limit.
        committed_watts: Predicted power of the plan.
        measured_watts: Measured power; None if it is unknown.
    """
    limit = own.energy_watt_hours
    silent = account.not_measured_since if account is not None else None
    used = None if account is None else round(used_watt_hours(account))
    percent = None
    if used is not None and limit is not None:
        percent = round(100 * used / limit)
    elif own.power_watts is not None:
        percent = round(100 * committed_watts / own.power_watts)
    return EnergyBudgetStatus(
        observed_generation=GENERATION,
        committed_power_watts=committed_watts,
        measured_power_watts=measured_watts,
        period_start=None if account is None else account.period_start,
        reset_time=None if account is None else account.reset_time,
        used_watt_hours=used,
        predicted_watt_hours=None if account is None else round(account.predicted_joules / 3600.0),
        remaining_watt_hours=None if used is None or limit is None else max(0, limit - used),
        energy_limit=None if limit is None else "spec.energyWattHours",
        used_percent=percent,
        conditions=(
            Condition(
                type="Ready",
                status="True" if silent is None else "False",
                reason="Checked" if silent is None else "MetricsMissing",
                message="" if silent is None else f"its pods have not been measured since {silent}",
            ),
        ),
    )
