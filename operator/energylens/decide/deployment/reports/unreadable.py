"""The status of an LLMDeployment whose spec cannot be read: its conditions say so, the rest is unchanged. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from energylens.api.base import Condition
from energylens.api.parse import InvalidResourceError, parse_llmdeployment
from energylens.decide.deployment.reports.condition import keep_transition_times
from energylens.decide.planned import Body
from energylens.decide.reasons import ConditionType, Reason

SMALLEST_SPEC = {"model": {"name": "unknown"}, "workload": {"inputTokens": 1, "outputTokens": 1, "concurrency": 1}}
"""A readable spec, as a placeholder for reading the status."""


def unreadable_status(body: Body, message: str, now: datetime) -> dict[str, Any]:
    """Return the status of an object whose spec cannot be read; ``message`` has the reason."""
    generation = body["metadata"].get("generation", 1)
    try:
        known = parse_llmdeployment({**body, "spec": SMALLEST_SPEC}, strict=False).status.conditions
    except InvalidResourceError:
        known = ()
    others = [_without_failure(c, generation) for c in known if c.type != ConditionType.PLAN_READY]
    found = keep_transition_times((*others, _invalid(message, generation)), known, now)
    conditions = sorted(found, key=lambda c: list(ConditionType).index(ConditionType(c.type)))
    return {
        **body["status"],
        "conditions": [c.model_dump(by_alias=True, exclude_none=True) for c in conditions],
        "observedGeneration": generation,
    }


def _invalid(message: str, generation: int) -> Condition:
    return Condition(
        type=ConditionType.PLAN_READY.value,
        status="False",
        reason=Reason.INVALID_SPEC.value,
        message=message,
        observed_generation=generation,
    )


def _without_failure(condition: Condition, generation: int) -> Condition:
    """Return a condition without the failure of an earlier reconcile: this one succeeded, but read no spec."""
    if condition.reason not in (Reason.INTERNAL_ERROR, Reason.API_SERVER_ERROR):
        return condition
    degraded = condition.type == ConditionType.DEGRADED
    return Condition(
        type=condition.type,
        status="False" if degraded else "Unknown",
        reason=(Reason.AS_EXPECTED if degraded else Reason.INVALID_SPEC).value,
        message="" if degraded else "the spec cannot be read, see condition PlanReady",
        observed_generation=generation,
    )
