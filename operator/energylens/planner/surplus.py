"""An answer that a budget does not restrict, as the answer within that budget."""

from __future__ import annotations

from dataclasses import replace

from energylens.planner.types import Feasible, PowerAllowance


def under(answer: Feasible, allowance: PowerAllowance) -> Feasible:
    """Return an answer that a budget does not restrict, and mark the alternatives that would break the budget."""
    plan, table = answer.plan, answer.table

    def why(watts: int, reason: str) -> str:
        text = f"{watts} W > {allowance.watts:.0f} W ({allowance.field})"
        # If the budget is the only rule that the alternative breaks, its higher cost need not be repeated.
        return text if reason.startswith(("uses ", "draws ")) else f"{reason}; {text}"

    alternatives = tuple(
        each.model_copy(update={"reason": why(each.power_watts, each.reason)})
        if each.power_watts > allowance.watts
        else each
        for each in plan.alternatives
    )
    rows = tuple(
        {**row, "reason": why(watts, str(row["reason"]))}
        if isinstance(watts := row["powerWatts"], int) and watts > allowance.watts
        else row
        for row in table
    )
    return replace(answer, plan=plan.model_copy(update={"alternatives": alternatives}), table=rows)
