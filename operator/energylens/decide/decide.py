"""The desired state (children, then status) from the inputs of a plan and the running objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from energylens.api.llmdeployment import EnergyAccount
from energylens.decide.deployment.loads.following import carried_load
from energylens.decide.deployment.observed.observation import Allowed, Observation, PlanChoice, PodState, of_main
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.decide.deployment.pods.children import Children, children
from energylens.decide.deployment.pods.job_start import looks_at, own_workload, seen_start
from energylens.decide.deployment.pods.workloads import NO_WORKLOADS, Workloads
from energylens.decide.deployment.reports.events import transitions
from energylens.decide.deployment.reports.status import status_of
from energylens.decide.reasons import EventReason
from energylens.records import dataclass
from energylens.serving.claims import NO_CLAIMS, Claims


@dataclass(frozen=True)
class Live:
    """The running objects at the time of the plan; planning takes a while."""

    workloads: Workloads = NO_WORKLOADS
    pods: tuple[PodState, ...] = ()
    canary: Mapping[str, Any] | None = None
    """The workload of the canary replica of a new plan."""
    prefill: Mapping[str, Any] | None = None
    """The Deployment of the prefill pods of a plan with separate prefill and decode."""
    claims: Claims = NO_CLAIMS
    """The volume claims that the pods mount."""
    refused_pods: str = ""
    """Why the pods of a LeaderWorkerSet cannot be created, by its events."""
    unread: str = ""
    """Why these events are not known; "" if they are."""


@dataclass(frozen=True)
class Outcome:
    """The desired state."""

    observed: Observation
    """The observation behind the decision; :meth:`after` replaces it after the writes."""
    children: Children

    def status(self) -> dict[str, Any]:
        """Return the status of the LLMDeployment."""
        return status_of(self.observed, self.children)

    def events(self, status: dict[str, Any]) -> list[tuple[EventReason, str]]:
        """Return the events for the changes between two statuses."""
        return transitions(self.observed, self.children, status)

    def after(self, **seen: Any) -> Outcome:
        """Return the outcome of the same decision with the observation from after the writes."""
        return replace(self, observed=replace(self.observed, **seen))


def decide(
    inputs: Inputs,
    planning: PlanChoice,
    allowed: Allowed,
    running: Live,
    *,
    now: datetime,
    account: EnergyAccount | None = None,
) -> Outcome:
    """Return the desired state.

    Args:
        inputs: The inputs of the plan.
        planning: The plan to follow, and the reason.
        allowed: The power that budgets allow, with this plan included.
        running: The running objects.
        now: The current time.
        account: The energy counted against the deployment's own energy limit.
    """
    plan = inputs.standing or planning.plan
    workload = running.workloads.running(plan)
    pods = of_main(running.pods)
    own = own_workload(inputs.deployment, workload)
    start = seen_start(inputs.deployment, planning.job_start, planning.plan, own, pods, now)
    if start is not None:
        planning = replace(planning, next_look=looks_at(start, now))
    observed = Observation(
        deployment=inputs.deployment,
        planning=planning,
        workload=workload,
        outgoing=running.workloads.outgoing(plan),
        claims=running.claims,
        refused_pods=running.refused_pods,
        unread=running.unread,
        pods=pods,
        prefill=running.prefill,
        prefill_pods=tuple(pod for pod in running.pods if pod.prefill),
        canary_pods=tuple(pod for pod in running.pods if pod.canary),
        canary=running.canary,
        snapshot=inputs.snapshot,
        serves_lws=inputs.serves_lws,
        budget=allowed.view,
        budget_status=allowed.status,
        measurement=None,
        now=now,
        standing=inputs.standing,
        load=carried_load(inputs.load, planning.carried_step),
        learned_hours=inputs.learned,
        energy_account=account,
        job_start=start,
    )
    return Outcome(observed, children(observed))
