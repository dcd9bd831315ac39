"""The running plan with fewer replicas, for a budget that takes power which no plan of the whole load can spare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, ReplicaPower
from energylens.planner.adoption import pinned_to
from energylens.planner.planning import plan_status, problem_for
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.identity import identified
from energylens.planner.search.problem import Problem, Solution, solve
from energylens.planner.search.replica import ReplicaPredictor
from energylens.planner.types import ClusterSnapshot, PowerAllowance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.requantize import with_quantization
from energylens.predictor.types import GpuSpec

MOST_COUNTS = 32
"""Numbers of replicas whose power a status has; more are spread evenly, first and last included."""


@dataclass(frozen=True)
class Running:
    """A plan whose pods run, and what its power with fewer of them is predicted from."""

    deployment: LLMDeployment
    """The deployment; ``spec.energy.minReplicas`` is the fewest replicas."""
    model: ModelSpec
    """The checkpoint's shape."""
    plan: PlanStatus
    snapshot: ClusterSnapshot
    gpus: Mapping[str, GpuSpec]
    """Known GPU products."""
    predictor: ReplicaPredictor
    """Predictor of one replica."""
    corrections: Corrections | None = None
    """Factors learned from measurement."""

    @property
    def fewest(self) -> int:
        """Replicas that stay in any case."""
        return self.deployment.spec.energy.min_replicas

    def pinned(self, replicas: int | None) -> LLMDeployment | None:
        """Return the deployment with every choice but the replicas as it runs; None where the spec forbids that."""
        spec = self.deployment.spec
        overrides = spec.planning.overrides.model_copy(update={"replicas": None})
        planning = spec.planning.model_copy(update={"overrides": overrides})
        asked = self.deployment.model_copy(update={"spec": spec.model_copy(update={"planning": planning})})
        found = pinned_to(asked, self.plan.model_copy(update={"replicas": replicas}), self.gpus)
        return None if isinstance(found, str) else found

    def solved(self, pinned: LLMDeployment) -> tuple[Problem, Solution, list[int]]:
        """Return the problem of a pinned deployment without budgets, its solution, and the rows of the same pods."""
        served = with_quantization(self.model, self.deployment.spec.model.quantization)
        problem = problem_for(pinned, served, self.snapshot, self.gpus, self.predictor, None, self.corrections)
        problem = replace(problem, allowance=None)
        solution = solve(problem, max(self.plan.gpus, 1))
        rows = solution.rows
        # Candidates of products that the spec forbids are there too, for explanations.
        product = np.asarray([name == self.plan.gpu_product for name in rows.products], dtype=bool)[rows.product]
        same = product & (rows.nodes_per_replica == self.plan.nodes_per_replica)
        return problem, solution, np.flatnonzero(same & rows.supported & rows.fits).tolist()

    def saturated(self, pinned: LLMDeployment, problem: Problem, solution: Solution, row: int) -> LLMDeployment:
        """Return a deployment whose replicas, as many as the row has, are as busy as they can be."""
        layout = solution.rows.layouts.take(np.asarray([row]))
        gpu = self.gpus[self.plan.gpu_product]
        held = problem.predictor.memory(problem.model, gpu, layout, problem.load.workload).max_concurrency
        places = np.minimum(layout.max_batch_size * layout.data_parallel, held)
        return _loaded(pinned, int(solution.rows.replicas[row]) * max(1, int(places[0])))

    def at(self, replicas: int) -> PlanStatus | None:
        """Return the plan with another number of replicas; None where the spec or the nodes forbid it."""
        pinned = self.pinned(replicas)
        if pinned is None:
            return None
        problem, solution, rows = self.solved(pinned)
        if not rows:
            return None
        # More than they carry waits without end, which is no figure; then they are as busy as they can be.
        if not np.isfinite(solution.rows.ttft_ms[rows[0]]):
            problem, solution, rows = self.solved(self.saturated(pinned, problem, solution, rows[0]))
        return plan_status(problem, replace(solution, chosen=rows[0]), rows[0])


def with_fewer_replicas(running: Running, allowance: PowerAllowance) -> PlanStatus | None:
    """Return the running layout with the most replicas whose power the allowance holds, else the one of least power.

    Fewer replicas are busier, each up to what it can carry: their power is predicted for the whole load, of which they
    serve what they can.

    Args:
        running: The plan whose pods run.
        allowance: Watts available from budgets.

    Returns:
        The plan under the hash of the whole one, which is what was approved; None where the spec no longer allows
        the running layout, or where it has the fewest replicas already.
    """
    found: PlanStatus | None = None
    for plan in _fewer(running):
        if found is None or plan.predicted.power_watts < found.predicted.power_watts:
            found = plan
        if plan.predicted.power_watts <= allowance.watts:
            break
    if found is None:
        return None
    fewer = found.model_copy(
        update={
            "shed_from_replicas": running.plan.shed_from_replicas or running.plan.replicas,
            "shed_from_power_watts": running.plan.shed_from_power_watts or running.plan.predicted.power_watts,
            "binding_constraint": allowance.source,
            "shed_by": allowance.source,
            "lowest_power_watts": running.plan.lowest_power_watts,
            "alternatives": running.plan.alternatives,
        }
    )
    return identified(fewer, running.deployment.spec)


def _fewer(running: Running) -> Iterator[PlanStatus]:
    for replicas in range(running.plan.replicas - 1, running.fewest - 1, -1):
        plan = running.at(replicas)
        if plan is None:
            return
        yield plan


def replica_powers(running: Running) -> tuple[ReplicaPower, ...]:
    """Return the predicted power with each smaller number of replicas, as :func:`with_fewer_replicas` predicts it.

    Args:
        running: The plan whose pods run.

    Returns:
        Most replicas first, at most ``MOST_COUNTS``; empty where the plan has the fewest already, or where the spec no
        longer allows its layout.
    """
    counts = counts_of(running.plan.replicas, running.fewest)
    pinned = running.pinned(None) if counts else None
    if pinned is None:
        return ()
    _, solution, rows = running.solved(pinned)
    by_count = {int(solution.rows.replicas[row]): row for row in rows}
    found, busiest = [], 0.0
    for count in counts:
        row = by_count.get(count)
        if row is None:
            return ()
        if np.isfinite(solution.rows.ttft_ms[row]):
            watts = float(solution.rows.power_watts[row])
        else:
            # As busy as it can be, a replica draws the same whatever runs beside it.
            busiest = busiest or _busiest_watts(running)
            watts = count * busiest
        found.append(ReplicaPower(replicas=count, power_watts=round(watts)))
    return tuple(found)


def counts_of(replicas: int, fewest: int) -> tuple[int, ...]:
    """Return the numbers of replicas below ``replicas`` whose power a status has, descending to ``fewest``."""
    every = range(replicas - 1, fewest - 1, -1)
    if len(every) <= MOST_COUNTS:
        return tuple(every)
    picked = np.unique(np.rint(np.linspace(fewest, replicas - 1, MOST_COUNTS)).astype(int))
    return tuple(int(count) for count in picked[::-1])


def is_priced(plan: PlanStatus, fewest: int) -> bool:
    """Return whether a plan has the power of every number of replicas that a budget may leave it."""
    return tuple(each.replicas for each in plan.fewer_replicas) == counts_of(plan.replicas, fewest)


def _busiest_watts(running: Running) -> float:
    """Return the power of one replica that is as busy as it can be, W."""
    pinned = running.pinned(1)
    assert pinned is not None
    problem, solution, rows = running.solved(pinned)
    _, busy, rows = running.solved(running.saturated(pinned, problem, solution, rows[0]))
    return float(busy.rows.power_watts[rows[0]])


def _loaded(deployment: LLMDeployment, concurrency: int) -> LLMDeployment:
    """Return a deployment whose load is so many requests at the same time."""
    workload = deployment.spec.workload.model_copy(
        update={"requests_per_second": None, "arrival_scv": None, "concurrency": concurrency}
    )
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"workload": workload})})
