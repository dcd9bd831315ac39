"""What to know of a deployment's figures beside the figures, from its spec as it is."""

from __future__ import annotations

from energylens.api.llmdeployment import LLMDeployment
from energylens.data import load_gpus
from energylens.decide.deployment.observation import Planning
from energylens.planner.engines import EngineSettings
from energylens.planner.engines.caveats import caveats


def caveats_of(deployment: LLMDeployment, planning: Planning) -> tuple[str, ...]:
    """Return what the figures of a plan leave out, and what its engine needs besides; empty without a good plan."""
    plan = planning.plan
    if plan is None or not planning.good:
        return ()
    settings = EngineSettings.of(deployment.spec.engine)
    return caveats(settings, planning.model, load_gpus().get(plan.gpu_product), deployment.spec.workload)
