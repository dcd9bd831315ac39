"""The inputs of a decision: one frozen value per reconcile of an LLMDeployment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from energylens.api.llmdeployment import (
    BudgetStatus,
    EnergyAccount,
    GivenUpPlan,
    JobStartStatus,
    LearnedCorrection,
    LLMDeployment,
    PlanStatus,
    ScheduleStatus,
    VerificationStatus,
)
from energylens.decide.deployment.loads.learned_hours import LearnedHours
from energylens.decide.deployment.loads.load import FollowedLoad
from energylens.decide.deployment.observed.troubles import starts, waits, why_failed
from energylens.decide.deployment.trials import approval
from energylens.decide.deployment.trials.rollback import Return
from energylens.decide.reasons import Reason
from energylens.measure.types import WindowMeasurement
from energylens.planner.search.identity import action_hash
from energylens.planner.types import ClusterSnapshot, PlanningResult, PowerAllowance
from energylens.planner.week.planning import WeekPlan
from energylens.predictor.model.architecture import ModelSpec
from energylens.records import dataclass
from energylens.serving.claims import NO_CLAIMS, Claims
from energylens.serving.metadata import (
    CANARY,
    KV_CACHE_LABEL,
    LWS_GROUP_INDEX,
    LWS_WORKER_INDEX,
    PLAN_LABEL,
    PREFILL,
    ROLE_LABEL,
    revision_of,
)
from energylens.serving.queues import KUEUE_GATE, KUEUE_MANAGED, KUEUE_QUEUE
from energylens.serving.support import PLAN_KEY

Body = Mapping[str, Any]
BY_KUEUE = "admission by Kueue"
"""Prefix of the reason of pods that Kueue holds back."""


@dataclass(frozen=True)
class PlanChoice:
    """The plan to follow or recommend, or none, with the reason."""

    plan: PlanStatus | None
    model: ModelSpec | None
    good: bool
    """Whether the plan meets the current spec."""
    reason: Reason
    message: str
    adopted: bool = False
    """Whether the plan is new in this reconcile."""
    decision: str = "SamePlan"
    """Reason of the decision to adopt the plan or to keep the running one."""
    table: Sequence[Mapping[str, object]] | None = None
    result: PlanningResult | None = None
    """The planning result; None if nothing had to be planned, or could be planned."""
    restricted: bool = True
    """Whether the plan may be the best plan only within the power available from budgets."""
    carried_step: int | None = None
    """Step for which the plan was made, if no plan sustains the followed load; None if the plan sustains all of it."""
    weighed: str = ""
    """Comparison of the energy of the switch with the saved energy, for messages; "" if nothing was adopted."""
    rollback: Return | None = None
    """The return to the last good plan in this reconcile."""
    no_way_back: str = ""
    """Why a required return to the last good plan is impossible."""
    verification: VerificationStatus | None = None
    """State of plan verification after this reconcile; None if the spec does not ask for verification."""
    replica: PlanStatus | None = None
    """One replica of the plan under verification, which runs beside the plan; None without verification."""
    held: bool = False
    """Whether a new plan is not followed (yet), so that the pods of the plan stay."""
    began: bool = False
    """Whether the verification begins in this reconcile."""
    gave_up: GivenUpPlan | None = None
    """The plan that failed its verification in this reconcile."""
    reach: int | None = None
    """Number of GPUs of a product beyond which further GPUs do not change the plan; None if there is none."""
    schedule: ScheduleStatus | None = None
    """Replicas over the week of the plan; None without ``workload.profile``."""
    next_look: datetime | None = None
    """Time at which the schedule needs another plan, or an hour begins whose replicas started early; None for never."""
    week: WeekPlan | None = None
    """The planning result for the week; None if nothing had to be planned, or could be planned."""
    job_start: JobStartStatus | None = None
    """When the pods of a job are to start, or did; None for any other load, and without a choice."""
    scaled: str = ""
    """Message that the replicas of the same pods follow the schedule, with both numbers; "" if they stay."""


@dataclass(frozen=True)
class BudgetView:
    """Verdict of the budgets on one LLMDeployment."""

    status: str
    """``True``, ``False`` or ``Unknown``."""
    reason: Reason
    message: str


@dataclass(frozen=True)
class Allowed:
    """Power and energy that budgets allow one LLMDeployment."""

    allowance: PowerAllowance | None
    """Power from budgets; None if no budget limits the deployment."""
    view: BudgetView
    status: BudgetStatus | None
    """The deployment's share of the binding budget; None without a budget."""


@dataclass(frozen=True)
class PodState:
    """One serving pod."""

    name: str
    revision: str
    """Revision of the pod, by its label; pods of earlier releases have the hash of their plan."""
    ready: bool
    ready_since: str
    """Time since which the pod is ready, RFC 3339; "" if it is not."""
    unschedulable: str
    """The scheduler's message; "" if the pod is scheduled."""
    waiting: str
    """Reason why a container waits or ended; "" if all containers run."""
    node: str = ""
    """Name of the node; "" if the pod is not bound."""
    failing: bool = False
    """Whether ``waiting`` needs intervention, such as a crash loop or an image that cannot be pulled."""
    creating: bool = False
    """Whether the pod is bound to a node and none of its containers has started."""
    failed: str = ""
    """Why the pod failed permanently, for example because the kubelet rejected it; "" if it did not."""
    restarted: bool = False
    """Whether a container of the pod has restarted."""
    finished: bool = False
    """Whether the pod ended permanently, failed or not, and holds no GPUs."""
    created: str = ""
    """Creation time, RFC 3339; "" if unknown."""
    ends_by: str = ""
    """Time by which a terminating pod must have ended, RFC 3339; "" if the pod is not terminating."""
    group: str = ""
    """Index of the pod's group in a LeaderWorkerSet; "" for a pod of a Deployment."""
    leads: bool = True
    """Whether the pod answers requests, so that it is no follower of a group."""
    canary: bool = False
    """Whether the pod belongs to the canary replica of a new plan."""
    prefill: bool = False
    """Whether the pod belongs to the prefill replicas of a plan with separate prefill and decode."""
    kv_cache: str = ""
    """With which pods of the other role the pod can exchange the KV cache; "" for a pod without a role."""
    queued: str = ""
    """Gate that holds the pod back from being scheduled, such as a queue of Kueue; "" if there is none."""
    waits_for_quota: bool = False
    """Whether the pod may wait for quota that older pods use."""
    admitted_since: str = ""
    """Time at which a pod that Kueue had held back was bound to a node, RFC 3339; "" for any other pod."""


@dataclass(frozen=True)
class Observation:
    """The inputs of the decisions of one reconcile."""

    deployment: LLMDeployment
    planning: PlanChoice
    workload: Body | None
    """The live workload of the plan; the workload of the previous plan while the plan has none."""
    pods: tuple[PodState, ...]
    snapshot: ClusterSnapshot
    serves_lws: bool
    budget: BudgetView
    measurement: WindowMeasurement | None
    now: datetime
    standing: PlanStatus | None = None
    """The running plan while another plan waits for approval; None if the plan itself runs."""
    learned: LearnedCorrection | None = None
    """Learned correction of the plan's model, GPU product and layout."""
    load: FollowedLoad | None = None
    """The load to plan for; None for the load of the spec."""
    learned_hours: LearnedHours | None = None
    """The measured rates of the hours of a week; None if the profile is not learned."""
    budget_status: BudgetStatus | None = None
    """The deployment's share of the binding budget; None without a budget."""
    energy_account: EnergyAccount | None = None
    """Energy counted against the deployment's own limit; None without a limit."""
    refused: str = ""
    """Why the API server rejected a child in this reconcile."""
    refused_for: Reason = Reason.APPLY_REFUSED
    """Reason of condition Degraded if a child was rejected."""
    contested: str = ""
    """Field manager that repeatedly changes fields of the operator; "" if none does."""
    unsettled: str = ""
    """Why the workload or the Service differs from the last write, or may be changed again; "" if it is settled."""
    outgoing: Body | None = None
    """The workload of the other kind, which serves until the pods of the plan are ready; None if there is none."""
    claims: Claims = NO_CLAIMS
    """The volume claims that the pods mount."""
    refused_pods: str = ""
    """Why the pods of a LeaderWorkerSet cannot be created, by its events; a Deployment has a condition for this."""
    unread: str = ""
    """Why these events are not known; "" if they are."""
    canary_pods: tuple[PodState, ...] = ()
    """Pods of the canary replica of a new plan, which are not in ``pods``."""
    canary: Body | None = None
    """The workload of the canary."""
    job_start: JobStartStatus | None = None
    """When the pods of a job start; None if the spec leaves no choice."""
    prefill: Body | None = None
    """The live Deployment of the prefill pods; None if there is none."""
    prefill_pods: tuple[PodState, ...] = ()
    """The prefill pods; they are not among ``pods``."""
    takes_over: bool = False
    """Whether the workload belongs to this plan from this reconcile on."""


def pod_state(pod: Body) -> PodState:
    """Return the state of a trimmed pod."""
    metadata, status = pod["metadata"], pod["status"]
    labels = metadata["labels"]
    conditions = {c["type"]: c for c in status["conditions"]}
    ready, scheduled = conditions.get("Ready", {}), conditions.get("PodScheduled", {})
    finished = status["phase"] in ("Failed", "Succeeded")
    is_ready = ready.get("status") == "True" and not metadata["deleting"] and not finished
    gates = pod["spec"].get("schedulingGates", ())
    held_back = KUEUE_MANAGED in labels and scheduled.get("status") == "True"
    waiting, failing = ("", False) if finished or is_ready else waits(status["containers"])
    not_started = not finished and not is_ready and starts(status["containers"])
    return PodState(
        name=metadata["name"],
        revision=revision_of(labels),
        ready=is_ready,
        ready_since=ready.get("lastTransitionTime", "") if is_ready else "",
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
        waiting=waiting,
        node=pod["spec"]["nodeName"],
        failing=failing,
        creating=bool(pod["spec"]["nodeName"]) and not_started,
        failed=why_failed(status) if status["phase"] == "Failed" else "",
        restarted=any(container.get("restarts") for container in status["containers"]),
        finished=finished,
        created=metadata.get("creationTimestamp", ""),
        ends_by=metadata.get("deletionTimestamp", ""),
        group=labels.get(LWS_GROUP_INDEX, ""),
        leads=labels.get(LWS_WORKER_INDEX, "0") == "0",
        canary=labels.get(ROLE_LABEL) == CANARY,
        prefill=labels.get(ROLE_LABEL) == PREFILL,
        kv_cache=labels.get(KV_CACHE_LABEL, ""),
        queued="" if finished or not gates else _held_by(gates, labels),
        waits_for_quota=not finished and KUEUE_GATE in gates,
        admitted_since=scheduled.get("lastTransitionTime", "") if held_back else "",
    )


def _held_by(gates: Sequence[str], labels: Mapping[str, str]) -> str:
    if KUEUE_GATE not in gates:
        return f"scheduling gates {', '.join(gates)}"
    queue = labels.get(KUEUE_QUEUE)
    return f"{BY_KUEUE}{f', queue {queue}' if queue else ''}"


def of_main(pods: Iterable[PodState]) -> tuple[PodState, ...]:
    """Return the pods of the plan's own workload: neither prefill pods nor those that verify another plan."""
    return tuple(pod for pod in pods if not pod.canary and not pod.prefill)


def standing_plan(deployment: LLMDeployment, table: Body | None, workload: Body | None) -> PlanStatus | None:
    """Return the running plan while the plan in the status waits for approval; None if both are the same plan.

    Args:
        deployment: The LLMDeployment, with its last status.
        table: The ConfigMap ``<name>-plan``, which has the plan of the pods.
        workload: The workload that runs the pods.
    """
    plan, running = deployment.status.plan, plan_label(workload)
    if plan is None or not approval.waits(deployment, plan) or running in ("", plan.hash):
        return None
    found = recorded_plan(table)
    return found if found is not None and found.hash == running else None


def recorded_plan(table: Body | None) -> PlanStatus | None:
    """Return the plan of the pods from the ConfigMap ``<name>-plan``; None if the ConfigMap has no plan."""
    try:
        found = PlanStatus.model_validate_json(((table or {}).get("data") or {}).get(PLAN_KEY) or "")
    except ValidationError:
        return None
    return found if found.hash == action_hash(found) else None


def plan_label(body: Body | None) -> str:
    """Return the hash of the plan from which a child was created; "" without the label."""
    return str(((body or {}).get("metadata", {}).get("labels") or {}).get(PLAN_LABEL, ""))
