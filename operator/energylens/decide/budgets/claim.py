"""The power that one budget leaves to one deployment. Pure."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt

from energylens.api.energybudget import EnergyBudgetSpec, EnergyBudgetStatus
from energylens.budget.periods import Span
from energylens.budget.usage import Growth, JobEnergy, PowerAllowed
from energylens.decide.budgets.counted import CountedWatts, quarters_ahead
from energylens.decide.budgets.jobs import CountedJob
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
    growth: Growth | None
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
    job: CountedJob | None = None
    """The deployment's own batch job, if its plan says when the job ends."""
    most_watt_hours: float = math.inf
    """Energy of a period that no job may exceed, not even one that runs, Wh."""

    @cached_property
    def reserved(self) -> float:
        """Power that other members reserve in the hour in which they reserve most, W."""
        return self.others.reserved(self.now)

    @cached_property
    def steady(self) -> float:
        """The same without jobs, which end, W."""
        return self.others.steady(self.now)

    @cached_property
    def job_energy(self) -> JobEnergy:
        """Energy that the jobs of other members will take in each period."""
        if self.growth is None or self.growth.energy is None:
            return JobEnergy()
        return self.others.energy(self.spec, self.period, self.now)

    @cached_property
    def all_jobs(self) -> JobEnergy:
        """Energy that the jobs of all members will take in each period."""
        jobs = self.others.jobs if self.job is None else (*self.others.jobs, self.job)
        return replace(self.others, jobs=jobs).energy(self.spec, self.period, self.now)

    @cached_property
    def tightest(self) -> PowerAllowed | None:
        """The limit that leaves least power without an end; None without a limit."""
        if self.growth is None:
            return None
        found = [] if self.growth.power is None else [(self.growth.power.watts - self.reserved, self.growth.power)]
        if self.growth.energy is not None and math.isfinite(watts := self.growth.energy.watts(self.job_energy)):
            found.append((watts - self.steady, PowerAllowed(watts, self.growth.energy.limit)))
        return min(found, key=lambda each: each[0])[1] if found else None

    @property
    def free(self) -> float:
        """Power without an end that the limits leave beside the other members, W; may be negative."""
        limit = self.tightest
        if limit is None:
            return math.inf
        return limit.watts - self.counted(limit.limit) - self.beyond

    def counted(self, limit: str) -> float:
        """Return the power of the other members that counts against a limit, W: energy limits count jobs apart."""
        return self.reserved if limit == "spec.powerWatts" else self.steady

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
        left = np.maximum(self._hourly(most) - self.beyond, np.maximum(running, 1.0))
        if self.ceiling is not None:
            left = np.minimum(left, max(self.ceiling.watts, 1.0))
        return tuple(np.floor(left + 1e-6).tolist())

    def _hourly(self, reserved: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the power that the limits leave in each hour of a week, W, if this much is reserved in each."""
        assert self.growth is not None
        left = np.full(reserved.shape, math.inf)
        if self.growth.power is not None:
            left = self.growth.power.watts - reserved
        if self.growth.energy is not None:
            # The reserved power contains the peak of the jobs, whose energy counts instead.
            jobs = self.reserved - self.steady
            left = np.minimum(left, self.growth.energy.watts(self.job_energy) - (reserved - jobs))
        return left

    @property
    def left(self) -> float:
        """Watts that a plan of the deployment may draw in every hour."""
        left = math.inf
        if self.cap is not None:
            left = self.cap
        elif self.problem:
            left = max(self.granted, 1.0)
        elif self.growth is not None:
            left = max(self.own, self.free, 1.0)
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
        limit = self.tightest
        if self.problem or limit is None:
            return PowerAllowance(watts, self.name, because=self.problem, awaits_look=self.awaits_look and not self.own)
        return self._by(limit.limit, watts)

    def power_of_job(self, watts: float) -> PowerAllowance:
        """Return the power that is left to a job at the best time, with the limit that determines it."""
        if self.problem:
            return PowerAllowance(watts, self.name, because=self.problem)
        power = None if self.growth is None else self.growth.power
        limit = power if power is not None else self.ceiling
        return PowerAllowance(watts, self.name) if limit is None else self._by(limit.limit, watts)

    def source(self, limit: str) -> str:
        """Return a limit with its budget, as the field of an allowance names it."""
        return self.field(limit) if self.is_own else f"{self.name}: {self.field(limit)}"

    def _by(self, limit: str, watts: float) -> PowerAllowance:
        field, others = self.field(limit), self.counted(limit) + self.beyond
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
