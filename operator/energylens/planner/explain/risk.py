"""What it costs to rank plans with the risk of their predictions instead of the predictions alone."""

from __future__ import annotations

from energylens.api.llmdeployment import Objective
from energylens.planner.search import describe
from energylens.planner.search.comparison import by_risk, predicted
from energylens.planner.search.constraints import feasible
from energylens.planner.search.objective import best
from energylens.planner.search.problem import Solution
from energylens.records import dataclass

_UNITS: dict[Objective, str] = {"MinimizePower": "W", "MinimizeEnergy": "J per output token"}


@dataclass(frozen=True)
class RiskTaken:
    """The plan that would be chosen by mean predictions alone, if that is another plan."""

    index: int
    """The layout of the other plan."""
    given_up: float
    """Predicted joules per output token (watts when minimising power) that the chosen plan uses more."""
    reason: str
    """Why the other plan was not chosen."""

    def text(self, solution: Solution, objective: Objective) -> str:
        """Return the cost as a sentence."""
        plan = describe.candidate(solution.rows, self.index)
        unit = _UNITS.get(objective, "J per output token")
        return f"{self.given_up:.3g} {unit} is the cost of ranking with risk: {plan} {self.reason}"


def risk_taken(solution: Solution, objective: Objective) -> RiskTaken | None:
    """Return the cost of risk; None if the plan also has the lowest prediction.

    Args:
        solution: A solution with a plan.
        objective: The deployment's objective.
    """
    rows, chosen = solution.rows, solution.chosen
    if chosen is None:
        raise ValueError("there is no plan whose risk could have a cost")
    lowest = best(rows.without_risk(), feasible(solution.constraints, len(rows)), objective)
    assert lowest is not None
    reason = by_risk(rows, lowest, rows, chosen, objective)
    if lowest == chosen or reason is None:
        return None
    values = predicted(rows, objective)
    return RiskTaken(lowest, float(values[chosen] - values[lowest]), reason)
