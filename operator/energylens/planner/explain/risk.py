"""What it costs that a plan is ranked with the risk of its prediction, and not by the prediction alone."""

from __future__ import annotations

from dataclasses import dataclass

from energylens.api.llmdeployment import Objective
from energylens.planner.search import describe
from energylens.planner.search.comparison import by_risk, predicted
from energylens.planner.search.constraints import feasible
from energylens.planner.search.objective import best
from energylens.planner.search.problem import Solution

_UNITS: dict[Objective, str] = {"MinimizePower": "W", "MinimizeEnergy": "J per output token"}


@dataclass(frozen=True)
class RiskTaken:
    """The plan of a planner that knows only means, where that is another one."""

    index: int
    """Of its candidate."""
    given_up: float
    """Predicted joules per output token (watts, where power is minimised) that the chosen plan uses more."""
    reason: str
    """Why it lost."""

    def text(self, solution: Solution, objective: Objective) -> str:
        """Return the cost as a sentence."""
        plan = describe.candidate(solution.rows, self.index)
        unit = _UNITS.get(objective, "J per output token")
        return f"{self.given_up:.3g} {unit} is the price of certainty: {plan} {self.reason}"


def risk_taken(solution: Solution, objective: Objective) -> RiskTaken | None:
    """Return what risk cost; None where the plan is the lowest prediction, too.

    Args:
        solution: With a plan.
        objective: Of the deployment.
    """
    rows, chosen = solution.rows, solution.chosen
    if chosen is None:
        raise ValueError("there is no plan, so risk has no cost")
    lowest = best(rows.without_risk(), feasible(solution.constraints, len(rows)), objective)
    assert lowest is not None
    reason = by_risk(rows, lowest, rows, chosen, objective)
    if lowest == chosen or reason is None:
        return None
    values = predicted(rows, objective)
    return RiskTaken(lowest, float(values[chosen] - values[lowest]), reason)
