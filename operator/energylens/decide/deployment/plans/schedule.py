"""The schedule of a week in the status: sealed, followed by the clock, with replicas started early as measured."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from energylens.api.llmdeployment import (
    LLMDeployment,
    PlanStatus,
    ScheduledReplicas,
    ScheduleStatus,
)
from energylens.api.timestamp import moment_of, timestamp
from energylens.decide.deployment.loads.timetable import Timetable
from energylens.decide.deployment.observed.observation import PodState
from energylens.planner.search.identity import LAYOUT_FIELDS
from energylens.planner.search.week_load import WeekLoad
from energylens.planner.week.planning import WeekPlan
from energylens.records import dataclass

MOST_START_SECONDS = 3600
"""Longest start-up time that counts; a replica that took longer waited for something else, such as GPUs."""


@dataclass(frozen=True)
class CurrentEntry:
    """The entry of a schedule that applies now."""

    entry: ScheduledReplicas
    token: str
    """Identifies this entry of this schedule."""


def schedule_of(found: WeekPlan) -> ScheduleStatus:
    """Return a planned week in the form of the status, not sealed and without time-dependent parts."""
    spans = zip(found.load.spans, found.replicas, found.watts, strict=True)
    entries = tuple(
        ScheduledReplicas(
            day=span.day,
            hour=span.hour,
            requests_per_second=span.requests_per_second,
            replicas=replicas,
            power_watts=round(watts),
        )
        for span, replicas, watts in spans
    )
    constant = found.constant
    return ScheduleStatus(
        replicas=found.replicas[0],
        start_seconds=math.ceil(found.start.seconds),
        start_joules=round(found.start.joules),
        week_watt_hours=round(found.joules / 3600.0),
        starts=found.starts,
        constant_watt_hours=None if constant is None else round(constant.joules / 3600.0),
        constant_plan=None if constant is None else constant.text,
        released_gpu_hours=round(found.released_gpu_hours),
        hours=entries,
    )


def sealed(schedule: ScheduleStatus, plan: PlanStatus, inputs: str) -> ScheduleStatus:
    """Return a schedule with the hash of its inputs; ``inputs`` is a hash, or "" to plan again next time."""
    return schedule.model_copy(update={"inputs_hash": _seal(schedule, plan, inputs) if inputs else ""})


def is_made_from(schedule: ScheduleStatus, plan: PlanStatus, inputs: str) -> bool:
    """Return whether a schedule was made for a layout from these inputs, and was not edited since."""
    return bool(schedule.inputs_hash) and schedule.inputs_hash == _seal(schedule, plan, inputs)


def timetable_of(deployment: LLMDeployment, schedule: ScheduleStatus) -> Timetable:
    """Return the replicas of a schedule by the clock of the spec's time zone."""
    load = WeekLoad.of(deployment.spec.workload)
    return Timetable(load, schedule.hours, timedelta(seconds=schedule.start_seconds))


def followed(timetable: Timetable, schedule: ScheduleStatus, now: datetime) -> CurrentEntry:
    """Return the entry that applies now."""
    index = timetable.entry_at(now)
    return CurrentEntry(timetable.entries[index], _digest([_document(schedule), index]))


def peak_watts(schedule: ScheduleStatus) -> int:
    """Return the highest predicted power of any hour, W."""
    return max(entry.power_watts for entry in schedule.hours)


def needed(deployment: LLMDeployment, schedule: ScheduleStatus, now: datetime) -> int:
    """Return the replicas that the current hour needs; further replicas may have started for the next hour."""
    hours = replace(timetable_of(deployment, schedule), lead=timedelta(0))
    return hours.entries[hours.entry_at(now)].replicas


def at(schedule: ScheduleStatus, timetable: Timetable, now: datetime) -> ScheduleStatus:
    """Return a schedule with the current replicas and their next change."""
    change = timetable.next_change(now)
    return schedule.model_copy(
        update={
            "replicas": timetable.entries[timetable.entry_at(now)].replicas,
            "next_change_time": None if change is None else timestamp(change[0]),
            "next_replicas": None if change is None else change[1],
        }
    )


def with_measured_start(
    schedule: ScheduleStatus, deployment: LLMDeployment, replicas: int, pods: Sequence[PodState]
) -> ScheduleStatus:
    """Return a schedule with the time that the last start took, once all replicas are ready.

    The time counts from the creation of pods since replicas were last added until they were ready, including the time
    in which an autoscaler adds a node. A value in the spec was measured by the site and takes precedence.

    Args:
        schedule: The schedule, with the time since which replicas start, if any start.
        deployment: The deployment.
        replicas: Number of replicas that must be ready.
        pods: Its pods.
    """
    since = moment_of(schedule.starting_since)
    if since is None or len([pod for pod in pods if pod.ready and pod.leads]) < replicas:
        return schedule
    settled = schedule.model_copy(update={"starting_since": None})
    scaling = deployment.spec.scaling
    if scaling is not None and scaling.start_seconds is not None:
        return settled
    took = []
    for pod in pods:
        created, ready = moment_of(pod.created or None), moment_of(pod.ready_since or None)
        if pod.ready and created is not None and ready is not None and created >= since:
            took.append(math.ceil((ready - created).total_seconds()))
    longest = max(took, default=0)
    if not 0 < longest <= MOST_START_SECONDS:
        return settled
    return settled.model_copy(update={"start_seconds": longest})


def _document(schedule: ScheduleStatus) -> dict[str, object]:
    """Return the planned part of a schedule, without time-dependent and measured parts."""
    passing = {"replicas", "next_change_time", "next_replicas", "start_seconds", "starting_since", "inputs_hash"}
    return schedule.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=passing)


def _seal(schedule: ScheduleStatus, plan: PlanStatus, inputs: str) -> str:
    layout = plan.model_dump(mode="json", include={"serving_hash", "planned_replicas", *LAYOUT_FIELDS})
    return _digest([inputs, layout, _document(schedule)])


def _digest(document: object) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
