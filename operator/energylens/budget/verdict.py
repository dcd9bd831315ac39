"""Whether a budget is exceeded: one rule and one wording, for its own condition and for those of its members."""

from __future__ import annotations

from dataclasses import dataclass

from energylens.api.energybudget import EnergyBudgetSpec


@dataclass(frozen=True)
class Figures:
    """Figures that are compared with the limits of a budget, in the whole units of statuses."""

    committed_watts: int
    """Predicted power of the plans."""
    measured_watts: int | None
    """None where a member that draws is not measured."""
    used_watt_hours: int | None
    """In this period; None while energy is not counted."""
    remaining_watt_hours: int | None
    """In this period; None without a limit of energy."""
    energy_limit: str | None
    """Field of the limit behind ``remaining_watt_hours``."""


def exceeded(spec: EnergyBudgetSpec, figures: Figures, prefix: str = "spec.", *, by_how_much: bool = True) -> list[str]:
    """Return what is exceeded, a text for each; empty where the budget holds.

    Args:
        spec: The budget's.
        figures: Of its members together.
        prefix: Path of the budget's spec.
        by_how_much: Say it with figures, which move with every member; else only which limits are exceeded.
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
