"""A candidate as the plan in a status, its inputs, and the check of the finished plan."""

from __future__ import annotations

import math

import numpy as np

from energylens.api.llmdeployment import (
    CorrectionFactors,
    LLMDeploymentSpec,
    PlanStatus,
    PredictedFigures,
)
from energylens.api.quantity import format_milli
from energylens.planner.engines import EngineSettings
from energylens.planner.inventory.network import network_of
from energylens.planner.inventory.nodes import allowed_nodes
from energylens.planner.search import describe
from energylens.planner.search.breach import breach_percent
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.confidence import confidence_of
from energylens.planner.search.constraints import feasible
from energylens.planner.search.corrections import correction_status
from energylens.planner.search.frontier import planned_job
from energylens.planner.search.identity import identified, inputs_hash
from energylens.planner.search.placement import layout_at, placement_at
from energylens.planner.search.problem import Problem, Solution, binding_constraint


class PlanCheckError(RuntimeError):
    """A finished plan breaks a limit that applied to it: a bug in the planner. The plan must not be used."""


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
        lowest_power_watts=lowest_power(solution),
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
            breach_percent=breach_percent(rows, i, problem.spec),
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


def hash_of_inputs(problem: Problem, most_gpus: int | None) -> str:
    """Return the hash of everything that a plan for a problem is made from."""
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


def lowest_power(solution: Solution) -> int | None:
    """Return the least power of a candidate that meets the spec, budgets aside, W; None if there is none."""
    power = [constraint for constraint in solution.constraints if constraint.kind == "Power"]
    mask = feasible(solution.constraints, len(solution.rows), without=power)
    return round(float(solution.rows.power_watts[mask].min())) if mask.any() else None


def check_plan(status: PlanStatus, spec: LLMDeploymentSpec, *, step_tokens: int) -> None:
    """Check the finished plan against the limits that it must never exceed, independently of the candidate arrays.

    ``step_tokens`` is the most that a step computes, the engine's default if the plan sets nothing.
    """
    per_replica = status.tensor_parallel * status.pipeline_parallel * status.data_parallel
    needed, prefill = per_replica * status.replicas, status.prefill
    if prefill is not None:
        needed += prefill.gpus_per_replica * prefill.replicas
        per_replica = max(per_replica, prefill.gpus_per_replica)
    if status.gpus != needed:
        raise PlanCheckError(f"the plan counts {status.gpus} GPUs, but its replicas need {needed}")
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
