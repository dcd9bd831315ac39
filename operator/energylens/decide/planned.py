"""The part of an LLMDeployment that budgets and the planning of other deployments read, parsed once. Pure.

Objects come from an API server, which has validated them, from files, and from a store that trims them; an earlier
operator may have written the status. Absent fields therefore have the defaults of the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ValidationError

from energylens.api.llmdeployment import WEEKDAYS, DeploymentBudget, EnergyAccount, Validation
from energylens.decide.job_plan import JobTimes, PlannedJob, is_refused, job_of, job_times
from energylens.records import dataclass

Body = Mapping[str, Any]
Model = TypeVar("Model", bound=BaseModel)
DEFAULT_WINDOW_SECONDS: int = Validation.model_fields["window_seconds"].default
Key = tuple[str, str]
"""Namespace and name; the namespace of a cluster-scoped object is ""."""


@dataclass(frozen=True, slots=True)
class HeldPlan:
    """The part of a status's plan that describes its GPUs and watts."""

    hash: str | None
    """Hash; None in an annotation of an earlier operator."""
    gpu_product: str
    gpus: int
    """GPUs over all replicas."""
    gpus_per_pod: int
    replicas: int
    power_watts: int
    """Predicted power, W."""
    lowest_power_watts: int | None
    """Lowest power of any plan that meets the spec; None if it was not computed."""
    fewer_replicas: tuple[tuple[int, int], ...]
    """Smaller numbers of replicas, each with the predicted power, W."""
    shed_by: str
    """The budget that removed replicas; "" for none."""
    shed_from_power_watts: int | None
    """Power including the removed replicas, W."""
    prefill_gpus_per_pod: int = 0
    """GPUs of each prefill pod of a plan with separate prefill and decode, whose other pods decode; 0 without any."""
    prefill_replicas: int = 0
    peak_power_watts: int = 0
    """Highest predicted power of any hour of a plan whose replicas follow the week; 0 for any other plan."""

    @classmethod
    def read(cls, plan: Body) -> HeldPlan:
        """Return the plan of a status or of a workload's annotation."""
        per_replica = _per_replica(plan)
        lowest, shed = plan.get("lowestPowerWatts"), plan.get("shedFromPowerWatts")
        return cls(
            hash=plan.get("hash"),
            gpu_product=str(plan.get("gpuProduct") or ""),
            gpus=int(plan.get("gpus") or 0),
            gpus_per_pod=max(1, per_replica // int(plan.get("nodesPerReplica") or 1)),
            prefill_gpus_per_pod=0 if plan.get("prefill") is None else _per_replica(plan["prefill"]),
            prefill_replicas=int((plan.get("prefill") or {}).get("replicas") or 0),
            replicas=int(plan.get("replicas") or 1),
            power_watts=int((plan.get("predicted") or {}).get("powerWatts") or 0),
            lowest_power_watts=None if lowest is None else int(lowest),
            fewer_replicas=tuple((int(e["replicas"]), int(e["powerWatts"])) for e in plan.get("fewerReplicas") or ()),
            shed_by=str(plan.get("shedBy") or ""),
            shed_from_power_watts=None if shed is None else int(shed),
            peak_power_watts=int(plan.get("peakPowerWatts") or 0),
        )


def _per_replica(layout: Body) -> int:
    degrees = [int(layout.get(name) or 1) for name in ("tensorParallel", "pipelineParallel", "dataParallel")]
    return degrees[0] * degrees[1] * degrees[2]


HOURS = 24 * len(WEEKDAYS)
"""Hours of a week."""
UNKNOWN_LEAD_SECONDS = 900
"""Start-up time of replicas before a week is planned, s: a quarter of an hour is longer than most starts."""


@dataclass(frozen=True)
class WeekWatts:
    """Predicted power of replicas that follow the hours of a week."""

    time_zone: str
    lead_seconds: int
    """Time by which replicas start before the hour that needs them, s."""
    watts: tuple[int, ...] = ()
    """Power of each hour from Monday 0:00 on, W, shape (168,); empty without a plan."""


@dataclass(frozen=True, slots=True)
class PlannedDeployment:
    """The part of one LLMDeployment on which others depend."""

    key: Key
    uid: str = ""
    created: str | None = None
    """Creation time in the API server; None for an object from a file."""
    labels: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels of the nodes to which its pods may be scheduled."""
    is_suspended: bool = False
    """Whether no pods should run: the deployment is suspended, or an autoscaler scaled it to zero."""
    is_waiting: bool = False
    """Whether its pods start later, in the hours that are best for its job."""
    is_refused: bool = False
    """Whether its pods wait because budgets have no room for its job at any time."""
    job: PlannedJob | None = None
    """Its batch job; None for any other load, or if the plan does not say when the job ends."""
    job_times: JobTimes | None = None
    """When its batch job may run; None for any other load."""
    mode: str = "Auto"
    approved_plan_hash: str | None = None
    priority: int = 0
    min_replicas: int = 1
    plan: HeldPlan | None = None
    week: WeekWatts | None = None
    """The hours of its load; None if the load is constant."""
    running_hash: str | None = None
    """Hash of the running plan; None if none runs."""
    running_power_watts: int | None = None
    """Predicted power of the running plan, W; None if none runs."""
    limited_by: str = ""
    """The budget named in its status."""
    is_limited: bool = False
    """Whether that budget limits the deployment, rather than only reports."""
    allowed_power_watts: float | None = None
    measured_power_watts: int | None = None
    budget: DeploymentBudget | None = None
    """The budget in its own spec; None if there is none, or if the API server would reject it."""
    window_seconds: int = DEFAULT_WINDOW_SECONDS
    """Length of a measured window."""
    account: EnergyAccount | None = None
    """The energy counted against ``budget``; None if none was counted, or if the account cannot be read."""

    @property
    def namespace(self) -> str:
        """Namespace of the deployment."""
        return self.key[0]

    @property
    def owner(self) -> str:
        """Name of the owner in GPU allocations."""
        return "/".join(self.key)

    @property
    def awaits_approval(self) -> bool:
        """Whether the plan in the status waits for approval."""
        return self.mode == "Manual" and self.approved_plan_hash != (None if self.plan is None else self.plan.hash)

    @property
    def committed_watts(self) -> int:
        """Predicted power of the plan, W; 0 without a plan, while suspended, and with mode Advisory.

        A plan that waits for approval commits nothing if no pods run, and otherwise at least the power of the running
        plan. A job that starts later commits nothing before its start.
        """
        return 0 if self.is_waiting else self._planned_watts

    @property
    def _planned_watts(self) -> int:
        if self.is_suspended or self.mode == "Advisory" or self.is_refused:
            return 0
        planned = 0 if self.plan is None else self.plan.power_watts
        if not self.awaits_approval:
            return planned
        return 0 if self.running_power_watts is None else max(planned, self.running_power_watts)

    @property
    def granted_watts(self) -> int:
        """Power of the plan that budgets must leave to it, W: that of a plan in force, but no job without pods."""
        return self.committed_watts if self.job is None or self.job.has_begun else 0

    @property
    def reserved_watts(self) -> int:
        """Power kept from other deployments, W; the highest power of any hour if replicas follow the week.

        A job that starts later keeps the power of its plan; ``job`` has the time for which it does.
        """
        committed = self._planned_watts
        return committed if not committed or self.plan is None else max(committed, self.plan.peak_power_watts)

    @property
    def reserved_week(self) -> WeekWatts | None:
        """The power kept in each hour of the week; None if ``reserved_watts`` are kept in every hour.

        The latter applies to plans without a profile, and while the plan and the hours are not those that run: a plan
        that waits for approval, or the plan of a workload that differs from the status.
        """
        week, plan = self.week, self.plan
        if week is None or not week.watts or plan is None or not self.committed_watts or self.awaits_approval:
            return None
        peak = max(week.watts)
        return week if peak == plan.peak_power_watts and self.committed_watts <= peak else None

    def drawn_watts(self, gpus: int) -> float:
        """Return the predicted power of some GPUs that its pods hold, W.

        Pods without a current plan (of an old revision, or of a plan that is only shown) still draw power.
        """
        plan = self.plan
        return plan.power_watts * gpus / plan.gpus if plan is not None and plan.gpus else 0.0


def planned(body: Body) -> PlannedDeployment:
    """Return the parsed part of an LLMDeployment."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    validation = spec.get("validation") or {}
    planning, energy, plan = spec.get("planning") or {}, spec.get("energy") or {}, status.get("plan")
    limited, running = status.get("budget") or {}, status.get("activeRevision") or {}
    watts = limited.get("allowedPowerWatts")
    is_waiting = _starts_later(spec, status)
    return PlannedDeployment(
        key=key_of(body),
        uid=str(metadata.get("uid", "")),
        created=metadata.get("creationTimestamp"),
        labels=metadata.get("labels") or {},
        node_selector=(spec.get("hardware") or {}).get("nodeSelector") or {},
        is_suspended=bool(spec.get("suspend")) or _is_at_zero(spec),
        is_waiting=is_waiting,
        is_refused=is_refused(spec, status),
        job=job_of(spec, status, is_waiting=is_waiting),
        job_times=job_times(spec),
        mode=planning.get("mode", "Auto"),
        approved_plan_hash=planning.get("approvedPlanHash"),
        priority=int(energy.get("priority") or 0),
        min_replicas=int(energy.get("minReplicas") or 1),
        plan=HeldPlan.read(plan) if plan else None,
        week=_week(spec, status),
        running_hash=running.get("planHash"),
        running_power_watts=int(running.get("powerWatts") or 0) if running else None,
        limited_by=str(limited.get("name") or ""),
        # Statuses of earlier operators have watts instead of the action.
        is_limited=watts is not None or limited.get("action", "Report") != "Report",
        allowed_power_watts=None if watts is None else float(watts),
        measured_power_watts=(status.get("measured") or {}).get("powerWatts"),
        window_seconds=int(validation.get("windowSeconds") or DEFAULT_WINDOW_SECONDS),
        budget=_known(energy.get("budget"), DeploymentBudget),
        account=_known(status.get("energyAccount"), EnergyAccount),
    )


def _is_at_zero(spec: Body) -> bool:
    return (spec.get("scaling") or {}).get("mode") == "External" and spec.get("replicas") == 0


def _week(spec: Body, status: Body) -> WeekWatts | None:
    """Return the hours of a load with a profile, with their power once a week is planned.

    None where the spec or the status cannot be read: the deployment's own reconcile reports a bad spec.
    """
    profile = (spec.get("workload") or {}).get("profile")
    if not profile:
        return None
    schedule, scaling = status.get("schedule") or {}, spec.get("scaling") or {}
    zone = str(profile.get("timeZone", "UTC"))
    lead = schedule.get("startSeconds", scaling.get("startSeconds", UNKNOWN_LEAD_SECONDS))
    try:
        ZoneInfo(zone)
        found = sorted(_entry(entry) for entry in schedule.get("hours") or ())
    except (ZoneInfoNotFoundError, KeyError, ValueError, TypeError, AttributeError, OSError):
        return None
    if not isinstance(lead, int):
        return None
    if not found:
        return WeekWatts(zone, lead)
    # The last entry applies until the first one of the next week.
    by_hour = [found[-1][1]] * HOURS
    for start, watts in found:
        by_hour[start:] = [watts] * (HOURS - start)
    return WeekWatts(zone, lead, tuple(by_hour))


def _entry(entry: Body) -> tuple[int, int]:
    """Return the hour of the week and the power of an entry of a schedule.

    Raises:
        KeyError, ValueError, TypeError or AttributeError: It is none.
    """
    day, hour, watts = entry.get("day"), int(entry["hour"]), int(entry["powerWatts"])
    if not 0 <= hour < 24:
        raise ValueError(f"hour {hour}")
    return 24 * WEEKDAYS.index(day) + hour, watts


def _starts_later(spec: Body, status: Body) -> bool:
    """Return whether the start of a job's pods is planned, and none was created yet."""
    job = (spec.get("workload") or {}).get("job") or {}
    return bool(job.get("start")) and (status.get("jobStart") or {}).get("state") not in ("Starting", "Started")


def key_of(body: Body) -> Key:
    """Return the key of an object."""
    return body["metadata"].get("namespace") or "", body["metadata"]["name"]


def name_of(body: Body) -> str:
    """Return the name of a budget in messages: ``EnergyBudget team/cap``, ``ClusterEnergyBudget row-b``."""
    namespace, name = key_of(body)
    return f"EnergyBudget {namespace}/{name}" if namespace else f"ClusterEnergyBudget {name}"


def _known(found: Body | None, model: type[Model]) -> Model | None:
    """Return a part of an object, without fields that a newer CRD may have allowed; None if the part is unreadable.

    The reconcile of the deployment itself reports an unreadable part in PlanReady.
    """
    if found is None:
        return None
    names = {field.alias for field in model.model_fields.values()}
    try:
        return model.model_validate({name: value for name, value in found.items() if name in names})
    except ValidationError:
        return None
