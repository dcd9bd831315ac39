"""Measured power of a member above its plan, judged only while all pods belong to the plan."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from energylens.budget.ledger import MeasuredEnergy
from energylens.decide.planned import Key, PlannedDeployment
from energylens.measure.energy import EnergySpan
from energylens.records import dataclass

PRESENT_SECONDS = 300.0
"""Seconds over which the measured power of a member is averaged."""
LEAST_SECONDS = 30.0
"""Shortest span with a measured power, s."""
STEADY_SECONDS = 240.0
"""Time for which all pods must have belonged to the plan before its measured power is judged, s."""

EnergyOf = Callable[[Key, float, frozenset[str] | None], EnergySpan | None]
"""Function from a deployment, a moment in seconds since the Unix epoch, and the counted nodes to measured energy."""


@dataclass
class Steadiness:
    """State of one member between two checks."""

    pods: tuple[object, ...] = ()
    """Identifies a set of pods."""
    since: datetime | None = None
    """Time since which all pods belong to the plan; None while some do not."""
    excess_ratio: float | None = None
    """Measured power above the plan when it was last judged, relative to the plan; negative if below."""


def as_measured(span: EnergySpan | None) -> MeasuredEnergy | None:
    """Return a measured span in the form that ledgers count."""
    if span is None:
        return None
    return MeasuredEnergy(datetime.fromtimestamp(span.start, UTC), datetime.fromtimestamp(span.end, UTC), span.joules)


def present_watts(energy: EnergyOf, key: Key, nodes: frozenset[str] | None, now: datetime) -> float | None:
    """Return the mean power over the last minutes, W; None if too little of that time was measured."""
    span = energy(key, now.timestamp() - PRESENT_SECONDS, nodes)
    return span.watts if span is not None and span.end - span.start >= LEAST_SECONDS else None


def excess_watts(
    known: Steadiness,
    deployment: PlannedDeployment,
    bound_gpus: int,
    committed_watts: float,
    energy: EnergyOf,
    nodes: frozenset[str] | None,
    now: datetime,
) -> float:
    """Return the power of a member above its commitment, W; negative if below.

    While pods are replaced, the measurement belongs to another plan, so the member keeps its previous excess in
    proportion to its plan. Otherwise power that was just shed would seem not to have been shed, and would be shed
    again.

    Args:
        known: State of this member, which is updated.
        deployment: The LLMDeployment, with its plan.
        bound_gpus: GPUs that its pods hold, wherever they are.
        committed_watts: Counted power of its plan.
        energy: Function that measures energy.
        nodes: Nodes that count; None for all.
        now: The current time.
    """
    plan, running = deployment.plan, deployment.running_hash
    steady = plan is not None and running == plan.hash and bound_gpus == plan.gpus
    pods = (running, None if plan is None else plan.replicas, bound_gpus)
    if not steady:
        known.since = None
    elif known.since is None or known.pods != pods:
        known.since = now
    known.pods = pods
    if known.since is not None:
        start = max(now.timestamp() - PRESENT_SECONDS, known.since.timestamp())
        span = energy(deployment.key, start, nodes)
        if span is not None and span.end - span.start >= STEADY_SECONDS:
            excess = span.watts - committed_watts
            known.excess_ratio = excess / committed_watts if committed_watts else None
            return excess
    return (known.excess_ratio or 0.0) * committed_watts
