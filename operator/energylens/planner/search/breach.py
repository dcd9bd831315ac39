"""The chance that a candidate breaks a latency objective, which counts as energy in the ranking.

A candidate whose chance exceeds `ranking.LARGEST_BREACH` is rejected: its latency with the safety margin, a share of
the way to the upper end of the 80 % interval, exceeds the objective. The chance of the others raises the energy or the
power by which they are ranked. A plan that minimises GPUs, which are counted, has no such figure and keeps the whole
margin.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from energylens.api.llmdeployment import LLMDeploymentSpec, Objective
from energylens.planner.search import describe
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import LATENCIES, Constraint
from energylens.planner.search.ranking import LARGEST_BREACH, LATENCY_SHARE, breach_chance

_NOISE = 1e-4
"""Excess over the largest chance that may be a rounding error of the latency or of `LATENCY_SHARE`."""


def latency_share(objective: Objective) -> float:
    """Return the share of the safety margin that a latency must keep below its bound."""
    return 1.0 if objective == "MinimizeGPUs" else LATENCY_SHARE


def breach_percent(rows: Candidates, i: int, spec: LLMDeploymentSpec) -> int | None:
    """Return the chance that a candidate breaks a latency objective, %, rounded up; None if that does not count."""
    slo = spec.slo
    bounds = (slo.ttft_milliseconds, slo.itl_milliseconds, slo.tpot_milliseconds, slo.end_to_end_milliseconds)
    if spec.energy.objective == "MinimizeGPUs" or rows.role != "aggregated" or not any(bounds):
        return None
    if spec.planning.safety_margin_percent == 0:
        # Predictions count as certain, which says nothing about the chance.
        return None
    return describe.percent_up(float(rows.breach_chance[i]))


def with_breach(rows: Candidates, spec: LLMDeploymentSpec) -> Candidates:
    """Return candidates with their chances of breaking the latency objectives of a spec.

    The latencies of a candidate have one cause, the length of its steps, so that the objective that is broken most
    easily decides.

    Args:
        rows: Candidates whose latencies have the margin of :func:`latency_share`.
        spec: The deployment's spec.
    """
    if spec.energy.objective == "MinimizeGPUs":
        return rows
    slo = spec.slo
    bounded = (
        (slo.ttft_milliseconds, rows.ttft_ms, rows.ttft_upper_ms),
        (slo.itl_milliseconds, rows.itl_ms, rows.itl_upper_ms),
        (slo.tpot_milliseconds, rows.tpot_ms, rows.tpot_upper_ms),
        (slo.end_to_end_milliseconds, rows.end_to_end_ms, rows.end_to_end_upper_ms),
    )
    with np.errstate(invalid="ignore"):
        chances = [
            breach_chance(float(limit), predicted, predicted + (upper - predicted) / LATENCY_SHARE)
            for limit, predicted, upper in bounded
            if limit is not None
        ]
    if not chances:
        return replace(rows, breach_chance=np.zeros(len(rows)))
    most = np.max(chances, axis=0)
    # The objectives ignore noise in the last digits, so a candidate just above the largest chance may be accepted.
    return replace(rows, breach_chance=np.where(most <= LARGEST_BREACH + _NOISE, np.minimum(most, LARGEST_BREACH), 0.0))


def with_limit(rows: Candidates, spec: LLMDeploymentSpec, constraint: Constraint, limit: int | None) -> Candidates:
    """Return candidates with their chances of breaking latency objectives, if one constraint had another limit.

    Args:
        rows: The candidates.
        spec: The deployment's spec.
        constraint: A constraint of any kind; only those of latencies change a chance.
        limit: The other limit; None if the constraint is left out.
    """
    if constraint.rule not in LATENCIES:
        return rows
    fields = type(spec.slo).model_fields.items()
    name = next(key for key, field in fields if constraint.field == f"spec.slo.{field.alias}")
    return with_breach(rows, spec.model_copy(update={"slo": spec.slo.model_copy(update={name: limit})}))
