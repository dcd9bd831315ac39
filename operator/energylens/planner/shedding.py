"""The running plan with fewer replicas, for a budget that sheds more power than any plan of the full load can spare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, ReplicaPower
from energylens.planner.adoption import pinned_to
from energylens.planner.planning import problem_for
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.identity import identified
from energylens.planner.search.plan_status import plan_status
from energylens.planner.search.problem import Problem, Solution, solve
from energylens.planner.search.replica import ReplicaPredictor
from energylens.planner.types import ClusterSnapshot, PowerAllowance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.requantize import with_quantization
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass

MOST_COUNTS = 32
"""Number of replica counts whose power a status lists; more are spread evenly, the first and the last included."""


@dataclass(frozen=True)
class Running:
    """A plan whose pods run, and the inputs that predict its power with fewer replicas."""

    deployment: LLMDeployment
    """Its ``spec.energy.minReplicas`` is the fewest replicas."""
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
        """The fewest replicas that budgets leave."""
        return self.deployment.spec.energy.min_replicas

    def pinned(self, replicas: int | None) -> LLMDeployment | None:
        """Return the deployment pinned to the running plan except for its replicas; None if the spec forbids that."""
        spec = self.deployment.spec
        overrides = spec.planning.overrides.model_copy(update={"replicas": None})
        planning = spec.planning.model_copy(update={"overrides": overrides})
        asked = self.deployment.model_copy(update={"spec": spec.model_copy(update={"planning": planning})})
        found = pinned_to(asked, self.plan.model_copy(update={"replicas": replicas}), self.gpus)
        return None if isinstance(found, str) else found

    def solved(self, pinned: LLMDeployment) -> tuple[Problem, Solution, list[int]]:
        """Return the problem of a pinned deployment without budgets, its solution, and the rows with the same pods."""
        served = with_quantization(self.model, self.deployment.spec.model.quantization)
        problem = problem_for(pinned, served, self.snapshot, self.gpus, self.predictor, None, self.corrections)
        problem = replace(problem, allowance=None)
        solution = solve(problem, max(self.plan.gpus, 1))
        rows = solution.rows
        # The rows also contain products that the spec forbids, for explanations.
        product = np.asarray([name == self.plan.gpu_product for name in rows.products], dtype=bool)[rows.product]
        same = product & (rows.nodes_per_replica == self.plan.nodes_per_replica)
        return problem, solution, np.flatnonzero(same & rows.supported & rows.fits).tolist()

    def saturated(self, pinned: LLMDeployment, problem: Problem, solution: Solution, row: int) -> LLMDeployment:
        """Return a deployment whose load fully occupies the replicas of a row."""
        layout = solution.rows.layouts.take(np.asarray([row]))
        gpu = self.gpus[self.plan.gpu_product]
        held = problem.predictor.memory(problem.model, gpu, layout, problem.load.workload).max_concurrency
        places = np.minimum(layout.max_batch_size * layout.data_parallel, held)
        return _loaded(pinned, int(solution.rows.replicas[row]) * max(1, int(places[0])))

    def at(self, replicas: int) -> PlanStatus | None:
        """Return the plan with another number of replicas; None if the spec or the nodes forbid it."""
        pinned = self.pinned(replicas)
        if pinned is None:
            return None
        problem, solution, rows = self.solved(pinned)
        if not rows:
            return None
        # Beyond their capacity the queue grows without bound and has no figures; the replicas are then fully busy.
        if not np.isfinite(solution.rows.ttft_ms[rows[0]]):
            problem, solution, rows = self.solved(self.saturated(pinned, problem, solution, rows[0]))
        return plan_status(problem, replace(solution, chosen=rows[0]), rows[0])


def with_fewer_replicas(running: Running, allowance: PowerAllowance) -> PlanStatus | None:
    """Return the running layout with the most replicas whose power fits the allowance, otherwise with the least power.

    Fewer replicas are busier, each up to its capacity. Their power is predicted for the whole load, of which they serve
    as much as they can.

    Args:
        running: The plan whose pods run.
        allowance: Watts available from budgets.

    Returns:
        The plan under the hash of the full plan, which was approved. None if the spec no longer allows the running
        layout, or if the plan has the fewest replicas already.
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
    """Return the predicted power for each smaller number of replicas, as :func:`with_fewer_replicas` predicts it.

    Args:
        running: The plan whose pods run.

    Returns:
        Most replicas first, at most ``MOST_COUNTS``. Empty if the plan has the fewest replicas already, or if the spec
        no longer allows its layout.
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
            # A fully busy replica draws the same power however many replicas run beside it.
            busiest = busiest or _busiest_watts(running)
            watts = count * busiest
        found.append(ReplicaPower(replicas=count, power_watts=round(watts)))
    return tuple(found)


def counts_of(replicas: int, fewest: int) -> tuple[int, ...]:
    """Return the numbers of replicas below ``replicas`` whose power a status lists, descending to ``fewest``."""
    every = range(replicas - 1, fewest - 1, -1)
    if len(every) <= MOST_COUNTS:
        return tuple(every)
    picked = np.unique(np.rint(np.linspace(fewest, replicas - 1, MOST_COUNTS)).astype(int))
    return tuple(int(count) for count in picked[::-1])


def is_priced(plan: PlanStatus, fewest: int) -> bool:
    """Return whether a plan lists the power of every number of replicas that a budget may leave."""
    # Replicas of one role without those of the other carry no load: a plan with separate roles is not shed.
    fewer = () if plan.prefill is not None else counts_of(plan.replicas, fewest)
    return tuple(each.replicas for each in plan.fewer_replicas) == fewer


def _busiest_watts(running: Running) -> float:
    """Return the power of one fully busy replica, W."""
    pinned = running.pinned(1)
    assert pinned is not None
    problem, solution, rows = running.solved(pinned)
    _, busy, rows = running.solved(running.saturated(pinned, problem, solution, rows[0]))
    return float(busy.rows.power_watts[rows[0]])


def _loaded(deployment: LLMDeployment, concurrency: int) -> LLMDeployment:
    """Return a deployment whose load is ``concurrency`` requests in flight."""
    workload = deployment.spec.workload.model_copy(
        update={"requests_per_second": None, "arrival_scv": None, "concurrency": concurrency}
    )
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"workload": workload})})
