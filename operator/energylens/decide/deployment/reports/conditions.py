"""The conditions of an LLMDeployment, each a pure function of the observation."""

from __future__ import annotations

from energylens.api.base import Condition
from energylens.api.words import counted
from energylens.decide.deployment.loads.following import shortfall_text
from energylens.decide.deployment.observed.observation import Observation
from energylens.decide.deployment.plans.external import is_external
from energylens.decide.deployment.plans.replica import is_asked
from energylens.decide.deployment.plans.schedule import needed
from energylens.decide.deployment.pods.children import Children
from energylens.decide.deployment.pods.deadlines import late
from energylens.decide.deployment.pods.job_start import is_held, start_verdict
from energylens.decide.deployment.pods.rollouts import RolloutProgress, by_role, overdue, rollout, trouble
from energylens.decide.deployment.reports.caveats import caveats_of
from energylens.decide.deployment.reports.condition import condition, keep_transition_times
from energylens.decide.deployment.reports.measured_conditions import measured_conditions
from energylens.decide.reasons import ConditionType, Reason

_SLO_REASONS = (Reason.SLO_INFEASIBLE, Reason.LOAD_TOO_HIGH)


def all_conditions(observed: Observation, children: Children) -> tuple[Condition, ...]:
    """Return all conditions in the order of ConditionType; unchanged conditions keep their transition times."""
    state = rollout(observed)
    found = [
        _ready(observed, children, state),
        _progressing(observed, state),
        _plan_ready(observed, children),
        *_plan_verified(observed),
        *_start_timed(observed),
        _slo_feasible(observed),
        *measured_conditions(observed),
        _budget(observed),
        _degraded(observed, state),
    ]
    order = list(ConditionType)
    found.sort(key=lambda each: order.index(ConditionType(each.type)))
    return keep_transition_times(found, observed.deployment.status.conditions, observed.now)


def _ready(observed: Observation, children: Children, state: RolloutProgress) -> Condition:
    kind, spec = ConditionType.READY, observed.deployment.spec
    if spec.suspend:
        return condition(observed, kind, "False", Reason.SUSPENDED, "spec.suspend is true: no pods are kept")
    if spec.is_at_zero:
        return condition(observed, kind, "False", Reason.SCALED_TO_ZERO, "spec.replicas is 0: no pods are kept")
    if children.reason is Reason.START_SCHEDULED:
        return condition(observed, kind, "False", Reason.START_SCHEDULED, children.message)
    if not state.exists:
        why = observed.refused or children.message or observed.planning.message
        return condition(observed, kind, "False", Reason.NOT_STARTED, why)
    plan = observed.planning.plan
    runs = next((p for p in (plan, observed.standing) if p is not None and p.hash == state.running_hash), None)
    whole = 0 if runs is None else runs.replicas + (0 if runs.prefill is None else runs.prefill.replicas)
    if state.wanted < whole:
        # Somebody scaled the workload to another number of replicas than the plan's.
        text = f"{state.ready} of {whole} replicas of plan {state.running_hash} are ready"
        return condition(
            observed, kind, "False", Reason.PODS_NOT_READY, f"{text}; the workload asks for {state.wanted}"
        )
    text = f"{state.ready} of {state.wanted} replicas of plan {state.running_hash} are ready{by_role(observed)}"
    behind = children.acting and plan is not None and state.running_hash != plan.hash
    all_ready = state.wanted > 0 and state.ready >= state.wanted
    if state.current and all_ready and not behind and observed.unsettled:
        return condition(observed, kind, "False", Reason.FIELD_MANAGER_CONFLICT, f"{text}; {observed.unsettled}")
    if state.current and all_ready and not behind:
        return condition(observed, kind, "True", Reason.PODS_READY, text)
    if all_ready:
        # All required replicas are ready, possibly beside pods that still have to stop.
        why = state.pending
        if behind and plan is not None:
            why = f"plan {plan.hash} is not applied yet{observed.refused and f': {observed.refused}'}"
        text = f"plan {state.running_hash} is not rolled out yet: {why}"
    found = trouble(observed, state)
    if _only_scales(observed, state, behind=behind):
        return condition(observed, kind, "True", Reason.PODS_READY, _scaling_text(observed, state))
    if found is not None:
        return condition(observed, kind, "False", found.reason, f"{text}; {found.text}")
    pods = (*observed.pods, *observed.prefill_pods)
    waiting = [f"{pod.name}: {pod.waiting}" for pod in pods if pod.waiting]
    ending = [pod.name for pod in pods if pod.ends_by]
    serving = _still_serving(observed, state)
    if waiting:
        text = f"{text}; {waiting[0]}"
    elif observed.unread:
        text = f"{text}; {observed.unread}"
    elif serving:
        text = f"{text}; {serving}"
    elif ending:
        text = f"{text}; {ending[0]} is being stopped"
    elif not all_ready and state.pending:
        text = f"{text}; {state.pending}"
    return condition(observed, kind, "False", Reason.PODS_NOT_READY, text)


def _only_scales(observed: Observation, state: RolloutProgress, *, behind: bool) -> bool:
    """Return whether replicas start or stop while all needed replicas stay ready.

    A schedule changes the number several times a day, and an autoscaler more often. The needed replicas serve
    meanwhile; ``Progressing`` and ``Degraded`` report the start of added replicas.
    """
    if observed.planning.plan is None or behind or observed.unsettled or observed.outgoing is not None:
        return False
    was_ready = any(c.type == ConditionType.READY and c.status == "True" for c in observed.deployment.status.conditions)
    same = all(pod.revision == state.revision or pod.finished for pod in observed.pods)
    return was_ready and same and 0 < min(state.wanted, _needed(observed)) <= state.ready


def _needed(observed: Observation) -> int:
    """Return the number of replicas that must be ready for ``Ready`` to stay True; 0 if all replicas must.

    With a schedule, these are the replicas of the current hour. With ``scaling.mode: External``, these are the
    replicas that were ready at the last reconcile: added replicas cannot be ready at once.
    """
    deployment, schedule = observed.deployment, observed.planning.schedule
    if schedule is not None:
        return needed(deployment, schedule, observed.now)
    active = deployment.status.active_revision
    return active.ready_replicas if is_external(deployment) and active is not None else 0


def _scaling_text(observed: Observation, state: RolloutProgress) -> str:
    text = f"{state.ready} of {state.wanted} replicas of plan {state.running_hash} are ready"
    if state.ready >= state.wanted:
        return f"{text}; others stop"
    found = trouble(observed, state)
    how = "start early" if observed.planning.schedule is not None else "start"
    return f"{text}; the others {how}" + ("" if found is None else f"; {found.text}")


def _still_serving(observed: Observation, state: RolloutProgress) -> str:
    """Return which pods serve while pods of the wanted revision start; "" if none do."""
    old = sum(pod.ready and pod.leads for pod in observed.pods if pod.revision != state.revision)
    if not old or state.ready >= state.wanted:
        return ""
    return f"{counted(old, 'replica')} of the previous revision still serve{'s' if old == 1 else ''}"


def _progressing(observed: Observation, state: RolloutProgress) -> Condition:
    kind = ConditionType.PROGRESSING
    waits = is_held(observed.job_start, observed.now)
    if not state.exists or observed.deployment.spec.is_stopped or waits:
        return condition(observed, kind, "False", Reason.NOT_STARTED, "no rollout is under way")
    if state.current and state.ready >= state.wanted:
        return condition(observed, kind, "False", Reason.COMPLETE, f"plan {state.running_hash} is rolled out")
    text = f"{state.updated} of {state.wanted} replicas are of plan {state.running_hash}, {state.ready} are ready"
    found = trouble(observed, state)
    if found is not None and found.reason is Reason.QUEUED:
        return condition(observed, kind, "True", Reason.QUEUED, f"{text}; {found.text}")
    missed = late(observed, state)
    if missed:
        return condition(observed, kind, "False", Reason.PROGRESS_DEADLINE_EXCEEDED, f"{text}; {missed}")
    others = any(pod.revision != state.revision for pod in observed.pods if not pod.finished)
    if not others and not _replacing(observed):
        found = trouble(observed, state)
        return condition(observed, kind, "True", Reason.STARTING, text if found is None else f"{text}; {found.text}")
    surge = state.strategy == "Surge"
    reason = Reason.ROLLING_SURGE if surge else Reason.ROLLING_RECREATE
    how = "new replicas start before old ones stop" if surge else "old replicas stop first"
    return condition(observed, kind, "True", reason, f"{text}; {how}")


def _replacing(observed: Observation) -> bool:
    status = (observed.workload or {}).get("status") or {}
    replaced = int(status.get("replicas") or 0) > int(status.get("updatedReplicas") or 0)
    return replaced or observed.outgoing is not None


def _plan_ready(observed: Observation, children: Children) -> Condition:
    planning = observed.planning
    if not planning.good:
        return condition(observed, ConditionType.PLAN_READY, "False", planning.reason, planning.message)
    shortfall = shortfall_text(observed.load)
    caveats = (*((shortfall,) if shortfall else ()), *caveats_of(observed.deployment, planning))
    notes = "".join(f"; {note}" for note in caveats)
    if children.reason is not None:
        status = "True" if children.reason in (Reason.ADVISORY, Reason.START_SCHEDULED) else "False"
        return condition(observed, ConditionType.PLAN_READY, status, children.reason, children.message + notes)
    return condition(observed, ConditionType.PLAN_READY, "True", planning.reason, planning.message + notes)


def _plan_verified(observed: Observation) -> list[Condition]:
    """Return whether the running plan was verified before its rollout; None unless the spec asks for verification."""
    kind, planning = ConditionType.PLAN_VERIFIED, observed.planning
    if not is_asked(observed.deployment):
        return []
    if planning.held:
        status = "False" if planning.reason is Reason.GIVEN_UP else "Unknown"
        return [condition(observed, kind, status, planning.reason, planning.message)]
    memory, plan = planning.verification, planning.plan
    followed = memory.followed if memory is not None else None
    if followed is None or plan is None or followed.plan_hash != plan.hash:
        text = "no other plan was running, so no replica could be compared with it"
        return [condition(observed, kind, "Unknown", Reason.NOT_VERIFIED, text)]
    if followed.verified:
        return [condition(observed, kind, "True", Reason.VERIFIED, followed.message)]
    return [condition(observed, kind, "Unknown", Reason.NOT_VERIFIED, followed.message)]


def _start_timed(observed: Observation) -> list[Condition]:
    job = observed.deployment.spec.workload.job
    if job is None or job.start is None:
        return []
    found = start_verdict(observed.job_start, observed.deployment.status.conditions)
    return [] if found is None else [condition(observed, ConditionType.START_TIMED, *found)]


def _slo_feasible(observed: Observation) -> Condition:
    kind, planning = ConditionType.SLO_FEASIBLE, observed.planning
    if planning.reason is Reason.SHED:
        return condition(observed, kind, "False", Reason.SHED, planning.message)
    if planning.good:
        return condition(observed, kind, "True", Reason.FEASIBLE, "the plan's predictions meet spec.slo")
    if planning.reason in _SLO_REASONS:
        return condition(observed, kind, "False", planning.reason, planning.message)
    return condition(observed, kind, "Unknown", Reason.NO_PLAN, "there is no plan for the current spec")


def _budget(observed: Observation) -> Condition:
    view, planning = observed.budget, observed.planning
    if planning.reason is Reason.BUDGET_EXCEEDED and view.reason in (
        Reason.WITHIN_BUDGET,
        Reason.RUNS_OUT,
        Reason.NO_BUDGET,
    ):
        # The running plan is within the budget; the plan that the spec needs is not.
        return condition(observed, ConditionType.WITHIN_ENERGY_BUDGET, "False", Reason.GROWTH_DENIED, planning.message)
    return condition(observed, ConditionType.WITHIN_ENERGY_BUDGET, view.status, view.reason, view.message)


def _degraded(observed: Observation, state: RolloutProgress) -> Condition:
    kind = ConditionType.DEGRADED
    if observed.refused:
        return condition(observed, kind, "True", observed.refused_for, observed.refused)
    if observed.contested:
        return condition(observed, kind, "True", Reason.FIELD_MANAGER_CONFLICT, observed.contested)
    if state.exists and not observed.deployment.spec.is_stopped and not (state.current and state.ready >= state.wanted):
        found = trouble(observed, state)
        if found is not None and found.needs_a_person:
            return condition(observed, kind, "True", found.reason, found.text)
        missed = late(observed, state)
        if missed:
            return condition(observed, kind, "True", Reason.PROGRESS_DEADLINE_EXCEEDED, missed)
    stuck = overdue(observed)
    if stuck:
        return condition(observed, kind, "True", Reason.PODS_FAILING, stuck)
    if observed.planning.no_way_back:
        return condition(observed, kind, "True", Reason.CANNOT_ROLL_BACK, observed.planning.no_way_back)
    return condition(observed, kind, "False", Reason.AS_EXPECTED, "")
