"""Updates the pooled corrections once with each window of a plan."""

from __future__ import annotations

from energylens.api.llmdeployment import LearnedCorrection, LLMDeployment, PlanStatus
from energylens.decide.deployment.trials.windows import is_new_window
from energylens.decide.learned.comparison import is_comparable, load_share, measured_point
from energylens.decide.learned.corrections import Pool
from energylens.decide.planned import Key
from energylens.measure.types import WindowMeasurement


class Learning:
    """The pool, and the last window of each LLMDeployment that the pool has learned from."""

    def __init__(self, pool: Pool) -> None:
        """Update ``pool``."""
        self.pool = pool
        self._learned_until: dict[Key, float | None] = {}

    def learn(
        self, key: Key, deployment: LLMDeployment, plan: PlanStatus | None, found: WindowMeasurement | None
    ) -> None:
        """Learn from the last window of a plan, if the spec asks for corrections and the load matches the plan."""
        if plan is None or found is None or found.reason != "Measured" or not _is_asked(deployment):
            return
        new = is_new_window(deployment, found) and self._learned_until.get(key) != found.window_end
        if new and is_comparable(load_share(deployment, plan, found)):
            self._learned_until[key] = found.window_end
            self.pool.learn(deployment, plan, measured_point(plan, found))

    def of(self, deployment: LLMDeployment, plan: PlanStatus | None) -> LearnedCorrection | None:
        """Return the correction of a plan for its status; None if the spec does not ask for corrections."""
        return self.pool.of(deployment, plan) if plan is not None and _is_asked(deployment) else None

    def forget(self, key: Key) -> None:
        """Forget the last window of a deleted LLMDeployment; the corrections learned from it stay."""
        self._learned_until.pop(key, None)


def _is_asked(deployment: LLMDeployment) -> bool:
    return deployment.spec.validation.on_drift == "Recalibrate"
