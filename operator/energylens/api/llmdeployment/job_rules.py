"""The rule over a whole spec about its batch job: what cannot stand beside one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from energylens.api.base import Rule
from energylens.api.llmdeployment.scaling_rules import FOLLOWS_ONE_LOAD

_Use = tuple[str, str, Callable[[Any], bool]]
_NOT_WITH_JOB: tuple[_Use, ...] = (
    # The first two need a rate anyway.
    *FOLLOWS_ONE_LOAD[2:],
    ("slo.ttftMilliseconds", "has(self.slo.ttftMilliseconds)", lambda s: s.slo.ttft_milliseconds is not None),
    (
        "slo.endToEndMilliseconds",
        "has(self.slo.endToEndMilliseconds)",
        lambda s: s.slo.end_to_end_milliseconds is not None,
    ),
)
"""Fields that judge or follow one load, and latencies of requests that wait for their turn."""


def _job_alone(spec: Any) -> str | None:
    used = next((name for name, _, is_used in _NOT_WITH_JOB if is_used(spec)), None)
    if spec.workload.job is None or used is None:
        return None
    return f"{used} cannot be combined with workload.job; leave one of the two out"


JOB_ALONE = Rule(
    summary="workload.job cannot be combined with verify Measured, rollbackOn, onDrift Rollback, slo.ttftMilliseconds "
    "or slo.endToEndMilliseconds",
    cel="!has(self.workload.job) || !(" + " || ".join(f"({cel})" for _, cel, _ in _NOT_WITH_JOB) + ")",
    message_cel="("
    + " : ".join(f"({cel}) ? '{name}'" for name, cel, _ in _NOT_WITH_JOB)
    + " : '') + ' cannot be combined with workload.job; leave one of the two out'",
    check=_job_alone,
)
