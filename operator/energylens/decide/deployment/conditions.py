"""The conditions of an LLMDeployment, each a pure function of the observation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import get_args

from energylens.api.base import Condition
from energylens.api.timestamp import timestamp
from energylens.api.words import counted
from energylens.decide.deployment.caveats import caveats_of
from energylens.decide.deployment.children import Children
from energylens.decide.deployment.external import is_external
from energylens.decide.deployment.following import at_load, shortfall_text
from energylens.decide.deployment.job_start import start_verdict, waits_until
from energylens.decide.deployment.observation import Observation
from energylens.decide.deployment.replica import is_asked
from energylens.decide.deployment.rollouts import RolloutProgress, by_role, late, overdue, rollout, trouble
from energylens.decide.deployment.schedule import needed
from energylens.decide.learned.comparison import (
    energy_error_percent,
    is_comparable,
    load_differences,
    load_share,
    objectives,
)
from energylens.decide.reasons import ConditionType, Reason
from energylens.measure.types import EnergyReason

_SLO_REASONS = (Reason.SLO_INFEASIBLE, Reason.LOAD_TOO_HIGH)
_MESSAGE_LENGTH = 1000
_DISPROVED = ("NoSource", "SourceUnreachable", "NoSeries", "PodLabelsMissing", "NotAttributable", "InternalError")
"""Reasons for which no window can be collected; obsolete once a window is being collected."""
KEPT_WINDOWS = 3
"""Windows, besides the warm-up, for which the last measurement is kept; the restart of a pod costs one window."""
LEAST_KEPT_SECONDS = 900.0
"""Shortest time for which a measurement is kept, s: an update of the operator takes minutes."""


_COLLECTING = "Collecting"
_VERDICTS: dict[ConditionType, dict[str, str]] = {
    ConditionType.ENERGY_METRICS_AVAILABLE: {
        reason: "True" if reason == "Measured" else "Unknown" if reason == _COLLECTING else "False"
        for reason in get_args(EnergyReason)
    },
    ConditionType.PREDICTION_ACCURATE: {
        _COLLECTING: "Unknown",
        Reason.NOT_MEASURED.value: "Unknown",
        Reason.LOAD_DIFFERS.value: "Unknown",
        Reason.WITHIN_TOLERANCE.value: "True",
        Reason.OUTSIDE_TOLERANCE.value: "False",
    },
    ConditionType.SLO_MET: {
        _COLLECTING: "Unknown",
        Reason.NOT_MEASURED.value: "Unknown",
        Reason.NO_OBJECTIVE.value: "True",
        Reason.MET.value: "True",
        Reason.VIOLATED.value: "False",
    },
}
"""Condition on a measurement -> its reasons -> the status of each reason."""


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
        *_measured(observed),
        _budget(observed),
        _degraded(observed, state),
    ]
    order = list(ConditionType)
    found.sort(key=lambda condition: order.index(ConditionType(condition.type)))
    return keep_transition_times(found, observed.deployment.status.conditions, observed.now)


def keep_transition_times(
    found: Iterable[Condition], before: Sequence[Condition], now: datetime
) -> tuple[Condition, ...]:
    """Return conditions whose lastTransitionTime changes only with their status."""
    old = {condition.type: condition for condition in before}
    stamp = timestamp(now)
    kept = []
    for condition in found:
        same = old.get(condition.type)
        time = same.last_transition_time if same is not None and same.status == condition.status else stamp
        kept.append(condition.model_copy(update={"last_transition_time": time or stamp}))
    return tuple(kept)


def _condition(observed: Observation, kind: ConditionType, status: str, reason: str, message: str) -> Condition:
    return Condition(
        type=kind.value,
        status=status,
        reason=str(reason),
        message=message[:_MESSAGE_LENGTH],
        observed_generation=observed.deployment.metadata.generation,
    )


def _ready(observed: Observation, children: Children, state: RolloutProgress) -> Condition:
    kind, spec = ConditionType.READY, observed.deployment.spec
    if spec.suspend:
        return _condition(observed, kind, "False", Reason.SUSPENDED, "spec.suspend is true: no pods are kept")
    if spec.is_at_zero:
        return _condition(observed, kind, "False", Reason.SCALED_TO_ZERO, "spec.replicas is 0: no pods are kept")
    if children.reason is Reason.START_SCHEDULED:
        return _condition(observed, kind, "False", Reason.START_SCHEDULED, children.message)
    if not state.exists:
        why = children.message or observed.planning.message
        return _condition(observed, kind, "False", Reason.NOT_STARTED, why)
    plan = observed.planning.plan
    runs = next((p for p in (plan, observed.standing) if p is not None and p.hash == state.running_hash), None)
    whole = 0 if runs is None else runs.replicas + (0 if runs.prefill is None else runs.prefill.replicas)
    if state.wanted < whole:
        # Somebody scaled the workload to another number of replicas than the plan's.
        text = f"{state.ready} of {whole} replicas of plan {state.running_hash} are ready"
        return _condition(
            observed, kind, "False", Reason.PODS_NOT_READY, f"{text}; the workload asks for {state.wanted}"
        )
    text = f"{state.ready} of {state.wanted} replicas of plan {state.running_hash} are ready{by_role(observed)}"
    behind = children.acting and plan is not None and state.running_hash != plan.hash
    all_ready = state.wanted > 0 and state.ready >= state.wanted
    if state.current and all_ready and not behind and observed.unsettled:
        return _condition(observed, kind, "False", Reason.FIELD_MANAGER_CONFLICT, f"{text}; {observed.unsettled}")
    if state.current and all_ready and not behind:
        return _condition(observed, kind, "True", Reason.PODS_READY, text)
    if all_ready:
        # All required replicas are ready, possibly beside pods that still have to stop.
        why = f"plan {plan.hash} is not applied yet" if behind and plan is not None else state.pending
        text = f"plan {state.running_hash} is not rolled out yet: {why}"
    found = trouble(observed, state)
    if _only_scales(observed, state, behind=behind):
        return _condition(observed, kind, "True", Reason.PODS_READY, _scaling_text(observed, state))
    if found is not None:
        return _condition(observed, kind, "False", found.reason, f"{text}; {found.text}")
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
    return _condition(observed, kind, "False", Reason.PODS_NOT_READY, text)


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
    waits = waits_until(observed.job_start, observed.now) is not None
    if not state.exists or observed.deployment.spec.is_stopped or waits:
        return _condition(observed, kind, "False", Reason.NOT_STARTED, "no rollout is under way")
    if state.current and state.ready >= state.wanted:
        return _condition(observed, kind, "False", Reason.COMPLETE, f"plan {state.running_hash} is rolled out")
    text = f"{state.updated} of {state.wanted} replicas are of plan {state.running_hash}, {state.ready} are ready"
    found = trouble(observed, state)
    if found is not None and found.reason is Reason.QUEUED:
        return _condition(observed, kind, "True", Reason.QUEUED, f"{text}; {found.text}")
    missed = late(observed, state)
    if missed:
        return _condition(observed, kind, "False", Reason.PROGRESS_DEADLINE_EXCEEDED, f"{text}; {missed}")
    others = any(pod.revision != state.revision for pod in observed.pods if not pod.finished)
    if not others and not _replacing(observed):
        found = trouble(observed, state)
        return _condition(observed, kind, "True", Reason.STARTING, text if found is None else f"{text}; {found.text}")
    surge = state.strategy == "Surge"
    reason = Reason.ROLLING_SURGE if surge else Reason.ROLLING_RECREATE
    how = "new replicas start before old ones stop" if surge else "old replicas stop first"
    return _condition(observed, kind, "True", reason, f"{text}; {how}")


def _replacing(observed: Observation) -> bool:
    status = (observed.workload or {}).get("status") or {}
    replaced = int(status.get("replicas") or 0) > int(status.get("updatedReplicas") or 0)
    return replaced or observed.outgoing is not None


def _plan_ready(observed: Observation, children: Children) -> Condition:
    planning = observed.planning
    if not planning.good:
        return _condition(observed, ConditionType.PLAN_READY, "False", planning.reason, planning.message)
    shortfall = shortfall_text(observed.load)
    caveats = (*((shortfall,) if shortfall else ()), *caveats_of(observed.deployment, planning))
    notes = "".join(f"; {note}" for note in caveats)
    if children.reason is not None:
        status = "True" if children.reason in (Reason.ADVISORY, Reason.START_SCHEDULED) else "False"
        return _condition(observed, ConditionType.PLAN_READY, status, children.reason, children.message + notes)
    return _condition(observed, ConditionType.PLAN_READY, "True", planning.reason, planning.message + notes)


def _plan_verified(observed: Observation) -> list[Condition]:
    """Return whether the running plan was verified before its rollout; None unless the spec asks for verification."""
    kind, planning = ConditionType.PLAN_VERIFIED, observed.planning
    if not is_asked(observed.deployment):
        return []
    if planning.held:
        status = "False" if planning.reason is Reason.GIVEN_UP else "Unknown"
        return [_condition(observed, kind, status, planning.reason, planning.message)]
    memory, plan = planning.verification, planning.plan
    followed = memory.followed if memory is not None else None
    if followed is None or plan is None or followed.plan_hash != plan.hash:
        text = "no other plan was running, so no replica could be compared with it"
        return [_condition(observed, kind, "Unknown", Reason.NOT_VERIFIED, text)]
    if followed.verified:
        return [_condition(observed, kind, "True", Reason.VERIFIED, followed.message)]
    return [_condition(observed, kind, "Unknown", Reason.NOT_VERIFIED, followed.message)]


def _start_timed(observed: Observation) -> list[Condition]:
    found = start_verdict(observed.job_start, observed.deployment.status.conditions)
    return [] if found is None else [_condition(observed, ConditionType.START_TIMED, *found)]


def _slo_feasible(observed: Observation) -> Condition:
    kind, planning = ConditionType.SLO_FEASIBLE, observed.planning
    if planning.reason is Reason.SHED:
        return _condition(observed, kind, "False", Reason.SHED, planning.message)
    if planning.good:
        return _condition(observed, kind, "True", Reason.FEASIBLE, "the plan's predictions hold spec.slo")
    if planning.reason in _SLO_REASONS:
        return _condition(observed, kind, "False", planning.reason, planning.message)
    return _condition(observed, kind, "Unknown", Reason.NO_PLAN, "there is no plan for the current spec")


def _budget(observed: Observation) -> Condition:
    view, planning = observed.budget, observed.planning
    if planning.reason is Reason.BUDGET_EXCEEDED and view.reason in (
        Reason.WITHIN_BUDGET,
        Reason.RUNS_OUT,
        Reason.NO_BUDGET,
    ):
        # The running plan is within the budget; the plan that the spec needs is not.
        return _condition(observed, ConditionType.WITHIN_ENERGY_BUDGET, "False", Reason.GROWTH_DENIED, planning.message)
    return _condition(observed, ConditionType.WITHIN_ENERGY_BUDGET, view.status, view.reason, view.message)


def _degraded(observed: Observation, state: RolloutProgress) -> Condition:
    kind = ConditionType.DEGRADED
    if observed.refused:
        return _condition(observed, kind, "True", observed.refused_for, observed.refused)
    if observed.contested:
        return _condition(observed, kind, "True", Reason.FIELD_MANAGER_CONFLICT, observed.contested)
    if state.exists and not observed.deployment.spec.is_stopped and not (state.current and state.ready >= state.wanted):
        found = trouble(observed, state)
        if found is not None and found.needs_a_person:
            return _condition(observed, kind, "True", found.reason, found.text)
        missed = late(observed, state)
        if missed:
            return _condition(observed, kind, "True", Reason.PROGRESS_DEADLINE_EXCEEDED, missed)
    stuck = overdue(observed)
    if stuck:
        return _condition(observed, kind, "True", Reason.PODS_FAILING, stuck)
    if observed.planning.no_way_back:
        return _condition(observed, kind, "True", Reason.CANNOT_ROLL_BACK, observed.planning.no_way_back)
    return _condition(observed, kind, "False", Reason.AS_EXPECTED, "")


def _measured(observed: Observation) -> list[Condition]:
    kinds = (ConditionType.ENERGY_METRICS_AVAILABLE, ConditionType.PREDICTION_ACCURATE, ConditionType.SLO_MET)
    spec, found = observed.deployment.spec, observed.measurement
    if spec.validation.source == "None":
        text = "spec.validation.source is None"
        return [_condition(observed, kind, "Unknown", Reason.DISABLED, text) for kind in kinds]
    if found is None or found.reason == _COLLECTING:
        return _as_before(observed, kinds, found.message if found is not None else "")
    available = "True" if found.reason == "Measured" else "False"
    energy = _condition(observed, kinds[0], available, found.reason, found.message)
    return [energy, _accuracy(observed), _slo_met(observed)]


def _as_before(observed: Observation, kinds: Sequence[ConditionType], message: str) -> list[Condition]:
    """Return the last verdict on the same revision, for a limited time, so that a restart changes nothing."""
    status = observed.deployment.status
    state = rollout(observed)
    if not state.ready:
        text = "no replica is ready"
        return [_condition(observed, kind, "Unknown", Reason.NOT_SERVING, text) for kind in kinds]
    same = status.active_revision is not None and status.active_revision.plan_hash == state.running_hash
    old_window = _too_old(observed)
    reason, text = _COLLECTING, message or "the first window is not complete"
    if old_window:
        text = f"{old_window}; {state.ready} of {state.wanted} replicas are ready"
    # Without a window there may be a verdict, such as missing metrics, which stays while pods serve.
    passed = (Reason.NOT_SERVING.value, Reason.DISABLED.value)
    old = {
        condition.type: condition
        for condition in status.conditions
        if same and not old_window and condition.reason not in passed
    }
    energy = old.get(ConditionType.ENERGY_METRICS_AVAILABLE.value)
    if observed.measurement is not None and energy is not None and energy.reason in _DISPROVED:
        old = {}
    kept = []
    for kind in kinds:
        before = old.get(kind.value)
        # The status may have been edited: the reason must belong to this condition, and determines its status.
        said = None if before is None else _VERDICTS[kind].get(before.reason)
        kept.append(
            _condition(observed, kind, said, before.reason, before.message)
            if before is not None and said is not None
            else _condition(observed, kind, "Unknown", reason, text)
        )
    return kept


def _too_old(observed: Observation) -> str:
    """Return why the last window is stale; "" if there is no window, or a current window."""
    measured, validation = observed.deployment.status.measured, observed.deployment.spec.validation
    if measured is None or not measured.window_end:
        return ""
    age = (observed.now - datetime.fromisoformat(measured.window_end)).total_seconds()
    most = max(LEAST_KEPT_SECONDS, validation.warmup_seconds + KEPT_WINDOWS * validation.window_seconds)
    return f"no complete window since {measured.window_end}" if age > most else ""


def _accuracy(observed: Observation) -> Condition:
    kind, found, plan = ConditionType.PREDICTION_ACCURATE, observed.measurement, observed.planning.plan
    error = energy_error_percent(plan, found.joules_per_output_token if found is not None else None)
    if error is None or plan is None or found is None:
        return _condition(observed, kind, "Unknown", Reason.NOT_MEASURED, "no energy per token was measured")
    share = load_share(observed.deployment, plan, found)
    asked = at_load(observed.deployment, observed.load)
    other = "".join(f"; {difference}" for difference in load_differences(asked, found))
    if not is_comparable(share):
        served = "unknown" if share is None else f"{100 * share:.0f} % of the one that the plan was made for"
        text = f"the load was {served}, so energy per token cannot be compared; it is off by {error:+d} %{other}"
        return _condition(observed, kind, "Unknown", Reason.LOAD_DIFFERS, text)
    tolerance = observed.deployment.spec.validation.tolerance_percent
    text = f"predicted energy per token is off by {error:+d} %; tolerancePercent={tolerance}{other}"
    if abs(error) <= tolerance:
        return _condition(observed, kind, "True", Reason.WITHIN_TOLERANCE, text)
    return _condition(observed, kind, "False", Reason.OUTSIDE_TOLERANCE, text)


def _slo_met(observed: Observation) -> Condition:
    kind = ConditionType.SLO_MET
    answers = objectives(observed.deployment, observed.measurement)
    if not answers:
        return _condition(observed, kind, "True", Reason.NO_OBJECTIVE, "spec.slo has no objective")
    broken = [text for text, holds in answers.values() if holds is False]
    if broken:
        return _condition(observed, kind, "False", Reason.VIOLATED, "; ".join(broken))
    missing = [text for text, holds in answers.values() if holds is None]
    if missing:
        return _condition(observed, kind, "Unknown", Reason.NOT_MEASURED, f"{', '.join(missing)} was not measured")
    return _condition(observed, kind, "True", Reason.MET, "; ".join(text for text, _ in answers.values()))
