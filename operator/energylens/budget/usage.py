"""Remaining energy of a budget, its burn rate, and the power that the budget allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from energylens.api.energybudget import EnergyBudgetSpec
from energylens.budget.carbon import Forecast
from energylens.budget.ledger import Entry
from energylens.budget.periods import Span
from energylens.records import dataclass

_JOULES_PER_WATT_HOUR = 3600.0
BURN_SECONDS = 3600.0
"""Time, s, over which the burn rate is averaged."""
LEAST_BURN_SECONDS = 300.0
"""Length of the ledger, s, below which the current power is used as the burn rate."""


@dataclass(frozen=True)
class Usage:
    """Energy figures of a period."""

    used_watt_hours: float
    predicted_watt_hours: float
    used_grams: float | None
    """Grams of carbon; None without a forecast."""
    allowed_watt_hours: float | None
    """Most energy of the period that all limits allow; None without an energy limit."""
    limit: str
    """Field of the limit behind ``allowed_watt_hours``; "" without one."""

    @property
    def remaining_watt_hours(self) -> float | None:
        """Remaining energy, never below 0; None without an energy limit."""
        return None if self.allowed_watt_hours is None else max(0.0, self.allowed_watt_hours - self.used_watt_hours)


def usage(
    spec: EnergyBudgetSpec, entries: Sequence[Entry], period: Span, now: datetime, forecast: Forecast | None
) -> Usage:
    """Return the used and allowed energy of a period.

    A carbon allowance is converted to energy: the used energy, plus the energy that a constant power may draw with the
    remaining grams until the period ends.

    Args:
        spec: The budget's spec.
        entries: The budget's ledger.
        period: The period that contains ``now``.
        now: The current time.
        forecast: Carbon intensity; required if the spec has a carbon limit.

    Raises:
        ForecastError: The forecast does not cover ``now``.
    """
    used = sum(entry.joules for entry in entries) / _JOULES_PER_WATT_HOUR
    predicted = sum(entry.predicted_joules for entry in entries) / _JOULES_PER_WATT_HOUR
    limits: list[tuple[float, str]] = []
    if spec.energy_watt_hours is not None:
        limits.append((float(spec.energy_watt_hours), "spec.energyWattHours"))
    grams = None
    if spec.carbon is not None and forecast is not None:
        ungraded = sum(entry.ungraded_joules for entry in entries) / _JOULES_PER_WATT_HOUR
        # Time without a forecast counts with the highest intensity in this forecast.
        grams = sum(entry.grams for entry in entries) + ungraded / 1000.0 * forecast.highest
        left = max(0.0, spec.carbon.grams_per_period - grams)
        more = forecast.watt_hours(left, now, period.end)
        # A grid without carbon allows unlimited energy.
        if math.isfinite(more):
            limits.append((used + more, "spec.carbon.gramsPerPeriod"))
    allowed, limit = min(limits, default=(None, ""))
    return Usage(used, predicted, grams, allowed, limit)


@dataclass(frozen=True)
class PowerAllowed:
    """Power that a budget allows all of its members together."""

    watts: float
    limit: str
    """Field of the limit that determines the power."""


@dataclass(frozen=True)
class JobEnergy:
    """Energy that jobs will still take, Wh; a job ends, so that its power does not count for a whole period."""

    present: float = 0.0
    """Until this period ends."""
    later: tuple[tuple[float, float], ...] = ()
    """Hours of each following period that a job reaches, and the energy in it."""
    watts: float = 0.0
    """Power of the jobs whose pods exist."""


NO_JOBS = JobEnergy()


@dataclass(frozen=True)
class EnergyAllowed:
    """Energy that a budget allows all of its members together."""

    left_watt_hours: float
    """In the rest of this period."""
    whole_watt_hours: float | None
    """In each later period; None if only this period is limited."""
    hours_left: float
    period_hours: float
    step_watts: float
    """Resolution of power: inputs of plans must not change in every reconcile."""
    limit: str
    """Field of the limit."""

    def watts(self, jobs: JobEnergy = NO_JOBS) -> float:
        """Return the most power without an end that is allowed beside jobs, W, in whole steps.

        A plan without an end outlives the period, so it must fit the rest of this period and every later one.
        """
        found = math.inf
        if self.hours_left > 0:
            found = (self.left_watt_hours - jobs.present) / self.hours_left
        if self.whole_watt_hours is not None:
            found = min(found, self.whole_watt_hours / self.period_hours)
            for hours, watt_hours in jobs.later:
                found = min(found, (self.whole_watt_hours - watt_hours) / hours)
        return math.floor(found / self.step_watts + 1e-9) * self.step_watts if math.isfinite(found) else found


@dataclass(frozen=True)
class Growth:
    """Power and energy that a budget allows all of its members together after a new or larger plan."""

    power: PowerAllowed | None = None
    energy: EnergyAllowed | None = None

    @property
    def limits(self) -> bool:
        """Whether there is a limit."""
        return self.power is not None or self.energy is not None

    def tightest(self, jobs: JobEnergy = NO_JOBS) -> PowerAllowed | None:
        """Return the most power of members without an end; None without a limit."""
        found = [] if self.power is None else [self.power]
        if self.energy is not None and math.isfinite(watts := self.energy.watts(jobs)):
            found.append(PowerAllowed(watts, self.energy.limit))
        return min(found, key=lambda allowed: allowed.watts, default=None)


def power_allowed(
    spec: EnergyBudgetSpec, used: Usage, period: Span, now: datetime, jobs: JobEnergy = NO_JOBS
) -> PowerAllowed | None:
    """Return the most power that meets every limit until the period ends; None without a limit.

    Jobs keep their power until they end, and the others may draw what the energy of the jobs leaves.
    """
    limits: list[PowerAllowed] = []
    if spec.power_watts is not None:
        limits.append(PowerAllowed(float(spec.power_watts), "spec.powerWatts"))
    if used.remaining_watt_hours is not None:
        hours = period.hours_left(now)
        watts = max(0.0, used.remaining_watt_hours - jobs.present) / hours + jobs.watts if hours > 0 else math.inf
        limits.append(PowerAllowed(watts, used.limit))
    return min((limit for limit in limits if math.isfinite(limit.watts)), key=lambda p: p.watts, default=None)


def growth(spec: EnergyBudgetSpec, used: Usage, period: Span, now: datetime) -> Growth:
    """Return the power and the energy that members may have after a new or larger plan."""
    power = None if spec.power_watts is None else PowerAllowed(float(spec.power_watts), "spec.powerWatts")
    left, allowed = used.remaining_watt_hours, used.allowed_watt_hours
    if left is None or allowed is None:
        return Growth(power)
    whole = allowed if used.limit == "spec.energyWattHours" else None
    step = max(1.0, allowed / period.hours / 100.0)
    return Growth(power, EnergyAllowed(left, whole, period.hours_left(now), period.hours, step, used.limit))


def growth_allowed(
    spec: EnergyBudgetSpec, used: Usage, period: Span, now: datetime, jobs: JobEnergy = NO_JOBS
) -> PowerAllowed | None:
    """Return the most power that members without an end may have after a new or larger plan; None without a limit.

    A plan outlives the period, so it must fit the rest of this period and a whole one after it. Energy is offered in
    steps of a hundredth of a period's mean power, so that a plan's inputs do not change in every reconcile.
    """
    return growth(spec, used, period, now).tightest(jobs)


Point = tuple[datetime, float]
"""A moment and the watt-hours used since the period began."""


def burn_rate_watts(points: Sequence[Point], present_watts: float) -> float:
    """Return the mean power over the last hour of the ledger, W; the current power if the ledger is too short."""
    if len(points) >= 2:
        end, used = points[-1]
        start, before = next(p for p in points if (end - p[0]).total_seconds() <= BURN_SECONDS)
        seconds = (end - start).total_seconds()
        if seconds >= LEAST_BURN_SECONDS:
            return (used - before) * _JOULES_PER_WATT_HOUR / seconds
    return present_watts


def exhaustion(used: Usage, period: Span, now: datetime, burn_watts: float) -> datetime | None:
    """Return when the energy will be used up at a burn rate; None if it lasts until the period ends."""
    left = used.remaining_watt_hours
    if left is None:
        return None
    if left <= 0:
        return now
    if burn_watts <= 0 or left / burn_watts >= period.hours_left(now):
        return None
    return now + timedelta(hours=left / burn_watts)
