"""Events about LLMDeployments as Kubernetes has them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from energylens.api.timestamp import micro_timestamp
from energylens.cluster.resources import EVENT, LLM_DEPLOYMENT
from energylens.decide.reasons import EventReason

CONTROLLER = "energylens.dev/operator"
_NOTE_LENGTH = 1000
_WARNINGS = (
    EventReason.PLAN_REJECTED,
    EventReason.PLAN_ROLLED_BACK,
    EventReason.PLAN_GIVEN_UP,
    EventReason.BECAME_UNREADY,
    EventReason.BUDGET_EXCEEDED,
    EventReason.RECONCILE_FAILED,
    EventReason.STATUS_RESTORED,
    EventReason.FIELD_MANAGER_CONFLICT,
)


def event(
    deployment: Mapping[str, Any], reason: EventReason, note: str, now: datetime, instance: str
) -> dict[str, Any]:
    """Return an Event about an LLMDeployment."""
    metadata = deployment["metadata"]
    warning = reason in _WARNINGS
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
        "eventTime": micro_timestamp(now),
        "type": "Warning" if warning else "Normal",
        "reason": reason.value,
        "action": "Reconcile",
        "note": (note or reason.value)[:_NOTE_LENGTH],
        "reportingController": CONTROLLER,
        "reportingInstance": instance,
        "regarding": {
            "apiVersion": LLM_DEPLOYMENT.api_version,
            "kind": LLM_DEPLOYMENT.kind,
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
        },
    }
