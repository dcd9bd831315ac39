"""The budget in an LLMDeployment's own spec, as the budget of one member that it is. Pure.

``Warn`` is what ``Report`` is to an EnergyBudget, ``Enforce`` what ``Deny`` is; besides, every plan has to hold
``powerWatts``, and ``energyWattHours`` over a whole period, the running one too.
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
    """Return the budget as an EnergyBudget of this deployment alone would have it."""
    return EnergyBudgetSpec(
        power_watts=own.power_watts,
        energy_watt_hours=own.energy_watt_hours,
        period=own.period,
        time_zone=own.time_zone,
        action="Deny" if own.action == "Enforce" else "Report",
    )


def period_of(own: DeploymentBudget, now: datetime) -> Span:
    """Return the period that ``now`` is in."""
    return period_at(own.period, ZoneInfo(own.time_zone), now)


def entry_of(account: EnergyAccount | None, uid: str, key: tuple[str, str], period: Span, now: datetime) -> Entry:
    """Return an account to count on in a period: what was counted in it, or nothing from ``now`` on.

    A period that begins earlier than the one of the account, after an edit of the spec, has in it all that was counted.
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
        # No pod held a GPU at that moment, and when one does the account is written at once.
        entry = replace(entry, until=start)
    if period.start > datetime.fromisoformat(account.period_start):
        (entry,) = begin([entry], period)
    return entry


def account_status(entry: Entry, period: Span, not_measured_since: datetime | None) -> EnergyAccount:
    """Return an account as it is written."""
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
    """Return the account as it counts at a moment, without a look at what pods drew since; None without a limit."""
    if own.energy_watt_hours is None:
        return None
    period = period_of(own, now)
    silent = account.not_measured_since if account is not None else None
    return account_status(entry_of(account, "", ("", ""), period, now), period, moment_of(silent))


def used_watt_hours(account: EnergyAccount) -> float:
    """Return the energy of an account, measured and predicted, Wh."""
    return (account.measured_joules + account.predicted_joules) / 3600.0


def means_the_same(before: EnergyAccount | None, now: EnergyAccount, limit: int) -> bool:
    """Return whether an account says of a limit of so many watt-hours what the written one says of it."""

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
    """Return what the status of such an EnergyBudget would say.

    Args:
        own: The budget.
        account: In the present period; None without a limit of energy.
        committed_watts: Predicted power of the plan.
        measured_watts: Measured power; None where it is not known.
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
