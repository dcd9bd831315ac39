"""One condition, and how conditions keep their transition times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from energylens.api.base import Condition
from energylens.api.timestamp import timestamp
from energylens.decide.deployment.observed.observation import Observation
from energylens.decide.reasons import ConditionType

_MESSAGE_LENGTH = 1000


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


def condition(observed: Observation, kind: ConditionType, status: str, reason: str, message: str) -> Condition:
    """Return a condition of this generation, its message shortened to what fits."""
    return Condition(
        type=kind.value,
        status=status,
        reason=str(reason),
        message=message[:_MESSAGE_LENGTH],
        observed_generation=observed.deployment.metadata.generation,
    )
