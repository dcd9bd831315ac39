"""The Pareto frontier of energy, ITL and TTFT, and why each alternative was not chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from energylens.api.llmdeployment import Alternative, LLMDeploymentSpec, PlannedJob, describe_replicas
from energylens.api.quantity import format_milli
from energylens.api.words import counted
from energylens.planner.search import describe
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.comparison import by_risk
from energylens.planner.search.constraints import Constraint, feasible
from energylens.planner.search.objective import best, objective_values, ranked
from energylens.planner.search.placement import placement_at
from energylens.predictor.types import FloatArray, IntArray

RESOLUTION = 0.01
"""Latencies within 1 % count as equal on the frontier, because no prediction can distinguish them."""
MAX_ALTERNATIVES = 5
MAX_ROWS = 500
"""Rows of the full table, which must fit into one ConfigMap."""


def pareto(costs: FloatArray, resolution: float = RESOLUTION) -> IntArray:
    """Return the indices of the points that no other point dominates, by ascending first cost.

    Args:
        costs: Costs to minimise, shape (n, k). The first column is compared exactly, the others within ``resolution``:
            among points that are equal within it, the point with the lowest first cost stays.
        resolution: Relative difference below which two costs count as equal.
    """
    order = np.lexsort(costs.T[::-1])
    # Comparing column by column takes a third of the time of comparing rows.
    columns, kept = [np.ascontiguousarray(costs[order, k]) for k in range(1, costs.shape[1])], []
    while order.size:
        kept.append(int(order[0]))
        better = np.zeros(order.size, dtype=bool)
        for column in columns:
            better |= column[0] > column * (1 + resolution)
        better[0] = False
        order, columns = order[better], [column[better] for column in columns]
    return np.asarray(kept, dtype=np.int64)


def frontier_rows(
    rows: Candidates, constraints: Sequence[Constraint], chosen: int, spec: LLMDeploymentSpec
) -> tuple[IntArray, dict[int, str]]:
    """Return the candidates worth showing, best first, and why each was not chosen ("" for the chosen one).

    These are the chosen candidate, the frontier of all candidates that can run the load on the allowed GPUs (even if
    they break an SLO or a budget), the best of every GPU product, and the plan by mean predictions alone.
    """
    objective = spec.energy.objective
    soft = [c for c in constraints if c.kind in ("SLO", "Power")]
    runnable = feasible(constraints, len(rows), without=soft) & np.isfinite(objective_values(rows, objective))
    index = np.flatnonzero(runnable)
    costs = np.column_stack([values[index] for values in (objective_values(rows, objective), *latencies(rows, spec))])
    shown = set(index[pareto(np.nan_to_num(costs, nan=np.inf))].tolist()) | {chosen}
    valid = feasible(constraints, len(rows))
    for number in range(len(rows.products)):
        for mask in (valid, runnable):
            leader = best(rows, mask & (rows.product == number), objective)
            shown |= {leader} if leader is not None else set()
    lowest = best(rows.without_risk(), valid, objective)
    shown |= {lowest} if lowest is not None else set()
    mask = np.zeros(len(rows), dtype=bool)
    mask[list(shown)] = True
    order = ranked(rows, mask, objective)
    reasons = {int(i): "" if i == chosen else why_not(rows, soft, int(i), chosen, spec) for i in order}
    return order, reasons


def latencies(rows: Candidates, spec: LLMDeploymentSpec) -> tuple[FloatArray, ...]:
    """Return the latencies that make a candidate worth showing, with the safety margin, shape (n,) each.

    TPOT and the end-to-end latency are included only if the spec bounds them, since they closely follow ITL.
    """
    bounded = (
        (spec.slo.tpot_milliseconds, rows.tpot_upper_ms),
        (spec.slo.end_to_end_milliseconds, rows.end_to_end_upper_ms),
    )
    return (rows.itl_upper_ms, *(upper for limit, upper in bounded if limit is not None), rows.ttft_upper_ms)


def why_not(rows: Candidates, soft: Sequence[Constraint], i: int, chosen: int, spec: LLMDeploymentSpec) -> str:
    """Return why a valid candidate was not chosen: the objectives that it breaks, otherwise its higher cost."""
    broken = [c.exceeded(i) for c in soft if not c.holds[i]]
    if broken:
        return "; ".join(broken)
    energy = rows.joules_per_output_token
    same_gpus = spec.energy.objective != "MinimizeGPUs" or rows.gpus[i] == rows.gpus[chosen]
    risk = by_risk(rows, i, rows, chosen, spec.energy.objective) if same_gpus else None
    if risk is not None:
        return risk
    if spec.energy.objective == "MinimizeGPUs" and rows.gpus[i] != rows.gpus[chosen]:
        return f"uses {counted(int(rows.gpus[i]), 'GPU')} instead of {int(rows.gpus[chosen])}"
    if spec.energy.objective == "MinimizePower":
        return f"draws {describe.compared(rows.power_watts[i], rows.power_watts[chosen], 'power')}"
    if math.isclose(energy[i], energy[chosen], rel_tol=1e-6):
        return f"uses the same energy with {_tie(rows, i, chosen)}"
    return f"uses {describe.compared(energy[i], energy[chosen], 'energy')}"


def _tie(rows: Candidates, i: int, chosen: int) -> str:
    """Return what decided between two candidates of equal energy."""
    if rows.gpus[i] != rows.gpus[chosen]:
        return f"{counted(int(rows.gpus[i]), 'GPU')} instead of {int(rows.gpus[chosen])}"
    if rows.replicas[i] != rows.replicas[chosen]:
        return f"{counted(int(rows.replicas[i]), 'replica')} instead of {int(rows.replicas[chosen])}"
    if rows.ttft_ms[i] > rows.ttft_ms[chosen] * 1.01:
        return f"a longer TTFT of {describe.up(rows.ttft_ms[i])} ms"
    return "a larger batch or more stages"


def alternatives(
    rows: Candidates,
    constraints: Sequence[Constraint],
    order: IntArray,
    reasons: Mapping[int, str],
    chosen: int,
    spec: LLMDeploymentSpec,
) -> tuple[Alternative, ...]:
    """Return at most five alternatives, best first.

    In order of interest: for each SLO or budget, the better plan that breaks nothing else; the best plan of every other
    GPU product; the lowest ITL, TPOT and end-to-end latency (if the spec bounds them) and TTFT; and the fewest GPUs.
    """
    picked: list[int] = []
    for i in _by_interest(rows, constraints, order, chosen, spec):
        if i != chosen and i not in picked and len(picked) < MAX_ALTERNATIVES:
            picked.append(i)
    rank = {int(i): position for position, i in enumerate(order)}
    return tuple(alternative(rows, i, reasons[i]) for i in sorted(picked, key=rank.__getitem__))


def _by_interest(
    rows: Candidates, constraints: Sequence[Constraint], order: IntArray, chosen: int, spec: LLMDeploymentSpec
) -> Iterator[int]:
    soft = [c for c in constraints if c.kind in ("SLO", "Power")]
    ranking = [int(i) for i in order]
    better = ranking[: ranking.index(chosen)]
    for constraint in soft:
        others = [c for c in soft if c is not constraint]
        yield from [i for i in better if not constraint.holds[i] and all(c.holds[i] for c in others)][:1]
    valid = [i for i in ranking if all(c.holds[i] for c in soft)]
    for product in sorted(set(rows.product[order].tolist()) - {int(rows.product[chosen])}):
        mine = [i for i in ranking if rows.product[i] == product]
        yield from ([i for i in mine if i in valid] or mine)[:1]
    for cost in (*latencies(rows, spec), rows.gpus):
        yield valid[int(np.argmin(cost[valid]))]


def table(rows: Candidates, order: IntArray, reasons: Mapping[int, str]) -> tuple[Mapping[str, object], ...]:
    """Return one plain row per shown candidate, best first, with the fields of an alternative and the chosen flag."""
    return tuple(
        table_row(alternative(rows, i, reasons[i]), is_chosen=not reasons[i]) for i in map(int, order[:MAX_ROWS])
    )


def table_row(shown: Alternative, *, is_chosen: bool) -> Mapping[str, object]:
    """Return an alternative as a plain row, with its prefill replicas as text such as ``2 x TP1, max batch 4``."""
    row = shown.model_dump(by_alias=True)
    if shown.prefill is not None:
        row["prefill"] = describe_replicas(shown.prefill)
    return {**row, "chosen": is_chosen}


def alternative(rows: Candidates, i: int, reason: str) -> Alternative:
    """Return a candidate that sustains the load in the form of status."""
    return Alternative(**figures(rows, i), reason=reason)


def figures(rows: Candidates, i: int) -> dict[str, Any]:
    """Return the fields of an alternative for a valid candidate; unbounded latencies are None."""

    def whole(value: float) -> int | None:
        return describe.up(value) if math.isfinite(value) else None

    return {
        **placement_at(rows, i),
        "joules_per_output_token": format_milli(float(rows.joules_per_output_token[i])),
        "power_watts": round(float(rows.power_watts[i])),
        "utilization_percent": describe.percent_up(float(rows.utilization[i])),
        "ttft_milliseconds": whole(float(rows.ttft_ms[i])),
        "itl_milliseconds": whole(float(rows.itl_ms[i])),
        "tpot_milliseconds": whole(float(rows.tpot_ms[i])),
        "end_to_end_milliseconds": whole(float(rows.end_to_end_ms[i])),
    }


def planned_job(rows: Candidates, i: int) -> PlannedJob | None:
    """Return the end and the energy of a batch job on a candidate; None for any other load."""
    if not math.isfinite(rows.completion_seconds[i]):
        return None
    end, start = float(rows.completion_seconds[i]), float(rows.job_start_seconds[i])
    return PlannedJob(
        completion_seconds=describe.up(end),
        start_seconds=describe.up(start),
        longest_seconds=describe.up(start + (end - start) / float(rows.utilization_limit[i])),
        energy_watt_hours=describe.up(float(rows.job_joules[i]) / 3600.0),
    )
