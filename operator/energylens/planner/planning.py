"""Planning: from spec, cluster snapshot and predictor to a plan and its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from energylens.api.llmdeployment import (
    LLMDeployment,
    LLMDeploymentSpec,
    PlanStatus,
)
from energylens.planner.engines import EngineSettings, too_long
from energylens.planner.explain.disaggregation import loses, of_pair, pairs_of, with_hint, with_pair
from energylens.planner.explain.infeasible import explain_infeasible, with_options
from energylens.planner.explain.placement import placement_changes
from energylens.planner.inventory.network import with_networks
from energylens.planner.inventory.nodes import (
    allowed_nodes,
    excluded_for,
    no_matching_gpus,
    unknown_products,
    unusable,
    usable_nodes,
)
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.frontier import alternatives, frontier_rows, table
from energylens.planner.search.identity import inputs_hash, sealed
from energylens.planner.search.plan_status import check_plan, hash_of_inputs, plan_status
from energylens.planner.search.problem import Problem, Solution, solve_again
from energylens.planner.search.reach import power_restricts, reach_of, solve_within
from energylens.planner.search.replica import ReplicaPredictor
from energylens.planner.search.week_load import at_peak
from energylens.planner.types import ClusterSnapshot, Feasible, Infeasible, PlanningResult, PowerAllowance
from energylens.predictor import Predictor as ProfiledPredictor
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.requantize import UnsupportedQuantizationError, with_quantization
from energylens.predictor.types import GpuSpec

_MORE_GPUS_WOULD_DO = ("InsufficientGPUs", "ModelTooLarge", "LoadTooHigh")
"""Reasons that unusable GPU nodes may have caused."""


def plan(
    deployment: LLMDeployment,
    model: ModelSpec,
    snapshot: ClusterSnapshot,
    gpus: Mapping[str, GpuSpec],
    predictor: ReplicaPredictor,
    *,
    allowance: PowerAllowance | None = None,
    corrections: Corrections | None = None,
) -> PlanningResult:
    """Return the plan of least energy (or power, or GPUs) that satisfies every constraint, or why there is none.

    Args:
        deployment: The deployment.
        model: The checkpoint's shape, before ``spec.model.quantization`` is applied.
        snapshot: The cluster's GPUs.
        gpus: Known GPU products by the label ``nvidia.com/gpu.product``.
        predictor: Predicts one replica.
        allowance: Watts available from budgets, before an enforced ``spec.energy.budget.powerWatts`` is applied.
        corrections: Factors learned from measurement.

    Raises:
        PlanCheckError: The finished plan breaks ``maxGPUs`` or an override.
    """
    return plan_and_solution(
        deployment, model, snapshot, gpus, predictor, allowance=allowance, corrections=corrections
    )[0]


def plan_and_solution(
    deployment: LLMDeployment,
    model: ModelSpec,
    snapshot: ClusterSnapshot,
    gpus: Mapping[str, GpuSpec],
    predictor: ReplicaPredictor,
    *,
    allowance: PowerAllowance | None = None,
    corrections: Corrections | None = None,
) -> tuple[PlanningResult, Solution | None]:
    """Return the result of :func:`plan`, with the same arguments, and all candidates; None if none were evaluated."""
    deployment = at_peak(deployment)
    try:
        served = with_quantization(model, deployment.spec.model.quantization)
    except UnsupportedQuantizationError as error:
        return Infeasible("ModelUnsupported", f"spec.model.{error}"), None
    problem = problem_for(deployment, served, snapshot, gpus, predictor, allowance, corrections)
    settings = EngineSettings.of(deployment.spec.engine)
    beyond = too_long(problem.model, problem.load.workload, settings)
    if beyond:
        return Infeasible("ContextTooShort", f"spec.workload: {beyond}"), None
    if not problem.allowed_products:
        none = no_matching_gpus(deployment.spec, snapshot, gpus)
        changes = placement_changes(problem, snapshot)
        return replace(none, message=with_options(none.message, changes), relaxations=changes), None
    solution, most = solve_within(problem)
    if solution.chosen is None:
        pairs = pairs_of(problem) if deployment.spec.planning.disaggregation == "Follow" else None
        if pairs is not None and pairs.is_feasible:
            return of_pair(problem, solution, pairs), solution
        refused = with_hint(problem, explain_infeasible(problem, solution, placement_changes(problem, snapshot)))
        refused = replace(refused, most_gpus=most)
        if refused.reason in _MORE_GPUS_WOULD_DO:
            left_out = unusable(excluded_for(deployment.spec, deployment.owner, snapshot, gpus))
            unknown = unknown_products(deployment.spec, gpus)
            ignored = f"; spec.hardware.gpuProducts: {unknown}" if unknown else ""
            refused = replace(refused, message=refused.message + left_out + ignored)
        return refused, solution
    return _found(problem, solution, most), solution


def plan_again(
    deployment: LLMDeployment,
    model: ModelSpec,
    snapshot: ClusterSnapshot,
    gpus: Mapping[str, GpuSpec],
    predictor: ReplicaPredictor,
    rows: Candidates,
    most_gpus: int | None,
    *,
    corrections: Corrections | None = None,
) -> Feasible | None:
    """Return the plan for other free GPUs without predicting candidates, equal to that of :func:`plan`.

    Its rejections are left out. None if only a search can tell.

    Args:
        deployment: A deployment that differs in nothing that planning reads.
        model: The checkpoint's shape.
        snapshot: The same cluster but for free GPUs and nodes beyond the bound.
        gpus: Known GPU products.
        predictor: Predicts one replica.
        rows: From :func:`energylens.planner.search.problem.kept_candidates`, of an earlier answer.
        most_gpus: The bound of that answer.
        corrections: Factors learned from measurement.

    Raises:
        PlanCheckError: The finished plan breaks ``maxGPUs`` or an override.
    """
    deployment = at_peak(deployment)
    served = with_quantization(model, deployment.spec.model.quantization)
    problem = problem_for(deployment, served, snapshot, gpus, predictor, None, corrections)
    solution = solve_again(problem, rows)
    if solution is None:
        return None
    found = _found(problem, solution, most_gpus)
    reach = reach_of(found.plan, problem.spec, problem.nodes, problem.gpus, corrected=corrections is not None)
    return replace(found, rejections=()) if reach == most_gpus else None


def _found(problem: Problem, solution: Solution, most: int | None) -> Feasible:
    """Return the plan of a solution that has one."""
    spec, rows, i = problem.spec, solution.rows, solution.chosen
    assert i is not None
    order, reasons = frontier_rows(rows, solution.constraints, i, spec)
    status = plan_status(problem, solution, i).model_copy(
        update={"alternatives": alternatives(rows, solution.constraints, order, reasons, i, problem.spec)}
    )
    shown = table(rows, order, reasons)
    pairs = pairs_of(problem)
    if pairs is not None:
        if spec.planning.disaggregation == "Follow" and not loses(pairs, rows, i, spec):
            return of_pair(problem, solution, pairs, status, shown)
        status, shown = with_pair(problem, solution, i, status, shown, pairs)
    check_plan(status, spec, step_tokens=int(rows.step_tokens[i]))
    restricted = power_restricts(solution, spec)
    inputs = hash_of_inputs(problem if restricted else replace(problem, allowance=None), most)
    return Feasible(sealed(status, inputs), solution.rejections, shown, restricted, most)


def plan_inputs_hash(
    deployment: LLMDeployment,
    model: ModelSpec,
    snapshot: ClusterSnapshot,
    gpus: Mapping[str, GpuSpec],
    predictor_version: str,
    *,
    allowance: PowerAllowance | None = None,
    corrections: Corrections | None = None,
    plan: PlanStatus | None = None,
    restricted: bool = True,
) -> str:
    """Return the hash of a plan's inputs without planning; an unchanged hash means that the plan is still current.

    Args:
        deployment: The deployment.
        model: The checkpoint's shape.
        snapshot: The cluster's GPUs.
        gpus: Known GPU products by the label ``nvidia.com/gpu.product``.
        predictor_version: Version of the predictor.
        allowance: Watts available from budgets.
        corrections: Factors learned from measurement.
        plan: The plan that may have been made from these inputs. In a large cluster only the part that can affect this
            plan is an input. None for the whole cluster.
        restricted: Whether power restricts the choice. If it does not, the available watts are not an input.

    Raises:
        UnsupportedQuantizationError: ``spec.model.quantization`` cannot be produced from the checkpoint.
    """
    spec = deployment.spec
    served = EngineSettings.of(spec.engine).served(with_quantization(model, spec.model.quantization))
    usable = usable_nodes(spec, deployment.owner, snapshot, gpus)
    most = None if plan is None else reach_of(plan, spec, usable, gpus, corrected=corrections is not None)
    nodes = allowed_nodes(spec, usable, gpus)
    left = effective_allowance(spec, allowance) if restricted else None
    return inputs_hash(spec, served, nodes, gpus, predictor_version, left, corrections, most)


def effective_allowance(spec: LLMDeploymentSpec, allowance: PowerAllowance | None) -> PowerAllowance | None:
    """Return the tighter of the budgets' allowance and the deployment's own enforced power budget."""
    budget = spec.energy.budget
    if budget is None or budget.power_watts is None or budget.action != "Enforce":
        return allowance
    own = PowerAllowance(float(budget.power_watts), "spec.energy.budget.powerWatts")
    if allowance is not None and allowance.room is not None:
        return allowance if allowance.watts < own.watts else replace(own, room=allowance.room.within(own.watts))
    if allowance is None or allowance.hours is None:
        return own if allowance is None or own.watts <= allowance.watts else allowance
    if own.watts <= min(allowance.hours):
        return own
    hours = tuple(min(own.watts, watts) for watts in allowance.hours)
    return replace(allowance, watts=max(hours), hours=hours)


def problem_for(
    deployment: LLMDeployment,
    model: ModelSpec,
    snapshot: ClusterSnapshot,
    gpus: Mapping[str, GpuSpec],
    predictor: ReplicaPredictor,
    allowance: PowerAllowance | None,
    corrections: Corrections | None,
) -> Problem:
    """Return the problem that :func:`plan` solves, from the same arguments; ``model`` already has its number format.

    This function applies the memory and KV cache settings of ``spec.engine``. A load with a profile is planned at its
    highest rate.
    """
    deployment = at_peak(deployment)
    settings = EngineSettings.of(deployment.spec.engine)
    nodes = usable_nodes(deployment.spec, deployment.owner, snapshot, gpus)
    return Problem(
        spec=deployment.spec,
        owner=deployment.owner,
        model=settings.served(model),
        nodes=nodes,
        gpus=with_networks(deployment.spec, nodes, gpus),
        predictor=_with_settings(predictor, settings),
        allowance=effective_allowance(deployment.spec, allowance),
        corrections=corrections,
    )


def _with_settings(predictor: ReplicaPredictor, settings: EngineSettings) -> ReplicaPredictor:
    """Return the predictor with the engine's settings applied.

    A test double without a profile is returned unchanged.
    """
    if not isinstance(predictor, ProfiledPredictor):
        return predictor
    profile = settings.profile(predictor.profile)
    return predictor if profile is predictor.profile else predictor.with_profile(profile)
