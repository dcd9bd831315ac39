"""A planning problem and its exact solution: predict every candidate, apply every rule, choose the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from energylens.api.llmdeployment import BatchJob, LLMDeploymentSpec, Planning, RequestShape
from energylens.api.quantity import parse_quantity
from energylens.api.words import counted
from energylens.planner.engines import EngineSettings
from energylens.planner.engines.speculation import speculation_of
from energylens.planner.inventory.capacity import replicas_that_fit
from energylens.planner.inventory.nodes import allowed_nodes
from energylens.planner.search.breach import latency_share, with_breach, with_limit
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import Constraint, build_constraints, count_rejections, feasible
from energylens.planner.search.contenders import contenders
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.evaluate import Question, evaluate
from energylens.planner.search.job import Job
from energylens.planner.search.load import Load, Reserve
from energylens.planner.search.objective import best, objective_values
from energylens.planner.search.replica import ReplicaPredictor
from energylens.planner.search.space import ProductSpace, enumerate_space
from energylens.planner.search.steps import directions, highest_tried, with_other_steps, with_steps
from energylens.planner.types import UNLIMITED_WATTS, GpuNode, PowerAllowance, Rejection
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.requests import RequestClass
from energylens.predictor.types import GpuSpec, Workload
from energylens.records import dataclass

NO_BINDING_CONSTRAINT = "None"
MOST_CANDIDATES = 400_000
"""Most candidates of one product. A mixture of experts has this many on about 1,000 GPUs, a dense model on 7,500; those
of three products take half a gigabyte, and the operator has one."""


@dataclass(frozen=True)
class Problem:
    """A deployment to plan, with everything that the plan depends on."""

    spec: LLMDeploymentSpec
    owner: str
    """``namespace/name`` of the deployment; GPUs that its own pods hold count as free."""
    model: ModelSpec
    """The model as the engine serves it."""
    nodes: tuple[GpuNode, ...]
    """Nodes that the spec may use, of known products."""
    gpus: Mapping[str, GpuSpec]
    predictor: ReplicaPredictor
    allowance: PowerAllowance | None
    corrections: Corrections | None = None
    load_factor: float = 1.0
    within_limits: bool = False
    """Whether to leave out candidates that hardware limits forbid, instead of evaluating them for the explanation."""
    within_power: bool = False
    """Whether to leave out candidates whose idle GPUs exceed the allowance, too; only with ``within_limits``."""

    @property
    def products(self) -> tuple[str, ...]:
        """GPU products of the nodes, sorted."""
        return tuple(sorted({node.product for node in self.nodes}))

    @property
    def floor_watts(self) -> float:
        """The least that a GPU of the nodes draws with an engine on it, W; 0 without nodes."""
        return min((self.gpus[product].idle_watts for product in self.products), default=0.0)

    @property
    def allowed_products(self) -> tuple[str, ...]:
        """Products that ``spec.hardware.gpuProducts`` allows, sorted."""
        return tuple(sorted({node.product for node in allowed_nodes(self.spec, self.nodes, self.gpus)}))

    @property
    def load(self) -> Load:
        """The offered load."""
        w = self.spec.workload
        load = Load(
            Workload.of_classes(
                [_class_of(part) for part in w.shapes],
                speculation_of(self.spec),
                1.0 if w.arrival_scv is None else float(parse_quantity(w.arrival_scv)),
            ),
            None if w.requests_per_second is None else float(parse_quantity(w.requests_per_second)),
            w.in_flight,
            None if w.job is None else _job_of(w.job),
        )
        return load if self.load_factor == 1.0 else load.scaled(self.load_factor)

    def free_gpus(self, product: str) -> tuple[int, ...]:
        """Return the GPUs of each node of a product that this deployment could use.

        0 if nothing can be scheduled there.
        """
        return tuple(n.free_for(self.owner) if n.schedulable else 0 for n in self.nodes if n.product == product)


def _job_of(job: BatchJob) -> Job:
    return Job(float(job.complete_within_seconds), job.after_completion == "Idle", job.start_seconds)


def _class_of(part: RequestShape) -> RequestClass:
    return RequestClass(
        part.share_percent / 100.0,
        part.input_tokens,
        part.output_tokens,
        part.prefix_cache_hit_percent / 100.0,
        None if part.input_tokens_scv is None else float(parse_quantity(part.input_tokens_scv)),
        0.0 if part.output_tokens_scv is None else float(parse_quantity(part.output_tokens_scv)),
    )


@dataclass(frozen=True)
class Solution:
    """Every candidate, every rule, and the best candidate that satisfies all of them."""

    rows: Candidates
    constraints: tuple[Constraint, ...]
    chosen: int | None
    left_out: tuple[Rejection, ...] = ()
    """Candidates that were too many to evaluate: those with the most GPUs."""

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """The candidates left out of the space, then the candidates that each rule removed."""
        return (*self.left_out, *count_rejections(self.constraints, len(self.rows)))


def reserve_of(planning: Planning) -> Reserve:
    """Return the capacity that a spec keeps free."""
    percent = planning.headroom_percent
    return Reserve(None if percent is None else percent / 100.0, planning.spare_replicas)


def most_replicas(concurrency: int | None, planning: Planning) -> int | None:
    """Return the most replicas that a plan can have: one for each request in flight, and the spare ones."""
    return None if concurrency is None else concurrency + planning.spare_replicas


def solve(problem: Problem, most_gpus: int | None = None) -> Solution:
    """Return the exact optimum of a problem, with everything needed to explain it.

    With ``most_gpus`` only candidates of at most that many GPUs per product are evaluated.

    Candidates that ``maxGPUs``, ``gpuProducts`` and the GPUs of other pods forbid are evaluated too, so that an answer
    can say which limit binds and what relaxing it would give.
    """
    spec = problem.spec
    powered = most_powered(problem, problem.floor_watts) if problem.within_power else None
    if powered is not None:
        most_gpus = max(1, powered if most_gpus is None else min(most_gpus, powered))
    spaces = spaces_of(problem, most_gpus)
    if problem.within_limits:
        spaces = [clipped(problem, space) for space in spaces]
    smaller = [space.within(MOST_CANDIDATES) for space in spaces]
    left_out = tuple(
        Rejection(
            "SpaceTooLarge",
            len(space) - len(few),
            f"plans of more than {counted(gpus, 'GPU')} of {space.gpu.product} are not evaluated on this many nodes",
        )
        for space, (few, gpus) in zip(spaces, smaller, strict=True)
        if len(few) < len(space)
    )
    predicted, constrained = partial(_predicted, problem), partial(_constrained, problem)
    rows = predicted([few for few, _ in smaller])
    constraints = constrained(rows)
    chosen = best(rows, feasible(constraints, len(rows)), spec.energy.objective)
    if _tries_steps(problem.spec):
        gpus = [problem.gpus[product] for product in problem.products]
        more = with_other_steps(rows, constraints, chosen, spec, gpus, predicted, constrained)
        if more is not None:
            rows = rows.joined(more)
            constraints = constrained(rows)
            chosen = best(rows, feasible(constraints, len(rows)), spec.energy.objective)
    return Solution(rows, constraints, chosen, left_out)


def _tries_steps(spec: LLMDeploymentSpec) -> bool:
    """Return whether candidates that break latencies are tried with other tokens per step."""
    # A job has no latencies that other steps could mend.
    plans = EngineSettings.of(spec.engine).plans_steps and spec.workload.job is None
    return plans and spec.planning.overrides.max_batched_tokens is None


def kept_candidates(solution: Solution, spec: LLMDeploymentSpec) -> Candidates | None:
    """Return the candidates from which :func:`solve_again` finds the solution for other free GPUs.

    None if the solution needed other tokens per step. Power must not be limited.
    """
    rows = solution.rows
    if _tries_steps(spec) and rows.layouts.max_batched_tokens.any():
        return None
    return rows.take(contenders(rows, solution.constraints, spec))


def solve_again(problem: Problem, rows: Candidates) -> Solution | None:
    """Return the optimum of a problem without predicting its candidates.

    The rejections of the solution do not count all candidates.

    Args:
        problem: A problem without a limit on power.
        rows: From :func:`kept_candidates`, of a problem that differs at most in the free GPUs.

    Returns:
        None if no candidate fits, or if some must be predicted with other tokens per step.
    """
    objective = problem.spec.energy.objective
    constraints = _constrained(problem, rows)
    chosen = best(rows, feasible(constraints, len(rows)), objective)
    if chosen is None:
        return None
    if _tries_steps(problem.spec):
        values = objective_values(rows, objective)
        fewer, more = directions(rows, constraints, problem.spec)
        if ((fewer | more) & (values <= highest_tried(values, chosen))).any():
            return None
    return Solution(rows, constraints, chosen)


def evaluated(problem: Problem, spaces: Sequence[ProductSpace]) -> Solution:
    """Return the candidates of some spaces, every rule, and the best candidate, with the steps that the layouts have.

    Args:
        problem: The problem.
        spaces: Candidates, in the order of the problem's products.
    """
    rows = _predicted(problem, spaces)
    constraints = _constrained(problem, rows)
    return Solution(rows, constraints, best(rows, feasible(constraints, len(rows)), problem.spec.energy.objective))


def _predicted(problem: Problem, spaces: Sequence[ProductSpace]) -> Candidates:
    spec = problem.spec
    question = replace(question_of(problem), latency_share=latency_share(spec.energy.objective))
    return with_breach(evaluate(spaces, question), spec)


def question_of(problem: Problem) -> Question:
    """Return the question that the candidates of a problem are evaluated for, with the whole margin on latencies."""
    spec = problem.spec
    return Question(
        problem.model,
        problem.predictor,
        problem.load,
        spec.slo.percentile,
        margin=spec.planning.safety_margin_percent / 100.0,
        corrections=problem.corrections or Corrections(),
        settings=EngineSettings.of(spec.engine),
        reserve=reserve_of(spec.planning),
    )


def _constrained(problem: Problem, rows: Candidates) -> tuple[Constraint, ...]:
    free = [problem.free_gpus(product) for product in problem.products]
    return build_constraints(rows, problem.spec, problem.allowed_products, free, problem.allowance)


def spaces_of(problem: Problem, most_gpus: int | None = None) -> list[ProductSpace]:
    """Return the space of every available product, whatever the spec says about products and numbers of GPUs.

    With ``most_gpus`` the spaces contain only candidates of at most that many GPUs per product.
    """
    spec = problem.spec
    spaces = [
        enumerate_space(
            problem.model,
            problem.gpus[product],
            [node.allocatable for node in problem.nodes if node.product == product],
            spec.planning.overrides,
            spec.energy.power_cap,
            max_replicas=most_replicas(problem.load.concurrency, spec.planning),
            most_gpus=most_gpus,
        )
        for product in problem.products
    ]
    settings, tokens = EngineSettings.of(spec.engine), spec.planning.overrides.max_batched_tokens
    if not tokens or settings.fixes_steps:
        return spaces
    return [
        replace(space, layouts=with_steps(space.layouts, tokens, problem.model, space.gpu, settings))
        for space in spaces
    ]


def clipped(problem: Problem, space: ProductSpace) -> ProductSpace:
    """Return the layouts and replicas that gpuProducts, maxGPUs, maxGPUsPerReplica and the GPUs of other pods allow.

    With ``within_power``, only those that the power available from budgets may allow.
    """
    hardware, gpus = problem.spec.hardware, space.layouts.gpus
    last = np.minimum(
        space.last,
        replicas_that_fit(problem.free_gpus(space.gpu.product), space.gpus_per_node, space.nodes_per_replica),
    )
    most = [hardware.max_gpus, most_powered(problem, space.gpu.idle_watts) if problem.within_power else None]
    for limit in most:
        if limit is not None:
            last = np.minimum(last, limit // gpus)
    keep = last >= space.first
    if hardware.max_gpus_per_replica is not None:
        keep &= gpus <= hardware.max_gpus_per_replica
    keep &= space.gpu.product in problem.allowed_products
    return replace(space, last=last).take(np.flatnonzero(keep))


def most_powered(problem: Problem, idle_watts: float) -> int | None:
    """Return the number of idle GPUs that the allowance can power; None if it implies no number.

    A GPU with a running engine never draws less than an idle one. Factors learned from measurement may lower the
    predicted power, so they allow no such bound.
    """
    allowance = problem.allowance
    unlimited = allowance is None or allowance.watts >= UNLIMITED_WATTS
    if allowance is None or unlimited or problem.corrections is not None or idle_watts <= 0.0:
        return None
    # A plan's power is rounded to whole watts.
    return int((allowance.watts + 0.5) / idle_watts)


def binding_constraint(solution: Solution, spec: LLMDeploymentSpec, beyond: float | None = None) -> str:
    """Return the field of the constraint whose removal would lower the objective most, or below ``beyond``.

    ``None`` as text if there is none.
    """
    rows, objective = solution.rows, spec.energy.objective
    values = objective_values(rows, objective)
    allowed = np.flatnonzero(feasible(solution.constraints, len(rows)))
    # Among plans that predictions cannot distinguish, the chosen one may have a higher value than another.
    here = [int(allowed[np.argmin(values[allowed])])] if allowed.size else []
    if beyond is None:
        assert solution.chosen is not None
        here.append(solution.chosen)
    field, least = NO_BINDING_CONSTRAINT, 1.0 - 1e-3
    for constraint in solution.constraints:
        if constraint.kind not in ("GPUs", "SLO", "Power"):
            continue
        mask = feasible(solution.constraints, len(rows), without=[constraint])
        without = objective_values(with_limit(rows, spec, constraint, None), objective)
        now = float(np.min(without[here], initial=np.inf if beyond is None else beyond))
        share = float(np.min(without[mask], initial=np.inf)) / now
        if share < least:
            field, least = constraint.field, share
    return field
