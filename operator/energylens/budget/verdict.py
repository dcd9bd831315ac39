"""Whether a budget is exceeded: one rule and one wording, for its own condition and for those of its members."""

from __future__ import annotations

from dataclasses import dataclass

from energylens.api.energybudget import EnergyBudgetSpec


@dataclass(frozen=True)
class Figures:
    """What is compared with the limits of a budget, in the whole units that statuses show."""

    committed_watts: int
    """Predicted power of the plans."""
    measured_watts: int | None
    """None where a member that draws is not measured."""
    used_watt_hours: int | None
    """In this period; None while energy is not counted."""
    remaining_watt_hours: int | None
    """In this period; None without a limit of energy."""
    energy_limit: str | None
    """Field of the limit that leaves no more energy than that."""


def exceeded(spec: EnergyBudgetSpec, figures: Figures, prefix: str = "spec.") -> list[str]:
    """Return what is exceeded and by how much, a text for each; empty where the budget holds.

    Args:
        spec: The budget's.
        figures: Of its members together.
        prefix: Path of the budget's spec.
    """
    found, power = [], spec.power_watts
    for what, watts in (("committed", figures.committed_watts), ("measured", figures.measured_watts)):
        if power is not None and watts is not None and watts > power:
            found.append(f"{watts} W are {what}, {watts - power} W more than {prefix}powerWatts={power}")
    used, limit = figures.used_watt_hours, figures.energy_limit
    if used is not None and figures.remaining_watt_hours == 0 and limit:
        if limit == "spec.energyWattHours" and spec.energy_watt_hours is not None:
            more = max(0, used - spec.energy_watt_hours)
            beyond = f", {more} Wh more than allowed" if more else ""
            found.append(f"{used} Wh are used of {prefix}energyWattHours={spec.energy_watt_hours}{beyond}")
        else:
            found.append(f"{used} Wh are used, all that {limit} allows")
    return found
