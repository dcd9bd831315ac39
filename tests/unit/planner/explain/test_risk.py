"""What it costs to choose with the risk of predictions instead of the lowest prediction."""

from __future__ import annotations

import pytest
from tests.unit.planner.search.large import asked
from tests.unit.planner.search.test_objective import SURE, Row, candidates

from energylens.api.llmdeployment import Objective
from energylens.planner.explain.risk import risk_taken
from energylens.planner.search.constraints import build_constraints
from energylens.planner.search.problem import Solution

RISKY: Row = {"joules": 0.37, "watts": 736, "tensor": 4, "unshared": 0.3, "own": 0.1}
"""A lower prediction than that of the next one, of which less is known."""
CERTAIN: Row = {"joules": 0.4, "watts": 800, **SURE}


@pytest.mark.parametrize(
    ("objective", "given_up", "cost"),
    [
        ("MinimizeEnergy", 0.03, "0.03 J per output token is the cost of ranking with risk: "),
        ("MinimizePower", 64.0, "64 W is the cost of ranking with risk: "),
    ],
)
def test_the_cost_of_risk_is_the_difference_of_the_predictions(
    objective: Objective, given_up: float, cost: str
) -> None:
    solution = Solution(candidates(RISKY, CERTAIN), (), 1)
    found = risk_taken(solution, objective)
    assert found is not None
    assert (found.index, found.given_up) == (0, pytest.approx(given_up))
    text = found.text(solution, objective)
    assert text.startswith(f"{cost}2 x NVIDIA-H200 TP4, max batch 64 is predicted to use 8 % less ")
    assert text.endswith(found.reason)


def test_the_lowest_prediction_takes_no_risk() -> None:
    assert risk_taken(Solution(candidates(CERTAIN, RISKY), (), 1), "MinimizeEnergy") is None
    assert risk_taken(Solution(candidates({**RISKY, "joules": 0.5}, CERTAIN), (), 1), "MinimizeEnergy") is None
    # As low as another prediction, of which less is known.
    assert risk_taken(Solution(candidates({"unshared": 0.3}, {}), (), 1), "MinimizeEnergy") is None


def test_a_lower_prediction_that_breaks_an_objective_is_no_cost_of_risk() -> None:
    rows, spec = candidates({**RISKY, "ttft": 900}, CERTAIN), asked(slo={"ttftMilliseconds": 600}).spec
    constraints = build_constraints(rows, spec, rows.products, [[8]], None)
    assert risk_taken(Solution(rows, tuple(constraints), 1), "MinimizeEnergy") is None


def test_without_a_plan_there_is_no_cost_of_risk() -> None:
    with pytest.raises(ValueError, match="there is no plan"):
        risk_taken(Solution(candidates(RISKY), (), None), "MinimizeEnergy")
