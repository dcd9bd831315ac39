"""The conditions of an LLMDeployment, each a pure function of what was observed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from energylens.api.base import Condition
from energylens.api.llmdeployment import PlanStatus
from energylens.controller.children import Children, live_strategy
from energylens.controller.comparison import energy_error_percent, is_comparable, load_share, objectives
from energylens.controller.observation import Body, Observation, PodState
from energylens.controller.reasons import ConditionType, Reason
from energylens.serving.metadata import PLAN_LABEL

_SLO_REASONS = (Reason.SLO_INFEASIBLE, Reason.LOAD_TOO_HIGH)
_MESSAGE_LENGTH = 1000
_DISPROVED = ("NoSource", "SourceUnreachable", "NoSeries", "PodLabelsMissing", "NotAttributable", "InternalError")
"""Verdicts that come before there is anything to collect: they are over once a window is being collected."""
KEPT_WINDOWS = 3
"""Windows, and the warm-up, for which the last measurement is kept without a new one: a pod that restarts costs one."""
LEAST_KEPT_SECONDS = 900.0
"""However short the windows are: an operator that is updated takes minutes."""


@dataclass(frozen=True)
class Rollout:
    """How far the pods of the wanted plan are."""

    exists: bool
    current: bool
    """The workload's controller has seen the wanted revision and only its pods are left."""
    ready: int
    updated: int
    wanted: int
    running_hash: str
    strategy: str


def rollout(observed: Observation) -> Rollout:
    """Return the state of the workload, counted by pods of the plan it was made from."""
    live = observed.workload
    if live is None:
        return Rollout(False, False, 0, 0, 0, "", "")
    running_hash = (live["metadata"].get("labels") or {}).get(PLAN_LABEL, "")
    status, wanted = live.get("status") or {}, int(live["spec"].get("replicas") or 0)
    updated = int(status.get("updatedReplicas") or 0)
    own = [pod for pod in observed.pods if pod.plan_hash == running_hash]
    ready = sum(pod.ready for pod in own) if live["kind"] == "Deployment" else int(status.get("readyReplicas") or 0)
    seen = int(status.get("observedGeneration") or 0) >= int(live["metadata"].get("generation") or 0)
    if live["kind"] == "LeaderWorkerSet" and "observedGeneration" not in status:
        # Not every release of LeaderWorkerSet v1 reports it; its pods tell the same a little later.
        seen = bool(own) and len(own) == len(observed.pods)
    only = int(status.get("replicas") or 0) == updated
    strategy = live_strategy(live)
    return Rollout(
        exists=True,
        current=seen and updated >= wanted and only,
        ready=min(ready, wanted),
        updated=updated if seen else 0,
        wanted=wanted,
        running_hash=running_hash,
        strategy=strategy.name if strategy is not None else "Recreate",
    )


def all_conditions(observed: Observation, children: Children) -> tuple[Condition, ...]:
    """Return every condition, in the order of ConditionType, with transition times kept where nothing changed."""
    state = rollout(observed)
    found = [
        _ready(observed, children, state),
        _progressing(observed, state),
        _plan_ready(observed, children),
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
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
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


def _ready(observed: Observation, children: Children, state: Rollout) -> Condition:
    kind, spec = ConditionType.READY, observed.deployment.spec
    if spec.suspend:
        return _condition(observed, kind, "False", Reason.SUSPENDED, "spec.suspend is true: no pods are kept")
    if not state.exists:
        why = children.message or observed.planning.message
        return _condition(observed, kind, "False", Reason.NOT_STARTED, why)
    text = f"{state.ready} of {state.wanted} replicas of plan {state.running_hash} are ready"
    plan = observed.planning.plan
    behind = children.acting and plan is not None and state.running_hash != plan.hash
    if state.current and state.wanted and state.ready >= state.wanted and not behind:
        return _condition(observed, kind, "True", Reason.PODS_READY, text)
    blocked = [pod for pod in observed.pods if pod.unschedulable]
    if blocked:
        detail = f"{text}; {blocked[0].name} waits for a node: {blocked[0].unschedulable}"
        return _condition(observed, kind, "False", Reason.UNSCHEDULABLE, detail)
    return _condition(observed, kind, "False", Reason.PODS_NOT_READY, _with_waiting(text, observed.pods))


def _with_waiting(text: str, pods: Iterable[PodState]) -> str:
    waiting = [f"{pod.name}: {pod.waiting}" for pod in pods if pod.waiting]
    return f"{text}; {waiting[0]}" if waiting else text


def _progressing(observed: Observation, state: Rollout) -> Condition:
    kind = ConditionType.PROGRESSING
    if not state.exists or observed.deployment.spec.suspend:
        return _condition(observed, kind, "False", Reason.NOT_STARTED, "no rollout is under way")
    late = deadline_exceeded(observed.workload)
    if state.current and state.ready >= state.wanted:
        return _condition(observed, kind, "False", Reason.COMPLETE, f"plan {state.running_hash} is rolled out")
    text = f"{state.updated} of {state.wanted} replicas are of plan {state.running_hash}, {state.ready} are ready"
    if late:
        return _condition(observed, kind, "False", Reason.PROGRESS_DEADLINE_EXCEEDED, f"{text}; {late}")
    if all(pod.plan_hash == state.running_hash for pod in observed.pods) and not _replacing(observed):
        return _condition(observed, kind, "True", Reason.STARTING, text)
    surge = state.strategy == "Surge"
    reason = Reason.ROLLING_SURGE if surge else Reason.ROLLING_RECREATE
    how = "new replicas start before old ones stop" if surge else "too few GPUs are free: old replicas stop first"
    return _condition(observed, kind, "True", reason, f"{text}; {how}")


def _replacing(observed: Observation) -> bool:
    status = (observed.workload or {}).get("status") or {}
    return int(status.get("replicas") or 0) > int(status.get("updatedReplicas") or 0)


def deadline_exceeded(workload: Body | None) -> str:
    """Return why a rollout missed its deadline, in the words of its controller; "" when it did not."""
    conditions = ((workload or {}).get("status") or {}).get("conditions") or ()
    for condition in conditions:
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return str(condition.get("message") or "the progress deadline has passed")
    return ""


def late_rollout(plan: PlanStatus | None, workload: Body | None) -> str:
    """Return why the rollout of a plan missed its deadline; "" when it did not, or the workload is of another plan."""
    running = ((workload or {}).get("metadata", {}).get("labels") or {}).get(PLAN_LABEL)
    return deadline_exceeded(workload) if plan is not None and running == plan.hash else ""


def _plan_ready(observed: Observation, children: Children) -> Condition:
    planning = observed.planning
    if not planning.good:
        return _condition(observed, ConditionType.PLAN_READY, "False", planning.reason, planning.message)
    if children.reason is not None:
        status = "True" if children.reason is Reason.ADVISORY else "False"
        return _condition(observed, ConditionType.PLAN_READY, status, children.reason, children.message)
    return _condition(observed, ConditionType.PLAN_READY, "True", planning.reason, planning.message)


def _slo_feasible(observed: Observation) -> Condition:
    kind, planning = ConditionType.SLO_FEASIBLE, observed.planning
    if planning.reason is Reason.SHED:
        return _condition(observed, kind, "False", Reason.SHED, planning.message)
    if planning.good:
        return _condition(observed, kind, "True", Reason.FEASIBLE, "the plan's predictions hold spec.slo")
    if planning.reason in _SLO_REASONS:
        return _condition(observed, kind, "False", planning.reason, planning.message)
    return _condition(observed, kind, "Unknown", Reason.NO_PLAN, "there is no plan for the spec as it is")


def _budget(observed: Observation) -> Condition:
    view, planning = observed.budget, observed.planning
    if planning.reason is Reason.BUDGET_EXCEEDED and view.reason in (Reason.WITHIN_BUDGET, Reason.NO_BUDGET):
        # What runs is within the budget; what the spec asks for is not.
        return _condition(observed, ConditionType.WITHIN_ENERGY_BUDGET, "False", Reason.GROWTH_DENIED, planning.message)
    return _condition(observed, ConditionType.WITHIN_ENERGY_BUDGET, view.status, view.reason, view.message)


def _degraded(observed: Observation, state: Rollout) -> Condition:
    kind = ConditionType.DEGRADED
    if observed.refused:
        return _condition(observed, kind, "True", Reason.APPLY_REFUSED, observed.refused)
    late = deadline_exceeded(observed.workload)
    if late and not (state.current and state.ready >= state.wanted):
        return _condition(observed, kind, "True", Reason.PROGRESS_DEADLINE_EXCEEDED, late)
    if observed.planning.no_way_back:
        return _condition(observed, kind, "True", Reason.CANNOT_ROLL_BACK, observed.planning.no_way_back)
    return _condition(observed, kind, "False", Reason.AS_EXPECTED, "")


def _measured(observed: Observation) -> list[Condition]:
    kinds = (ConditionType.ENERGY_METRICS_AVAILABLE, ConditionType.PREDICTION_ACCURATE, ConditionType.SLO_MET)
    spec, found = observed.deployment.spec, observed.measurement
    if spec.validation.source == "None":
        text = "spec.validation.source is None"
        return [_condition(observed, kind, "Unknown", Reason.DISABLED, text) for kind in kinds]
    if found is None or found.reason == "Collecting":
        return _as_before(observed, kinds, found.message if found is not None else "")
    available = "True" if found.reason == "Measured" else "False"
    energy = _condition(observed, kinds[0], available, found.reason, found.message)
    return [energy, _accuracy(observed), _slo_met(observed)]


def _as_before(observed: Observation, kinds: Sequence[ConditionType], message: str) -> list[Condition]:
    """Keep what was last said of the same revision, so that a restart changes nothing; but not for long."""
    status = observed.deployment.status
    state = rollout(observed)
    if not state.ready:
        text = "no replica is ready"
        return [_condition(observed, kind, "Unknown", Reason.NOT_SERVING, text) for kind in kinds]
    same = status.active_revision is not None and status.active_revision.plan_hash == state.running_hash
    old_window = _too_old(observed)
    reason, text = "Collecting", message or "the first window is not complete"
    if old_window:
        text = f"{old_window}; {state.ready} of {state.wanted} replicas are ready"
    # Without a window there may still be a verdict, such as that no metrics are found: it stays while pods serve.
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
        kept.append(
            _condition(observed, kind, before.status, before.reason, before.message)
            if before is not None
            else _condition(observed, kind, "Unknown", reason, text)
        )
    return kept


def _too_old(observed: Observation) -> str:
    """Return why the last window says nothing of now any more; "" where there is none, or it does."""
    measured, validation = observed.deployment.status.measured, observed.deployment.spec.validation
    if measured is None or not measured.window_end:
        return ""
    age = (observed.now - datetime.fromisoformat(measured.window_end)).total_seconds()
    most = max(LEAST_KEPT_SECONDS, validation.warmup_seconds + KEPT_WINDOWS * validation.window_seconds)
    return f"no whole window since {measured.window_end}" if age > most else ""


def _accuracy(observed: Observation) -> Condition:
    kind, found, plan = ConditionType.PREDICTION_ACCURATE, observed.measurement, observed.planning.plan
    error = energy_error_percent(plan, found.joules_per_output_token if found is not None else None)
    if error is None or plan is None or found is None:
        return _condition(observed, kind, "Unknown", Reason.NOT_MEASURED, "no energy per token was measured")
    share = load_share(observed.deployment, plan, found)
    if not is_comparable(share):
        served = "unknown" if share is None else f"{100 * share:.0f} % of the one that the plan was made for"
        text = f"the load was {served}, so that energy per token cannot be compared; it is off by {error:+d} %"
        return _condition(observed, kind, "Unknown", Reason.LOAD_DIFFERS, text)
    tolerance = observed.deployment.spec.validation.tolerance_percent
    text = f"predicted energy per token is off by {error:+d} %; tolerancePercent={tolerance}"
    if abs(error) <= tolerance:
        return _condition(observed, kind, "True", Reason.WITHIN_TOLERANCE, text)
    return _condition(observed, kind, "False", Reason.OUTSIDE_TOLERANCE, text)


def _slo_met(observed: Observation) -> Condition:
    kind = ConditionType.SLO_MET
    answers = objectives(observed.deployment, observed.measurement)
    if not answers:
        return _condition(observed, kind, "True", Reason.NO_OBJECTIVE, "spec.slo asks for nothing")
    broken = [text for text, holds in answers.values() if holds is False]
    if broken:
        return _condition(observed, kind, "False", Reason.VIOLATED, "; ".join(broken))
    missing = [text for text, holds in answers.values() if holds is None]
    if missing:
        return _condition(observed, kind, "Unknown", Reason.NOT_MEASURED, f"{', '.join(missing)} was not measured")
    return _condition(observed, kind, "True", Reason.MET, "; ".join(text for text, _ in answers.values()))
