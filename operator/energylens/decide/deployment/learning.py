"""Teaches the pooled corrections what each window says of its plan, once."""

from __future__ import annotations

from energylens.api.llmdeployment import LearnedCorrection, LLMDeployment, PlanStatus
from energylens.decide.deployment.status import is_new_window
from energylens.decide.learned.comparison import is_comparable, load_share, measured_point
from energylens.decide.learned.corrections import Pool
from energylens.decide.planned import Key
from energylens.measure.types import WindowMeasurement


class Learning:
    """The pool, and up to which window each LLMDeployment has taught it."""

    def __init__(self, pool: Pool) -> None:
        """Teach ``pool``."""
        self.pool = pool
        self._learned_until: dict[Key, float | None] = {}

    def learn(
        self, key: Key, deployment: LLMDeployment, plan: PlanStatus | None, found: WindowMeasurement | None
    ) -> None:
        """Take in the last window of a plan, where the spec asks for it and the load was the plan's."""
        if plan is None or found is None or found.reason != "Measured" or not _is_asked(deployment):
            return
        new = is_new_window(deployment, found) and self._learned_until.get(key) != found.window_end
        if new and is_comparable(load_share(deployment, plan, found)):
            self._learned_until[key] = found.window_end
            self.pool.learn(deployment, plan, measured_point(plan, found))

    def of(self, deployment: LLMDeployment, plan: PlanStatus | None) -> LearnedCorrection | None:
        """Return what is known of a plan, as its object shows it; None where the spec does not ask for it."""
        return self.pool.of(deployment, plan) if plan is not None and _is_asked(deployment) else None

    def forget(self, key: Key) -> None:
        """Drop what is remembered of a deleted LLMDeployment; what it taught stays."""
        self._learned_until.pop(key, None)


def _is_asked(deployment: LLMDeployment) -> bool:
    return deployment.spec.validation.on_drift == "Recalibrate"
