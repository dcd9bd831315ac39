"""The budget in an LLMDeployment's own spec as text. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from energylens.api.llmdeployment import EnergyAccount, LLMDeployment, PlanStatus
from energylens.decide.budgets.own_budget import FIELD, in_period, own_status, used_watt_hours


def own_budget_lines(
    deployment: LLMDeployment, account: EnergyAccount | None, plan: PlanStatus | None = None
) -> list[str]:
    """Return a line with limits, action and use of a deployment's own budget; no line without a budget.

    Args:
        deployment: The deployment.
        account: The energy that counts against the limit; None if nothing was counted.
        plan: The plan whose power is compared with ``powerWatts``; None without a plan.
    """
    own = deployment.spec.energy.budget
    if own is None:
        return []
    said = []
    if own.power_watts is not None:
        planned = "" if plan is None else f"{plan.predicted.power_watts} W planned of "
        said.append(f"{planned}{own.power_watts} W")
    if own.energy_watt_hours is not None:
        limit = f"{own.energy_watt_hours} Wh per {own.period.lower()} ({own.time_zone})"
        if account is None:
            said.append(f"{limit}, nothing counted yet")
        else:
            predicted = round(account.predicted_joules / 3600.0)
            gaps = f", {predicted} Wh of them predicted" if predicted else ""
            silent = f", nothing measured since {account.not_measured_since}" if account.not_measured_since else ""
            said.append(
                f"{used_watt_hours(account):.0f} Wh used of {limit}{gaps}{silent}, next period {account.reset_time}"
            )
    return [f"  own budget  {own.action}: {'; '.join(said)}"]


def own_budget_rows(deployments: Iterable[LLMDeployment], now: datetime) -> list[tuple[str, ...]]:
    """Return a row of the table of budgets for each deployment that has a budget of its own."""
    rows: list[tuple[str, ...]] = []
    for deployment in deployments:
        own, status, metadata = deployment.spec.energy.budget, deployment.status, deployment.metadata
        if own is None:
            continue
        committed = 0 if status.plan is None else status.plan.predicted.power_watts
        account = None if status.energy_account is None else in_period(status.energy_account, own, now)
        found = own_status(own, account, committed, None)
        share = "" if found.used_percent is None else f" ({found.used_percent} %)"
        used, left = "", ""
        if own.energy_watt_hours is None and own.power_watts is not None:
            used = f"{committed}/{own.power_watts} W{share}"
            left = f"{max(0, own.power_watts - committed)} W"
        elif account is not None:
            used = f"{found.used_watt_hours}/{own.energy_watt_hours} Wh{share}"
            left = f"{found.remaining_watt_hours} Wh"
        name = f"{metadata.namespace}/{metadata.name} ({FIELD})"
        ready = next(c.status for c in found.conditions if c.type == "Ready")
        rows.append((name, used, left, "", "1", own.action, ready))
    return rows
