"""A planning question: the arguments of a plan as one value."""

from __future__ import annotations

from collections.abc import Mapping

from energylens.api.llmdeployment import LLMDeployment
from energylens.planner.planning import effective_allowance, plan, plan_again, plan_and_solution
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.problem import kept_candidates
from energylens.planner.types import ClusterSnapshot, Feasible, PlanningResult, PowerAllowance
from energylens.predictor import Predictor
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass


@dataclass(frozen=True)
class Question:
    """The arguments of :func:`energylens.planner.plan`."""

    deployment: LLMDeployment
    model: ModelSpec
    """The checkpoint's shape."""
    snapshot: ClusterSnapshot
    gpus: Mapping[str, GpuSpec]
    """Known GPU products."""
    predictor: Predictor
    allowance: PowerAllowance | None = None
    corrections: Corrections | None = None

    def planned(self, allowance: PowerAllowance | None) -> PlanningResult:
        """Return a newly planned answer."""
        return plan(
            self.deployment,
            self.model,
            self.snapshot,
            self.gpus,
            self.predictor,
            allowance=allowance,
            corrections=self.corrections,
        )

    def searched(self) -> tuple[PlanningResult, Candidates | None]:
        """Return a newly planned answer without an allowance, and the candidates for :meth:`chosen_again`."""
        answer, solution = plan_and_solution(
            self.deployment, self.model, self.snapshot, self.gpus, self.predictor, corrections=self.corrections
        )
        if solution is None or not isinstance(answer, Feasible):
            return answer, None
        return answer, kept_candidates(solution, self.deployment.spec)

    def chosen_again(self, rows: Candidates, most: int | None) -> Feasible | None:
        """Return the answer found among candidates of the same question; None if only a search can tell."""
        return plan_again(
            self.deployment,
            self.model,
            self.snapshot,
            self.gpus,
            self.predictor,
            rows,
            most,
            corrections=self.corrections,
        )

    @property
    def is_limited(self) -> bool:
        """Whether the spec itself limits power, apart from all budgets."""
        return effective_allowance(self.deployment.spec, None) is not None
