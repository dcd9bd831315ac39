"""Comparison of a window with the measured plan: errors, objectives, and whether the load matches the plan."""

from __future__ import annotations

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.api.quantity import parse_quantity
from energylens.measure.types import WindowMeasurement
from energylens.predictor.fitted.recalibration import MeasuredPoint

LOAD_TOLERANCE_POINTS = 10.0
"""Percentage points by which prefix cache hits and accepted drafts may differ from the spec without a message."""
LEAST_LOAD, MOST_LOAD = 0.75, 1.33
"""Load relative to the plan's, outside of which nothing is compared: energy per token depends mostly on the load."""

FEWEST_REQUESTS = 100
"""Requests that must have ended in a window before the mean of their lengths counts: lengths with the spread of an
exponential distribution (SCV 1) then have a mean that is known to 10 %."""


def error_percent(predicted: float | None, measured: float | None) -> int | None:
    """Return 100 x (predicted - measured) / measured as a whole percentage; None if either is unknown."""
    return None if predicted is None or measured is None or measured <= 0 else round(100 * (predicted / measured - 1))


def energy_error_percent(plan: PlanStatus | None, measured: float | None) -> int | None:
    """Return the error of the predicted joules per output token in percent."""
    return None if plan is None else error_percent(joules(plan.predicted.joules_per_output_token), measured)


def joules(quantity: str) -> float:
    """Return a quantity of joules as a number."""
    return float(parse_quantity(quantity))


def load_share(deployment: LLMDeployment, plan: PlanStatus, found: WindowMeasurement) -> float | None:
    """Return the measured load relative to the plan's; None if either is unknown.

    A load by concurrency is compared by the running sequences, a rate by the generated tokens.
    """
    predicted = plan.predicted
    if deployment.spec.workload.in_flight is not None and found.mean_running is not None:
        return found.mean_running / predicted.concurrency if predicted.concurrency else None
    if found.output_tokens_per_second is None or not predicted.output_tokens_per_second:
        return None
    return found.output_tokens_per_second / predicted.output_tokens_per_second


def is_comparable(share: float | None) -> bool:
    """Return whether a window's load is close enough to compare energy and latency."""
    return share is not None and LEAST_LOAD <= share <= MOST_LOAD


def load_differences(deployment: LLMDeployment, found: WindowMeasurement) -> list[str]:
    """Return how the load, apart from its size, differs from the spec and the figures, one text each.

    The spec has the load that plans are made for, which may be a followed load.
    """
    workload, texts = deployment.spec.workload, []
    for name, planned, tokens in (
        ("prompts", workload.mean_input_tokens, found.prompt_tokens),
        ("outputs", workload.mean_output_tokens, found.output_tokens),
    ):
        if tokens is None or found.requests is None or found.requests < FEWEST_REQUESTS:
            continue
        mean = tokens / found.requests
        if not is_comparable(mean / planned):
            texts.append(f"{name} have {mean:.0f} tokens on average, and the plan counts {planned:.0f}")
    hits = found.prefix_cache_hits
    said = workload.mean_prefix_hit_percent
    if hits is not None and abs(100 * hits - said) > LOAD_TOLERANCE_POINTS:
        asked = f"spec.workload.prefixCacheHitPercent is {said:.0f}"
        if workload.classes:
            asked = f"{said:.0f} % by spec.workload.classes"
        texts.append(f"the prefix cache had {100 * hits:.0f} % of prompt tokens, {asked}")
    drafts, acceptance = workload.speculative, found.acceptance
    if acceptance is not None and drafts is None:
        texts.append(
            f"the engine drafts {found.draft_tokens:.3g} tokens per step, {100 * acceptance:.0f} % of them accepted, "
            "and spec.workload.speculative is not set"
        )
    elif (
        acceptance is not None
        and drafts is not None
        and abs(100 * acceptance - drafts.acceptance_percent) > LOAD_TOLERANCE_POINTS
    ):
        texts.append(
            f"{100 * acceptance:.0f} % of drafted tokens were accepted, "
            f"spec.workload.speculative.acceptancePercent is {drafts.acceptance_percent}"
        )
    return texts


def broken_objectives(deployment: LLMDeployment, found: WindowMeasurement | None) -> list[str]:
    """Return one text per objective of ``spec.slo`` that a window breaks."""
    return [text for text, holds in objectives(deployment, found).values() if holds is False]


def objectives(deployment: LLMDeployment, found: WindowMeasurement | None) -> dict[str, tuple[str, bool | None]]:
    """Return for each objective in the spec its figures in words, and whether it is met; None if not measured."""
    slo, latency = deployment.spec.slo, found.latency if found is not None else None
    answers: dict[str, tuple[str, bool | None]] = {}
    for name, limit, value in (
        ("TTFT", slo.ttft_milliseconds, latency.ttft_ms if latency else None),
        ("ITL", slo.itl_milliseconds, latency.itl_ms if latency else None),
        ("TPOT", slo.tpot_milliseconds, latency.tpot_ms if latency else None),
        ("E2E", slo.end_to_end_milliseconds, latency.end_to_end_ms if latency else None),
    ):
        if limit is not None:
            known = f"{name} {slo.percentile} {value:.0f} ms" if value is not None else name
            over = value is not None and value > limit
            answers[name] = (f"{known} > {limit} ms" if over else known, None if value is None else not over)
    if slo.joules_per_output_token is not None:
        limit_joules = joules(slo.joules_per_output_token)
        ratio = found.joules_per_output_token if found is not None else None
        known = f"{ratio:.3g} J per output token" if ratio is not None else "energy per output token"
        over = ratio is not None and ratio > limit_joules
        answers["energy"] = (f"{known} > {limit_joules:.3g} J" if over else known, None if ratio is None else not over)
    return answers


def measured_point(plan: PlanStatus, found: WindowMeasurement) -> MeasuredPoint:
    """Return the ratios of measured figures to predictions without the plan's corrections."""
    applied, predicted, latency = plan.correction, plan.predicted, found.latency

    def ratio(measured: float | None, expected: float, factor: str) -> float | None:
        if measured is None or measured <= 0 or expected <= 0:
            return None
        return measured / expected * (joules(factor) if factor else 1.0)

    def factor(name: str) -> str:
        return "" if applied is None else getattr(applied, name)

    return MeasuredPoint(
        itl_ratio=ratio(latency.itl_ms if latency else None, predicted.itl_milliseconds, factor("itl")),
        ttft_ratio=ratio(latency.ttft_ms if latency else None, predicted.ttft_milliseconds, factor("ttft")),
        power_ratio=ratio(found.power_watts, predicted.power_watts, factor("power")),
        energy_ratio=ratio(found.joules_per_output_token, joules(predicted.joules_per_output_token), factor("energy")),
    )
