"""The lengths of requests to plan for with ``spec.planning.followLengths: Auto``. Pure.

The mean tokens of prompts and outputs are followed in the same steps as the request rate. The means come from the
engines' counters over the requests that ended in a window; a histogram would only add the error of its buckets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from energylens.api.llmdeployment import FollowedLength, LLMDeployment, WorkloadSpec
from energylens.api.llmdeployment.shapes import RequestShape
from energylens.api.timestamp import moment_of, timestamp
from energylens.decide.deployment.loads.load import Followed, FollowedLoad, MeasuredLoad, follow
from energylens.decide.learned.comparison import FEWEST_REQUESTS
from energylens.measure.types import WindowMeasurement
from energylens.records import dataclass


@dataclass(frozen=True)
class FollowedLengths:
    """The mean lengths to plan for, tokens."""

    prompts: Followed
    outputs: Followed


def known_lengths(deployment: LLMDeployment, counted: datetime | None) -> FollowedLengths:
    """Return the last lengths to plan for; initially the lengths of the spec.

    ``counted`` is the end of the last evaluated window.
    """
    load, workload = deployment.status.load, deployment.spec.workload
    return FollowedLengths(
        _known(None if load is None else load.input_tokens, workload.mean_input_tokens, counted),
        _known(None if load is None else load.output_tokens, workload.mean_output_tokens, counted),
    )


def follow_lengths(
    before: FollowedLengths, window: WindowMeasurement, measured: MeasuredLoad, hold: timedelta
) -> FollowedLengths:
    """Return the lengths to plan for after a window; a window of fewer than `FEWEST_REQUESTS` changes nothing.

    Args:
        before: The lengths before the window.
        window: The figures of the window.
        measured: The same window as a load.
        hold: Time for which a mean must stay lower before the length is lowered.
    """
    requests = window.requests
    if requests is None or requests < FEWEST_REQUESTS:
        return before

    def after(length: Followed, tokens: float | None) -> Followed:
        # Without tokens nothing was measured: the engine lacks the counter, or no prefill ended.
        return (
            follow(length, replace(measured, value=tokens / requests, is_saturated=False), hold) if tokens else length
        )

    return FollowedLengths(after(before.prompts, window.prompt_tokens), after(before.outputs, window.output_tokens))


def changed_lengths(workload: WorkloadSpec, load: FollowedLoad) -> dict[str, Any]:
    """Return the fields of a workload that the followed lengths change; empty if no length differs from the spec.

    A step may exceed the longest request that the engine accepts, although the measured mean does not.
    """
    factors = {
        name: length.value / length.declared
        for name, length in (("input_tokens", load.prompts), ("output_tokens", load.outputs))
        if length is not None and length.step
    }
    if not factors:
        return {}
    if not workload.classes:
        return _scaled(workload, factors, load.longest)
    parts = (part.model_copy(update=_scaled(part, factors, load.longest)) for part in workload.classes)
    return {"classes": tuple(parts)}


def _scaled(part: WorkloadSpec | RequestShape, factors: Mapping[str, float], longest: int | None) -> dict[str, Any]:
    """Return the lengths of requests times factors, limited so that their sum keeps to the longest request."""
    declared = {"input_tokens": part.input_tokens or 0, "output_tokens": part.output_tokens or 0}
    found = {name: _tokens(tokens * factors.get(name, 1.0)) for name, tokens in declared.items()}
    for name, other in (("input_tokens", "output_tokens"), ("output_tokens", "input_tokens")):
        if longest is not None:
            found[name] = min(found[name], max(declared[name], longest - found[other]))
    return {name: found[name] for name in factors}


def length_status(length: Followed | None) -> FollowedLength | None:
    """Return a followed length for the status."""
    if length is None:
        return None
    below = length.below_since
    return FollowedLength(
        tokens=_tokens(length.value),
        declared_tokens=_tokens(length.declared),
        steps=length.step,
        change_time=None if length.changed is None else timestamp(length.changed),
        below_since=None if below is None else timestamp(below),
        highest_below_tokens=None if below is None else math.ceil(length.highest_below),
    )


def _known(status: FollowedLength | None, declared: float, counted: datetime | None) -> Followed:
    if status is None or status.declared_tokens != _tokens(declared):
        return Followed(declared, counted=counted)
    return Followed(
        declared,
        status.steps,
        moment_of(status.change_time),
        moment_of(status.below_since),
        float(status.highest_below_tokens or 0),
        counted,
    )


def _tokens(value: float) -> int:
    return max(1, round(value))
