"""Separate prefill and decode in an answer: the best pair among the alternatives, and why it is or is not the plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from energylens.api.llmdeployment import Alternative, LLMDeploymentSpec, PlanStatus, PrefillReplicas, describe_replicas
from energylens.api.quantity import format_milli, parse_quantity
from energylens.api.words import counted
from energylens.planner.engines import EngineSettings
from energylens.planner.engines.disaggregation import refuses_roles
from energylens.planner.search import describe
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.disaggregation import ANY, SERVED, Disaggregated, Pair, best_pairs, breach_of
from energylens.planner.search.frontier import MAX_ALTERNATIVES, alternative, table_row
from energylens.planner.search.identity import identified, sealed
from energylens.planner.search.objective import joules_at_risk
from energylens.planner.search.placement import layout_at
from energylens.planner.search.plan_status import check_plan, hash_of_inputs, lowest_power, plan_status
from energylens.planner.search.problem import Problem, Solution, binding_constraint
from energylens.planner.search.ranking import Risk, breach_factor, clearly_lower
from energylens.planner.types import Feasible, Infeasible

NOT_SERVED = "such a plan needs a router that knows prefill and decode replicas (spec.planning.disaggregation=Follow)"
WITHIN_ERROR = "which is within the prediction error"


def pairs_of(problem: Problem) -> Disaggregated | None:
    """Return the best pairs that the spec asks for; None if it asks for none, or if there are none.

    With ``disaggregation: Follow``, only pairs that the operator can run.
    """
    asked = problem.spec.planning.disaggregation
    if asked == "Never" or (asked == "Follow" and refuses_roles(problem.model, EngineSettings.of(problem.spec.engine))):
        return None
    return best_pairs(problem, SERVED if asked == "Follow" else ANY)


def loses(found: Disaggregated, rows: Candidates, i: int, spec: LLMDeploymentSpec) -> bool:
    """Return whether the best pair is not better than a candidate by more than predictions may be wrong.

    Both sides include their risk and their chance of breaking a latency objective, as between candidates
    (:mod:`energylens.planner.search.ranking`). The two roles count with the larger of their deviations, since one error
    may affect both. The pair is the more complex plan, so a tie goes to the candidate.
    """
    if not found.is_feasible:
        return True
    pair = found.best
    if spec.energy.objective == "MinimizeGPUs" and pair.gpus != rows.gpus[i]:
        return bool(pair.gpus > rows.gpus[i])
    parts = (found.prefill, pair.prefill), (found.decode, pair.decode)
    if spec.energy.objective == "MinimizePower":
        other = float(rows.power_watts[i] * rows.ranking_factor[i])
    else:
        other = float(joules_at_risk(rows)[i])
    mine = _at_risk(found, spec)
    unshared, layout = (
        np.array([float(rows_of[i]), max(float(a), float(b))])
        for rows_of, a, b in (
            (rows.unshared_deviation, *(part.unshared_deviation[j] for part, j in parts)),
            (rows.layout_deviation, *(part.layout_deviation[j] for part, j in parts)),
        )
    )
    return not clearly_lower(mine, other, Risk(unshared, layout))


def _at_risk(found: Disaggregated, spec: LLMDeploymentSpec) -> float:
    """Return the power of the best pair, or its joules per output token, by which the pair is compared.

    They include the risk of both roles and the chance that the pair breaks a latency objective.
    """
    parts = (found.prefill, found.best.prefill), (found.decode, found.best.decode)
    breach = float(breach_factor(breach_of(found, spec)))
    if spec.energy.objective == "MinimizePower":
        return breach * sum(float(part.power_watts[j] * part.risk.factor[j]) for part, j in parts)
    shares = 1.0 / spec.workload.mean_output_tokens, 1.0
    return breach * sum(share * float(joules_at_risk(part)[j]) for share, (part, j) in zip(shares, parts, strict=True))


def with_pair(
    problem: Problem,
    solution: Solution,
    i: int,
    status: PlanStatus,
    shown: tuple[Mapping[str, object], ...],
    found: Disaggregated,
) -> tuple[PlanStatus, tuple[Mapping[str, object], ...]]:
    """Return status and table with the best plan of separate prefill and decode; in the table, of every GPU product."""
    rows = solution.rows
    chosen = float(rows.joules_per_output_token[i]), float(rows.power_watts[i]), int(rows.gpus[i])
    pairs = [alternative_of(found, pair, broken, problem.spec, chosen) for pair, broken in found.pairs]
    others = (*status.alternatives[: MAX_ALTERNATIVES - 1], pairs[0])
    alternatives = tuple(sorted(others, key=_ORDER[problem.spec.energy.objective]))
    for pair in pairs:
        shown = _inserted(shown, pair, is_chosen=False)
    return status.model_copy(update={"alternatives": alternatives}), shown


def _inserted(
    shown: tuple[Mapping[str, object], ...], row: Alternative, *, is_chosen: bool
) -> tuple[Mapping[str, object], ...]:
    joules = parse_quantity(str(row.joules_per_output_token))
    place = sum(parse_quantity(str(each["joulesPerOutputToken"])) <= joules for each in shown)
    return (*shown[:place], table_row(row, is_chosen=is_chosen), *shown[place:])


def followed(
    problem: Problem,
    found: Disaggregated,
    status: PlanStatus,
    best: Alternative | None,
    others: tuple[Alternative, ...],
    shown: tuple[Mapping[str, object], ...],
) -> tuple[PlanStatus, tuple[Mapping[str, object], ...]]:
    """Return the plan of the best pair and its table, where the pair is the plan.

    Args:
        problem: The problem.
        found: The pairs.
        status: The plan of the decode candidate alone.
        best: The best plan whose replicas process both phases; None if there is none.
        others: Its alternatives, whose reasons compare with it.
        shown: Its table.
    """
    pair, spec = found.best, problem.spec
    totals = pair.joules_per_output_token, pair.power_watts, pair.gpus
    if best is not None:
        best = best.model_copy(update={"reason": _against(best, totals, spec)})
    # Alternatives that break an objective or a budget have reasons that do not refer to the best plan.
    broken = [each for each in others if _BREAKS in each.reason]
    alternatives = (*broken[: MAX_ALTERNATIVES - 1], *(() if best is None else (best,)))
    plan = status.model_copy(update=figures_of(found, pair, spec, status) | {"alternatives": alternatives})
    rows = tuple({**row, "chosen": False, "reason": _against_row(row, totals, spec)} for row in shown)
    assert plan.prefill is not None
    prompts = f"prompts on {describe_replicas(plan.prefill)}"
    return plan, _inserted(rows, alternative_of(found, pair, (), spec, totals, reason=prompts), is_chosen=True)


_BREAKS = " > "
"""Part of every reason that an objective or a budget is broken."""


def _against_row(row: Mapping[str, object], totals: tuple[float, float, int], spec: LLMDeploymentSpec) -> str:
    if _BREAKS in str(row["reason"]):
        return str(row["reason"])
    names = {field.alias: name for name, field in Alternative.model_fields.items()}
    fields = {names[key]: value for key, value in row.items() if key in names and names[key] != "prefill"}
    return _against(Alternative.model_validate(fields), totals, spec)


def _against(other: Alternative, totals: tuple[float, float, int], spec: LLMDeploymentSpec) -> str:
    """Return why a plan without roles is not chosen, given the joules, watts and GPUs of the pair that is."""
    joules, watts, gpus = totals
    own = float(parse_quantity(other.joules_per_output_token))
    if spec.energy.objective == "MinimizeGPUs" and other.gpus != gpus:
        return f"uses {counted(other.gpus, 'GPU')} instead of {gpus}"
    if spec.energy.objective == "MinimizePower":
        return f"draws {describe.compared(other.power_watts, watts, 'power')}"
    return f"uses {describe.compared(own, joules, 'energy')}"


def figures_of(found: Disaggregated, pair: Pair, spec: LLMDeploymentSpec, decode: PlanStatus) -> dict[str, Any]:
    """Return the fields of a plan that are those of both roles, given the plan of the decode replicas alone."""
    first, i, j, per_token = found.prefill, pair.prefill, pair.decode, 1.0 / spec.workload.mean_output_tokens
    second = found.decode
    longest = decode.longest_request_tokens
    held = float(first.kv_cache_tokens[i])
    predicted = decode.predicted.model_copy(
        update={
            "joules_per_output_token": format_milli(pair.joules_per_output_token),
            "joules_per_output_token_low": format_milli(
                float(first.joules_low[i]) * per_token + float(second.joules_low[j])
            ),
            "joules_per_output_token_high": format_milli(
                float(first.joules_high[i]) * per_token + float(second.joules_high[j])
            ),
            "power_watts": round(pair.power_watts),
            "idle_power_watts": round(float(first.idle_power_watts[i] + second.idle_power_watts[j])),
            "concurrency": round(float(first.concurrency[i] + second.concurrency[j])),
            "utilization_percent": describe.percent_up(float(max(first.utilization[i], second.utilization[j]))),
            "ttft_milliseconds": describe.up(pair.ttft_ms),
            "end_to_end_milliseconds": describe.up(pair.end_to_end_ms),
        }
    )
    return {
        "prefill": PrefillReplicas(**dict(layout_at(first, i))),
        "gpus": pair.gpus,
        "predicted": predicted,
        "longest_request_tokens": longest if longest is None or not math.isfinite(held) else min(longest, int(held)),
    }


def of_pair(
    problem: Problem,
    solution: Solution,
    pairs: Disaggregated,
    status: PlanStatus | None = None,
    shown: tuple[Mapping[str, object], ...] = (),
) -> Feasible:
    """Return the plan of the best pair.

    Args:
        problem: The problem.
        solution: The candidates whose replicas process both phases.
        pairs: The pairs.
        status: The best plan of these candidates; None if none is feasible.
        shown: The table of these candidates.
    """
    best = None
    if solution.chosen is not None:
        best = alternative(solution.rows, solution.chosen, "")
    others = () if status is None else status.alternatives
    found, rows = followed(problem, pairs, decode_alone(problem, pairs), best, others, shown)
    lowest = [watts for watts in (lowest_power(solution), found.predicted.power_watts) if watts is not None]
    counts = problem.spec.energy.objective == "MinimizeGPUs"
    value = float(pairs.best.gpus) if counts else _at_risk(pairs, problem.spec)
    binding = binding_constraint(solution, problem.spec, value)
    found = found.model_copy(update={"lowest_power_watts": min(lowest), "binding_constraint": binding})
    found = identified(found, problem.spec)
    step = int(pairs.decode.step_tokens[pairs.best.decode])
    check_plan(found, problem.spec, step_tokens=step)
    # Power may have ruled out better pairs, which nobody counts.
    restricted = problem.allowance is not None
    return Feasible(sealed(found, hash_of_inputs(problem, None)), solution.rejections, rows, restricted)


def decode_alone(problem: Problem, pairs: Disaggregated) -> PlanStatus:
    """Return the decode replicas of the best pair as a plan."""
    alone = pairs.decode.take(np.array([pairs.best.decode]))
    return plan_status(problem, Solution(alone, (), 0), 0)


def with_hint(problem: Problem, answer: Infeasible) -> Infeasible:
    """Return the answer with a hint if separate prefill and decode would meet the spec, or why no such plan does."""
    found = pairs_of(problem)
    if found is None:
        return answer
    if problem.spec.planning.disaggregation == "Follow":
        pair, broken = found.pairs[0]
        text = f"with separate prefill and decode, on {counted(pair.gpus, 'GPU')}: {'; '.join(broken)}"
        return replace(answer, message=f"{answer.message}; {text}") if broken else answer
    if not found.is_feasible:
        return answer
    product = found.decode.products[int(found.decode.product[found.best.decode])]
    text = f"separate prefill and decode would meet the spec on {counted(int(found.best.gpus), 'GPU')} of {product}"
    return replace(answer, message=f"{answer.message}; {text}, but {NOT_SERVED}")


_ORDER: dict[str, Callable[[Alternative], float]] = {
    "MinimizeEnergy": lambda shown: float(parse_quantity(shown.joules_per_output_token)),
    "MinimizePower": lambda shown: float(shown.power_watts),
    "MinimizeGPUs": lambda shown: float(shown.gpus),
}


def alternative_of(
    found: Disaggregated,
    pair: Pair,
    broken: tuple[str, ...],
    spec: LLMDeploymentSpec,
    chosen: tuple[float, float, int],
    reason: str | None = None,
) -> Alternative:
    """Return a pair as status shows it, decode's layout first, and why it is not adopted.

    Args:
        found: The candidates of both roles.
        pair: The pair to show.
        broken: Objectives and budgets that the pair breaks.
        spec: The deployment's spec.
        chosen: Joules per output token, watts and GPUs of the chosen plan.
        reason: The reason, where it is not one of these.
    """
    prefill = PrefillReplicas(**dict(layout_at(found.prefill, pair.prefill)))
    if reason is None:
        reason = f"prompts on {describe_replicas(prefill)}: {'; '.join(broken) or _why_not(pair, spec, chosen)}"
    return alternative(found.decode, pair.decode, reason).model_copy(
        update={
            "gpus": pair.gpus,
            "joules_per_output_token": format_milli(pair.joules_per_output_token),
            "power_watts": round(pair.power_watts),
            "ttft_milliseconds": describe.up(pair.ttft_ms),
            "end_to_end_milliseconds": describe.up(pair.end_to_end_ms),
            "prefill": prefill,
        }
    )


def _why_not(pair: Pair, spec: LLMDeploymentSpec, chosen: tuple[float, float, int]) -> str:
    joules, watts, gpus = chosen
    if spec.energy.objective == "MinimizeGPUs":
        better, text = pair.gpus < gpus, f"uses {counted(int(pair.gpus), 'GPU')} instead of {gpus}"
    elif spec.energy.objective == "MinimizePower":
        better = pair.power_watts < watts
        text = f"draws {describe.compared(pair.power_watts, watts, 'power')}"
    else:
        better = pair.joules_per_output_token < joules
        text = f"uses {describe.compared(pair.joules_per_output_token, joules, 'energy')}"
    if not better:
        return text
    return f"{text}, {WITHIN_ERROR}" if spec.planning.disaggregation == "Follow" else f"{text}, but {NOT_SERVED}"
