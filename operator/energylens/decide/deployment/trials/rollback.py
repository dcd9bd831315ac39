"""Rollback to the last plan with good measurements. Pure; the state is ``status.rollback``.

Rollbacks cannot alternate: a new plan is judged by several consecutive windows, is rejected at most once per spec, and
is not adopted again for that spec, whatever its prediction.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime

from energylens.api.llmdeployment import (
    LastGoodPlan,
    LLMDeployment,
    LLMDeploymentSpec,
    PlanStatus,
    PlanTrial,
    RejectedPlan,
    RollbackReason,
    RollbackStatus,
)
from energylens.api.quantity import format_milli
from energylens.api.timestamp import timestamp
from energylens.decide.learned.comparison import LEAST_LOAD, MOST_LOAD, broken_objectives, joules
from energylens.measure.types import WindowMeasurement
from energylens.planner.search.identity import action_hash, planning_inputs
from energylens.records import dataclass

WINDOWS = 2
"""Number of consecutive windows that decide, because a single one may contain a burst or the end of a warm-up."""
MORE_ENERGY = 1.05
"""Ratio above which a new plan counts as costing more energy: two windows of one plan differ by a few percent."""
NEWEST_SHARE = 0.3
"""Weight of the newest window in the mean of the last good plan."""
MOST_REJECTED = 10


@dataclass(frozen=True)
class Return:
    """A due rollback."""

    plan: PlanStatus
    """The last good plan."""
    reason: RollbackReason
    message: str


def triggers(spec: LLMDeploymentSpec) -> frozenset[RollbackReason]:
    """Return the causes that roll a plan back; none if a person approves plans, or plans are only shown."""
    if spec.planning.mode != "Auto":
        return frozenset()
    drift: frozenset[RollbackReason] = frozenset({"SLOViolation", "HigherEnergy"})
    asked: frozenset[RollbackReason] = frozenset(spec.rollout.rollback_on)
    return asked | drift if spec.validation.on_drift == "Rollback" else asked


def inputs_of(spec: LLMDeploymentSpec) -> str:
    """Return a hash of the planning fields of a spec."""
    text = json.dumps(planning_inputs(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def rejected_for(deployment: LLMDeployment) -> tuple[RejectedPlan, ...]:
    """Return the plans that were rolled back for the current spec."""
    before, asked = deployment.status.rollback, inputs_of(deployment.spec)
    if before is None or not triggers(deployment.spec):
        return ()
    return tuple(plan for plan in before.rejected_plans if plan.inputs == asked)


def due(deployment: LLMDeployment, late: str) -> Return | None:
    """Return the due rollback; None if there is none.

    Args:
        deployment: The LLMDeployment, with its last status.
        late: Why the rollout of the followed plan missed its deadline; "" if it did not.
    """
    status, asked = deployment.status, triggers(deployment.spec)
    before, plan = status.rollback, status.plan
    if before is None or plan is None or before.last_good_plan is None or _same(before.last_good_plan.plan, plan):
        return None
    good, trial = before.last_good_plan.plan, before.trial
    if "ProgressDeadline" in asked and late:
        return Return(good, "ProgressDeadline", late)
    if trial is None or trial.plan_hash != plan.hash or trial.bad_windows < WINDOWS or trial.reason not in asked:
        return None
    return Return(good, trial.reason, trial.message or trial.reason)


def after_return(deployment: LLMDeployment, back: Return, now: datetime) -> RollbackStatus:
    """Return the state after the return to the last good plan: the abandoned plan is not tried again."""
    before, left = deployment.status.rollback or RollbackStatus(), deployment.status.plan
    if left is None:
        return before
    shape = left.model_dump(include=set(RejectedPlan.model_fields) - {"inputs", "reason", "message", "time"})
    rejected = RejectedPlan(
        **shape,
        inputs=inputs_of(deployment.spec),
        reason=back.reason,
        message=back.message,
        time=timestamp(now),
    )
    plans = (*before.rejected_plans, rejected)[-MOST_REJECTED:]
    return before.model_copy(update={"trial": None, "rejected_plans": plans})


def after_window(deployment: LLMDeployment, plan: PlanStatus, found: WindowMeasurement) -> RollbackStatus | None:
    """Return the state after another window of the pods of ``plan``; None if the spec asks for no rollback."""
    asked = triggers(deployment.spec)
    if not asked:
        return None
    before = deployment.status.rollback or RollbackStatus()
    if found.reason != "Measured" or found.joules_per_output_token is None:
        return before
    good = before.last_good_plan
    broken = broken_objectives(deployment, found)
    if good is None or _same(good.plan, plan):
        # A plan of the same pods may have new figures.
        return (
            before if broken else before.model_copy(update={"last_good_plan": _good(plan, found, good), "trial": None})
        )
    reason, message = _worse(good, found, broken)
    old = before.trial if before.trial is not None and before.trial.plan_hash == plan.hash else None
    if reason is None and message:
        # The load differs, so the window decides nothing.
        return before
    if reason in asked:
        bad = old.bad_windows + 1 if old is not None else 1
        trial = PlanTrial(plan_hash=plan.hash, bad_windows=bad, reason=reason, message=message)
        return before.model_copy(update={"trial": trial})
    if reason is not None:
        return before
    windows = old.good_windows + 1 if old is not None else 1
    if windows >= WINDOWS:
        return before.model_copy(update={"last_good_plan": _good(plan, found, None), "trial": None})
    return before.model_copy(update={"trial": PlanTrial(plan_hash=plan.hash, good_windows=windows)})


def _same(a: PlanStatus, b: PlanStatus) -> bool:
    """Return whether two plans differ at most in the engine's settings, which no rollback restores."""
    first, second = (action_hash(plan.model_copy(update={"serving_hash": ""})) for plan in (a, b))
    return first == second


def _worse(good: LastGoodPlan, found: WindowMeasurement, broken: list[str]) -> tuple[RollbackReason | None, str]:
    """Return the reason why a window is worse than the last good plan, with figures; (None, "") if it is not.

    (None, text) if the loads differ too much for a comparison.
    """
    tokens, before = found.output_tokens_per_second or 0.0, float(good.output_tokens_per_second)
    now, then = found.joules_per_output_token or 0.0, joules(good.joules_per_output_token)
    if tokens > MOST_LOAD * before:
        return None, f"{tokens:.0f} tokens/s, the previous plan served {before:.0f}"
    if broken:
        return "SLOViolation", f"{'; '.join(broken)}; the previous plan met spec.slo at {before:.0f} tokens/s"
    if tokens < LEAST_LOAD * before:
        return None, f"{tokens:.0f} tokens/s, the previous plan served {before:.0f}"
    if now > MORE_ENERGY * then:
        return "HigherEnergy", f"{now:.3g} J per output token measured, the previous plan {then:.3g} J"
    return None, ""


def _good(plan: PlanStatus, found: WindowMeasurement, known: LastGoodPlan | None) -> LastGoodPlan:
    now, tokens = found.joules_per_output_token or 0.0, found.output_tokens_per_second or 0.0
    if known is not None:
        now = NEWEST_SHARE * now + (1 - NEWEST_SHARE) * joules(known.joules_per_output_token)
        tokens = NEWEST_SHARE * tokens + (1 - NEWEST_SHARE) * known.output_tokens_per_second
    return LastGoodPlan(
        plan=plan.model_copy(update={"alternatives": (), "fewer_replicas": ()}),
        joules_per_output_token=format_milli(now),
        output_tokens_per_second=round(tokens),
    )
