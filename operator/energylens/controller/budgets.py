"""Watts that the EnergyBudgets of a namespace leave to one LLMDeployment.

Committed power counts here: the predicted power of each member's plan. A budget that cannot be read allows no growth.
Energy over a period and carbon are tracked by the ledger, not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from energylens.api.energybudget import LabelSelector
from energylens.api.parse import InvalidResourceError, parse_energybudget
from energylens.controller.observation import BudgetView
from energylens.controller.reasons import Reason
from energylens.planner.types import PowerAllowance

Body = Mapping[str, Any]


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects an object with these labels."""
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for requirement in selector.match_expressions:
        present = requirement.key in labels
        inside = present and labels[requirement.key] in requirement.values
        if {
            "In": not inside,
            "NotIn": inside,
            "Exists": not present,
            "DoesNotExist": present,
        }[requirement.operator]:
            return False
    return True


def committed_watts(deployment: Body) -> int:
    """Return the predicted power of a deployment's plan; 0 without one."""
    return int(deployment.get("status", {}).get("plan", {}).get("predicted", {}).get("powerWatts", 0))


def allowance(
    deployment: Body, budgets: Iterable[Body], deployments: Iterable[Body]
) -> tuple[PowerAllowance | None, BudgetView]:
    """Return the watts that the tightest budget with action Deny or Shed leaves, and the view for the condition.

    What runs already is never pushed out by what others committed: the allowance is at least its own power.
    """
    metadata = deployment["metadata"]
    mine = [b for b in budgets if b["metadata"]["namespace"] == metadata["namespace"]]
    neighbours = [d for d in deployments if d["metadata"]["namespace"] == metadata["namespace"]]
    own = committed_watts(deployment)
    tightest: PowerAllowance | None = None
    over: list[str] = []
    members = 0
    for body in mine:
        name = f"EnergyBudget {metadata['namespace']}/{body['metadata']['name']}"
        try:
            spec = parse_energybudget(
                {"apiVersion": "energylens.dev/v1alpha1", "kind": "EnergyBudget", **body}, strict=False
            ).spec
        except InvalidResourceError as error:
            view = BudgetView("Unknown", Reason.BUDGET_UNREADABLE, f"{name}: {error}; growth is not allowed")
            return PowerAllowance(float(max(own, 1)), name), view
        if not selects(spec.selector, metadata.get("labels") or {}) or spec.power_watts is None:
            continue
        members += 1
        others = sum(
            committed_watts(d)
            for d in neighbours
            if d["metadata"]["name"] != metadata["name"] and selects(spec.selector, d["metadata"].get("labels") or {})
        )
        if others + own > spec.power_watts:
            over.append(
                f"{name}: {others + own} W are committed, {others + own - spec.power_watts} W more than "
                f"spec.powerWatts={spec.power_watts}"
            )
        left = max(float(own), float(spec.power_watts - others), 1.0)
        if spec.action != "Report" and (tightest is None or left < tightest.watts):
            tightest = PowerAllowance(left, name)
    if over:
        return tightest, BudgetView("False", Reason.OVER_BUDGET, "; ".join(over))
    if not members:
        return tightest, BudgetView("True", Reason.NO_BUDGET, "no EnergyBudget with powerWatts selects this deployment")
    return tightest, BudgetView("True", Reason.WITHIN_BUDGET, f"{own} W are committed within {members} budget(s)")
