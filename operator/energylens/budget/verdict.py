"""Whether a budget is exceeded: one rule and one wording, for its own condition and for those of its members."""

from __future__ import annotations

from energylens.api.energybudget import EnergyBudgetSpec
from energylens.records import dataclass


@dataclass(frozen=True)
class Figures:
    """Figures to compare with the limits of a budget, in the whole units of statuses."""

    committed_watts: int
    """Predicted power of the plans, W."""
    measured_watts: int | None
    """Measured power, W; None if a member that draws power is not measured."""
    used_watt_hours: int | None
    """Energy used in this period, Wh; None while energy is not counted."""
    remaining_watt_hours: int | None
    """Remaining energy of this period, Wh; None without an energy limit."""
    energy_limit: str | None
    """Field of the limit behind ``remaining_watt_hours``."""


def exceeded(spec: EnergyBudgetSpec, figures: Figures, prefix: str = "spec.", *, by_how_much: bool = True) -> list[str]:
    """Return what is exceeded, one text each; empty if the budget is met.

    Args:
        spec: The budget's spec.
        figures: Figures of all members together.
        prefix: Path of the budget's spec.
        by_how_much: Whether the texts have figures, which change with every member, or only name the exceeded limits.
    """
    found, power = [], spec.power_watts
    for what, watts in (("committed", figures.committed_watts), ("measured", figures.measured_watts)):
        if power is not None and watts is not None and watts > power:
            limit = f"{prefix}powerWatts={power}"
            said = f"{watts} W are {what}, {watts - power} W more than {limit}"
            found.append(said if by_how_much else f"more than {limit} W are {what}")
    used, field = figures.used_watt_hours, figures.energy_limit
    if used is None or figures.remaining_watt_hours != 0 or not field:
        return found
    if field == "spec.energyWattHours" and spec.energy_watt_hours is not None:
        limit, more = f"{prefix}energyWattHours={spec.energy_watt_hours}", max(0, used - spec.energy_watt_hours)
        beyond = f", {more} Wh more than allowed" if more else ""
        found.append(f"{used} Wh are used of {limit}{beyond}" if by_how_much else f"all of {limit} Wh is used")
    else:
        found.append(
            f"{used} Wh are used, all that {field} allows" if by_how_much else f"all that {field} allows is used"
        )
    return found
