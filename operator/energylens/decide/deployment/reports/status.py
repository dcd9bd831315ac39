"""The status of an LLMDeployment from an observation. Pure."""

from __future__ import annotations

from typing import Any

from energylens.api.llmdeployment import (
    BudgetStatus,
    JobStartStatus,
    LLMDeploymentStatus,
    RelaxationStatus,
    RollbackStatus,
    ScheduleStatus,
    VerificationStatus,
)
from energylens.api.quantity import format_milli
from energylens.api.timestamp import timestamp
from energylens.decide.deployment.loads.following import load_status
from energylens.decide.deployment.loads.learned_hours import learned_status
from energylens.decide.deployment.observed.observation import Observation
from energylens.decide.deployment.plans.replica import is_asked
from energylens.decide.deployment.plans.schedule import with_measured_start
from energylens.decide.deployment.pods.children import Children
from energylens.decide.deployment.pods.job_start import own_workload, seen_start
from energylens.decide.deployment.pods.rollouts import main_rollout
from energylens.decide.deployment.pods.workloads import existing_replicas, workload_revision
from energylens.decide.deployment.reports.conditions import all_conditions
from energylens.decide.deployment.reports.revisions import active_revision, previous_revision
from energylens.decide.deployment.trials import rollback
from energylens.decide.deployment.trials.verification import without_trial
from energylens.decide.deployment.trials.windows import is_new_window, measured_status, prediction_status
from energylens.decide.planned import Body
from energylens.decide.reasons import ConditionType, Reason
from energylens.planner.types import Infeasible, PlanningResult, Relaxation
from energylens.serving.metadata import selector_labels

MAX_RELAXATIONS = 20
"""Maximum number of relaxations in the API."""


def status_of(observed: Observation, children: Children) -> dict[str, Any]:
    """Return the whole status, as the operator writes it."""
    deployment, plan = observed.deployment, observed.planning.plan
    before = deployment.status
    active = active_revision(observed, main_rollout(observed))
    measured, prediction = before.measured, before.prediction
    if active is None or before.active_revision is None or active.plan_hash != before.active_revision.plan_hash:
        measured, prediction = None, None
    found = observed.measurement
    if found is not None and found.energy_joules is not None and plan is not None and active is not None:
        samples = before.prediction.samples if before.prediction is not None and prediction is not None else 0
        measured = measured_status(found)
        prediction = prediction_status(plan, found, samples, before.measured)
    if measured is not None:
        account = observed.energy_account
        watt_hours = None if account is None else round(account.measured_joules / 3600.0)
        measured = measured.model_copy(update={"energy_watt_hours_this_period": watt_hours})
    if prediction is not None:
        prediction = prediction.model_copy(update={"correction": observed.learned or prediction.correction})
    status = LLMDeploymentStatus(
        observed_generation=deployment.metadata.generation,
        replicas=existing_replicas(observed.workload),
        selector=",".join(f"{name}={value}" for name, value in selector_labels(deployment).items()),
        plan=plan,
        plan_adoption_time=_adoption_time(observed, children),
        load=load_status(observed.load),
        schedule=_schedule(observed),
        learned_load=learned_status(observed.learned_hours),
        job_start=_job_start(observed),
        relaxations=_relaxations(observed.planning.result),
        active_revision=active,
        previous_revision=previous_revision(before, active, observed.now),
        measured=measured,
        prediction=prediction,
        rollback=_rollback(observed),
        verification=_verification(observed),
        budget=_budget(observed),
        energy_account=observed.energy_account,
        conditions=all_conditions(observed, children),
    )
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def is_unplanned(deployment: Body) -> bool:
    """Return whether the current spec was not planned yet: it is new, or the last reconcile waited for a budget."""
    status = deployment.get("status") or {}
    if status.get("observedGeneration") != deployment["metadata"].get("generation"):
        return True
    reasons = (c.get("reason") for c in status.get("conditions") or () if c.get("type") == ConditionType.PLAN_READY)
    return Reason.AWAITING_BUDGET in reasons


def _rollback(observed: Observation) -> RollbackStatus | None:
    deployment, found, planning = observed.deployment, observed.measurement, observed.planning
    if not rollback.triggers(deployment.spec):
        return None
    if planning.rollback is not None:
        return rollback.after_return(deployment, planning.rollback, observed.now)
    if found is None or planning.plan is None or not is_new_window(deployment, found) or observed.canary_pods:
        # Beside a canary, the other replicas have a smaller share of the load.
        return deployment.status.rollback
    return rollback.after_window(deployment, planning.plan, found)


def _schedule(observed: Observation) -> ScheduleStatus | None:
    """Return the schedule, with the start-up time once a start was measured."""
    deployment, planning = observed.deployment, observed.planning
    if deployment.spec.workload.profile is None:
        return None
    if planning.schedule is None or planning.plan is None:
        return deployment.status.schedule
    live = observed.workload
    mine = () if live is None else [pod for pod in observed.pods if pod.revision == workload_revision(live)]
    return with_measured_start(planning.schedule, deployment, planning.plan.replicas, mine)


def _job_start(observed: Observation) -> JobStartStatus | None:
    """Return when the pods of a job start, or did; a pass that could not plan keeps what is known."""
    deployment, plan, known = observed.deployment, observed.planning.plan, observed.job_start
    job = deployment.spec.workload.job
    if job is None:
        return None
    if known is None and (job.start is not None or plan is None):
        return deployment.status.job_start
    own = own_workload(deployment, observed.workload)
    return seen_start(deployment, known, plan, own, observed.pods, observed.now)


def _verification(observed: Observation) -> VerificationStatus | None:
    """Return the state of verification; a reconcile that could not plan ends a running verification."""
    if not is_asked(observed.deployment):
        return None
    return observed.planning.verification or without_trial(observed.deployment.status.verification)


def _budget(observed: Observation) -> BudgetStatus | None:
    """Return the part about the binding budget; a change of used energy below one percent causes no write."""
    found, before = observed.budget_status, observed.deployment.status.budget
    if found is None or before is None:
        return found
    same = found.model_copy(update={"remaining_watt_hours": before.remaining_watt_hours})
    return before if same == before else found


def _adoption_time(observed: Observation, children: Children) -> str | None:
    planning, known = observed.planning, observed.deployment.status.plan_adoption_time
    if planning.plan is None:
        return None
    if children.reason in (Reason.AWAITING_APPROVAL, Reason.ADVISORY):
        # Nothing was adopted yet: keep the time of the running plan.
        return known
    # A status of an earlier release has no time: its plan counts from now.
    return known if known and not observed.takes_over else timestamp(observed.now)


def _relaxations(result: PlanningResult | None) -> tuple[RelaxationStatus, ...] | None:
    if not isinstance(result, Infeasible) or not result.relaxations:
        return None
    return tuple(map(relaxation_status, result.relaxations[:MAX_RELAXATIONS]))


def relaxation_status(relaxation: Relaxation) -> RelaxationStatus:
    """Return a change that would allow a plan, at the resolution of the API."""
    also = relaxation.also
    return RelaxationStatus(
        field=relaxation.field,
        value=relaxation.value,
        allowed=relaxation.allowed,
        with_field=also.field if also else None,
        with_value=also.value if also else None,
        with_allowed=also.allowed if also else None,
        joules_per_output_token=format_milli(relaxation.joules_per_output_token),
    )
