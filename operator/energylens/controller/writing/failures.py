"""Shows a failed pass in the status of its object.

Nothing here plans, or reads a spec: what broke the pass must not break the word of it. A status is taken as it stands,
so that what is remembered there, such as the plan, survives.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from energylens.api.timestamp import timestamp
from energylens.clock import Clock
from energylens.cluster.errors import ClusterError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import EVENT
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.state.store import Body, Key, Store
from energylens.controller.writing.events import event
from energylens.controller.writing.status_writer import StatusWriter
from energylens.decide.reasons import BudgetConditionType, BudgetReason, ConditionType, EventReason, Reason
from energylens.described import described, text_of

SHOWN_AFTER = 5
"""Failed requests in a row, some 20 s of them, after which a pass is shown as failed; a defect is shown at once."""
DEPLOYMENT_VERDICTS: Mapping[str, str] = {
    ConditionType.READY: "Unknown",
    ConditionType.PROGRESSING: "Unknown",
    ConditionType.PLAN_READY: "Unknown",
    ConditionType.SLO_FEASIBLE: "Unknown",
    ConditionType.WITHIN_ENERGY_BUDGET: "Unknown",
    ConditionType.DEGRADED: "True",
}
"""The conditions of an LLMDeployment that every pass decides, and their values after a failed pass."""
BUDGET_VERDICTS: Mapping[str, str] = {
    BudgetConditionType.READY: "False",
    BudgetConditionType.WITHIN_ENERGY_BUDGET: "Unknown",
}
"""Like :data:`DEPLOYMENT_VERDICTS`: a budget that is not Ready denies growth and sheds nothing."""
_MESSAGE_LENGTH = 1000

log = logging.getLogger("energylens")


def said(error: Exception) -> str:
    """Return an error as text for a condition: a failed request in the API server's words, a defect with its place."""
    return (text_of(error) or type(error).__name__) if isinstance(error, ClusterError) else described(error)


def failed_status(
    before: Mapping[str, Any], verdicts: Mapping[str, str], generation: int, reason: str, message: str, now: datetime
) -> dict[str, Any]:
    """Return the status after a pass over ``generation`` that failed.

    Conditions that the pass did not decide, such as those of measured windows, stay with their observedGeneration.

    Args:
        before: The status as it stands, whatever is in it.
        verdicts: Status by type of the conditions that a pass decides; the first that is not Unknown says why.
        generation: Of the spec that the pass was about.
        reason: Of each of these conditions.
        message: What failed.
        now: The current time.
    """
    found = before.get("conditions")
    known = {c["type"]: c for c in found if isinstance(c, Mapping) and "type" in c} if isinstance(found, list) else {}
    stamp = timestamp(now)
    (told,) = (kind for kind, status in verdicts.items() if status != "Unknown")
    written = {}
    for kind, status in verdicts.items():
        old = known.get(kind) or {}
        same = old.get("status") == status and isinstance(old.get("lastTransitionTime"), str)
        written[kind] = {
            "type": str(kind),
            "status": status,
            "reason": reason,
            "message": (message if kind == told else _unknown(old, reason, told))[:_MESSAGE_LENGTH],
            "observedGeneration": generation,
            "lastTransitionTime": old["lastTransitionTime"] if same else stamp,
        }
    # Known types come in their order; types that a newer operator may have written follow.
    order = [kind.value for kind in (*ConditionType, *BudgetConditionType)]
    together = {**known, **written}
    kinds = sorted(together, key=lambda kind: order.index(kind) if kind in order else len(order))
    return {
        **before,
        "observedGeneration": generation,
        "conditions": [dict(together[kind]) for kind in kinds],
    }


def _unknown(old: Mapping[str, Any], reason: str, told: str) -> str:
    """Return why a condition is unknown, with its value before the first failure."""
    if old.get("reason") == reason and old.get("status") == "Unknown":
        return str(old.get("message", ""))
    text = f"the last reconcile failed, see condition {told}"
    if not old:
        return text
    return f"{text}; before that it was {old.get('status')}, {old.get('reason')}: {old.get('message', '')}"


class Failures:
    """Writes failures into the status of an LLMDeployment, and one event when they begin."""

    def __init__(self, cluster: ClusterPort, store: Store, clock: Clock, metrics: Metrics, instance: str) -> None:
        """Write through ``cluster`` about the objects of ``store``; ``instance`` names this operator in events."""
        self._cluster = cluster
        self._store = store
        self._statuses = StatusWriter(cluster, store, metrics)
        self._clock = clock
        self._metrics = metrics
        self._instance = instance

    async def show(self, key: Key, error: Exception, in_a_row: int) -> None:
        """Show a pass that ended in ``error``; never raises but when cancelled.

        Args:
            key: The LLMDeployment.
            error: What the pass raised. A failed request may pass, and is shown only when it keeps failing.
            in_a_row: Failures of this LLMDeployment without a good pass in between, this one included.
        """
        if isinstance(error, ClusterError) and in_a_row < SHOWN_AFTER:
            return
        body = self._store.deployments.get(key)
        if body is None or body["metadata"].get("deletionTimestamp"):
            return
        try:
            await self._show(body, error)
        except ClusterError as unwritten:
            log.warning("%s/%s: its status cannot be written to report the failure: %s", *key, unwritten)
        except Exception:
            log.exception("%s/%s: its status cannot be written to report the failure", *key)

    async def _show(self, body: Body, error: Exception) -> None:
        metadata, before = body["metadata"], body["status"]
        refused = isinstance(error, ClusterError)
        reason, text = (Reason.API_SERVER_ERROR if refused else Reason.INTERNAL_ERROR), said(error)
        message = f"{text if refused else f'internal error: {text}'}; retrying"
        generation = int(metadata.get("generation", 1))
        status = failed_status(before, DEPLOYMENT_VERDICTS, generation, reason.value, message, self._clock.now())
        if status == before:
            return
        await self._statuses.write(body, status)
        if _said(before) != _said(status):
            self._metrics.writes.labels("Event").inc()
            note = f"{reason.value}: {text}"
            warning = event(body, EventReason.RECONCILE_FAILED, note, self._clock.now(), self._instance)
            await self._cluster.create(EVENT, warning)


def failed_budget_status(body: Body, error: Exception, now: datetime) -> dict[str, Any]:
    """Return the status of a budget after a look at it that ended in ``error``; what was counted and taken stays."""
    refused = isinstance(error, ClusterError)
    reason = BudgetReason.API_SERVER_ERROR if refused else BudgetReason.INTERNAL_ERROR
    message = said(error) if refused else f"internal error: {said(error)}"
    generation = int(body["metadata"].get("generation", 1))
    return failed_status(body["status"], BUDGET_VERDICTS, generation, reason.value, message, now)


def _said(status: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the parts of a failure that identify its event: its reason, and the generation at which it began."""
    conditions = status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if isinstance(condition, Mapping) and condition.get("type") == ConditionType.DEGRADED:
            return condition.get("status"), condition.get("reason"), condition.get("observedGeneration")
    return ()
