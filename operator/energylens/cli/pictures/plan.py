"""The data of a plan's plot: candidates, frontiers, objectives and the chosen plan, as plain arrays. Pure."""

from __future__ import annotations

import numpy as np

from energylens.api.llmdeployment import Slo
from energylens.api.quantity import parse_quantity
from energylens.cli.pictures.week import WeekPicture
from energylens.planner.search import describe
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import feasible
from energylens.planner.search.frontier import RESOLUTION, pareto
from energylens.planner.search.problem import Problem, Solution
from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass

CELLS = 120
"""Share of an axis within which points overlap and only one of them is drawn."""
MOST_ENERGY = 30.0
"""Largest ratio to the least energy that is drawn; other candidates would compress the rest."""


@dataclass(frozen=True)
class Panel:
    """Energy against one latency; arrays of shape (n,) over the points of the picture."""

    name: str
    """``ITL P95``."""
    latency_ms: FloatArray
    upper_ms: FloatArray
    """Latency with the safety margin, which is compared with objectives."""
    limit_ms: int | None
    frontier: IntArray
    """Points that no other point beats in both energy and latency, lowest latency first."""


@dataclass(frozen=True)
class Picture:
    """One deployment; arrays of shape (n,)."""

    title: str
    subtitle: str
    products: tuple[str, ...]
    product: IntArray
    joules: FloatArray
    allowed: BoolArray
    """Whether the candidate satisfies every constraint."""
    labels: tuple[str, ...]
    panels: tuple[Panel, ...]
    """ITL and TTFT; TPOT and the end-to-end latency between them where the spec bounds them."""
    chosen: int | None
    joules_limit: float | None
    predictor_version: str
    week: WeekPicture | None = None
    """Replicas over the week; None for a constant load."""


def picture(name: str, problem: Problem, solution: Solution) -> Picture | None:
    """Return the picture of a solved problem; None when no candidate can run the load.

    The picture has the candidates that can run the load on the allowed GPUs, without points that others cover.

    Args:
        name: The deployment's.
        problem: What was planned.
        solution: Of it.
    """
    rows, slo = solution.rows, problem.spec.slo
    soft = [c for c in solution.constraints if c.kind in ("SLO", "Power")]
    runnable = feasible(solution.constraints, len(rows), without=soft)
    drawn = _latencies(rows, slo)
    latencies = [latency for _, latency, _, _ in drawn]
    runnable &= np.isfinite([rows.joules_per_output_token, *latencies]).all(axis=0)
    if not runnable.any():
        return None
    every = np.flatnonzero(runnable)
    energy = rows.joules_per_output_token
    fronts = [every[pareto(np.column_stack([energy[every], latency[every]]), RESOLUTION)] for latency in latencies]
    fronts = [front[np.argsort(latency[front])] for front, latency in zip(fronts, latencies, strict=True)]
    near = every[energy[every] <= MOST_ENERGY * energy[every].min()]
    cloud = np.concatenate([_thinned(energy[near], latency[near], rows.product[near]) for latency in latencies])
    kept = set(near[cloud].tolist()) | set(np.concatenate(fronts).tolist())
    if solution.chosen is not None:
        kept.add(solution.chosen)
    index = np.asarray(sorted(kept))
    place = {int(i): at for at, i in enumerate(index)}
    panels = [
        Panel(
            name=f"{label} {slo.percentile}",
            latency_ms=latency[index],
            upper_ms=upper[index],
            limit_ms=limit,
            frontier=np.asarray([place[int(i)] for i in front]),
        )
        for (label, latency, upper, limit), front in zip(drawn, fronts, strict=True)
    ]
    chosen = None if solution.chosen is None else place[solution.chosen]
    return Picture(
        title=f"{name}: {problem.spec.model.name}",
        subtitle="no plan" if solution.chosen is None else describe.candidate(rows, solution.chosen),
        products=rows.products,
        product=rows.product[index],
        joules=energy[index],
        allowed=feasible(solution.constraints, len(rows))[index],
        labels=tuple(describe.candidate(rows, int(i)) for i in index),
        panels=tuple(panels),
        chosen=chosen,
        joules_limit=None
        if slo.joules_per_output_token is None
        else float(parse_quantity(slo.joules_per_output_token)),
        predictor_version=problem.predictor.version,
    )


def _latencies(rows: Candidates, slo: Slo) -> list[tuple[str, FloatArray, FloatArray, int | None]]:
    """Return name, predictions, predictions with the margin, and objective of each panel, in ms."""
    drawn = [
        ("ITL", rows.itl_ms, rows.itl_upper_ms, slo.itl_milliseconds),
        ("TPOT", rows.tpot_ms, rows.tpot_upper_ms, slo.tpot_milliseconds),
        ("E2E", rows.end_to_end_ms, rows.end_to_end_upper_ms, slo.end_to_end_milliseconds),
        ("TTFT", rows.ttft_ms, rows.ttft_upper_ms, slo.ttft_milliseconds),
    ]
    return [each for each in drawn if each[0] not in ("TPOT", "E2E") or each[3] is not None]


def _thinned(energy: FloatArray, latency: FloatArray, product: IntArray) -> IntArray:
    """Return the index of one point per cell of the logarithmic plane and product."""

    def cell(values: FloatArray) -> FloatArray:
        low, high = np.log(values.min()), np.log(values.max())
        return np.asarray(np.round((np.log(values) - low) / max(high - low, 1e-9) * CELLS))

    cells = np.column_stack([cell(energy), cell(latency), product])
    return np.unique(cells, axis=0, return_index=True)[1]
