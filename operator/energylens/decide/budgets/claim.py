"""The power that one budget leaves to one deployment. Pure."""

from __future__ import annotations

import math
from datetime import datetime
from functools import cached_property

import numpy as np

from energylens.api.energybudget import EnergyBudgetSpec, EnergyBudgetStatus
from energylens.budget.periods import Span
from energylens.budget.usage import PowerAllowed
from energylens.decide.budgets.counted import CountedWatts, quarters_ahead
from energylens.decide.planned import WeekWatts
from energylens.planner.types import BudgetLimit, EnergyLeft, PowerAllowance
from energylens.records import dataclass

SPEC = "spec."
"""Path of a budget's spec in messages."""


@dataclass(frozen=True)
class BudgetClaim:
    """Limit that one budget sets for one deployment."""

    name: str
    spec: EnergyBudgetSpec
    status: EnergyBudgetStatus
    own: float
    granted: float
    """Power that the plan may draw in its busiest hour, W; ``own`` where its replicas are constant."""
    own_share: float
    """The part of ``own`` that counts against this budget."""
    others: CountedWatts
    """Power of the other members."""
    growth: PowerAllowed | None
    problem: str
    cap: float | None
    """Power that shedding leaves to the deployment, W; None if no power was shed."""
    period: Span
    now: datetime
    beyond: float = 0.0
    """Measured power of the members above their plans, as far as it counts against growth."""
    awaits_look: bool = False
    """Whether the operator has not checked the budget yet."""
    ceiling: PowerAllowed | None = None
    """Power that no plan may exceed, not even the running plan."""
    path: str = SPEC
    """Path of the budget's spec in messages."""
    week: WeekWatts | None = None
    """The hours of the deployment's load; None if the load is constant."""
    running: WeekWatts | None = None
    """The hours of the replicas that run; None if they may draw ``own`` in every hour."""

    @cached_property
    def reserved(self) -> float:
        """Power that other members reserve in the hour in which they reserve most, W."""
        return self.others.reserved(self.now)

    @property
    def left_by_hour(self) -> tuple[float, ...] | None:
        """Watts that a plan may draw in each hour of the week by the deployment's clock; None if hours do not differ.

        Replicas start early, and draw their power from the quarter of an hour on in which they start.
        """
        if self.week is None or not self.others.weeks or self.cap is not None or self.problem or self.growth is None:
            return None
        slots = self.others.by_slot(self.week.time_zone, self.now)
        ahead = quarters_ahead(self.week.lead_seconds)
        most = np.max([np.roll(slots, ahead - shift) for shift in range(ahead + 4)], axis=0)[::4]
        # Each hour leaves at least the power of the hour's own replicas, whichever hour it is now.
        running = self.own if self.running is None else np.asarray(self.running.watts, dtype=np.float64)
        left = np.maximum(self.growth.watts - most - self.beyond, np.maximum(running, 1.0))
        if self.ceiling is not None:
            left = np.minimum(left, max(self.ceiling.watts, 1.0))
        return tuple(np.floor(left + 1e-6).tolist())

    @property
    def left(self) -> float:
        """Watts that a plan of the deployment may draw in every hour."""
        left = math.inf
        if self.cap is not None:
            left = self.cap
        elif self.problem:
            left = max(self.granted, 1.0)
        elif self.growth is not None:
            left = max(self.own, self.growth.watts - self.reserved - self.beyond, 1.0)
        return left if self.ceiling is None else min(left, max(self.ceiling.watts, 1.0))

    @property
    def allowance(self) -> PowerAllowance:
        """The remaining power, with the limit that determines it."""
        watts = float(math.floor(self.left + 1e-6))
        ceiling = self.ceiling
        if ceiling is not None and max(1.0, ceiling.watts) <= self.left:
            return self._by(ceiling.limit, watts)
        if self.cap is not None:
            return PowerAllowance(watts, self.name, sheds=True)
        if self.problem or self.growth is None:
            return PowerAllowance(watts, self.name, because=self.problem, awaits_look=self.awaits_look and not self.own)
        return self._by(self.growth.limit, watts)

    def _by(self, limit: str, watts: float) -> PowerAllowance:
        field, others = self.field(limit), self.reserved + self.beyond
        source, named = (field, "") if self.is_own else (self.name, field)
        if limit == "spec.powerWatts" and self.spec.power_watts is not None:
            # For the deployment's own budget, the watts are the value of the field.
            made = None if self.is_own else BudgetLimit(named, self.spec.power_watts, None, others)
        elif limit == "spec.energyWattHours" and self.spec.energy_watt_hours is not None:
            left = EnergyLeft(
                float(self.status.used_watt_hours or 0), self.period.hours_left(self.now), self.period.hours
            )
            made = BudgetLimit(named, self.spec.energy_watt_hours, left, others)
        else:
            return PowerAllowance(watts, source, because=f"by {named}")
        return PowerAllowance(watts, source, limit=made)

    @property
    def is_own(self) -> bool:
        """Whether this is the budget of the deployment's own spec, whose figures all belong to the deployment."""
        return self.path != SPEC

    @property
    def used(self) -> int:
        """Watts that plans commit against the budget now."""
        return round(self.own * self.own_share + self.others.committed)

    @property
    def is_held(self) -> bool:
        """Whether the deployment may not draw more than now, or must draw less, whatever others do."""
        return self.limits and (self.cap is not None or bool(self.problem))

    @property
    def limits(self) -> bool:
        """Whether the budget limits plans, rather than reports."""
        return self.spec.action != "Report" and bool(self.problem or self.growth is not None or self.cap is not None)

    def field(self, limit: str) -> str:
        """Return the path of a limit as messages name it."""
        return limit.replace(SPEC, self.path, 1)

    def value(self, limit: str) -> str:
        """Return a limit with its value and unit: ``spec.energyWattHours=43320 Wh``."""
        values = {
            "spec.powerWatts": (self.spec.power_watts, "W"),
            "spec.energyWattHours": (self.spec.energy_watt_hours, "Wh"),
        }
        value, unit = values.get(limit, (None, ""))
        return self.field(limit) + ("" if value is None else f"={value} {unit}")
