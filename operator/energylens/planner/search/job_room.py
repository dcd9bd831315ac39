"""Whether the power and the energy that budgets leave over time suffice for a batch job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from energylens.api.llmdeployment import BatchJob, LLMDeploymentSpec, PlanStatus
from energylens.api.timestamp import timestamp
from energylens.planner.room import QUARTER, Courses, JobRoom
from energylens.planner.search.candidates import Candidates
from energylens.planner.types import PowerAllowance
from energylens.predictor.types import FloatArray

_NAMED = 2
"""Jobs that a message names."""


def courses_of(rows: Candidates, job: BatchJob) -> Courses:
    """Return the courses of candidates with the figures that their plans would state."""
    with np.errstate(divide="ignore", invalid="ignore"):
        slowest = (rows.completion_seconds - rows.job_start_seconds) / rows.utilization_limit
    return _courses(
        job,
        _up(rows.completion_seconds),
        _up(rows.job_start_seconds),
        _up(rows.job_start_seconds + slowest),
        _up(rows.job_joules / 3600.0),
        np.rint(rows.power_watts),
        np.rint(rows.idle_power_watts),
    )


def course_of_plan(plan: PlanStatus, spec: LLMDeploymentSpec) -> Courses | None:
    """Return the course of a plan's job, arrays of shape (1,); None if the plan does not say when the job ends."""
    job, planned = spec.workload.job, plan.job
    if job is None or planned is None:
        return None
    start, end = planned.start_seconds or 0, planned.completion_seconds
    slowest = planned.longest_seconds
    if slowest is None:
        slowest = max(end, job.complete_within_seconds)
    figures = (
        end,
        start,
        slowest,
        planned.energy_watt_hours,
        plan.predicted.power_watts,
        plan.predicted.idle_power_watts,
    )
    return _courses(job, *(np.asarray([float(figure)]) for figure in figures))


def admits(allowance: PowerAllowance, plan: PlanStatus, spec: LLMDeploymentSpec) -> bool:
    """Return whether an allowance has the power of a plan, and for a job its energy at some allowed start."""
    if plan.predicted.power_watts > allowance.watts:
        return False
    course = None if allowance.room is None else course_of_plan(plan, spec)
    return course is None or allowance.room is None or bool(allowance.room.fit(course).together[0])


def holders_text(room: JobRoom, since: float, until: float) -> str:
    """Return which jobs hold power between two times, s since the Unix epoch; "" if there is none."""
    names = [
        f"{each.name} holds {each.watts} W until the job, which is late, is deleted"
        if each.until_deleted
        else f"{each.name} holds {each.watts} W from {_text(each.first)} to {_text(each.end)}"
        for each in room.holders
        if each.until_deleted or (each.first * QUARTER < until and each.end * QUARTER > since)
    ]
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f": {', '.join(names[:_NAMED])}{more}" if names else ""


def _text(quarter: int) -> str:
    return timestamp(datetime.fromtimestamp(quarter * QUARTER, UTC))


def _courses(
    job: BatchJob,
    end: FloatArray,
    start: FloatArray,
    longest: FloatArray,
    watt_hours: FloatArray,
    watts: FloatArray,
    idle_watts: FloatArray,
) -> Courses:
    """Return courses as :func:`energylens.budget.course.course_of` does, from the figures of plans, shape (n,) each."""
    serving = np.maximum(end - start, 0.0)
    idle = np.zeros_like(end)
    if job.after_completion == "Idle":
        idle = np.maximum(job.complete_within_seconds - start - serving, 0.0)
    joules = np.maximum(3600.0 * watt_hours - watts * serving - idle_watts * idle, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        starting = np.where(start > 0, joules / start, 0.0)
    return Courses(start, starting, serving, watts, idle, idle_watts, np.maximum(longest, end))


def _up(values: FloatArray) -> FloatArray:
    """Return values rounded up as plans state them."""
    return np.asarray(np.ceil(np.round(values, 6)))


def needed_watt_hours(limit: int, excess: Sequence[float] | FloatArray) -> FloatArray:
    """Return the smallest limit of energy that admits each job, Wh, shape (n,).

    Args:
        limit: The limit, which every Wh more raises the energy left in each period by.
        excess: Energy above what is left, Wh, shape (n,); negative if there is some left.
    """
    more = np.maximum(np.asarray(excess, dtype=np.float64), 0.0)
    return np.asarray(np.ceil(np.round(limit + more, 6)))
