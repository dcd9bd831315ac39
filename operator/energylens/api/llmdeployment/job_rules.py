"""The rule over a whole spec about its batch job: what cannot stand beside one."""

from __future__ import annotations

from energylens.api.llmdeployment.exclusive import Use, exclusive
from energylens.api.llmdeployment.scaling_rules import EXTERNAL_MODE, FOLLOWS_ONE_LOAD

_NOT_WITH_JOB: tuple[Use, ...] = (
    # The first two need a rate anyway.
    *FOLLOWS_ONE_LOAD[2:],
    EXTERNAL_MODE,
    ("slo.ttftMilliseconds", "has(self.slo.ttftMilliseconds)", lambda s: s.slo.ttft_milliseconds is not None),
    (
        "slo.endToEndMilliseconds",
        "has(self.slo.endToEndMilliseconds)",
        lambda s: s.slo.end_to_end_milliseconds is not None,
    ),
)
"""Fields that judge or follow one load, replicas that others set, and latencies of requests that wait in line."""


JOB_ALONE = exclusive(
    "workload.job",
    "!has(self.workload.job)",
    lambda spec: spec.workload.job is not None,
    _NOT_WITH_JOB,
    "verify Measured, rollbackOn, onDrift Rollback, scaling.mode External, slo.ttftMilliseconds or "
    "slo.endToEndMilliseconds",
)
