"""The inputs of a decision: one frozen value per pass over an LLMDeployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from energylens.api.llmdeployment import (
    BudgetStatus,
    EnergyAccount,
    GivenUpPlan,
    LearnedCorrection,
    LLMDeployment,
    PlanStatus,
    ScheduleStatus,
    VerificationStatus,
)
from energylens.decide.deployment import approval
from energylens.decide.deployment.learned_hours import LearnedHours
from energylens.decide.deployment.load import FollowedLoad
from energylens.decide.deployment.rollback import Return
from energylens.decide.deployment.troubles import starts, waits, why_failed
from energylens.decide.reasons import Reason
from energylens.measure.types import WindowMeasurement
from energylens.planner.search.identity import action_hash
from energylens.planner.types import ClusterSnapshot, PlanningResult, PowerAllowance
from energylens.planner.week.planning import WeekPlan
from energylens.predictor.model.architecture import ModelSpec
from energylens.serving.claims import NO_CLAIMS, Claims
from energylens.serving.metadata import (
    CANARY,
    LWS_GROUP_INDEX,
    LWS_WORKER_INDEX,
    PLAN_LABEL,
    ROLE_LABEL,
    revision_of,
)
from energylens.serving.queues import KUEUE_GATE, KUEUE_MANAGED, KUEUE_QUEUE
from energylens.serving.support import PLAN_KEY

Body = Mapping[str, Any]
BY_KUEUE = "admission by Kueue"
"""Begin of the reason of pods that Kueue holds back."""


@dataclass(frozen=True)
class PlanChoice:
    """The plan to follow or recommend, and why it is that one (or none)."""

    plan: PlanStatus | None
    model: ModelSpec | None
    good: bool
    """The plan meets the spec as it is now."""
    reason: Reason
    message: str
    adopted: bool = False
    """The plan is new in this pass."""
    decision: str = "SamePlan"
    """Reason of the decision to adopt the plan or to keep the running one."""
    table: Sequence[Mapping[str, object]] | None = None
    result: PlanningResult | None = None
    """The planning result; None if nothing had to be planned, or could be."""
    restricted: bool = True
    """The plan may be the best one only within the watts available from budgets."""
    carried_step: int | None = None
    """Step of the followed load that the plan was made for, lower where no plan carries that load; None: all of it."""
    weighed: str = ""
    """Comparison of the energy of the switch with the saved energy, for adoption; "" if nothing was adopted."""
    rollback: Return | None = None
    """The return to the last good plan that this pass makes."""
    no_way_back: str = ""
    """Why a return to the last good plan is due and cannot be made."""
    verification: VerificationStatus | None = None
    """State of plan verification after this pass; None if the spec does not ask for verification."""
    replica: PlanStatus | None = None
    """One replica of the plan that is being verified, which is to run beside the plan; None: none is."""
    held: bool = False
    """A new plan is not followed, or not yet: the pods stay those of the plan."""
    began: bool = False
    """The verification begins in this pass."""
    gave_up: GivenUpPlan | None = None
    """The plan that this pass rejects."""
    reach: int | None = None
    """GPUs of a product beyond which the cluster does not concern the plan that stands; None: all of it does."""
    schedule: ScheduleStatus | None = None
    """Replicas over the week that the plan is of; None without ``workload.profile``."""
    next_look: datetime | None = None
    """When the schedule asks for another plan, or an hour begins for which replicas started early; None for never."""
    week: WeekPlan | None = None
    """The planning result for the week; None if nothing had to be planned, or could be."""
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
    """Power and energy that budgets leave to one LLMDeployment."""

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
    """RFC 3339; "" when not ready."""
    unschedulable: str
    """The scheduler's message; "" when it is scheduled."""
    waiting: str
    """Reason that a container waits or ended; "" when all containers run."""
    node: str = ""
    """"" when it is not bound to one."""
    failing: bool = False
    """``waiting`` is something that does not pass by itself, such as a crash loop or an image that cannot be pulled."""
    creating: bool = False
    """Whether the pod is bound to a node and none of its containers has started."""
    failed: str = ""
    """Why it failed permanently, for example because the kubelet rejected it; "" if it did not."""
    finished: bool = False
    """Whether the pod ended permanently, failed or not, and holds no GPUs."""
    created: str = ""
    """RFC 3339; "" when not known."""
    ends_by: str = ""
    """When a pod that is being deleted must have ended, RFC 3339; "" when it is not being deleted."""
    group: str = ""
    """Index of its group in a LeaderWorkerSet; "" outside of one."""
    leads: bool = True
    """Whether the pod answers requests, so is no follower of a group."""
    canary: bool = False
    """It is of the one replica by which a new plan is verified."""
    queued: str = ""
    """What holds the pod back from being scheduled, such as a queue of Kueue; "" if nothing does."""
    waits_for_quota: bool = False
    """Whether what holds the pod back may be quota that older pods have."""
    admitted_since: str = ""
    """When a pod that Kueue had held back was bound to a node, RFC 3339; "" for any other pod."""


@dataclass(frozen=True)
class Observation:
    """Everything that a pass decides from."""

    deployment: LLMDeployment
    planning: PlanChoice
    workload: Body | None
    """The live Deployment or LeaderWorkerSet of the plan; that of the previous plan while the plan's does not exist."""
    pods: tuple[PodState, ...]
    snapshot: ClusterSnapshot
    serves_lws: bool
    budget: BudgetView
    measurement: WindowMeasurement | None
    now: datetime
    standing: PlanStatus | None = None
    """The plan whose pods run while another one waits for approval; None where that is the plan itself."""
    learned: LearnedCorrection | None = None
    """Correction learned of the plan's model, GPU and layout."""
    load: FollowedLoad | None = None
    """The load that is planned for; None for that of the spec."""
    learned_hours: LearnedHours | None = None
    """The measured rates of the hours of a week; None where the profile is not learned."""
    budget_status: BudgetStatus | None = None
    """The deployment's share of the binding budget; None without a budget."""
    energy_account: EnergyAccount | None = None
    """Energy counted against the deployment's own limit; None without a limit."""
    refused: str = ""
    """Why the API server refused a child in this pass."""
    refused_for: Reason = Reason.APPLY_REFUSED
    """Reason of condition Degraded where a child was refused."""
    contested: str = ""
    """Field manager that repeatedly changes what the operator wrote; "" if none does."""
    unsettled: str = ""
    """Why what requests are answered by is not as it was written, or may not stay so; "" where it is."""
    outgoing: Body | None = None
    """The workload of the other kind, which serves until the pods of the plan are ready; None when there is none."""
    claims: Claims = NO_CLAIMS
    """The volume claims that the pods mount."""
    refused_pods: str = ""
    """Why the pods of a LeaderWorkerSet cannot be created, by its events; a Deployment says so itself."""
    unread: str = ""
    """Why it is not known whether they can."""
    canary_pods: tuple[PodState, ...] = ()
    """Pods of the one replica that verifies a new plan; they are not among ``pods``."""
    canary: Body | None = None
    """The workload of those pods."""
    takes_over: bool = False
    """The workload is of this plan from this pass on."""


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
        finished=finished,
        created=metadata.get("creationTimestamp", ""),
        ends_by=metadata.get("deletionTimestamp", ""),
        group=labels.get(LWS_GROUP_INDEX, ""),
        leads=labels.get(LWS_WORKER_INDEX, "0") == "0",
        canary=labels.get(ROLE_LABEL) == CANARY,
        queued="" if finished or not gates else _held_by(gates, labels),
        waits_for_quota=not finished and KUEUE_GATE in gates,
        admitted_since=scheduled.get("lastTransitionTime", "") if held_back else "",
    )


def _held_by(gates: Sequence[str], labels: Mapping[str, str]) -> str:
    if KUEUE_GATE not in gates:
        return f"scheduling gates {', '.join(gates)}"
    queue = labels.get(KUEUE_QUEUE)
    return f"{BY_KUEUE}{f', queue {queue}' if queue else ''}"


def standing_plan(deployment: LLMDeployment, table: Body | None, workload: Body | None) -> PlanStatus | None:
    """Return the plan of the live pods where that in status waits for approval; None where they are the same.

    Args:
        deployment: With its last status.
        table: The ConfigMap beside the pods, which has their plan.
        workload: What runs the pods.
    """
    plan, running = deployment.status.plan, plan_label(workload)
    if plan is None or not approval.waits(deployment, plan) or running in ("", plan.hash):
        return None
    found = recorded_plan(table)
    return found if found is not None and found.hash == running else None


def recorded_plan(table: Body | None) -> PlanStatus | None:
    """Return the plan that the pods were made from, off the ConfigMap beside them; None where it does not hold one."""
    try:
        found = PlanStatus.model_validate_json(((table or {}).get("data") or {}).get(PLAN_KEY) or "")
    except ValidationError:
        return None
    return found if found.hash == action_hash(found) else None


def plan_label(body: Body | None) -> str:
    """Return the hash of the plan that a child was made from; "" where it says none."""
    return str(((body or {}).get("metadata", {}).get("labels") or {}).get(PLAN_LABEL, ""))
