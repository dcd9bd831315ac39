"""Rules over a whole spec about separate prefill and decode: what a followed plan needs, and what excludes it."""

from __future__ import annotations

from typing import Any

from energylens.api.base import Rule
from energylens.api.llmdeployment.exclusive import Use, exclusive

FOLLOWED = "self.planning.disaggregation == 'Follow'"
"""CEL that is true where plans with separate prefill and decode may be adopted."""


def is_followed(spec: Any) -> bool:
    """Return whether plans with separate prefill and decode may be adopted."""
    return bool(spec.planning.disaggregation == "Follow")


def _needs_a_router(spec: Any) -> str | None:
    if not is_followed(spec) or spec.routing.disaggregation is not None:
        return None
    return (
        "planning.disaggregation Follow needs routing.disaggregation, the router that sends each request to a prefill "
        "and a decode replica; name the router, or set disaggregation to Compare"
    )


FOLLOW_NEEDS_A_ROUTER = Rule(
    summary="planning.disaggregation Follow needs routing.disaggregation",
    cel=f"{FOLLOWED} ? has(self.routing.disaggregation) : true",
    message_cel="'planning.disaggregation Follow needs routing.disaggregation, the router that sends each request to a "
    "prefill and a decode replica; name the router, or set disaggregation to Compare'",
    check=_needs_a_router,
)


def _needs_a_pool(spec: Any) -> str | None:
    if spec.routing.disaggregation is None or spec.routing.inference_pool is not None:
        return None
    return (
        "routing.disaggregation with router LLMD needs routing.inferencePool, whose endpoint picker chooses the two "
        "replicas of a request; set inferencePool or leave disaggregation out"
    )


ROUTER_NEEDS_A_POOL = Rule(
    summary="routing.disaggregation with router LLMD needs routing.inferencePool",
    cel="!has(self.routing.disaggregation) || has(self.routing.inferencePool)",
    message_cel="'routing.disaggregation with router LLMD needs routing.inferencePool, whose endpoint picker chooses "
    "the two replicas of a request; set inferencePool or leave disaggregation out'",
    check=_needs_a_pool,
)


_NOT_WITH_ROLES: tuple[Use, ...] = (
    ("rollout.verify Measured", "self.rollout.verify == 'Measured'", lambda s: s.rollout.verify == "Measured"),
    (
        "rollout.rollbackOn",
        "has(self.rollout.rollbackOn) && size(self.rollout.rollbackOn) > 0",
        lambda s: bool(s.rollout.rollback_on),
    ),
    (
        "validation.onDrift Recalibrate",
        "self.validation.onDrift == 'Recalibrate'",
        lambda s: s.validation.on_drift == "Recalibrate",
    ),
    (
        "validation.onDrift Rollback",
        "self.validation.onDrift == 'Rollback'",
        lambda s: s.validation.on_drift == "Rollback",
    ),
    (
        "scaling.mode Fixed",
        "has(self.scaling) && self.scaling.mode == 'Fixed'",
        lambda s: s.scaling is not None and s.scaling.mode == "Fixed",
    ),
)
"""Fields that judge or fix the replicas of one layout."""

FOLLOW_ALONE = exclusive(
    "planning.disaggregation Follow",
    f"!({FOLLOWED})",
    is_followed,
    _NOT_WITH_ROLES,
    "verify Measured, rollbackOn, onDrift Recalibrate, onDrift Rollback or scaling.mode Fixed",
)

DISAGGREGATION_RULES = (FOLLOW_NEEDS_A_ROUTER, ROUTER_NEEDS_A_POOL, FOLLOW_ALONE)
"""In the order in which they are checked."""
