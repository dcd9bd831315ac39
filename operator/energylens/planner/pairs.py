"""A running plan with separate prefill and decode under the current inputs."""

from __future__ import annotations

from collections.abc import Mapping

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.planner.engines import EngineSettings
from energylens.planner.engines.disaggregation import refuses_roles
from energylens.planner.explain.disaggregation import decode_alone, figures_of
from energylens.planner.planning import problem_for
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.disaggregation import Pairing, best_pairs
from energylens.planner.search.identity import identified
from energylens.planner.search.replica import ReplicaPredictor
from energylens.planner.types import ClusterSnapshot, Feasible, Infeasible, PlanningResult, PowerAllowance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.requantize import with_quantization
from energylens.predictor.types import GpuSpec


def plan_pair_again(
    deployment: LLMDeployment,
    model: ModelSpec,
    snapshot: ClusterSnapshot,
    gpus: Mapping[str, GpuSpec],
    predictor: ReplicaPredictor,
    running: PlanStatus,
    *,
    allowance: PowerAllowance | None = None,
    corrections: Corrections | None = None,
) -> PlanningResult:
    """Return a plan with separate prefill and decode with its figures under the current inputs, or why it is invalid.

    Args:
        deployment: The deployment with the current spec.
        model: The checkpoint's shape.
        snapshot: The cluster's GPUs.
        gpus: Known GPU products.
        predictor: Predicts one replica.
        running: The plan, which has prefill replicas.
        allowance: Watts available from budgets.
        corrections: Factors learned from measurement.
    """
    spec = deployment.spec
    served = with_quantization(model, spec.model.quantization)
    problem = problem_for(deployment, served, snapshot, gpus, predictor, allowance, corrections)
    refused = refuses_roles(problem.model, EngineSettings.of(spec.engine))
    if refused:
        return Infeasible("ModelUnsupported", refused)
    pairs = best_pairs(problem, Pairing(served=True, only=running))
    if pairs is None:
        text = "the spec, the free GPUs or the load no longer allow its prefill and decode replicas"
        return Infeasible("InsufficientGPUs", text)
    if not pairs.is_feasible:
        return Infeasible("SLOInfeasible", "; ".join(pairs.pairs[0][1]))
    status = decode_alone(problem, pairs)
    found = status.model_copy(update=figures_of(pairs, pairs.best, spec, status))
    return Feasible(identified(found, spec), ())
