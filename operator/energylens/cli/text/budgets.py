"""Budgets as text: one line each, or a page with its members."""

from __future__ import annotations

from collections.abc import Sequence

from energylens.api.energybudget import BudgetMember, ClusterEnergyBudget, EnergyBudget
from energylens.cli.text.tables import columns

Budget = EnergyBudget | ClusterEnergyBudget
_HEAD = ("NAME", "USED", "REMAINING", "FORECAST", "MEMBERS", "ACTION", "READY")
_MEMBER_HEAD = ("MEMBER", "PRIORITY", "COMMITTED", "MEASURED", "USED", "LEFT TO IT")


def name_of(budget: Budget) -> str:
    """Return ``namespace/name``, or the name alone of a ClusterEnergyBudget."""
    metadata = budget.metadata
    return metadata.name if isinstance(budget, ClusterEnergyBudget) else f"{metadata.namespace}/{metadata.name}"


def overview(budgets: Sequence[Budget], own: Sequence[tuple[str, ...]] = ()) -> str:
    """Return a table of budgets, and below them of those in the specs of LLMDeployments."""
    return "\n".join(line[2:] for line in columns([_HEAD, *(_row(budget) for budget in budgets), *own]))


def page(budget: Budget) -> str:
    """Return everything about one budget."""
    spec, status = budget.spec, budget.status
    lines = [f"{budget.kind} {name_of(budget)}: {spec.action}"]
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
        f"{status.burn_rate_percent} % of what lasts until the reset" if status.burn_rate_percent is not None else "",
    ]
    facts = (
        ("limits", ", ".join(filter(None, limits))),
        ("period", period),
        ("used", (status.used or "") + (f", {predicted} Wh of it predicted" if predicted else "")),
        ("remaining", status.remaining or ""),
        ("power", ", ".join(filter(None, power))),
        ("burn rate", ", ".join(filter(None, burn))),
        ("forecast", status.forecast or ""),
        ("carbon", f"{status.used_grams} g CO2e used" if status.used_grams is not None else ""),
    )
    lines += [f"  {label:<11} {text}" for label, text in facts if text]
    if status.members:
        lines += ["", *columns([_MEMBER_HEAD, *map(_member_row, status.members)])]
        hidden = (status.member_count or 0) - len(status.members)
        lines += [f"  and {hidden} more"] if hidden > 0 else []
    for condition in status.conditions:
        text = f": {condition.message}" if condition.message else ""
        lines += [""] if condition is status.conditions[0] else []
        lines.append(f"  {condition.type:<19} {condition.status:<8} {condition.reason}{text}")
    return "\n".join(lines)


def _row(budget: Budget) -> tuple[str, ...]:
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
