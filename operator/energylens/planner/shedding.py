"""The running plan with fewer replicas, for a budget that takes power which no plan of the whole load can spare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.planner.adoption import pinned_to
from energylens.planner.corrections import Corrections
from energylens.planner.evaluate import Predictor
from energylens.planner.identity import identified
from energylens.planner.planning import plan_status, problem_for
from energylens.planner.problem import solve
from energylens.planner.types import ClusterSnapshot, PowerAllowance
from energylens.predictor.architecture import ModelSpec
from energylens.predictor.requantize import with_quantization
from energylens.predictor.types import GpuSpec


def with_fewer_replicas(
    deployment: LLMDeployment,
    model: ModelSpec,
    running: PlanStatus,
    snapshot: ClusterSnapshot,
    gpus: Mapping[str, GpuSpec],
    predictor: Predictor,
    allowance: PowerAllowance,
    *,
    corrections: Corrections | None = None,
) -> PlanStatus | None:
    """Return the running layout with the most replicas whose power the allowance holds, else with the fewest allowed.

    Fewer replicas are busier, each up to what it can carry: their power is predicted for the whole load, of which they
    serve what they can.

    Args:
        deployment: What is asked for; ``spec.energy.minReplicas`` is the fewest.
        model: The checkpoint's shape.
        running: The plan whose pods run.
        snapshot: The cluster's GPUs.
        gpus: Known GPU products.
        predictor: Predicts one replica.
        allowance: Watts that budgets leave.
        corrections: Factors learned from measurement.

    Returns:
        The plan under the hash of the whole one, which is what was approved; None where the spec no longer allows
        the running layout, or where it has the fewest replicas already.
    """
    spec = deployment.spec
    fewest = spec.energy.min_replicas
    served = with_quantization(model, spec.model.quantization)
    overrides = spec.planning.overrides.model_copy(update={"replicas": None})
    planning = spec.planning.model_copy(update={"overrides": overrides})
    asked = deployment.model_copy(update={"spec": spec.model_copy(update={"planning": planning})})
    found: PlanStatus | None = None
    for replicas in range(running.replicas - 1, fewest - 1, -1):
        pinned = pinned_to(asked, running.model_copy(update={"replicas": replicas}), gpus)
        if isinstance(pinned, str):
            return None
        load, saturated = pinned, False
        while True:
            problem = replace(problem_for(load, served, snapshot, gpus, predictor, None, corrections), allowance=None)
            solution = solve(problem)
            rows = solution.rows
            # Candidates of products that the spec forbids are there too, for explanations.
            product = np.asarray([name == running.gpu_product for name in rows.products])[rows.product]
            same = product & (rows.nodes_per_replica == running.nodes_per_replica)
            usable = np.flatnonzero(same & rows.supported & rows.fits)
            if not usable.size:
                return None
            i = int(usable[0])
            # More than they carry waits without end, which is no figure; then they are as busy as they can be.
            if saturated or np.isfinite(rows.ttft_ms[i]):
                break
            layout, workload = rows.layouts.take(usable[:1]), problem.load.workload
            held = predictor.memory(served, gpus[running.gpu_product], layout, workload).max_concurrency
            places = np.minimum(layout.max_batch_size * layout.data_parallel, held)
            load, saturated = _saturated(pinned, replicas * max(1, int(places[0]))), True
        found = plan_status(problem, replace(solution, chosen=i), i)
        if found.predicted.power_watts <= allowance.watts:
            break
    if found is None:
        return None
    fewer = found.model_copy(
        update={
            "shed_from_replicas": running.shed_from_replicas or running.replicas,
            "binding_constraint": allowance.source,
            "shed_by": allowance.source,
            "lowest_power_watts": running.lowest_power_watts,
            "alternatives": running.alternatives,
        }
    )
    return identified(fewer, spec)


def _saturated(deployment: LLMDeployment, concurrency: int) -> LLMDeployment:
    """Return a deployment whose load is so many requests at the same time."""
    workload = deployment.spec.workload.model_copy(update={"requests_per_second": None, "concurrency": concurrency})
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"workload": workload})})
