"""How long an engine may take to start and to stop."""

from __future__ import annotations

import math

from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.parameters import weight_bytes

SLOW_LOAD_BYTES_PER_SECOND = 0.5e9
"""Weights from a slow network volume or a download. A probe that fails earlier restarts the load endlessly, whereas a
longer one only delays the restart of an engine that would not have started."""
COMPILE_SECONDS = 600
"""Compilation, kernel tuning and graph capture. Current vLLM takes 1 to 4 minutes for a 70B model
(https://github.com/vllm-project/vllm/issues/19824); a cold cache on a busy node takes longer."""
STARTUP_PERIOD_SECONDS = 10
PROGRESS_DEADLINE_SECONDS = 3600
"""Deadline of a rollout whose spec asks for none, s."""

PRE_STOP_SECONDS = 15
"""Time for Services and proxies to stop sending requests to a pod that is being stopped."""
DRAIN_SECONDS = 120
"""Time for running requests to end."""
TEARDOWN_SECONDS = 5
"""Time that the engine needs to stop its workers once no request runs."""


def startup_seconds(model: ModelSpec) -> int:
    """Return the start-up budget of one replica in seconds, a multiple of the probe's period.

    Args:
        model: The checkpoint as it is loaded, before any conversion.
    """
    seconds = weight_bytes(model) / SLOW_LOAD_BYTES_PER_SECOND + COMPILE_SECONDS
    return math.ceil(seconds / STARTUP_PERIOD_SECONDS) * STARTUP_PERIOD_SECONDS


def progress_deadline_seconds(asked: int | None, startup_seconds: int) -> int:
    """Return the maximum time without progress of a rollout: from the spec, else long enough for the model to start."""
    return asked if asked is not None else max(PROGRESS_DEADLINE_SECONDS, startup_seconds + 60)


def drain_seconds(grace_period_seconds: int) -> int:
    """Return the time for running requests after SIGTERM, so that the pod ends within its grace period."""
    return max(0, grace_period_seconds - PRE_STOP_SECONDS - TEARDOWN_SECONDS)


DEFAULT_GRACE_PERIOD_SECONDS = PRE_STOP_SECONDS + DRAIN_SECONDS + TEARDOWN_SECONDS
