"""The status of an object whose spec cannot be read: the reason in PlanReady, and nothing else changed."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide.observations import NOW, plan

from energylens.decide.deployment.reports.unreadable import unreadable_status
from energylens.decide.reasons import Reason

BEFORE = "2026-02-01T00:00:00Z"
MESSAGE = "spec.workload.inputTokens: 0 must be at least 1"


def stated(kind: str, status: str = "True", reason: str = "Planned", message: str = "m") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 3,
        "lastTransitionTime": BEFORE,
    }


def unreadable(*conditions: dict[str, Any], generation: int | None = 4, **status: Any) -> dict[str, Any]:
    metadata = {"name": "llama", "namespace": "team", "generation": generation}
    if generation is None:
        del metadata["generation"]
    body = {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": metadata,
        "spec": {"workload": {"inputTokens": 0}},
        "status": {**status, "conditions": list(conditions)},
    }
    return unreadable_status(body, MESSAGE, NOW)


NOT_READY = {
    "type": "PlanReady",
    "status": "False",
    "reason": "InvalidSpec",
    "message": MESSAGE,
    "observedGeneration": 4,
    "lastTransitionTime": "2026-03-01T12:00:00Z",
}


def test_the_reason_is_in_plan_ready_and_the_rest_stays() -> None:
    served = plan().model_dump(mode="json", by_alias=True, exclude_none=True)
    ready, slo = stated("Ready", reason="AllReplicasReady"), stated("SLOMet", reason="Met")
    del slo["observedGeneration"]
    found = unreadable(slo, stated("PlanReady"), ready, plan=served, observedGeneration=3)
    assert found == {"plan": served, "observedGeneration": 4, "conditions": [ready, NOT_READY, slo]}


def test_a_new_object_has_this_condition_alone() -> None:
    assert unreadable(generation=None) == {
        "observedGeneration": 1,
        "conditions": [{**NOT_READY, "observedGeneration": 1}],
    }


def test_the_time_of_transition_is_kept_while_the_spec_stays_unreadable() -> None:
    earlier = {**NOT_READY, "lastTransitionTime": BEFORE, "message": "another"}
    assert unreadable(earlier)["conditions"] == [{**NOT_READY, "lastTransitionTime": BEFORE}]


@pytest.mark.parametrize("reason", [Reason.INTERNAL_ERROR, Reason.API_SERVER_ERROR])
def test_the_failure_of_an_earlier_reconcile_is_over(reason: Reason) -> None:
    found = unreadable(stated("Degraded", reason=reason), stated("Ready", "Unknown", reason), stated("SLOMet"))
    ready, _, slo, degraded = found["conditions"]
    assert ready == {
        "type": "Ready",
        "status": "Unknown",
        "reason": "InvalidSpec",
        "message": "the spec cannot be read, see condition PlanReady",
        "observedGeneration": 4,
        "lastTransitionTime": BEFORE,
    }
    assert degraded == {
        "type": "Degraded",
        "status": "False",
        "reason": "AsExpected",
        "message": "",
        "observedGeneration": 4,
        "lastTransitionTime": "2026-03-01T12:00:00Z",
    }
    assert slo == stated("SLOMet")


def test_a_status_that_cannot_be_read_either_loses_its_conditions_only() -> None:
    found = unreadable({"type": "Ready"}, phase="Serving")
    assert found == {"phase": "Serving", "observedGeneration": 4, "conditions": [NOT_READY]}
