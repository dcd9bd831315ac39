"""Caveats of a deployment's figures, from its spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from energylens.api.llmdeployment import LLMDeployment, LLMDeploymentSpec, PlanStatus, PredictedFigures
from energylens.data import load_gpus
from energylens.decide.deployment.loads.learned_hours import coverage_text
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans.replica import is_asked
from energylens.decide.deployment.trials.verification import same_pods
from energylens.planner.engines import EngineSettings
from energylens.planner.engines.caveats import caveats
from energylens.planner.engines.disaggregation import refuses_roles
from energylens.planner.inventory.nodes import unknown_products
from energylens.planner.search.starts import start_of
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.parameters import weight_bytes
from energylens.predictor.model.requantize import with_quantization
from energylens.predictor.types import GpuSpec

_LONG_WAIT_MS = 10_000.0
"""Longest wait for a first token, ms, that needs no message."""


def caveats_of(deployment: LLMDeployment, planning: PlanChoice) -> tuple[str, ...]:
    """Return the caveats of a plan's figures, and further needs of its engine; empty without a feasible plan."""
    plan = planning.plan
    if plan is None or not planning.good:
        return ()
    gpus, spec = load_gpus(), deployment.spec
    settings = EngineSettings.of(spec.engine)
    known = caveats(settings, planning.model, gpus.get(plan.gpu_product), spec.workload)
    coverage = coverage_text(spec.workload, deployment.status.learned_load)
    own = (
        *_without_effect(spec, gpus),
        *_unbounded_wait(spec, plan.predicted),
        *_verified(deployment, planning),
        *((f"spec.workload.profile.learned: {coverage}",) if coverage else ()),
        *_zero(spec, plan, planning.model, gpus),
        *_not_separated(spec, plan, planning.model),
    )
    return *own, *known


def _without_effect(spec: LLMDeploymentSpec, gpus: Mapping[str, GpuSpec]) -> Iterator[str]:
    unknown = unknown_products(spec, gpus)
    if unknown:
        yield f"spec.hardware.gpuProducts: {unknown}"
    approved, mode = spec.planning.approved_plan_hash, spec.planning.mode
    if approved is not None and mode != "Manual":
        yield f"spec.planning.approvedPlanHash={approved} has no effect while planning.mode is {mode}"


def _verified(deployment: LLMDeployment, planning: PlanChoice) -> Iterator[str]:
    """Yield that a plan will be verified before adoption, if the verification has not begun yet."""
    before, plan = deployment.status.plan, planning.plan
    if not is_asked(deployment) or planning.verification is not None or before is None or plan is None:
        return
    if not same_pods(before, plan):
        yield "one replica of this plan is measured before the rollout, since spec.rollout.verify is Measured"


def _unbounded_wait(spec: LLMDeploymentSpec, predicted: PredictedFigures) -> Iterator[str]:
    """Yield that requests wait longer for their first token than for all later tokens, if no objective bounds the wait.

    Such waits occur near the highest load that a plan sustains, where the queue grows without bound.
    """
    wait = predicted.ttft_milliseconds
    answer = predicted.itl_milliseconds * spec.workload.mean_output_tokens
    if spec.slo.ttft_milliseconds is None and spec.workload.job is None and wait > max(_LONG_WAIT_MS, answer):
        yield (
            f"a request waits {wait / 1000:.0f} s for its first token ({spec.slo.percentile}), longer than its answer "
            "takes, and spec.slo.ttftMilliseconds sets no bound"
        )


def _not_separated(spec: LLMDeploymentSpec, plan: PlanStatus, model: ModelSpec | None) -> Iterator[str]:
    """Yield why prefill and decode stay together though the spec would follow a plan that separates them."""
    if spec.planning.disaggregation != "Follow" or plan.prefill is not None or model is None:
        return
    refused = refuses_roles(model, EngineSettings.of(spec.engine))
    if refused:
        yield f"spec.planning.disaggregation=Follow has no effect: {refused}"


def _zero(
    spec: LLMDeploymentSpec, plan: PlanStatus, model: ModelSpec | None, gpus: Mapping[str, GpuSpec]
) -> Iterator[str]:
    """Yield the saving and the cost of stopping the last replica, if an autoscaler may stop it."""
    scaling, ttft = spec.scaling, spec.slo.ttft_milliseconds
    if scaling is None or scaling.min_replicas > 0 or model is None:
        return
    served = with_quantization(model, spec.model.quantization)
    start = start_of(plan.gpus // plan.replicas, gpus[plan.gpu_product], float(weight_bytes(served)), scaling)
    idle = plan.predicted.idle_power_watts / plan.replicas
    late = "" if ttft is None or ttft >= 1000.0 * start.seconds else f"; spec.slo.ttftMilliseconds={ttft} is less"
    yield (
        f"zero replicas save the {idle:.0f} W of the last idle one, which pays for the {start.joules / 1000.0:.3g} kJ "
        f"of a start after {start.joules / idle:.0f} s without requests; the next request waits about "
        f"{start.seconds:.0f} s longer for its first token{late}"
    )
