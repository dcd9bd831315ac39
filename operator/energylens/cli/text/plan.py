"""A planning result for people (a table) and for programs (the object as the operator would write it)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.api.quantity import parse_quantity
from energylens.api.words import counted
from energylens.cli.inputs.rates import NO_RATES, Rates
from energylens.cli.text.job import job_cost_lines, job_cost_object, job_start_lines, job_text
from energylens.cli.text.money import basis, cost_lines, cost_object
from energylens.cli.text.own_budget import own_budget_lines
from energylens.cli.text.tables import cache_text, columns, confidence_text, correction_text, joules, plan_with_hash
from energylens.cli.text.week import week_lines
from energylens.decide.deployment.reports.caveats import caveats_of
from energylens.decide.preview import Preview
from energylens.decide.reasons import Reason
from energylens.planner.engines.speculation import speculation_of
from energylens.planner.types import Feasible, Infeasible

_ROWS = 12
"""Candidates shown; the full table is in the ConfigMap that the operator writes."""
_COLUMNS = {
    "GPU": "gpuProduct",
    "GPUS": "gpus",
    "REPLICAS": "replicas",
    "NODES": "nodesPerReplica",
    "TP": "tensorParallel",
    "PP": "pipelineParallel",
    "EP": "expertParallel",
    "DP": "dataParallel",
    "BATCH": "maxBatchSize",
    "STEP": "maxBatchedTokens",
    "CAP W": "powerCapWattsPerGPU",
    "J/TOKEN": "joulesPerOutputToken",
    "WATTS": "powerWatts",
    "BUSY %": "utilizationPercent",
    "TTFT MS": "ttftMilliseconds",
    "ITL MS": "itlMilliseconds",
    "TPOT MS": "tpotMilliseconds",
    "E2E MS": "endToEndMilliseconds",
    "WHY NOT": "reason",
}
"""Heading and field of each column; caps and tokens of a step are shown where a row has one, nodes where a replica
spans several,
TPOT and the end-to-end latency (E2E) where the spec bounds them."""

_MILLI = re.compile(r"[0-9]+(\.[0-9]+)?m")
"""An energy as :func:`energylens.api.quantity.format_milli` writes it."""


def report(preview: Preview, rates: Rates = NO_RATES) -> str:
    """Return the chosen plan, the other candidates with the reason why each lost, and those that rules removed."""
    deployment, planning = preview.deployment, preview.planning
    lines = [f"{deployment.metadata.name}: {deployment.spec.model.name}"]
    if planning.plan is not None:
        lines += [*_plan(planning.plan), *_cost(planning.plan, rates)]
        lines += _counted(deployment)
        lines += [f"  note        {note}" for note in caveats_of(deployment, planning)]
    lines += [f"  {line}" for line in job_start_lines(preview.status)]
    if planning.plan is not None and planning.schedule is not None:
        lines += week_lines(deployment, planning.plan, planning.schedule)
    lines += own_budget_lines(preview.deployment, preview.own_account, planning.plan)
    if not planning.good:
        lines += [
            f"  {'the running plan stays' if planning.plan else 'no plan'}: {planning.reason}",
            f"  {planning.message}",
        ]
    elif planning.reason is Reason.KEEPING_RUNNING_PLAN:
        lines += [f"  kept        {planning.message}"]
    lines += _waiting(preview)
    if isinstance(planning.result, Feasible):
        peak = [] if planning.week is None else [f"Plans for the highest rate, {planning.week.load.peak_text}:"]
        lines += [
            "",
            *peak,
            *_table(deployment, _first(planning.result.table)),
            _margin(deployment, planning.result.plan),
        ]
    elif planning.result is not None:
        lines += _relaxations(planning.result)
    if planning.result is not None and planning.result.rejections:
        lines += ["", "Removed before (candidates, rule):"]
        lines += [f"  {r.candidates:>7}  {r.rule}: {r.message}" for r in planning.result.rejections]
    if planning.plan is not None and rates.is_stated:
        lines += ["", *basis(rates, monthly=planning.plan.job is None)]
    return "\n".join(lines)


def with_status(preview: Preview, rates: Rates = NO_RATES) -> dict[str, Any]:
    """Return the LLMDeployment as the operator would write it in the pass after it was applied.

    With ``rates`` also ``cost``, which the operator does not write.
    """
    deployment = preview.deployment
    document = deployment.model_dump(mode="json", by_alias=True, exclude_unset=True, include={"metadata", "spec"})
    found = {"apiVersion": deployment.api_version, "kind": deployment.kind} | document | {"status": preview.status}
    plan = preview.planning.plan
    cost = None
    if plan is not None:
        watts, gpus, each = _amounts(plan)
        job = plan.job
        cost = cost_object(rates, watts, gpus, each) if job is None else job_cost_object(rates, job, gpus, each)
    return found if cost is None else {**found, "cost": cost}


def _amounts(plan: PlanStatus) -> tuple[float, int, float]:
    """Return power, W, GPUs, and energy per output token, J."""
    predicted = plan.predicted
    return predicted.power_watts, plan.gpus, float(parse_quantity(predicted.joules_per_output_token))


def _cost(plan: PlanStatus, rates: Rates) -> list[str]:
    return cost_lines(rates, *_amounts(plan)) if plan.job is None else job_cost_lines(rates, plan.job, plan.gpus)


def _margin(deployment: LLMDeployment, plan: PlanStatus) -> str:
    """Return what the latencies of the table are, and how far objectives allow for their errors."""
    percent, slo, breach = (
        deployment.spec.planning.safety_margin_percent,
        deployment.spec.slo,
        plan.predicted.breach_percent,
    )
    bounded = {"TPOT": slo.tpot_milliseconds, "E2E": slo.end_to_end_milliseconds}
    shown = ["TTFT"] if deployment.spec.workload.job is None else []
    shown += ["ITL", *(name for name, limit in bounded.items() if limit is not None)]
    most, last = shown[:-1], shown[-1]
    start = f"  {', '.join(most)} and {last} are as predicted" if most else f"  {last} is as predicted"
    if percent == 0:
        return f"{start}; objectives are checked without a margin."
    if breach is not None:
        errors = "" if percent == 100 else f" with {percent} % of the usual errors"
        return f"{start}; the plan exceeds a bound of spec.slo with a chance of {breach} %{errors}."
    way = "" if percent == 100 else f"{percent} % of the way to "
    return f"{start}; objectives are checked at {way}the upper end of {'their' if most else 'its'} 80 % interval."


def _waiting(preview: Preview) -> list[str]:
    """Return why the operator would not adopt a good plan, or that the plan exceeds a budget."""
    shown, followed = [], (Reason.PLANNED, Reason.KEEPING_RUNNING_PLAN, Reason.START_SCHEDULED)
    for condition in preview.status["conditions"]:
        waits = condition["type"] == "PlanReady" and condition["reason"] not in followed
        over = condition["type"] == "WithinEnergyBudget" and (
            condition["status"] != "True" or condition["reason"] == Reason.RUNS_OUT
        )
        # A denial was already given as the reason why there is no plan.
        over &= condition["reason"] != Reason.GROWTH_DENIED
        if (waits and preview.planning.good) or over:
            shown.append(f"  {condition['reason']}: {condition['message']}")
    return shown


def _plan(plan: PlanStatus) -> list[str]:
    predicted = plan.predicted
    binding = plan.binding_constraint
    learned = correction_text(plan)
    return [
        f"  plan        {plan_with_hash(plan)}",
        f"  energy      {joules(predicted.joules_per_output_token)} J per output token (80 % interval "
        f"{joules(predicted.joules_per_output_token_low)} to {joules(predicted.joules_per_output_token_high)} J)",
        f"  power       {predicted.power_watts} W at the load, {predicted.idle_power_watts} W idle",
        *([f"  job         {job_text(plan.job)}"] if plan.job is not None else []),
        f"  latency     {_latencies(plan)}",
        f"  load        {predicted.output_tokens_per_second} tokens/s, "
        f"{counted(predicted.concurrency, 'request')} at once"
        + (f", {predicted.utilization_percent} % of capacity" if predicted.utilization_percent is not None else ""),
        *([f"  KV cache    {cache}"] if (cache := cache_text(plan)) else []),
        f"  bound by    {'nothing' if binding == 'None' else binding}",
        *([f"  network     {plan.inter_node_network}"] if plan.inter_node_network else []),
        f"  confidence  {confidence_text(plan)}",
        f"  predictor   {plan.predictor_version}",
        *([f"  measured    the figures include learned corrections: {learned}"] if learned else []),
    ]


def _latencies(plan: PlanStatus) -> str:
    """Return the latencies; a batch job has no TTFT and E2E, as nobody waits for its single requests."""
    predicted, waits = plan.predicted, plan.job is None
    shown = {
        "TTFT": predicted.ttft_milliseconds if waits else None,
        "ITL": predicted.itl_milliseconds,
        "TPOT": predicted.tpot_milliseconds,
        "E2E": predicted.end_to_end_milliseconds if waits else None,
    }
    return ", ".join(f"{name} {value} ms" for name, value in shown.items() if value is not None)


def _counted(deployment: LLMDeployment) -> list[str]:
    """Return which properties of the load, besides its size, the figures take into account."""
    workload = deployment.spec.workload
    hits, drafts = round(workload.mean_prefix_hit_percent), speculation_of(deployment.spec)
    uneven = [f"{len(workload.classes)} classes of requests"] if workload.classes else []
    uneven += [
        f"{what} of SCV {value}"
        for what, value in (("prompts", workload.input_tokens_scv), ("outputs", workload.output_tokens_scv))
        if value is not None
    ]
    counted = uneven + ([] if workload.arrival_scv is None else [f"arrivals of SCV {workload.arrival_scv}"])
    counted += [f"{hits} % of prompt tokens in the prefix cache"] if hits else []
    if drafts is not None:
        share = round(100 * drafts.acceptance)
        counted.append(f"{drafts.draft_tokens} tokens drafted per step ({drafts.method}), {share} % of them accepted")
    return [f"  counted     {', '.join(counted)}"] if counted else []


def _relaxations(result: Infeasible) -> list[str]:
    if not result.relaxations:
        return []
    rows: list[tuple[str, ...]] = [("FIELD", "NOW", "WOULD WORK", "J/TOKEN")]
    for r in result.relaxations:
        names = (" with ".join(getattr(change, part) for change in r.changes) for part in ("field", "value", "allowed"))
        rows.append((*names, f"{r.joules_per_output_token:.3g}"))
    return ["", "Nearest change of each constraint that would work:", *columns(rows)]


def _first(table: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Return the first rows; the last of them is the chosen one where it is farther down."""
    rows = list(table[:_ROWS])
    return rows if any(row["chosen"] for row in rows) else [*rows[:-1], *(row for row in table if row["chosen"])]


def table_rows(deployment: LLMDeployment, rows: Sequence[Mapping[str, object]]) -> list[tuple[str, ...]]:
    """Return the heading and one row of cells per candidate, as the operator's table has them."""
    plain = {"nodesPerReplica": 1}
    shown = {name: key for name, key in _COLUMNS.items() if any(row.get(key) != plain.get(key) for row in rows)}
    if deployment.spec.slo.tpot_milliseconds is None:
        shown.pop("TPOT MS", None)
    if deployment.spec.workload.job is not None:
        shown.pop("TTFT MS", None)
    if deployment.spec.slo.end_to_end_milliseconds is None:
        shown.pop("E2E MS", None)
    return [tuple(shown), *(tuple(_cell(row.get(key)) for key in shown.values()) for row in rows)]


def _cell(value: object) -> str:
    text = "-" if value is None else str(value)
    return joules(text) if _MILLI.fullmatch(text) else text.removeprefix("NVIDIA-")


def _table(deployment: LLMDeployment, rows: Sequence[Mapping[str, object]]) -> list[str]:
    marks = ("", *("*" if row["chosen"] else "" for row in rows))
    return columns([(mark, *cells) for mark, cells in zip(marks, table_rows(deployment, rows), strict=True)])
