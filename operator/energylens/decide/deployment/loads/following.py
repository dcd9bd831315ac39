"""The load to plan for with ``spec.planning.followLoad: Auto``. Pure."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from energylens.api.llmdeployment import LLMDeployment, LoadStatus
from energylens.api.quantity import format_milli, parse_quantity
from energylens.api.timestamp import moment_of, timestamp
from energylens.decide.deployment.loads.lengths import changed_lengths, follow_lengths, known_lengths, length_status
from energylens.decide.deployment.loads.load import LOWEST_STEP, STEP, FollowedLoad, MeasuredLoad, follow
from energylens.measure.types import WindowMeasurement
from energylens.planner.types import Infeasible, PlanningResult


def followed_load(deployment: LLMDeployment, window: WindowMeasurement | None) -> FollowedLoad | None:
    """Return the load to plan for after the last window; None if the load of the spec is used."""
    spec = deployment.spec
    declared = spec.workload.requests_per_second
    if spec.planning.follow_load == "Never" or declared is None:
        return None
    before = _known(deployment.status.load, float(parse_quantity(declared)))
    measured = measured_load(window)
    hold = timedelta(seconds=spec.planning.replan.cooldown_seconds)
    found = before if measured is None else follow(before, measured, hold)
    if spec.planning.follow_lengths == "Never":
        return found
    lengths = known_lengths(deployment, before.counted)
    if window is not None and measured is not None:
        lengths = follow_lengths(lengths, window, measured, hold)
    return replace(found, prompts=lengths.prompts, outputs=lengths.outputs)


def at_load(deployment: LLMDeployment, load: FollowedLoad | None) -> LLMDeployment:
    """Return the deployment with the load to plan for as its declared load."""
    if load is None:
        return deployment
    changes = changed_lengths(deployment.spec.workload, load)
    if load.step:
        changes["requests_per_second"] = format_milli(load.requests_per_second)
    if not changes:
        return deployment
    workload = deployment.spec.workload.model_copy(update=changes)
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"workload": workload})})


def most_carried(load: FollowedLoad | None, answer: PlanningResult) -> FollowedLoad | None:
    """Return the highest step of the rate that any plan sustains, if no plan sustains the followed load.

    None if that rate is below the declared rate and requests are not longer than declared: then the spec itself has no
    plan. With longer requests, the plan that sustains most of them is better than the plan for the declared ones.
    """
    lowest = LOWEST_STEP if load is not None and load.is_longer else 0
    if load is None or load.step <= lowest or not isinstance(answer, Infeasible):
        return None
    for relaxation in answer.relaxations:
        if relaxation.field == "spec.workload.requestsPerSecond" and relaxation.also is None:
            step = math.floor(math.log(float(parse_quantity(relaxation.allowed)) / load.declared, STEP) + 1e-9)
            return replace(load, step=step) if lowest <= step < load.step else None
    return None


def shortfall_text(load: FollowedLoad | None) -> str:
    """Return that plans are made for less than the declared rate because requests are longer; "" if they are not."""
    if load is None or not load.is_longer or load.step >= 0:
        return ""
    lengths = ", ".join(
        f"{name} of {length.value:.0f} tokens (declared: {length.declared:.0f})"
        for name, length in (("prompts", load.prompts), ("outputs", load.outputs))
        if length is not None and length.step
    )
    rates = f"{load.requests_per_second:g} of the declared {load.declared:g} requests per second"
    return f"planned for {rates}, with {lengths}"


def carried_load(load: FollowedLoad | None, step: int | None) -> FollowedLoad | None:
    """Return the followed load at the step for which the plan was made; a step of None changes nothing."""
    return load if load is None or step is None else replace(load, step=step)


def load_status(load: FollowedLoad | None) -> LoadStatus | None:
    """Return the followed load for the status."""
    if load is None:
        return None
    return LoadStatus(
        requests_per_second=format_milli(load.requests_per_second),
        declared_requests_per_second=format_milli(load.declared),
        change_time=_time(load.changed),
        window_end=_time(load.counted),
        below_since=_time(load.below_since),
        highest_below_requests_per_second=None if load.below_since is None else format_milli(load.highest_below),
        input_tokens=length_status(load.prompts),
        output_tokens=length_status(load.outputs),
    )


def _known(status: LoadStatus | None, declared: float) -> FollowedLoad:
    if status is None or not math.isclose(float(parse_quantity(status.declared_requests_per_second)), declared):
        return FollowedLoad(declared)
    rate = float(parse_quantity(status.requests_per_second))
    return FollowedLoad(
        declared,
        round(math.log(rate / declared, STEP)),
        moment_of(status.change_time),
        moment_of(status.below_since),
        float(parse_quantity(status.highest_below_requests_per_second or "0")),
        moment_of(status.window_end),
    )


def measured_load(window: WindowMeasurement | None) -> MeasuredLoad | None:
    """Return the load of a window; None if the window has no rate."""
    if window is None or window.requests_per_second is None or window.window_start is None or window.window_end is None:
        return None
    running, waiting = window.mean_running, window.mean_waiting
    return MeasuredLoad(
        # Whole seconds, as in the status, so that a window is recognised again.
        datetime.fromtimestamp(int(window.window_start), tz=UTC),
        datetime.fromtimestamp(int(window.window_end), tz=UTC),
        window.requests_per_second,
        running is not None and waiting is not None and waiting > max(running, 1.0),
    )


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else timestamp(moment)
