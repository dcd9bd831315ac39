"""What to know of a deployment's figures beside the figures, from its spec as it is."""

from __future__ import annotations

from energylens.api.llmdeployment import LLMDeployment
from energylens.data import load_gpus
from energylens.decide.deployment.observation import Planning
from energylens.planner.engines import EngineSettings
from energylens.planner.engines.caveats import caveats
from energylens.planner.inventory.nodes import unknown_products


def caveats_of(deployment: LLMDeployment, planning: Planning) -> tuple[str, ...]:
    """Return what the figures of a plan leave out, and what its engine needs besides; empty without a good plan."""
    plan = planning.plan
    if plan is None or not planning.good:
        return ()
    gpus, settings = load_gpus(), EngineSettings.of(deployment.spec.engine)
    unknown = unknown_products(deployment.spec, gpus)
    ignored: tuple[str, ...] = (f"spec.hardware.gpuProducts: {unknown}",) if unknown else ()
    approved, mode = deployment.spec.planning.approved_plan_hash, deployment.spec.planning.mode
    if approved is not None and mode != "Manual":
        ignored += (f"spec.planning.approvedPlanHash={approved} is not looked at where planning.mode is {mode}",)
    return *ignored, *caveats(settings, planning.model, gpus.get(plan.gpu_product), deployment.spec.workload)
