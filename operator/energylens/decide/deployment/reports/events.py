"""Events that users see in `kubectl describe llmd`: one per transition, never one per reconcile. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from energylens.api.base import Condition
from energylens.api.llmdeployment import LoadStatus, describe_plan
from energylens.api.quantity import decimal_text
from energylens.decide.deployment.observed.observation import Observation
from energylens.decide.deployment.pods.children import Children
from energylens.decide.deployment.pods.job_start import waits_until
from energylens.decide.reasons import ConditionType, EventReason, Reason


def transitions(observed: Observation, children: Children, status: Mapping[str, Any]) -> list[tuple[EventReason, str]]:
    """Return the events for the transitions of this reconcile."""
    before = {c.type: c for c in observed.deployment.status.conditions}
    after = {c["type"]: c for c in status["conditions"]}
    found: list[tuple[EventReason, str]] = []
    planning = observed.planning
    old_load, load = observed.deployment.status.load, status.get("load")
    if old_load is not None and load is not None and (changes := list(_followed(old_load, load))):
        found.append((EventReason.LOAD_FOLLOWED, f"plans are made for {' and '.join(changes)}"))
    if planning.scaled and children.acting:
        found.append((EventReason.REPLICAS_SCALED, planning.scaled))
    found += _start(observed)
    if planning.began:
        found.append((EventReason.VERIFICATION_STARTED, planning.message))
    if planning.gave_up is not None:
        found.append((EventReason.PLAN_GIVEN_UP, f"{planning.gave_up.reason}: {planning.message}"))
    if planning.rollback is not None:
        found.append((EventReason.PLAN_ROLLED_BACK, f"{planning.rollback.reason}: {planning.message}"))
    elif observed.takes_over and planning.plan is not None and not _is_first(observed):
        why = f"{planning.decision}: {planning.weighed}" if planning.weighed else describe_plan(planning.plan)
        approved = (
            "" if observed.deployment.spec.planning.mode != "Manual" else f"plan {planning.plan.hash} is approved; "
        )
        found.append((EventReason.PLAN_ADOPTED, f"{approved}{why}"))
    elif planning.plan is not None and _is_new(observed, children, before.get(ConditionType.PLAN_READY)):
        proposed = EventReason.PLAN_PENDING if children.reason is Reason.AWAITING_APPROVAL else EventReason.PLAN_SHOWN
        found.append((proposed, f"{describe_plan(planning.plan)}; {children.message}"))
    plan_ready = after[ConditionType.PLAN_READY]
    old_plan = before.get(ConditionType.PLAN_READY)
    rejected = not planning.good and planning.reason is not Reason.AWAITING_BUDGET
    if rejected and (old_plan is None or old_plan.reason != plan_ready["reason"]):
        found.append((EventReason.PLAN_REJECTED, f"{plan_ready['reason']}: {plan_ready.get('message', '')}"))
    if children.strategy is not None and observed.deployment.status.active_revision is not None:
        text = children.strategy.message or children.strategy.name
        found.append((EventReason.ROLLOUT_STARTED, f"{children.strategy.name}: {text}"))
    ready, old_ready = after[ConditionType.READY], before.get(ConditionType.READY)
    if ready["status"] == "True" and (old_ready is None or old_ready.status != "True"):
        found.append((EventReason.BECAME_READY, ready.get("message", "")))
    degraded, old_degraded = after[ConditionType.DEGRADED], before.get(ConditionType.DEGRADED)
    fights = degraded["reason"] == Reason.FIELD_MANAGER_CONFLICT
    if fights and (old_degraded is None or old_degraded.reason != degraded["reason"]):
        found.append((EventReason.FIELD_MANAGER_CONFLICT, degraded.get("message", "")))
    # An autoscaler that stops the last replica is reported by ReplicasScaled.
    stopped = ready["reason"] == Reason.SCALED_TO_ZERO
    if ready["status"] == "False" and old_ready is not None and old_ready.status == "True" and not stopped:
        found.append((EventReason.BECAME_UNREADY, f"{ready['reason']}: {ready.get('message', '')}"))
    found += _budget(observed, before, after)
    return found


def _followed(before: LoadStatus, after: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parts of the followed load that changed, each with both numbers."""
    if after["requestsPerSecond"] != before.requests_per_second:
        rates = decimal_text(after["requestsPerSecond"]), decimal_text(before.requests_per_second)
        yield f"{rates[0]} requests per second instead of {rates[1]}"
    for what, key, old in (
        ("prompts", "inputTokens", before.input_tokens),
        ("outputs", "outputTokens", before.output_tokens),
    ):
        new = after.get(key)
        if new is None:
            continue
        tokens = new["declaredTokens"] if old is None else old.tokens
        if new["tokens"] != tokens:
            yield f"{what} of {new['tokens']} tokens instead of {tokens}"


def _start(observed: Observation) -> list[tuple[EventReason, str]]:
    """Return that the start of a job was planned for later, or moved."""
    start, before = observed.job_start, observed.deployment.status.job_start
    if start is None or waits_until(start, observed.now) is None:
        return []
    old = None if before is None or before.state != "Waiting" else before.start_time
    if old == start.start_time:
        return []
    return [(EventReason.START_PLANNED, start.message + ("" if old is None else f"; until now it was {old}"))]


def _is_first(observed: Observation) -> bool:
    """Return whether the plan is a first plan of mode Auto: BecameReady follows, and one event is enough."""
    return observed.planning.decision == "FirstPlan" and observed.deployment.spec.planning.mode == "Auto"


def _is_new(observed: Observation, children: Children, before: Condition | None) -> bool:
    """Return whether another plan is proposed than before."""
    if children.reason not in (Reason.AWAITING_APPROVAL, Reason.ADVISORY) or observed.planning.plan is None:
        return False
    old = observed.deployment.status.plan
    return before is None or before.reason != children.reason or old is None or old.hash != observed.planning.plan.hash


def _budget(
    observed: Observation, before: Mapping[str, Condition], after: Mapping[str, Mapping[str, Any]]
) -> list[tuple[EventReason, str]]:
    """Return the event that the deployment's own budget is exceeded, or holds again.

    A shared budget has no event per member: the condition of the budget reports the change once.
    """
    if observed.deployment.spec.energy.budget is None:
        return []
    old, new = before.get(ConditionType.WITHIN_ENERGY_BUDGET), after[ConditionType.WITHIN_ENERGY_BUDGET]
    was = old is not None and old.reason == Reason.OVER_BUDGET
    if new["reason"] == Reason.OVER_BUDGET:
        return [] if was else [(EventReason.BUDGET_EXCEEDED, new.get("message", ""))]
    return [(EventReason.BUDGET_HOLDS, new.get("message", ""))] if was and new["status"] == "True" else []
