"""An explanation for people (text) and for programs (an object). Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from energylens.api.llmdeployment import Alternative, PlanStatus, describe_plan
from energylens.api.quantity import format_milli
from energylens.cli.text.job import job_start_lines
from energylens.cli.text.tables import columns, confidence_text, joules
from energylens.cli.text.week import other_lines, week_lines
from energylens.decide.deployment.reports.caveats import caveats_of
from energylens.decide.preview import Preview
from energylens.planner.explain.breakdown import JOB_PART, parts_of, prices
from energylens.planner.explain.classes import class_figures
from energylens.planner.explain.risk import risk_taken
from energylens.planner.explain.whynot import Answer, Winning
from energylens.planner.search import describe
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.frontier import figures
from energylens.planner.search.problem import Problem, Solution
from energylens.planner.types import Change, Rejection
from energylens.records import dataclass

_PARTS = {
    "idle": "idle between requests",
    "static": "static power at work",
    "weights": "reading weights",
    "cache": "KV cache",
    "activations": "other memory traffic",
    "compute": "compute",
    "links": "links between GPUs",
    "overhead": "clocks, sampling, padding",
    JOB_PART: "start, idle until the deadline",
}


@dataclass(frozen=True)
class Explained:
    """The explanation of one deployment."""

    preview: Preview
    problem: Problem | None = None
    """The planning problem; None if nothing could be planned."""
    answer: Answer | None = None
    """The answer to ``--why``."""
    solution: Solution | None = None
    """The explanation without ``--why``."""


def report(one: Explained) -> str:
    """Return the explanation as text."""
    deployment, planning = one.preview.deployment, one.preview.planning
    lines = [f"{deployment.metadata.name}: {deployment.spec.model.name}"]
    if one.problem is None or (one.answer is None and planning.plan is None):
        return "\n".join([*lines, f"  no plan: {planning.reason}", f"  {planning.message}"])
    lines += _roles(planning.plan)
    if one.answer is not None:
        week = planning.week
        peak = [] if week is None else [f"  at the highest rate, {week.load.peak_text}:"]
        return "\n".join([*lines, *peak, *_answer(one.problem, one.answer)])
    solution = one.solution
    if solution is None or solution.chosen is None:
        if planning.plan is not None and planning.plan.prefill is not None:
            return "\n".join([*lines, "  no plan"])
        return "\n".join([*lines, f"  no plan: {planning.reason}", f"  {planning.message}"])
    if planning.week is not None and planning.plan is not None and planning.schedule is not None:
        lines += week_lines(deployment, planning.plan, planning.schedule)
        lines += [*other_lines(planning.week), "", f"At the highest rate, {planning.week.load.peak_text}:"]
    lines.append(f"  plan  {describe.candidate(solution.rows, solution.chosen)}")
    if planning.plan is not None and planning.plan.prefill is None:
        lines.append(f"  confidence  {confidence_text(planning.plan)}")
        network = planning.plan.inter_node_network
        lines += [f"  network  {network}"] if network else []
    lines += [f"  {line}" for line in job_start_lines(one.preview.status)]
    if planning.week is None:
        lines.append(f"  risk  {_risk(one.problem, solution)}")
    lines += [f"  note  {note}" for note in caveats_of(deployment, planning)]
    lines += ["", *_breakdown(one.problem, [("PLAN", solution.rows, solution.chosen)])]
    lines += _classes(one.problem, solution.rows, solution.chosen)
    # The costs of constraints and risk at one rate say nothing about a week.
    return "\n".join(lines if planning.week is not None else [*lines, "", *_prices(one.problem, solution)])


def _roles(plan: PlanStatus | None) -> list[str]:
    """Return a plan with separate prefill and decode, before what is said of the other plans; nothing without one."""
    if plan is None or plan.prefill is None:
        return []
    energy = joules(plan.predicted.joules_per_output_token)
    return [
        f"  plan  {describe_plan(plan)}",
        f"  energy  {energy} J per output token",
        f"  confidence  {confidence_text(plan)}",
        "",
        "The best plan without separate prefill and decode:",
    ]


def as_object(one: Explained) -> dict[str, Any]:
    """Return the explanation for programs; energies are quantities of joules per output token."""
    metadata, planning = one.preview.deployment.metadata, one.preview.planning
    found: dict[str, Any] = {"namespace": metadata.namespace, "name": metadata.name}
    if planning.plan is not None and planning.plan.prefill is not None:
        # The other fields are about plans without separate prefill and decode.
        found["planWithRoles"] = planning.plan.model_dump(mode="json", by_alias=True, exclude_none=True)
    if one.problem is None or (one.answer is None and (one.solution is None or one.solution.chosen is None)):
        return {**found, "reason": str(planning.reason), "message": planning.message}
    if one.answer is None:
        solution = one.solution
        assert solution is not None
        assert solution.chosen is not None
        if planning.week is not None:
            plan = _candidate(one.problem, solution.rows, solution.chosen)
            return {**found, **_week_object(one.preview), "plan": plan}
        costs = prices(one.problem, solution)
        return {
            **found,
            "plan": _candidate(one.problem, solution.rows, solution.chosen),
            **({"jobStart": start} if (start := one.preview.status.get("jobStart")) is not None else {}),
            "risk": _risk_object(one.problem, solution),
            **_class_objects(one.problem, solution.rows, solution.chosen),
            "constraints": [
                {
                    "field": price.field,
                    "value": price.value,
                    **({} if price.needed is None else {"neededValue": price.needed}),
                    "joulesPerOutputTokenSaved": format_milli(price.joules_saved),
                    "powerWattsSaved": round(price.watts_saved),
                    "planWithout": _candidate(one.problem, solution.rows, price.plan),
                }
                for price in costs
            ],
        }
    answer = one.answer
    rows = {name: row for name, row in (("plan", answer.chosen), ("asked", answer.asked)) if row is not None}
    return {
        **found,
        "verdict": answer.verdict,
        "message": answer.message,
        **{name: _candidate(one.problem, row.rows, row.index) for name, row in rows.items()},
        "rejections": [{"rule": r.rule, "candidates": r.candidates, "message": r.message} for r in answer.rejections],
        "changes": [_change_object(winning) for winning in answer.winning],
    }


def _week_object(preview: Preview) -> dict[str, Any]:
    """Return the schedule and the best week of each other product; nothing for a constant load."""
    week, schedule = preview.planning.week, preview.planning.schedule
    if week is None or schedule is None:
        return {}
    return {
        "schedule": schedule.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"inputs_hash"}),
        "otherProducts": [{"plan": other.text, "weekWattHours": round(other.joules / 3600.0)} for other in week.others],
    }


def _class_objects(problem: Problem, rows: Candidates, i: int) -> dict[str, Any]:
    found = class_figures(problem, rows, i)
    if not found:
        return {}
    return {
        "classes": [
            {
                **({} if one.shape.name is None else {"name": one.shape.name}),
                "sharePercent": one.shape.share_percent,
                "ttftMilliseconds": describe.up(one.ttft_ms) if math.isfinite(one.ttft_ms) else None,
            }
            for one in found
        ]
    }


def _risk(problem: Problem, solution: Solution) -> str:
    taken = risk_taken(solution, problem.spec.energy.objective)
    if taken is None:
        return "costs nothing: no other plan is predicted to be better"
    return taken.text(solution, problem.spec.energy.objective)


def _risk_object(problem: Problem, solution: Solution) -> dict[str, Any] | None:
    """Return the plan that predictions alone would pick, and why it was not picked; None if it is the plan."""
    taken = risk_taken(solution, problem.spec.energy.objective)
    if taken is None:
        return None
    unit = "powerWattsGivenUp" if problem.spec.energy.objective == "MinimizePower" else "joulesPerOutputTokenGivenUp"
    given_up = round(taken.given_up) if unit.startswith("power") else format_milli(taken.given_up)
    plan = _candidate(problem, solution.rows, taken.index)
    return {unit: given_up, "reason": taken.reason, "lowestPrediction": plan}


def _answer(problem: Problem, answer: Answer) -> list[str]:
    lines = [f"  {answer.verdict.lower()}: {answer.message}"]
    shown = [(name, row) for name, row in (("PLAN", answer.chosen), ("ASKED", answer.asked)) if row is not None]
    if answer.verdict == "Chosen":
        shown = shown[:1]
    if answer.asked is not None:
        lines += ["", *_figures([(name, row.rows, row.index) for name, row in shown])]
        lines += ["", *_breakdown(problem, [(name, row.rows, row.index) for name, row in shown])]
    if answer.rejections:
        lines += ["", *_rejections(answer.rejections)]
    if answer.winning:
        lines += ["", "  What would change the answer (each line alone, nearest first):", *_changes(answer.winning)]
    return lines


def _figures(candidates: Sequence[tuple[str, Candidates, int]]) -> list[str]:
    found = [figures(rows, i) for _, rows, i in candidates]
    # Nobody waits for a single request of a job.
    waits = not any(math.isfinite(rows.completion_seconds[i]) for _, rows, i in candidates)
    whole = [_with_margin(rows.end_to_end_ms[i], rows.end_to_end_upper_ms[i]) for _, rows, i in candidates]
    table = [
        ("", *(name for name, _, _ in candidates)),
        ("candidate", *(describe.candidate(rows, i) for _, rows, i in candidates)),
        ("GPUs", *(str(one["gpus"]) for one in found)),
        ("J per output token", *(joules(one["joules_per_output_token"]) for one in found)),
        ("power, W", *(str(one["power_watts"]) for one in found)),
        *([("TTFT, ms", *(_with_margin(rows.ttft_ms[i], rows.ttft_upper_ms[i]) for _, rows, i in candidates))] * waits),
        ("ITL, ms", *(_with_margin(rows.itl_ms[i], rows.itl_upper_ms[i]) for _, rows, i in candidates)),
        ("TPOT, ms", *(_with_margin(rows.tpot_ms[i], rows.tpot_upper_ms[i]) for _, rows, i in candidates)),
        *([("E2E, ms", *whole)] * waits),
    ]
    return columns(table)


def _with_margin(value: float, upper: float) -> str:
    if not math.isfinite(value):
        return "unbounded"
    margin = str(describe.up(upper)) if math.isfinite(upper) else "unbounded"
    return f"{describe.up(value)} ({margin} with the margin)"


def _breakdown(problem: Problem, candidates: Sequence[tuple[str, Candidates, int]]) -> list[str]:
    found = [(name, parts_of(problem, rows, i)) for name, rows, i in candidates]
    known = [(name, parts) for name, parts in found if parts is not None and sum(parts.values()) == sum(parts.values())]
    if not known:
        return ["  The predictor gives no breakdown of the energy."]
    table = [("J PER OUTPUT TOKEN", *(name for name, _ in known))]
    for key, words in _PARTS.items():
        if not any(key in parts for _, parts in known):
            continue
        table.append((words, *(_share(parts[key], sum(parts.values())) for _, parts in known)))
    table.append(("all", *(f"{sum(parts.values()):.3g}" for _, parts in known)))
    return columns(table)


def _share(part: float, whole: float) -> str:
    return f"{part:.3g} ({100 * part / whole:.0f} %)" if part > whole * 1e-4 else "0"


def _classes(problem: Problem, rows: Candidates, i: int) -> list[str]:
    found = class_figures(problem, rows, i)
    if not found:
        return []
    table: list[tuple[str, ...]] = [("CLASS", "SHARE %", "TOKENS IN", "OUT", f"TTFT {problem.spec.slo.percentile}, MS")]
    for number, one in enumerate(found, 1):
        shape, ttft = one.shape, str(describe.up(one.ttft_ms)) if math.isfinite(one.ttft_ms) else "unbounded"
        name = shape.name or str(number)
        table.append((name, str(shape.share_percent), str(shape.input_tokens), str(shape.output_tokens), ttft))
    return ["", *columns(table)]


def _prices(problem: Problem, solution: Solution) -> list[str]:
    found = prices(problem, solution)
    if not found:
        return ["  No constraint costs anything: the plan would be the same without any one of them."]
    table: list[tuple[str, ...]] = [
        ("CONSTRAINT", "VALUE", "WOULD NEED", "J/TOKEN SAVED", "W SAVED", "PLAN WITHOUT IT")
    ]
    for price in found:
        plan = describe.candidate(solution.rows, price.plan)
        saved = f"{price.joules_saved:.3g}"
        table.append((price.field, price.value, price.needed or "-", saved, f"{price.watts_saved:.0f}", plan))
    return ["  What each constraint costs, left out alone:", *columns(table)]


def _rejections(rejections: Sequence[Rejection]) -> list[str]:
    lines = ["  Removed candidates of the request (candidates, rule):"]
    return lines + [f"  {r.candidates:>7}  {r.rule}: {r.message}" for r in rejections]


def _changes(winning: Sequence[Winning]) -> list[str]:
    table: list[tuple[str, ...]] = [("CHANGE", "J/TOKEN", "THEN IT")]
    for one in winning:
        change = " and ".join(map(_change, one.changes))
        table.append((change, f"{one.joules_per_output_token:.3g}", "is the plan" if one.wins else "is allowed"))
    return columns(table)


def _change(change: Change) -> str:
    return f"{change} instead of {change.value}" if change.value != "not set" else f"{change} (not set now)"


def _change_object(one: Winning) -> dict[str, Any]:
    return {
        "changes": [{"field": c.field, "value": c.value, "allowed": c.allowed} for c in one.changes],
        "wins": one.wins,
        "relaxes": one.relaxes,
        "joulesPerOutputToken": format_milli(one.joules_per_output_token),
    }


def _candidate(problem: Problem, rows: Candidates, i: int) -> dict[str, Any]:
    fields = {str(Alternative.model_fields[name].alias): value for name, value in figures(rows, i).items()}
    found = {name: value for name, value in fields.items() if value is not None}
    parts = parts_of(problem, rows, i)
    if parts is not None and all(map(math.isfinite, parts.values())):
        found["energyParts"] = {name: format_milli(value) for name, value in parts.items()}
    return found
