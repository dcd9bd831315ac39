"""The batch job of an LLMDeployment as others see it: when it may run, and the course of its plan. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from energylens.budget.course import Course, JobFigures, course_of
from energylens.records import dataclass

Body = Mapping[str, Any]
REFUSED = "BudgetExceeded"
"""Reason of a start for which budgets have no room."""


@dataclass(frozen=True)
class JobTimes:
    """When a batch job may run, by its spec."""

    within_seconds: int
    not_before: datetime | None
    complete_by: datetime | None
    """None if the job starts as soon as possible."""


@dataclass(frozen=True)
class PlannedJob:
    """A batch job whose plan has its time and energy."""

    course: Course
    by_plan: Course
    """The same with the start that the plan assumes, whatever was measured."""
    start: datetime | None
    """Creation of its pods, or the planned time of it; None: the pods are created as soon as possible, or nobody knows
    when they were."""
    has_begun: bool
    """Whether the pods exist."""


def is_refused(spec: Body, status: Body) -> bool:
    """Return whether the pods of a job wait because budgets have no room for it at any time."""
    start = status.get("jobStart") or {}
    is_job = bool((spec.get("workload") or {}).get("job"))
    return is_job and start.get("state") == "Waiting" and not start.get("startTime") and start.get("reason") == REFUSED


def job_times(spec: Body) -> JobTimes | None:
    """Return when a job may run; None for any other load, and where the spec cannot be read."""
    job = (spec.get("workload") or {}).get("job")
    if not job:
        return None
    start = job.get("start") or {}
    try:
        times = [
            None if text is None else datetime.fromisoformat(text).astimezone(UTC)
            for text in (start.get("notBefore"), start.get("completeBy"))
        ]
        return JobTimes(int(job.get("completeWithinSeconds") or 0), *times)
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None


def job_of(spec: Body, status: Body, *, is_waiting: bool) -> PlannedJob | None:
    """Return the batch job of a plan; None where the spec or the status cannot be read."""
    job, plan = (spec.get("workload") or {}).get("job"), status.get("plan") or {}
    planned, figures = plan.get("job"), plan.get("predicted") or {}
    if not job or not planned:
        return None
    start, stated = status.get("jobStart") or {}, job.get("startSeconds")
    try:
        longest = planned.get("longestSeconds")
        found = JobFigures(
            within_seconds=int(job.get("completeWithinSeconds") or 0),
            idles=job.get("afterCompletion", "Idle") == "Idle",
            completion_seconds=int(planned["completionSeconds"]),
            start_seconds=int(planned.get("startSeconds") or 0),
            longest_seconds=None if longest is None else int(longest),
            energy_watt_hours=int(planned["energyWattHours"]),
            watts=float(figures["powerWatts"]),
            idle_watts=float(figures.get("idlePowerWatts") or 0.0),
        )
        begin = stated if stated is not None else start.get("startSeconds")
        by_plan, course = course_of(found), course_of(found, None if begin is None else int(begin))
        time = start.get("startTime")
        moment = None if time is None else datetime.fromisoformat(time).astimezone(UTC)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError):
        return None
    if is_waiting and moment is None:
        # A start that nobody has planned yet may be at any time.
        return None
    has_begun = moment is not None and start.get("state") in ("Starting", "Started")
    if not start and not is_waiting:
        # Earlier operators stated no start of a job without job.start; its ready pods show that it runs.
        has_begun = bool((status.get("activeRevision") or {}).get("readyReplicas"))
    return PlannedJob(course, by_plan, moment if is_waiting or has_begun else None, has_begun)
