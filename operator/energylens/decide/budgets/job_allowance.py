"""The power and the energy that budgets leave a batch job over time. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from energylens.budget.periods import periods_from
from energylens.decide.budgets.claim import BudgetClaim
from energylens.decide.budgets.jobs import QUARTER_SECONDS, CountedJob, energy_by_period, seconds_of
from energylens.decide.job_plan import JobTimes
from energylens.decide.planned import PlannedDeployment
from energylens.planner.room import LOOK_AHEAD, MOST_WAIT, EnergyRoom, Holder, JobRoom
from energylens.planner.types import UNLIMITED_WATTS, PowerAllowance
from energylens.records import dataclass

_SLACK_SECONDS = 24 * 3600
"""Time beyond ``completeWithinSeconds`` for which power is known: a measured start may take longer than a planned one.
"""
MOST_HOLDERS = 16
"""Most jobs that may be named."""


@dataclass(frozen=True)
class _Window:
    """Times of a job, in seconds since the Unix epoch."""

    now: int
    earliest: int
    complete_by: int | None
    has_begun: bool
    horizon: int
    """Time up to which power and energy are known."""

    @property
    def first(self) -> int:
        """First quarter of an hour that matters, in quarters since the Unix epoch."""
        return min(self.earliest, self.now) // QUARTER_SECONDS if self.has_begun else self.earliest // QUARTER_SECONDS

    @property
    def quarters(self) -> int:
        """Number of quarters up to the horizon."""
        return max(1, -(-self.horizon // QUARTER_SECONDS) - self.first)


def job_allowance(
    claims: Sequence[BudgetClaim], deployment: PlannedDeployment, times: JobTimes, now: datetime
) -> tuple[BudgetClaim, PowerAllowance]:
    """Return what budgets leave a job, and the claim of the budget that leaves least.

    A budget that sheds power leaves a constant power, and one that cannot be checked the power that was granted.

    Args:
        claims: Limits of budgets that limit plans, at least one.
        deployment: The deployment, with its plan.
        times: When its job may run.
        now: The current time.
    """
    constant = [claim for claim in claims if claim.cap is not None or claim.problem]
    tightest = min(constant or claims, key=lambda claim: (claim.left, claim.name))
    if any(claim.cap is not None for claim in constant) or len(constant) == len(claims):
        return tightest, tightest.allowance
    window = _window(deployment, times, now)
    power: list[tuple[float, BudgetClaim, npt.NDArray[np.float64]]] = []
    for claim in claims:
        left = _power_left(claim, window)
        if left is not None:
            power.append((float(left.max()), claim, left))
    energy = tuple(found for claim in claims if (found := _energy_left(claim, window)) is not None)
    quarters: tuple[int, ...] = ()
    watts: tuple[float, ...] = ()
    if power:
        quarters, watts = _compressed(np.min([left for _, _, left in power], axis=0), window.first)
    room = JobRoom(
        window.now,
        window.earliest,
        window.complete_by,
        window.has_begun,
        quarters,
        watts,
        energy,
        _holders(claims, now),
    )
    if not power:
        source = min(claims, key=lambda claim: (claim.left, claim.name))
        return source, PowerAllowance(UNLIMITED_WATTS, source.name, room=room)
    _, binding, _ = min(power, key=lambda each: (each[0], each[1].name))
    return binding, replace(binding.power_of_job(min(room.most_watts, UNLIMITED_WATTS)), room=room)


def _window(deployment: PlannedDeployment, times: JobTimes, now: datetime) -> _Window:
    present = int(seconds_of(now))
    job = deployment.job
    has_begun = job is not None and job.has_begun and bool(deployment.reserved_watts)
    earliest, by = present, None
    if has_begun and job is not None and job.start is not None:
        earliest = min(present, int(seconds_of(job.start)))
    elif times.complete_by is not None:
        by = int(seconds_of(times.complete_by))
        if times.not_before is not None:
            earliest = max(present, math.ceil(seconds_of(times.not_before)))
    last = earliest if by is None else max(earliest, min(by, earliest + MOST_WAIT))
    horizon = max(last, present + LOOK_AHEAD) + times.within_seconds + _SLACK_SECONDS
    return _Window(present, earliest, by, has_begun, horizon)


def _power_left(claim: BudgetClaim, window: _Window) -> npt.NDArray[np.float64] | None:
    """Return the power that one budget leaves in each quarter of an hour, whole watts; None without a limit."""
    count = window.quarters
    if claim.problem:
        return np.full(count, math.floor(claim.left + 1e-6))
    left = np.full(count, math.inf)
    if claim.growth is not None and claim.growth.power is not None:
        reserved = claim.others.at_quarters(claim.now, window.first, count)
        left = np.maximum(claim.growth.power.watts - reserved - claim.beyond, max(claim.own, 0.0))
    if claim.ceiling is not None:
        left = np.minimum(left, claim.ceiling.watts)
    if not np.isfinite(left).any():
        return None
    return np.maximum(np.floor(left + 1e-6), 1.0)


def _energy_left(claim: BudgetClaim, window: _Window) -> EnergyRoom | None:
    """Return the energy that one budget leaves in each period; None without a limit."""
    energy = None if claim.growth is None or claim.problem else claim.growth.energy
    if energy is None:
        return None
    hours = (window.horizon - seconds_of(claim.period.start)) / 3600.0
    periods = periods_from(claim.spec.period, ZoneInfo(claim.spec.time_zone), claim.period, hours)
    lengths = np.asarray([claim.period.hours_left(claim.now), *(period.hours for period in periods[1:])])
    whole = math.inf if energy.whole_watt_hours is None else energy.whole_watt_hours
    most = np.full(len(periods), whole)
    most[0] = energy.left_watt_hours
    taken = energy_by_period(claim.others.jobs, periods, claim.now)
    left = most - (claim.steady + claim.beyond) * lengths - taken
    if claim.job is not None and claim.own:
        # Budgets do not stop the plan that runs.
        views = [claim.job, replace(claim.job, course=claim.job.by_plan)]
        left = np.max([left, *(energy_by_period([view], periods, claim.now) for view in views)], axis=0)
    left = np.minimum(left, claim.most_watt_hours)
    is_field = energy.limit == "spec.energyWattHours"
    return EnergyRoom(
        claim.source(energy.limit),
        claim.spec.energy_watt_hours if is_field else None,
        tuple(int(seconds_of(period.end)) for period in periods),
        tuple(np.maximum(left, 0.0).tolist()),
    )


def _compressed(left: npt.NDArray[np.float64], first: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the quarters of an hour at which power changes, and the power from each on."""
    changes = np.concatenate([[0], np.flatnonzero(np.diff(left)) + 1])
    return tuple((first + changes).tolist()), tuple(left[changes].tolist())


def _holders(claims: Sequence[BudgetClaim], now: datetime) -> tuple[Holder, ...]:
    """Return the jobs that hold power or energy of the budgets, the first to begin first."""
    jobs: dict[str, CountedJob] = {job.name: job for claim in claims for job in claim.others.jobs}
    found = []
    for job in jobs.values():
        first, _, end = job.quarters(now)
        found.append(Holder(job.name, first, end, round(job.busy_watts), job.is_late(now)))
    return tuple(sorted(found, key=lambda each: (not each.until_deleted, each.first, each.name))[:MOST_HOLDERS])
