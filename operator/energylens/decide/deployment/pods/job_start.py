"""When the pods of a job are created: in the cleanest or cheapest hours before its deadline. Pure."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from energylens.api.base import Condition
from energylens.api.llmdeployment import BatchJob, JobStart, JobStartStatus, LLMDeployment, PlannedJob, PlanStatus
from energylens.api.timestamp import moment_of, timestamp
from energylens.budget.hourly import ForecastError, HourlyValues, parse_hourly
from energylens.budget.job_start import Phase, StartChoice, best_start
from energylens.decide.deployment.observed.named_maps import NamedMap
from energylens.decide.deployment.observed.observation import Body, PodState
from energylens.decide.deployment.pods.workloads import replicas_of, workload_revision
from energylens.decide.reasons import ConditionType, Reason
from energylens.records import dataclass

MOST_START_SECONDS = 3600
"""Longest start that counts as measured; a pod that took longer waited for something else, such as GPUs."""
FORECAST_WAIT = timedelta(minutes=10)
"""Longest wait for a usable forecast: a ConfigMap may be created or updated just after the LLMDeployment, as by one
``kubectl apply``, and a start cannot be undone."""
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
STARTED = ("Starting", "Started")
"""States in which pods were created."""


@dataclass(frozen=True)
class JobHours:
    """The values that weigh the hours of a job, or why there are none."""

    values: HourlyValues | None
    reason: Reason = Reason.BEST_HOURS
    """Why there are no values."""
    message: str = ""
    digest: str = ""
    """Changes with the text that the values come from."""


def job_hours(deployment: LLMDeployment, named: NamedMap) -> JobHours | None:
    """Return the forecast or the tariff that ``job.start`` names; None without one.

    Args:
        deployment: A deployment.
        named: The ConfigMap.
    """
    start = _start_of(deployment)
    if start is None:
        return None
    forecast, tariff = start.forecast_config_map_ref, start.tariff_config_map_ref
    if forecast is not None:
        name, key, field = forecast.name, forecast.key, "forecastConfigMapRef"
        column, least = "gramsPerKilowattHour", 0.0
    else:
        assert tariff is not None
        name, key, field = tariff.name, tariff.key, "tariffConfigMapRef"
        column, least = "pricePerKilowattHour", None
    where = f"spec.workload.job.start.{field}: ConfigMap {name}"
    text, missing = named.text(where, key)
    if missing:
        return JobHours(None, Reason.FORECAST_MISSING, missing)
    digest = hashlib.sha256(f"{column}\n{text}".encode()).hexdigest()
    try:
        return JobHours(parse_hourly(text, column, least), digest=digest)
    except ForecastError as error:
        return JobHours(None, Reason.FORECAST_INVALID, f"{where}, key {key!r}: {error}", digest)


def planned_start(
    deployment: LLMDeployment, plan: PlanStatus | None, hours: JobHours | None, now: datetime, *, runs: bool = False
) -> JobStartStatus | None:
    """Return when the pods of a job are to start, or did; None if the spec leaves no choice, or there is no plan.

    A planned start changes only with the forecast, the job or its plan, and only if another one is clearly better.

    Args:
        deployment: With its last status.
        plan: The plan to follow.
        hours: The values that weigh the hours.
        now: The current time.
        runs: Whether pods of the deployment exist.
    """
    job, before = deployment.spec.workload.job, deployment.status.job_start
    if job is None or job.start is None or plan is None or plan.job is None or hours is None:
        return None
    measured = None if before is None or before.start_hash not in ("", _start_hash(plan)) else before.start_seconds
    start_hash = "" if measured is None else _start_hash(plan)
    if deployment.spec.suspend:
        text = "spec.suspend is true; the start is planned when it is false again"
        return JobStartStatus(
            state="Suspended", reason=Reason.SUSPENDED, message=text, start_seconds=measured, start_hash=start_hash
        )
    timing = _Timing.of(job, job.start, plan, plan.job, measured)
    begun = _begun(deployment, job.start, timing, now, runs=runs)
    if begun is not None:
        return begun
    kept = None if before is None or before.state != "Waiting" else moment_of(before.start_time)
    inputs = timing.digest(job.start, hours)
    if before is not None and kept is not None:
        # Without pods, a start that is due may still move: to known hours, or because it was missed.
        fixed = runs or hours.values is None or (before.reason not in _UNTIMED and now - kept < MISSED)
        # The status may have been edited while no operator ran.
        safe = kept <= _latest(job.start, timing)
        if (fixed and kept <= now) or (now < kept and safe and before.inputs_hash == inputs):
            return before
    found = _chosen(timing, job.start, hours, now, kept)
    if before is not None and kept is not None and kept <= now and found.reason not in _TIMED:
        return before
    return JobStartStatus(
        state="Waiting",
        start_time=timestamp(found.begin),
        end_time=timestamp(found.end),
        latest_start_time=timestamp(found.latest),
        saving_percent=found.saving,
        reason=found.reason,
        message=found.message,
        start_seconds=measured,
        start_hash=start_hash,
        inputs_hash=inputs,
    )


def _begun(
    deployment: LLMDeployment, start: JobStart, timing: _Timing, now: datetime, *, runs: bool
) -> JobStartStatus | None:
    """Return the start of a job whose pods were created, None before that."""
    before = deployment.status.job_start
    # A status without any pods is an edit by others, for which the job is not started in a bad hour.
    had_pods = runs or deployment.status.active_revision is not None
    if before is not None and before.state in STARTED and had_pods:
        begin = moment_of(before.start_time) or now
        return before.model_copy(update={"end_time": timestamp(begin + timedelta(seconds=timing.seconds))})
    if before is not None or not runs:
        return None
    end, latest = now + timedelta(seconds=timing.seconds), moment_of(start.complete_by) or now
    return JobStartStatus(
        state="Started",
        start_time=timestamp(now),
        end_time=timestamp(end),
        latest_start_time=timestamp(latest - timedelta(seconds=timing.longest)),
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
    if start is None or start.state == "Suspended":
        return None
    reason, message = start.reason, start.message
    if start.state != "Waiting":
        known = next((c for c in before if c.type == ConditionType.START_TIMED and c.reason in _REASONS), None)
        reason, message = (reason, message) if known is None else (known.reason, known.message)
    return "True" if reason in _TIMED else "False", reason, message


@dataclass(frozen=True)
class _Timing:
    """The course of a job, from the creation of its pods."""

    phases: tuple[Phase, ...]
    """Start, requests, and idling until the deadline."""
    seconds: int
    """Until the last answer."""
    longest: int
    """Until the last answer if the throughput is lower than predicted by the headroom."""

    @classmethod
    def of(cls, job: BatchJob, start: JobStart, plan: PlanStatus, planned: PlannedJob, measured: int | None) -> _Timing:
        stated = planned.start_seconds or 0
        serving = planned.completion_seconds - stated
        # What the site states or the last start measured replaces the plan's estimate.
        begin = job.start_seconds if job.start_seconds is not None else measured if measured is not None else stated
        watts, idle = float(plan.predicted.power_watts), float(plan.predicted.idle_power_watts)
        idles = job.after_completion == "Idle"
        planned_idle = max(0, job.complete_within_seconds - stated - serving) if idles else 0
        joules = max(0.0, 3600.0 * planned.energy_watt_hours - watts * serving - idle * planned_idle)
        phases = (
            Phase(begin, joules / stated if stated else 0.0),
            Phase(serving, watts),
            Phase(max(0, job.complete_within_seconds - begin - serving) if idles else 0, idle),
        )
        longest = planned.longest_seconds
        slow = max(serving, job.complete_within_seconds - stated) if longest is None else longest - stated
        return cls(phases, begin + serving, begin + slow)

    def digest(self, start: JobStart, hours: JobHours) -> str:
        document: list[Any] = [
            [[phase.seconds, round(phase.watts)] for phase in self.phases],
            self.longest,
            start.model_dump(mode="json", by_alias=True, exclude_none=True),
            hours.digest,
            hours.reason,
        ]
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Found:
    """The start that was chosen."""

    begin: datetime
    end: datetime
    latest: datetime
    reason: Reason
    message: str
    saving: int | None


def _chosen(timing: _Timing, start: JobStart, hours: JobHours, now: datetime, kept: datetime | None) -> _Found:
    """Return the best start; without a usable forecast the planned one, or else a start after a short wait for one."""
    earliest, latest = max(now, moment_of(start.not_before) or now), _latest(start, timing)

    def made(begin: datetime, reason: Reason, message: str, saving: int | None = None) -> _Found:
        # A start within the present second is due.
        begin = earliest if begin - earliest < timedelta(seconds=1) else begin
        end = begin + timedelta(seconds=timing.seconds)
        when = "starts at once" if begin <= now else f"starts at {_text(begin)}"
        safe = f"the last safe start is at {_text(latest)}" if latest > earliest else ""
        about = f"ends at about {_text(end)}"
        text = "; ".join(filter(None, (f"{when}: {message}", about, safe)))
        return _Found(begin, end, latest, reason, text, saving)

    if latest <= earliest:
        late = f"spec.workload.job.start.completeBy={start.complete_by} leaves no choice"
        if latest < earliest:
            late += f": the last start that would surely end in time was at {_text(latest)}"
        return made(earliest, Reason.NO_TIME_LEFT, late)
    safe = kept if kept is not None and earliest <= kept <= latest else None
    reason, why = hours.reason, hours.message
    if hours.values is not None:
        first, end = hours.values.times[0], hours.values.end
        length = timedelta(seconds=sum(phase.seconds for phase in timing.phases))
        # An earlier forecast showed the planned hour to be better than the hours that this one covers.
        if safe is None or first <= safe <= end - length:
            found = best_start(timing.phases, earliest, latest, hours.values, kept)
            if found is not None:
                return made(found.start, *_weighed(start, found, earliest, latest))
        reason = Reason.FORECAST_STALE if end <= now else Reason.FORECAST_SHORT
        why = f"the {_source(start)} ended at {_text(end)}"
        if reason is Reason.FORECAST_SHORT:
            why = (
                f"the {_source(start)} covers {_text(first)} to {_text(end)}, and the job of "
                f"{length.total_seconds():.0f} s fits into no part of this time from {_text(earliest)} on that ends "
                f"by completeBy"
            )
            if safe is not None:
                why = f"the {_source(start)} covers {_text(first)} to {_text(end)} only"
    if safe is not None:
        return made(safe, reason, f"{why}; the planned start stays")
    waits = f"waits until then for a usable {_source(start)}"
    return made(min(latest, max(earliest, now + FORECAST_WAIT)), reason, f"{why}; {waits}")


def _latest(start: JobStart, timing: _Timing) -> datetime:
    """Return the last start that surely ends in time."""
    by = moment_of(start.complete_by)
    assert by is not None
    return by - timedelta(seconds=timing.longest)


def _weighed(
    start: JobStart, found: StartChoice, earliest: datetime, latest: datetime
) -> tuple[Reason, str, int | None]:
    """Return reason, message and saving of the best start."""
    short = latest - found.until >= timedelta(seconds=1)
    reason = Reason.BEST_KNOWN_HOURS if short else Reason.BEST_HOURS
    text, saving, at_once = _amount(start, found.amount), None, found.at_once
    if at_once is not None and found.start - earliest >= timedelta(seconds=1):
        # A start that was planned before may be a little worse.
        saving = max(0, round(100.0 * (at_once - found.amount) / abs(at_once))) if at_once else None
        less = "" if saving is None else f" ({saving} % less)"
        text += f" instead of {_amount(start, at_once)} for a start at {_text(earliest)}{less}"
    elif at_once is not None:
        text, saving = f"{text}; no later start is clearly better", 0
    if short:
        text += f"; starts after {_text(found.until)} are not compared, since the {_source(start)} ends"
    return reason, text, saving


def _source(start: JobStart) -> str:
    return "tariff" if start.forecast_config_map_ref is None else "forecast"


def _amount(start: JobStart, amount: float) -> str:
    """Return carbon or cost in words."""
    if start.forecast_config_map_ref is None:
        return f"energy for {amount:,.2f} in the tariff's currency"
    return f"{amount / 1000.0:,.3g} kg of CO2" if amount >= 1000.0 else f"{amount:,.3g} g of CO2"


def _text(moment: datetime) -> str:
    return timestamp(moment)


def _start_of(deployment: LLMDeployment) -> JobStart | None:
    job = deployment.spec.workload.job
    return None if job is None else job.start
