"""Budgets as text: one line each, or a page with its members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from energylens.api.energybudget import BudgetMember, ClusterEnergyBudget, EnergyBudget
from energylens.cli.inputs.rates import NO_RATES, Rates
from energylens.cli.text.money import basis, energy_text, grid_object, month_text
from energylens.cli.text.tables import columns

Budget = EnergyBudget | ClusterEnergyBudget
HEAD = ("NAME", "USED", "REMAINING", "FORECAST", "MEMBERS", "ACTION", "READY")
MEMBER_HEAD = ("MEMBER", "PRIORITY", "COMMITTED", "MEASURED", "USED", "LEFT TO IT")


def name_of(budget: Budget) -> str:
    """Return ``namespace/name``, or the name alone of a ClusterEnergyBudget."""
    metadata = budget.metadata
    return metadata.name if isinstance(budget, ClusterEnergyBudget) else f"{metadata.namespace}/{metadata.name}"


def overview(budgets: Sequence[Budget], own: Sequence[tuple[str, ...]] = (), rates: Rates = NO_RATES) -> str:
    """Return a table of budgets, and below them of those in the specs of LLMDeployments."""
    lines = [line[2:] for line in columns([HEAD, *(row(budget) for budget in budgets), *own])]
    if rates.is_stated:
        lines += ["", *(f"{name_of(each)}: {text}" for each in budgets for text in _cost(each, rates)), *basis(rates)]
    return "\n".join(lines)


def budget_cost(budget: Budget, rates: Rates) -> dict[str, Any] | None:
    """Return the cost of a period's energy and of the present power for programs; None without prices."""
    if not rates.is_stated:
        return None
    status, found = budget.status, dict[str, Any]()
    if status.used_watt_hours is not None:
        found["used"] = rates.of(status.used_watt_hours / 1000.0)
    if status.committed_power_watts is not None:
        found["committedPerMonth"] = rates.month(status.committed_power_watts)
    if status.measured_power_watts is not None:
        found["measuredPerMonth"] = rates.month(status.measured_power_watts)
    return found | grid_object(rates)


def _cost(budget: Budget, rates: Rates) -> list[str]:
    status, texts = budget.status, list[str]()
    if status.used_watt_hours is not None:
        texts.append(f"used {energy_text(rates, status.used_watt_hours)}")
    for name, watts in (("committed", status.committed_power_watts), ("measured", status.measured_power_watts)):
        texts += [] if watts is None else [f"{month_text(rates, watts)} {name}"]
    return ["; ".join(texts)] if texts else []


def page(budget: Budget, rates: Rates = NO_RATES) -> str:
    """Return everything about one budget."""
    status = budget.status
    lines = [headline(budget), *(f"  {label:<11} {text}" for label, text in facts(budget, rates)), *basis(rates)]
    if status.members:
        lines += ["", *columns([MEMBER_HEAD, *member_rows(budget)])]
        lines += [f"  and {hidden} more"] if (hidden := hidden_members(budget)) else []
    for condition in status.conditions:
        text = f": {condition.message}" if condition.message else ""
        lines += [""] if condition is status.conditions[0] else []
        lines.append(f"  {condition.type:<19} {condition.status:<8} {condition.reason}{text}")
    return "\n".join(lines)


def headline(budget: Budget) -> str:
    """Return the kind, name and action of a budget."""
    return f"{budget.kind} {name_of(budget)}: {budget.spec.action}"


def facts(budget: Budget, rates: Rates = NO_RATES) -> list[tuple[str, str]]:
    """Return limits, use, power and forecast of a budget, each with its label; unknown figures are left out."""
    spec, status = budget.spec, budget.status
    limits = [
        f"{spec.power_watts} W" if spec.power_watts is not None else "",
        f"{spec.energy_watt_hours} Wh per {spec.period.lower()}" if spec.energy_watt_hours is not None else "",
        f"{spec.carbon.grams_per_period} g CO2e per {spec.period.lower()}" if spec.carbon is not None else "",
    ]
    period = f"{status.period_start} to {status.reset_time} ({spec.time_zone})" if status.period_start else ""
    predicted = status.predicted_watt_hours
    power = [
        f"{status.committed_power_watts} W committed" if status.committed_power_watts is not None else "",
        f"{status.measured_power_watts} W measured" if status.measured_power_watts is not None else "",
        f"{status.excess_power_watts} W beyond the plans" if status.excess_power_watts else "",
        f"{status.allowed_power_watts} W allowed by {status.binding_limit}" if status.binding_limit else "",
    ]
    burn = [
        f"{status.burn_rate_watts} W" if status.burn_rate_watts is not None else "",
        f"{status.burn_rate_percent} % of the rate that lasts until the reset"
        if status.burn_rate_percent is not None
        else "",
    ]
    found = (
        ("limits", ", ".join(filter(None, limits))),
        ("period", period),
        ("used", (status.used or "") + (f", {predicted} Wh of it predicted" if predicted else "")),
        ("remaining", status.remaining or ""),
        ("power", ", ".join(filter(None, power))),
        ("burn rate", ", ".join(filter(None, burn))),
        ("forecast", status.forecast or ""),
        ("carbon", f"{status.used_grams} g CO2e used" if status.used_grams is not None else ""),
        ("cost", "".join(_cost(budget, rates)) if rates.is_stated else ""),
    )
    return [(label, text) for label, text in found if text]


def member_rows(budget: Budget) -> list[tuple[str, ...]]:
    """Return a row for each member that the status lists."""
    return [_member_row(member) for member in budget.status.members]


def hidden_members(budget: Budget) -> int:
    """Return the number of members that the status counts but does not list."""
    return max(0, (budget.status.member_count or 0) - len(budget.status.members))


def row(budget: Budget) -> tuple[str, ...]:
    """Return a row of :data:`HEAD`."""
    status = budget.status
    ready = next((c.status for c in status.conditions if c.type == "Ready"), "")
    count = "" if status.member_count is None else str(status.member_count)
    return (
        name_of(budget),
        status.used or "",
        status.remaining or "",
        status.forecast or "",
        count,
        budget.spec.action,
        ready,
    )


def _member_row(member: BudgetMember) -> tuple[str, ...]:
    def watts(value: int | None) -> str:
        return "" if value is None else f"{value} W"

    return (
        f"{member.namespace}/{member.name}",
        str(member.priority),
        watts(member.committed_power_watts),
        watts(member.measured_power_watts),
        "" if member.used_watt_hours is None else f"{member.used_watt_hours} Wh",
        watts(member.allowed_power_watts),
    )
