"""Rates of the hours of a week, learned from measured windows and damped so that noise causes no new plan. Pure.

Each hour of the week has the mean of its measured rates; when an hour is measured again in a later week, earlier
measurements lose weight. Plans are made for steps of 25 %, as in :mod:`energylens.decide.deployment.loads.load`: a
window that exceeds the step of its hour by `RAISE` raises the step at once, since the objectives of that hour are
broken now. All other changes wait for the end of the local day. A step is lowered when the mean is below the next lower
step by `SPARE`: each week measures an hour once, so that noise of 9 % in single weeks must neither raise nor lower a
step again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from energylens.api.llmdeployment import WEEKDAYS, LLMDeployment, ProfileHours, ScheduleStatus, WorkloadSpec
from energylens.api.llmdeployment.learned_load import LearnedLoadStatus
from energylens.api.quantity import format_milli, parse_quantity
from energylens.api.timestamp import moment_of, timestamp
from energylens.decide.deployment.loads.load import RAISE, STEP, MeasuredLoad, rate_of, step_above, step_of
from energylens.planner.search.week_load import HOURS
from energylens.records import dataclass

COVERED_SECONDS = 900
"""Measured time after which an hour counts as measured, s: a quarter of the hour."""
SPARE = RAISE * RAISE
"""Factor by which the mean rate of an hour must be below the next lower step before the step is lowered. A week 9 %
above the mean may have set the step, and a week 9 % below the mean must not lower the step: 1.09 / 0.91 = 1.198."""
MOST_SECONDS = 1_000_000
"""Largest weight of an hour, as the API allows."""


@dataclass(frozen=True)
class LearnedHours:
    """Learned rates of the hours of a week; tuples have 168 elements, Monday 0:00 first."""

    zone: str
    declared: float
    """Requests per second of the spec; planned rates are steps of this rate."""
    rates: tuple[float, ...] = (0.0,) * HOURS
    """Mean measured rates, requests per second; 0 for an unmeasured hour."""
    seconds: tuple[int, ...] = (0,) * HOURS
    """Measured time, with less weight for older weeks, s."""
    steps: tuple[int, ...] = (0,) * HOURS
    """Steps of the declared rate that hours are planned for."""
    counted: datetime | None = None
    """End of the last counted window; each window counts once."""

    @property
    def covered(self) -> int:
        """Hours that were measured for long enough."""
        return sum(seconds >= COVERED_SECONDS for seconds in self.seconds)

    def planned(self, min_coverage_percent: int) -> tuple[float, ...]:
        """Return the rate to plan each hour for, requests per second.

        Until enough hours were measured, no hour is planned for less than the declared rate.
        """
        is_covered = 100 * self.covered >= min_coverage_percent * HOURS
        return tuple(rate_of(self.declared, step if is_covered else max(step, 0)) for step in self.steps)


def learn(
    before: LearnedHours, window: MeasuredLoad, earlier_weeks: float, made_for: Sequence[float] | None = None
) -> LearnedHours:
    """Return the learned hours after a window; a window that was counted before changes nothing.

    Args:
        before: The learned hours before the window.
        window: The measured window. If engines were saturated, ended requests understate the demand, and the demand
            counts as one step above the rate of the plan.
        earlier_weeks: Factor on the weight of an hour's measurements in earlier weeks, 0 to 1.
        made_for: Rate for which the replicas of each hour were planned, requests per second, shape (168,); by default
            the rate of the hour's step. If no plan sustains the step, ``made_for`` is lower: engines stay saturated in
            that hour, and the step must not rise with every window.
    """
    if before.counted is not None and window.end <= before.counted:
        return before
    zone = ZoneInfo(before.zone)
    start = window.start if before.counted is None else max(window.start, before.counted)
    rates, seconds, steps = list(before.rates), list(before.seconds), list(before.steps)
    for hour, length, is_new in _parts(start, window.end, zone, before.counted):
        planned = rate_of(before.declared, steps[hour])
        served = planned if made_for is None else made_for[hour]
        rate, step = window.value, step_of(before.declared, window.value)
        if window.is_saturated:
            rate, step = max(rate, served * STEP), max(step, step_above(before.declared, served))
        old = int(seconds[hour] * earlier_weeks) if is_new else seconds[hour]
        seconds[hour] = min(old + length, MOST_SECONDS)
        rates[hour] = _rounded((rates[hour] * old + rate * length) / (old + length))
        if rate > planned * RAISE:
            steps[hour] = step
    found = replace(before, rates=tuple(rates), seconds=tuple(seconds), steps=tuple(steps), counted=window.end)
    is_new_day = before.counted is not None and _day(before.counted, zone) != _day(window.end, zone)
    return replace(found, steps=_settled(found)) if is_new_day else found


def learned_hours(deployment: LLMDeployment, measured: MeasuredLoad | None) -> LearnedHours | None:
    """Return a deployment's learned hours after the last window; None if its profile is not learned."""
    workload = deployment.spec.workload
    profile, declared = workload.profile, workload.requests_per_second
    if profile is None or profile.learned is None or declared is None:
        return None
    before = _known(deployment.status.learned_load, profile.time_zone, float(parse_quantity(declared)))
    if measured is None:
        return before
    schedule = deployment.status.schedule
    made_for = None if schedule is None else _rates_of(schedule)
    return learn(before, measured, profile.learned.earlier_weeks_percent / 100.0, made_for)


def with_learned(deployment: LLMDeployment, learned: LearnedHours | None) -> LLMDeployment:
    """Return a deployment with the learned rates as the hours of its profile; unchanged without learned rates."""
    spec = deployment.spec
    profile = spec.workload.profile
    if learned is None or profile is None or profile.learned is None:
        return deployment
    hours = tuple(_entries(learned.planned(profile.learned.min_coverage_percent)))
    stated = profile.model_copy(update={"hours": hours})
    workload = spec.workload.model_copy(update={"profile": stated})
    return deployment.model_copy(update={"spec": spec.model_copy(update={"workload": workload})})


def learned_status(learned: LearnedHours | None) -> LearnedLoadStatus | None:
    """Return the learned hours for the status; None before the first window."""
    if learned is None or learned.counted is None:
        return None
    return LearnedLoadStatus(
        time_zone=learned.zone,
        declared_requests_per_second=format_milli(learned.declared),
        window_end=timestamp(learned.counted),
        covered_hours=learned.covered,
        requests_per_second=tuple(format_milli(rate) for rate in learned.rates),
        measured_seconds=learned.seconds,
        planned_steps=learned.steps,
    )


def coverage_text(workload: WorkloadSpec, status: LearnedLoadStatus | None) -> str:
    """Return that too few hours were measured to plan for less than the declared rate; "" if enough were."""
    profile = workload.profile
    if profile is None or profile.learned is None:
        return ""
    needed = math.ceil(profile.learned.min_coverage_percent * HOURS / 100)
    covered = 0 if status is None else status.covered_hours
    if covered >= needed:
        return ""
    return (
        f"{covered} of {HOURS} hours of the week were measured, and minCoveragePercent="
        f"{profile.learned.min_coverage_percent} needs {needed}; until then no hour is planned for less than "
        f"workload.requestsPerSecond={workload.requests_per_second}"
    )


def limited_to(deployment: LLMDeployment, requests_per_second: str) -> LLMDeployment:
    """Return a deployment with no hour of its profile above a rate."""
    spec = deployment.spec
    profile, most = spec.workload.profile, parse_quantity(requests_per_second)
    if profile is None or profile.hours is None:
        return deployment
    hours = tuple(
        entry.model_copy(update={"requests_per_second": requests_per_second})
        if parse_quantity(entry.requests_per_second) > most
        else entry
        for entry in profile.hours
    )
    workload = spec.workload.model_copy(update={"profile": profile.model_copy(update={"hours": hours})})
    return deployment.model_copy(update={"spec": spec.model_copy(update={"workload": workload})})


def _rates_of(schedule: ScheduleStatus) -> tuple[float, ...]:
    """Return the rate for which each hour of a schedule was planned, requests per second, shape (168,)."""
    found = [float(parse_quantity(schedule.hours[-1].requests_per_second))] * HOURS
    for entry in schedule.hours:
        first = 24 * WEEKDAYS.index(entry.day) + entry.hour
        found[first:] = [float(parse_quantity(entry.requests_per_second))] * (HOURS - first)
    return tuple(found)


def _known(status: LearnedLoadStatus | None, zone: str, declared: float) -> LearnedHours:
    if status is None or status.time_zone != zone:
        return LearnedHours(zone, declared)
    found = LearnedHours(
        zone,
        declared,
        tuple(float(parse_quantity(rate)) for rate in status.requests_per_second),
        status.measured_seconds,
        status.planned_steps,
        moment_of(status.window_end),
    )
    if math.isclose(float(parse_quantity(status.declared_requests_per_second)), declared, rel_tol=1e-3):
        return found
    # The steps belong to another declared rate.
    fresh = replace(found, steps=(0,) * HOURS)
    return replace(fresh, steps=_settled(fresh))


def _settled(learned: LearnedHours) -> tuple[int, ...]:
    """Return the step of each hour, changed if the mean rate is outside the range of the present step."""
    found = []
    for rate, seconds, step in zip(learned.rates, learned.seconds, learned.steps, strict=True):
        planned = rate_of(learned.declared, step)
        is_outside = rate > planned * RAISE or rate < planned / (STEP * SPARE)
        found.append(step_of(learned.declared, rate) if seconds >= COVERED_SECONDS and is_outside else step)
    return tuple(found)


def _parts(start: datetime, end: datetime, zone: ZoneInfo, counted: datetime | None) -> Iterator[tuple[int, int, bool]]:
    """Yield the hour of the week, the seconds, and whether the hour starts here, of each part of a window."""
    while start < end:
        local = start.astimezone(zone)
        begin = start - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        until = min(end, begin + timedelta(hours=1))
        length = round((until - start).total_seconds())
        if length > 0:
            yield 24 * local.weekday() + local.hour, length, counted is None or counted <= begin
        start = until


def _day(moment: datetime, zone: ZoneInfo) -> object:
    return moment.astimezone(zone).date()


def _rounded(rate: float) -> float:
    """Return a rate in thousandths, as in the status, so that a restart of the operator changes nothing."""
    return float(parse_quantity(format_milli(rate)))


def _entries(rates: tuple[float, ...]) -> Iterator[ProfileHours]:
    """Yield the rates as hours of each day, with equal neighbours merged into one entry."""
    for day, name in enumerate(WEEKDAYS):
        mine = rates[24 * day : 24 * day + 24]
        first = 0
        for hour in range(1, 25):
            if hour == 24 or mine[hour] != mine[first]:
                yield ProfileHours(
                    days=(name,), from_hour=first, to_hour=hour, requests_per_second=format_milli(mine[first])
                )
                first = hour
