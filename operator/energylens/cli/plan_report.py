"""A planning result for people (a table) and for programs (the object as the operator would write it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.api.quantity import parse_quantity
from energylens.planner.types import Feasible, Infeasible, PlanningResult

_ROWS = 12
"""Candidates shown; the full table is in the ConfigMap that the operator writes."""
_HEADER = (
    "",
    "GPU",
    "GPUS",
    "REPLICAS",
    "TP",
    "PP",
    "EP",
    "DP",
    "BATCH",
    "J/TOKEN",
    "WATTS",
    "TTFT MS",
    "ITL MS",
    "WHY NOT",
)


def report(deployment: LLMDeployment, result: PlanningResult) -> str:
    """Return the chosen plan, the candidates beside it with the reason why each lost, and what the rules removed."""
    title = f"{deployment.metadata.name}: {deployment.spec.model.name}"
    body = _feasible(result) if isinstance(result, Feasible) else _infeasible(result)
    lines = [title, *body]
    if result.rejections:
        lines += ["", "Removed before (candidates, rule):"]
        lines += [f"  {r.candidates:>7}  {r.rule}: {r.message}" for r in result.rejections]
    return "\n".join(lines)


def with_status(deployment: LLMDeployment, result: PlanningResult) -> dict[str, Any]:
    """Return the LLMDeployment with the part of its status that planning decides."""
    document = deployment.model_dump(mode="json", by_alias=True, exclude_unset=True, include={"metadata", "spec"})
    document = {"apiVersion": deployment.api_version, "kind": deployment.kind} | document
    generation = deployment.metadata.generation
    document["status"] = {"observedGeneration": generation}
    if isinstance(result, Feasible):
        document["status"]["plan"] = result.plan.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["status"]["conditions"] = [
        {"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": generation}
        for kind, status, reason, message in _conditions(deployment, result)
    ]
    return document


def _conditions(deployment: LLMDeployment, result: PlanningResult) -> list[tuple[str, str, str, str]]:
    slo = deployment.spec.slo
    asked = any((slo.ttft_milliseconds, slo.itl_milliseconds, slo.joules_per_output_token))
    if isinstance(result, Feasible):
        feasible = ("SLOFeasible", "True", "Feasible" if asked else "NoObjective", "")
        return [("PlanReady", "True", "Planned", _summary(result.plan)), feasible]
    infeasible = ("SLOFeasible", "Unknown", "NoPlan", result.message)
    if result.reason == "SLOInfeasible":
        infeasible = ("SLOFeasible", "False", result.reason, result.message)
    return [("PlanReady", "False", result.reason, result.message), infeasible]


def _summary(plan: PlanStatus) -> str:
    return f"{plan.replicas} x {plan.gpu_product} {plan.layout}, max batch {plan.max_batch_size}"


def _feasible(result: Feasible) -> list[str]:
    plan, predicted = result.plan, result.plan.predicted
    low, middle, high = (
        _joules(value)
        for value in (
            predicted.joules_per_output_token_low,
            predicted.joules_per_output_token,
            predicted.joules_per_output_token_high,
        )
    )
    binding = plan.binding_constraint
    return [
        f"  plan        {_summary(plan)} ({plan.gpus} GPUs)   hash {plan.hash}",
        f"  energy      {middle} J per output token (80 % interval {low} to {high} J)",
        f"  power       {predicted.power_watts} W at the load, {predicted.idle_power_watts} W idle",
        f"  latency     TTFT {predicted.ttft_milliseconds} ms, ITL {predicted.itl_milliseconds} ms",
        f"  load        {predicted.output_tokens_per_second} tokens/s, {predicted.concurrency} requests at once",
        f"  bound by    {'nothing' if binding == 'None' else binding}",
        f"  confidence  {plan.confidence}, predictor {plan.predictor_version}",
        "",
        *_table(result.table[:_ROWS]),
        "  TTFT and ITL are as predicted; objectives are checked at the upper end of their 80 % interval.",
    ]


def _infeasible(result: Infeasible) -> list[str]:
    lines = [f"  no plan: {result.reason}", f"  {result.message}"]
    if result.relaxations:
        lines += ["", "Nearest change of each constraint that would work:"]
        lines += _columns(
            [("FIELD", "NOW", "WOULD WORK", "J/TOKEN")]
            + [
                (
                    " with ".join(change.field for change in r.changes),
                    " with ".join(change.value for change in r.changes),
                    " with ".join(change.allowed for change in r.changes),
                    f"{r.joules_per_output_token:.3g}",
                )
                for r in result.relaxations
            ]
        )
    return lines


def _table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    keys = (
        "gpus",
        "replicas",
        "tensorParallel",
        "pipelineParallel",
        "expertParallel",
        "dataParallel",
        "maxBatchSize",
    )
    body = [
        (
            "*" if row["chosen"] else "",
            str(row["gpuProduct"]).removeprefix("NVIDIA-"),
            *(str(row[key]) for key in keys),
            _joules(str(row["joulesPerOutputToken"])),
            str(row["powerWatts"]),
            str(row["ttftMilliseconds"]),
            str(row["itlMilliseconds"]),
            str(row["reason"]),
        )
        for row in rows
    ]
    return _columns([_HEADER, *body])


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _joules(quantity: str) -> str:
    return f"{float(parse_quantity(quantity)):.3g}"
