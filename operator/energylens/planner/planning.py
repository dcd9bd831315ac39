"""Planning: from spec, cluster snapshot and predictor to a plan and its reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from energylens.api.llmdeployment import (
    CorrectionFactors,
    LLMDeployment,
    LLMDeploymentSpec,
    PlanStatus,
    PredictedFigures,
)
from energylens.api.quantity import format_milli
from energylens.planner.engines import EngineSettings, too_long
from energylens.planner.explain.disaggregation import with_hint, with_pair
from energylens.planner.explain.infeasible import explain_infeasible, with_options
from energylens.planner.explain.placement import placement_changes
from energylens.planner.inventory.network import network_of, with_networks
from energylens.planner.inventory.nodes import (
    allowed_nodes,
    excluded_for,
    no_matching_gpus,
    unknown_products,
    unusable,
    usable_nodes,
)
from energylens.planner.search import describe
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.confidence import confidence_of
from energylens.planner.search.constraints import feasible
from energylens.planner.search.corrections import Corrections, correction_status
from energylens.planner.search.frontier import alternatives, frontier_rows, planned_job, table
from energylens.planner.search.identity import identified, inputs_hash, sealed
from energylens.planner.search.placement import layout_at, placement_at
from energylens.planner.search.problem import Problem, Solution, binding_constraint, solve_again
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


class PlanCheckError(RuntimeError):
    """A finished plan breaks a limit that applied to it: a bug in the planner. The plan must not be used."""


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
        refused = with_hint(problem, explain_infeasible(problem, solution, placement_changes(problem, snapshot)))
        refused = replace(refused, most_gpus=most)
        if refused.reason in _MORE_GPUS_WOULD_DO:
            left_out = unusable(excluded_for(deployment.spec, snapshot, gpus))
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
    if spec.planning.disaggregation == "Compare":
        status, shown = with_pair(problem, solution, i, status, shown)
    _check(status, spec, step_tokens=int(rows.step_tokens[i]))
    restricted = power_restricts(solution, spec)
    inputs = _inputs_hash(problem if restricted else replace(problem, allowance=None), most)
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
    usable = usable_nodes(spec, snapshot, gpus)
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
    nodes = usable_nodes(deployment.spec, snapshot, gpus)
    return Problem(
        spec=deployment.spec,
        owner=f"{deployment.metadata.namespace}/{deployment.metadata.name}",
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


def plan_status(problem: Problem, solution: Solution, i: int) -> PlanStatus:
    """Return a candidate of a solution as a plan, without alternatives."""
    rows = solution.rows
    product = rows.products[int(rows.product[i])]
    confidence, reason = confidence_of(
        problem.predictor,
        int(rows.nearest[i]),
        problem.spec.engine,
        problem.model,
        problem.gpus[product],
        rows.layouts.take(np.array([i])),
        problem.load.workload,
        float(rows.concurrency[i]) / int(rows.replicas[i]),
        apart=rows.role != "aggregated",
    )
    found = PlanStatus(
        hash="",
        predictor_version=problem.predictor.version,
        confidence=confidence,
        confidence_reason=reason,
        binding_constraint=binding_constraint(solution, problem.spec),
        **placement_at(rows, i),
        kv_cache_tokens=_kv_cache(rows, i),
        longest_request_tokens=_longest_request(problem, rows, i),
        correction=_correction(problem, rows, i),
        inter_node_network=_network(problem, rows, i),
        lowest_power_watts=_lowest_power(solution),
        job=planned_job(rows, i),
        predicted=PredictedFigures(
            joules_per_output_token=format_milli(float(rows.joules_per_output_token[i])),
            joules_per_output_token_low=format_milli(float(rows.joules_low[i])),
            joules_per_output_token_high=format_milli(float(rows.joules_high[i])),
            power_watts=round(float(rows.power_watts[i])),
            idle_power_watts=round(float(rows.idle_power_watts[i])),
            output_tokens_per_second=round(float(rows.output_tokens_per_second[i])),
            concurrency=round(float(rows.concurrency[i])),
            utilization_percent=describe.percent_up(float(rows.utilization[i])),
            ttft_milliseconds=describe.up(float(rows.ttft_ms[i])),
            itl_milliseconds=describe.up(float(rows.itl_ms[i])),
            tpot_milliseconds=describe.up(float(rows.tpot_ms[i])),
            end_to_end_milliseconds=describe.up(float(rows.end_to_end_ms[i])),
        ),
    )
    return identified(found, problem.spec)


def _network(problem: Problem, rows: Candidates, i: int) -> str | None:
    """Return the network that a candidate's figures assume, in words; None for replicas on one node."""
    if rows.nodes_per_replica[i] == 1:
        return None
    product = rows.products[int(rows.product[i])]
    found = network_of(problem.spec, (node for node in problem.nodes if node.product == product))
    if found.gigabits_per_second is None:
        pcie = round(problem.gpus[product].pcie_bandwidth * 8.0 / 1e9)
        return f"unknown, assumed to be the PCIe speed of one GPU ({pcie} Gbit/s): {found.source}"
    return f"{found.gigabits_per_second} Gbit/s per node ({found.source})"


def _inputs_hash(problem: Problem, most_gpus: int | None) -> str:
    return inputs_hash(
        problem.spec,
        problem.model,
        allowed_nodes(problem.spec, problem.nodes, problem.gpus),
        problem.gpus,
        problem.predictor.version,
        problem.allowance,
        problem.corrections,
        most_gpus,
    )


def _kv_cache(rows: Candidates, i: int) -> int | None:
    """Return the tokens that the KV caches of a replica hold; None if the model keeps nothing per token."""
    held = float(rows.kv_cache_tokens[i])
    return int(held * rows.layouts.data_parallel[i]) if math.isfinite(held) else None


def _longest_request(problem: Problem, rows: Candidates, i: int) -> int:
    """Return the longest request that a candidate can answer, tokens: the context, or a rank's KV cache if smaller."""
    settings = EngineSettings.of(problem.spec.engine)
    context = settings.context_tokens or settings.context_of(problem.model)
    held = float(rows.kv_cache_tokens[i])
    return min(context, int(held)) if math.isfinite(held) else context


def _correction(problem: Problem, rows: Candidates, i: int) -> CorrectionFactors | None:
    if problem.corrections is None:
        return None
    sequences = float(rows.concurrency[i]) / int(rows.replicas[i])
    product, layout = rows.products[int(rows.product[i])], layout_at(rows, i).degrees
    return correction_status(problem.corrections.of(product, layout, sequences))


def _lowest_power(solution: Solution) -> int | None:
    power = [constraint for constraint in solution.constraints if constraint.kind == "Power"]
    mask = feasible(solution.constraints, len(solution.rows), without=power)
    return round(float(solution.rows.power_watts[mask].min())) if mask.any() else None


def _check(status: PlanStatus, spec: LLMDeploymentSpec, *, step_tokens: int) -> None:
    """Check the finished plan against the limits that it must never exceed, independently of the candidate arrays.

    ``step_tokens`` is the most that a step computes, the engine's default if the plan sets nothing.
    """
    per_replica = status.tensor_parallel * status.pipeline_parallel * status.data_parallel
    if status.gpus != per_replica * status.replicas:
        raise PlanCheckError(
            f"the plan counts {status.gpus} GPUs, but its replicas need {per_replica * status.replicas}"
        )
    for field, value, limit in (
        ("maxGPUs", status.gpus, spec.hardware.max_gpus),
        ("maxGPUsPerReplica", per_replica, spec.hardware.max_gpus_per_replica),
    ):
        if limit is not None and value > limit:
            raise PlanCheckError(f"the plan uses {value} GPUs, more than spec.hardware.{field}={limit}")
    for name, wanted in spec.planning.overrides.model_dump(exclude_none=True).items():
        found = getattr(status, name)
        if name == "max_batched_tokens":
            found = step_tokens if wanted else found or 0
        if found != wanted:
            raise PlanCheckError(f"the plan has {name} {found} instead of the override {wanted}")
