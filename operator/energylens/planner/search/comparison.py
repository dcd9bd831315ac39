"""Why one candidate lost to another, in words, including the risk that decides when predictions alone do not."""

from __future__ import annotations

import numpy as np

from energylens.api.llmdeployment import Objective
from energylens.planner.search import describe
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.objective import complexity, objective_values
from energylens.planner.search.ranking import breach_factor
from energylens.predictor.fitted.features import NEAREST, NOTHING
from energylens.predictor.types import FloatArray

_NEAREST_RUN = dict(
    zip(
        NEAREST,
        ("this model in this layout", "this model", "another model under this engine", "nothing similar"),
        strict=True,
    )
)
"""The nearest measurement, in words."""


_SIMPLER = ("fewer nodes of a replica", "fewer pipeline stages")
_NEAREST = len(_SIMPLER)
"""Index of the nearest measurement among the costs of `complexity`; `_SIMPLER` names the costs before it."""


def predicted(rows: Candidates, objective: Objective) -> FloatArray:
    """Return the minimised figure without its risk, shape (n,); energy if the objective counts GPUs."""
    return rows.power_watts if objective == "MinimizePower" else rows.joules_per_output_token


def by_risk(rows: Candidates, i: int, winners: Candidates, j: int, objective: Objective) -> str | None:
    """Return why candidate ``i`` lost to ``j`` although its prediction is lower.

    None if its prediction is not lower.
    """
    mine, other = float(predicted(rows, objective)[i]), float(predicted(winners, objective)[j])
    if mine >= other:
        return None
    what = "power" if objective == "MinimizePower" else "energy"
    text = f"is predicted to use {describe.compared(mine, other, what)}"
    values = "MinimizeEnergy" if objective == "MinimizeGPUs" else objective
    risky, certain = float(objective_values(rows, values)[i]), float(objective_values(winners, values)[j])
    costs = [(int(a[i]), int(b[j])) for a, b in zip(complexity(rows), complexity(winners), strict=True)]
    worse = next((number for number, (own, its) in enumerate(costs) if own != its), None)
    if risky > certain:
        chance, its = float(rows.breach_chance[i]), float(winners.breach_chance[j])
        if chance > its and risky / float(breach_factor(rows.breach_chance[i])) <= certain:
            own_chance, other_chance = describe.two_percents(chance, its)
            return f"{text}, but breaks spec.slo with a chance of {own_chance} % instead of {other_chance} %"
        return f"{text}, but {describe.compared(risky, certain, what)} including its risk: {_reason(rows, i)}"
    if worse is None:
        return text
    own, its = costs[worse]
    if worse == _NEAREST:
        why = f"nearer measured runs ({_near(its)} instead of {_near(own)})"
    elif worse < _NEAREST:
        why = f"{_SIMPLER[worse]} ({its} instead of {own})"
    else:
        why = "the engine's default tokens per step"
    within = "" if " use as much " in text else ", which is within the prediction error"
    return f"{text}{within}; the tie goes to {why}"


def _reason(rows: Candidates, i: int) -> str:
    parts, near = [], int(rows.nearest[i])
    if rows.layouts.pipeline_parallel[i] > 1 and near == NOTHING:
        parts.append("no replica was measured with pipeline stages")
    if np.isfinite(rows.layouts.power_cap_watts[i]):
        parts.append("no run had a power cap")
    if near == NOTHING:
        return " and ".join(parts) or "no similar run was measured"
    return " and ".join(parts) or f"the nearest measured run is of {_near(near)}"


def _near(nearest: int) -> str:
    return _NEAREST_RUN[NEAREST[nearest]]
