"""When the pods of a job are created: in the cleanest or cheapest hours before its deadline. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from energylens.api.base import Condition
from energylens.api.llmdeployment import BatchJob, JobStart, JobStartStatus, LLMDeployment, PlannedJob, PlanStatus
from energylens.api.timestamp import moment_of, timestamp
from energylens.budget.course import Course, JobFigures, course_of
from energylens.decide.deployment.observed.observation import Body, PodState
from energylens.decide.deployment.pods.job_choice import FORECAST_WAIT, StartRoom, chosen, latest_start
from energylens.decide.deployment.pods.job_hours import JobHours
from energylens.decide.deployment.pods.workloads import replicas_of, workload_revision
from energylens.decide.reasons import ConditionType, Reason
from energylens.planner.types import PowerAllowance

MOST_START_SECONDS = 3600
"""Longest start that counts as measured; a pod that took longer waited for something else, such as GPUs."""
FORECAST_LOOK = timedelta(seconds=30)
"""Time between two reads of the ConfigMap during this wait; ConfigMaps of users are not watched."""
MISSED = timedelta(minutes=15)
"""A planned start without pods for so long, as without the approval of the plan, is chosen again."""
_TIMED = (Reason.BEST_HOURS, Reason.BEST_KNOWN_HOURS)
_UNTIMED = (Reason.FORECAST_MISSING, Reason.FORECAST_INVALID, Reason.FORECAST_STALE, Reason.FORECAST_SHORT)
_REASONS = (
    *_TIMED,
    Reason.NO_TIME_LEFT,
    Reason.ALREADY_RUNNING,
    *_UNTIMED,
)
AT_ONCE = "AtOnce"
"""Reason of the start of a job whose spec leaves no choice; no condition has it."""
STARTED = ("Starting", "Started")
"""States in which pods were created."""


def planned_start(
    deployment: LLMDeployment,
    plan: PlanStatus | None,
    hours: JobHours | None,
    now: datetime,
    *,
    runs: bool = False,
    allowance: PowerAllowance | None = None,
    refusal: str = "",
) -> JobStartStatus | None:
    """Return when the pods of a job are to start, or did; None if the spec leaves no choice, or there is no plan.

    A planned start changes only with the forecast, the job, its plan, and the room that budgets have, and only if
    another start is clearly better.

    Args:
        deployment: With its last status.
        plan: The plan to follow.
        hours: The values that weigh the hours.
        now: The current time.
        runs: Whether pods of the deployment exist.
        allowance: What budgets leave; None if no budget limits the deployment.
        refusal: Why budgets have no room for the job as the spec describes it; "" if they do. ``plan`` is then of
            another spec.
    """
    job, before = deployment.spec.workload.job, deployment.status.job_start
    if job is None or plan is None or plan.job is None:
        return None
    # A status without any pods is an edit by others, for which the job is not started in a bad hour.
    had_pods = runs or deployment.status.active_revision is not None
    begun = before if before is not None and before.state in STARTED and had_pods else None
    refused = bool(refusal) and not runs and begun is None and not deployment.spec.suspend
    if job.start is None:
        if refused:
            latest = None if before is None or before.state != "Waiting" else moment_of(before.latest_start_time)
            return _refused(refusal, latest or now)
        if begun is None or deployment.spec.suspend:
            return None
        return _followed(begun, course_of_job(job, plan, plan.job))
    if hours is None:
        return None
    measured = _Measured.of(before, plan)
    if deployment.spec.suspend:
        text = "spec.suspend is true; the start is planned when it is false again"
        return JobStartStatus(state="Suspended", reason=Reason.SUSPENDED, message=text, **measured._asdict())
    course = course_of_job(job, plan, plan.job, measured.start_seconds)
    if begun is not None and begun.reason != AT_ONCE:
        return _followed(begun, course)
    if begun is not None or (before is None and runs):
        return _already_running(job.start, course, now if begun is None else moment_of(begun.start_time) or now)
    room = None if allowance is None else StartRoom(allowance, course)
    if refused:
        denied = _refused(refusal, latest_start(job.start, course))
        return denied.model_copy(update=measured._asdict())
    return _timed(before, measured, job.start, course, hours, room, now, runs=runs)


class _Measured(NamedTuple):
    """The measured start of pods, and the hash of the plans to which it applies."""

    start_seconds: int | None
    start_hash: str

    @classmethod
    def of(cls, before: JobStartStatus | None, plan: PlanStatus) -> _Measured:
        """Return what the last status measured of pods like those of a plan."""
        applies = _start_hash(plan)
        if before is None or before.start_seconds is None or before.start_hash not in ("", applies):
            return cls(None, "")
        return cls(before.start_seconds, applies)


def _timed(
    before: JobStartStatus | None,
    measured: _Measured,
    start: JobStart,
    course: Course,
    hours: JobHours,
    room: StartRoom | None,
    now: datetime,
    *,
    runs: bool,
) -> JobStartStatus:
    """Return the start of a job that waits: the planned one while it holds, otherwise another one."""
    kept = None if before is None or before.state != "Waiting" else moment_of(before.start_time)
    inputs, roomy = _digest(course, start, hours), True
    if before is not None and kept is not None:
        # Without pods, a start that is due may still move: to known hours, or because it was missed.
        fixed = runs or hours.values is None or (before.reason not in _UNTIMED and now - kept < MISSED)
        # The status may have been edited while no operator ran.
        safe = kept <= latest_start(start, course)
        roomy = runs or room is None or room.at(max(kept, now))
        if roomy and ((fixed and kept <= now) or (now < kept and safe and before.inputs_hash == inputs)):
            return before
    found = chosen(course, start, hours, now, kept, None if runs else room)
    if before is not None and kept is not None and kept <= now and roomy and found.reason not in _TIMED:
        return before
    return JobStartStatus(
        state="Waiting",
        start_time=None if found.begin is None else timestamp(found.begin),
        end_time=None if found.end is None else timestamp(found.end),
        latest_start_time=timestamp(found.latest),
        saving_percent=found.saving,
        reason=found.reason,
        message=found.message,
        start_seconds=measured.start_seconds,
        start_hash=measured.start_hash,
        inputs_hash=inputs,
    )


def _followed(begun: JobStartStatus, course: Course) -> JobStartStatus:
    """Return the start of pods that exist, with the end that is expected now."""
    begin = moment_of(begun.start_time)
    if begin is None:
        return begun
    return begun.model_copy(update={"end_time": timestamp(begin + timedelta(seconds=course.end_seconds))})


def _refused(refusal: str, latest: datetime) -> JobStartStatus:
    return JobStartStatus(
        state="Waiting",
        latest_start_time=timestamp(latest),
        reason=Reason.BUDGET_EXCEEDED,
        message=f"does not start: {refusal.removesuffix('; the running plan stays')}",
    )


def _already_running(start: JobStart, course: Course, begin: datetime) -> JobStartStatus:
    return JobStartStatus(
        state="Started",
        start_time=timestamp(begin),
        end_time=timestamp(begin + timedelta(seconds=course.end_seconds)),
        latest_start_time=timestamp(latest_start(start, course)),
        reason=Reason.ALREADY_RUNNING,
        message="the pods existed before spec.workload.job.start was set, and the job is not interrupted",
    )


def _start_hash(plan: PlanStatus) -> str:
    """Return the hash of what the time of a start depends on: the weights, the engine and the GPUs."""
    text = f"{plan.serving_hash} {plan.gpu_product} {plan.layout}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def own_workload(deployment: LLMDeployment, workload: Body | None) -> Body | None:
    """Return the workload of a deployment; None for that of a deleted one of the same name, which ends by itself."""
    owners = {owner.get("uid") for owner in (workload or {}).get("metadata", {}).get("ownerReferences") or ()}
    # A deployment from a file has no uid.
    known = deployment.metadata.uid
    return workload if not owners or not known or known in owners else None


def followed_start(
    start: JobStartStatus | None,
    plan: PlanStatus | None,
    workload: Body | None,
    pods: Sequence[PodState],
    now: datetime,
) -> JobStartStatus | None:
    """Return the start after what is seen of the pods: created, and ready, with the time that this took.

    A pod whose containers restarted became ready later than it took to start, and is not measured.

    Args:
        start: As planned.
        plan: The plan of the pods.
        workload: What runs the pods; None if nothing does.
        pods: The pods.
        now: The current time.
    """
    if start is None or start.state in ("Suspended", "Started") or workload is None or not replicas_of(workload):
        return start
    if start.state == "Waiting":
        shift = now - (moment_of(start.start_time) or now)
        end = moment_of(start.end_time)
        later = None if end is None else timestamp(end + shift)
        start = start.model_copy(update={"state": "Starting", "start_time": timestamp(now), "end_time": later})
    revision = workload_revision(workload)
    ready = [pod for pod in pods if pod.ready and pod.revision == revision]
    if sum(pod.leads for pod in ready) < replicas_of(workload):
        return start
    took = [
        math.ceil((until - since).total_seconds())
        for pod in ready
        if not pod.restarted
        and (since := moment_of(pod.created or None)) is not None
        and (until := moment_of(pod.ready_since or None)) is not None
    ]
    longest = max(took, default=0)
    if plan is None or not 0 < longest <= MOST_START_SECONDS:
        return start.model_copy(update={"state": "Started"})
    measured = {"state": "Started", "start_seconds": longest, "start_hash": _start_hash(plan)}
    return start.model_copy(update=measured)


def seen_start(
    deployment: LLMDeployment,
    start: JobStartStatus | None,
    plan: PlanStatus | None,
    workload: Body | None,
    pods: Sequence[PodState],
    now: datetime,
) -> JobStartStatus | None:
    """Return the start of a job after what is seen of the pods, also of a job that starts as soon as possible.

    Budgets count the energy that a job still takes, and therefore need its start.

    Args:
        deployment: The deployment.
        start: As planned; None if there is no choice.
        plan: The plan of the pods.
        workload: What runs the pods; None if nothing does.
        pods: The pods.
        now: The current time.
    """
    job = deployment.spec.workload.job
    if start is not None or job is None or job.start is not None or plan is None or plan.job is None:
        return followed_start(start, plan, workload, pods, now)
    if deployment.spec.suspend or workload is None or not replicas_of(workload):
        return None
    created = (moment_of(pod.created or None) for pod in pods if pod.revision == workload_revision(workload))
    begin = min((time for time in created if time is not None), default=now)
    made = JobStartStatus(
        state="Starting",
        start_time=timestamp(min(begin, now)),
        latest_start_time=timestamp(min(begin, now)),
        reason=AT_ONCE,
        message="spec.workload.job.start is absent: the pods start as soon as there is a plan",
    )
    return followed_start(_followed(made, course_of_job(job, plan, plan.job)), plan, workload, pods, now)


def is_held(start: JobStartStatus | None, now: datetime) -> bool:
    """Return whether the pods must not be created yet: the job starts later, or budgets have no room for it."""
    if start is None or start.state != "Waiting":
        return False
    return start.start_time is None or waits_until(start, now) is not None


def waits_until(start: JobStartStatus | None, now: datetime) -> datetime | None:
    """Return the moment for which the creation of the pods waits; None if it does not wait."""
    if start is None or start.state != "Waiting":
        return None
    planned = moment_of(start.start_time)
    return planned if planned is not None and planned > now else None


def looks_at(start: JobStartStatus | None, now: datetime) -> datetime | None:
    """Return when a job that waits is to be looked at; None if it does not wait."""
    planned = waits_until(start, now)
    if start is None or planned is None or start.reason not in _UNTIMED or planned - now > FORECAST_WAIT:
        return planned
    return min(planned, now + FORECAST_LOOK)


def start_verdict(
    start: JobStartStatus | None, before: Sequence[Condition]
) -> tuple[Literal["True", "False"], str, str] | None:
    """Return status, reason and message of condition StartTimed; None where the spec leaves no choice.

    Args:
        start: As planned or followed.
        before: The conditions of the last pass; once the pods exist, the reason of their start stays.
    """
    if start is None or start.state == "Suspended" or start.reason == AT_ONCE:
        return None
    reason, message = start.reason, start.message
    if start.state != "Waiting":
        known = next((c for c in before if c.type == ConditionType.START_TIMED and c.reason in _REASONS), None)
        reason, message = (reason, message) if known is None else (known.reason, known.message)
    return "True" if reason in _TIMED else "False", reason, message


def course_of_job(job: BatchJob, plan: PlanStatus, planned: PlannedJob, measured: int | None = None) -> Course:
    """Return the course of a job; what the site states or the last start measured replaces the plan's estimate."""
    figures = JobFigures(
        within_seconds=job.complete_within_seconds,
        idles=job.after_completion == "Idle",
        completion_seconds=planned.completion_seconds,
        start_seconds=planned.start_seconds or 0,
        longest_seconds=planned.longest_seconds,
        energy_watt_hours=planned.energy_watt_hours,
        watts=float(plan.predicted.power_watts),
        idle_watts=float(plan.predicted.idle_power_watts),
    )
    return course_of(figures, measured if job.start_seconds is None else job.start_seconds)


def _digest(course: Course, start: JobStart, hours: JobHours) -> str:
    document: list[Any] = [
        [[phase.seconds, round(phase.watts)] for phase in course.phases],
        course.longest_seconds,
        start.model_dump(mode="json", by_alias=True, exclude_none=True),
        hours.digest,
        hours.reason,
    ]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
