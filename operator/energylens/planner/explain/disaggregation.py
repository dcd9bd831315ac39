"""Separate prefill and decode in an answer: the best pair among the alternatives, and why it is not adopted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from energylens.api.llmdeployment import Alternative, LLMDeploymentSpec, PlanStatus, PrefillReplicas, describe_replicas
from energylens.api.quantity import format_milli, parse_quantity
from energylens.api.words import counted
from energylens.planner.search import describe
from energylens.planner.search.disaggregation import Disaggregated, Pair, best_pairs
from energylens.planner.search.frontier import MAX_ALTERNATIVES, alternative, table_row
from energylens.planner.search.placement import layout_at
from energylens.planner.search.problem import Problem, Solution
from energylens.planner.types import Infeasible

NOT_SERVED = "such a plan needs a router that knows prefill and decode replicas, which the operator does not run"


def with_pair(
    problem: Problem, solution: Solution, i: int, status: PlanStatus, shown: tuple[Mapping[str, object], ...]
) -> tuple[PlanStatus, tuple[Mapping[str, object], ...]]:
    """Return status and table with the best plan of separate prefill and decode; in the table, of every GPU product."""
    found = best_pairs(problem)
    if found is None:
        return status, shown
    rows = solution.rows
    chosen = float(rows.joules_per_output_token[i]), float(rows.power_watts[i]), int(rows.gpus[i])
    pairs = [alternative_of(found, pair, broken, problem.spec, chosen) for pair, broken in found.pairs]
    others = (*status.alternatives[: MAX_ALTERNATIVES - 1], pairs[0])
    alternatives = tuple(sorted(others, key=_ORDER[problem.spec.energy.objective]))
    for pair in pairs:
        joules = parse_quantity(str(pair.joules_per_output_token))
        place = sum(parse_quantity(str(row["joulesPerOutputToken"])) <= joules for row in shown)
        shown = (*shown[:place], table_row(pair, is_chosen=False), *shown[place:])
    return status.model_copy(update={"alternatives": alternatives}), shown


def with_hint(problem: Problem, answer: Infeasible) -> Infeasible:
    """Return the answer with a hint if separate prefill and decode would meet the spec."""
    found = best_pairs(problem) if problem.spec.planning.disaggregation == "Compare" else None
    if found is None or not found.is_feasible:
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
) -> Alternative:
    """Return a pair as status shows it, decode's layout first, and why it is not adopted.

    Args:
        found: The candidates of both roles.
        pair: The pair to show.
        broken: Objectives and budgets that the pair breaks.
        spec: The deployment's spec.
        chosen: Joules per output token, watts and GPUs of the chosen plan.
    """
    prefill = PrefillReplicas(**dict(layout_at(found.prefill, pair.prefill)))
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
    return f"{text}, but {NOT_SERVED}" if better else text
