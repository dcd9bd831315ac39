"""What deciding looks at: one frozen value per pass over an LLMDeployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from energylens.api.llmdeployment import BudgetStatus, LLMDeployment, PlanStatus
from energylens.api.llmdeployment_status import LearnedCorrection
from energylens.controller.reasons import Reason
from energylens.controller.rollback import Return
from energylens.measure.types import WindowMeasurement
from energylens.planner.load import FollowedLoad
from energylens.planner.types import ClusterSnapshot, PlanningResult, PowerAllowance
from energylens.predictor.architecture import ModelSpec
from energylens.serving.metadata import PLAN_LABEL
from energylens.serving.support import PLAN_KEY

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Planning:
    """The plan to follow or recommend, and why it is that one (or none)."""

    plan: PlanStatus | None
    model: ModelSpec | None
    good: bool
    """The plan holds the spec as it is now."""
    reason: Reason
    message: str
    adopted: bool = False
    """The plan is new in this pass."""
    decision: str = "SamePlan"
    """Reason of the decision to adopt the plan or to keep the running one."""
    table: Sequence[Mapping[str, object]] | None = None
    result: PlanningResult | None = None
    """What planning answered; None when nothing had to be planned, or could be."""
    carried_step: int | None = None
    """Step of the followed load that the plan was made for, lower where no plan carries that load; None: all of it."""
    weighed: str = ""
    """What the decision to adopt weighed: energy of the switch against energy saved; "" when nothing was adopted."""
    rollback: Return | None = None
    """The return to the last good plan that this pass makes."""
    no_way_back: str = ""
    """Why a return to the last good plan is due and cannot be made."""


@dataclass(frozen=True)
class BudgetView:
    """What budgets say about one LLMDeployment."""

    status: str
    """``True``, ``False`` or ``Unknown``."""
    reason: Reason
    message: str


@dataclass(frozen=True)
class Allowed:
    """What budgets leave to one LLMDeployment."""

    allowance: PowerAllowance | None
    """None where no budget limits it."""
    view: BudgetView
    status: BudgetStatus | None
    """Of the budget that binds; None without one."""


@dataclass(frozen=True)
class PodState:
    """One serving pod."""

    name: str
    plan_hash: str
    ready: bool
    ready_since: str
    """RFC 3339; "" when not ready."""
    unschedulable: str
    """The scheduler's message; "" when it is scheduled."""
    waiting: str
    """Why a container waits, such as an image that cannot be pulled; "" when none does."""
    node: str = ""
    """"" when it is not bound to one."""


@dataclass(frozen=True)
class Observation:
    """Everything that a pass decides from."""

    deployment: LLMDeployment
    planning: Planning
    workload: Body | None
    """The live Deployment or LeaderWorkerSet."""
    pods: tuple[PodState, ...]
    snapshot: ClusterSnapshot
    serves_lws: bool
    budget: BudgetView
    measurement: WindowMeasurement | None
    now: datetime
    standing: PlanStatus | None = None
    """The plan whose pods run while another one waits for approval; None where that is the plan itself."""
    learned: LearnedCorrection | None = None
    """What measurement taught of the plan's model, GPU and layout."""
    load: FollowedLoad | None = None
    """The load that is planned for; None for that of the spec."""
    budget_status: BudgetStatus | None = None
    """Of the budget that binds; None without one."""
    refused: str = ""
    """Why the API server refused a child in this pass."""


def pod_state(pod: Body) -> PodState:
    """Return the state of a trimmed pod."""
    conditions = {c["type"]: c for c in pod["status"]["conditions"]}
    ready, scheduled = conditions.get("Ready", {}), conditions.get("PodScheduled", {})
    is_ready = ready.get("status") == "True" and not pod["metadata"]["deleting"]
    return PodState(
        name=pod["metadata"]["name"],
        plan_hash=pod["metadata"]["labels"].get(PLAN_LABEL, ""),
        ready=is_ready,
        ready_since=ready.get("lastTransitionTime", "") if is_ready else "",
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
        waiting=next((text for text in pod["status"]["waiting"] if not text.startswith("ContainerCreating")), ""),
        node=pod["spec"]["nodeName"],
    )


def standing_plan(deployment: LLMDeployment, table: Body | None, workload: Body | None) -> PlanStatus | None:
    """Return the plan of the live pods where that in status waits for approval; None where they are the same.

    Args:
        deployment: With its last status.
        table: The ConfigMap beside the pods, which has their plan.
        workload: What runs the pods.
    """
    planning, plan = deployment.spec.planning, deployment.status.plan
    if planning.mode != "Manual" or plan is None or planning.approved_plan_hash == plan.hash:
        return None
    running = ((workload or {}).get("metadata", {}).get("labels") or {}).get(PLAN_LABEL, "")
    if table is None or running in ("", plan.hash):
        return None
    try:
        found = PlanStatus.model_validate_json((table.get("data") or {}).get(PLAN_KEY) or "")
    except ValidationError:
        return None
    return found if found.hash == running else None
