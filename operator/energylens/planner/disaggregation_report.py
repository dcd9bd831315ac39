"""What an answer says of prefill and decode apart: the best pair among the alternatives, and why it is not followed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from energylens.api.llmdeployment import Alternative, LLMDeploymentSpec, PlanStatus, PrefillReplicas
from energylens.api.quantity import format_milli, parse_quantity
from energylens.planner import describe
from energylens.planner.disaggregation import Disaggregated, best_pair
from energylens.planner.frontier import MAX_ALTERNATIVES, alternative, table_row
from energylens.planner.problem import Problem, Solution
from energylens.planner.types import Infeasible

NOT_SERVED = "serving it takes a router that knows prefill from decode, which the operator does not run"


def with_pair(
    problem: Problem, solution: Solution, i: int, status: PlanStatus, shown: tuple[Mapping[str, object], ...]
) -> tuple[PlanStatus, tuple[Mapping[str, object], ...]]:
    """Return status and table with the best plan of prefill and decode apart, by the objective's order."""
    found = best_pair(problem)
    if found is None:
        return status, shown
    rows = solution.rows
    chosen = float(rows.joules_per_output_token[i]), float(rows.power_watts[i]), int(rows.gpus[i])
    pair = alternative_of(found, problem.spec, chosen)
    joules, key = str(pair.joules_per_output_token), _ORDER[problem.spec.energy.objective]
    others = status.alternatives[: MAX_ALTERNATIVES - 1]
    alternatives = tuple(sorted((*others, pair), key=key))
    place = sum(parse_quantity(str(row["joulesPerOutputToken"])) <= parse_quantity(joules) for row in shown)
    table_with_pair = (*shown[:place], table_row(pair, is_chosen=False), *shown[place:])
    return status.model_copy(update={"alternatives": alternatives}), table_with_pair


def with_hint(problem: Problem, answer: Infeasible) -> Infeasible:
    """Return the answer, which also says when prefill and decode apart would hold the spec."""
    found = best_pair(problem) if problem.spec.planning.disaggregation == "Compare" else None
    if found is None or found.broken:
        return answer
    pair = alternative_of(found, problem.spec, None)
    text = f"prefill and decode apart would hold it on {pair.gpus} GPUs of {pair.gpu_product}"
    return replace(answer, message=f"{answer.message}; {text}, but {NOT_SERVED}")


_ORDER: dict[str, Callable[[Alternative], float]] = {
    "MinimizeEnergy": lambda shown: float(parse_quantity(shown.joules_per_output_token)),
    "MinimizePower": lambda shown: float(shown.power_watts),
    "MinimizeGPUs": lambda shown: float(shown.gpus),
}


def alternative_of(
    found: Disaggregated, spec: LLMDeploymentSpec, chosen: tuple[float, float, int] | None
) -> Alternative:
    """Return the best pair as status shows it, decode's layout first, and why it is not followed.

    Args:
        found: The best pair.
        spec: What is asked for.
        chosen: Joules per output token, watts and GPUs of the plan that was chosen; None where there is none.
    """
    pair, p = found.best, found.prefill.layouts
    i, cap = pair.prefill, float(found.prefill.layouts.power_cap_watts[pair.prefill])
    prefill = PrefillReplicas(
        replicas=int(found.prefill.replicas[i]),
        tensor_parallel=int(p.tensor_parallel[i]),
        pipeline_parallel=int(p.pipeline_parallel[i]),
        expert_parallel=int(p.expert_parallel[i]),
        data_parallel=int(p.data_parallel[i]),
        max_batch_size=int(p.max_batch_size[i]),
        power_cap_watts_per_gpu=None if math.isnan(cap) else round(cap),
    )
    reason = f"prompts on {describe.prefill(prefill)}: {_why_not(found, spec, chosen)}"
    return alternative(found.decode, pair.decode, reason).model_copy(
        update={
            "gpus": pair.gpus,
            "joules_per_output_token": format_milli(pair.joules_per_output_token),
            "power_watts": round(pair.power_watts),
            "ttft_milliseconds": describe.up(pair.ttft_ms),
            "prefill": prefill,
        }
    )


def _why_not(found: Disaggregated, spec: LLMDeploymentSpec, chosen: tuple[float, float, int] | None) -> str:
    if found.broken:
        return "; ".join(found.broken)
    if chosen is None:
        return f"holds the spec; {NOT_SERVED}"
    joules, watts, gpus = chosen
    if spec.energy.objective == "MinimizeGPUs":
        better, text = found.best.gpus < gpus, f"uses {found.best.gpus} GPUs instead of {gpus}"
    elif spec.energy.objective == "MinimizePower":
        better = found.best.power_watts < watts
        text = f"draws {describe.compared(found.best.power_watts, watts, 'power')}"
    else:
        better = found.best.joules_per_output_token < joules
        text = f"uses {describe.compared(found.best.joules_per_output_token, joules, 'energy')}"
    return f"{text}, but {NOT_SERVED}" if better else text
