"""The figures of a plan beside those of the last measured window. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from energylens.api.llmdeployment import LengthPercentiles, LLMDeployment, Measured, PredictedFigures
from energylens.api.quantity import parse_quantity
from energylens.cli.text.lengths import planned_p95
from energylens.cli.text.tables import joules
from energylens.decide.deployment.loads.following import at_load, followed_load
from energylens.records import dataclass


@dataclass(frozen=True)
class Figure:
    """One quantity, predicted and measured; None if unknown."""

    name: str
    predicted: str | None
    measured: str | None
    error_percent: int | None
    """100 x (predicted - measured) / measured, as the operator wrote it."""


def figures_of(deployment: LLMDeployment) -> Iterator[Figure]:
    """Yield the figures of a plan as predicted and as measured; none without a plan."""
    plan, measured, off = deployment.status.plan, deployment.status.measured, deployment.status.prediction
    if plan is None:
        return
    for name, field, error in (
        ("J per output token", "joules_per_output_token", off.energy_error_percent if off else None),
        ("power, W", "power_watts", off.power_error_percent if off else None),
        ("idle power, W", "idle_power_watts", None),
        ("output tokens per second", "output_tokens_per_second", None),
        (f"TTFT {deployment.spec.slo.percentile}, ms", "ttft_milliseconds", off.ttft_error_percent if off else None),
        (f"ITL {deployment.spec.slo.percentile}, ms", "itl_milliseconds", off.itl_error_percent if off else None),
        (f"TPOT {deployment.spec.slo.percentile}, ms", "tpot_milliseconds", off.tpot_error_percent if off else None),
        (
            f"E2E {deployment.spec.slo.percentile}, ms",
            "end_to_end_milliseconds",
            off.end_to_end_error_percent if off else None,
        ),
    ):
        yield Figure(name, _shown(plan.predicted, field), _shown(measured, field), error)
    yield from _requests(deployment)
    workload = deployment.spec.workload
    hits, drafts = round(workload.mean_prefix_hit_percent), workload.speculative
    found = None if measured is None else measured.prefix_cache_hit_percent
    if hits or found:
        yield Figure("prefix cache hits, %", str(hits), None if found is None else str(found), None)
    accepted = None if measured is None else measured.acceptance_percent
    if drafts is not None or accepted is not None:
        planned = None if drafts is None else str(drafts.acceptance_percent)
        yield Figure("accepted drafts, %", planned, None if accepted is None else str(accepted), None)


def _requests(deployment: LLMDeployment) -> Iterator[Figure]:
    """Yield the requests at once and their lengths, as planned for and as measured."""
    plan, measured = deployment.status.plan, deployment.status.measured
    asked = at_load(deployment, followed_load(deployment, None)).spec.workload
    if plan is None:
        return
    running = None if measured is None else measured.running_requests
    waiting = None if measured is None else measured.waiting_requests
    if running is not None and plan.job is None:
        at_once = float(parse_quantity(running)) + float(parse_quantity(waiting or "0"))
        yield Figure("requests at once", str(plan.predicted.concurrency), f"{at_once:.3g}", None)
    if measured is None:
        return
    for name, mean, found, percentiles in (
        ("prompt tokens", asked.mean_input_tokens, measured.input_tokens, measured.input_tokens_percentiles),
        ("output tokens", asked.mean_output_tokens, measured.output_tokens, measured.output_tokens_percentiles),
    ):
        if found is not None:
            off = round(100.0 * (mean - found) / found) if found else None
            yield Figure(name, f"{mean:.0f}", str(found), off)
        if percentiles is not None:
            planned = planned_p95(asked, prompts=name == "prompt tokens")
            yield Figure(f"{name} P95", None if planned is None else str(planned), _bucket(percentiles), None)


def _bucket(lengths: LengthPercentiles) -> str:
    """Return the P95 of lengths with the bucket of the histogram, within which it is interpolated."""
    end = "no end" if lengths.p95_to is None else str(lengths.p95_to)
    return f"{lengths.p95} ({lengths.p95_from} to {end})"


def _shown(part: PredictedFigures | Measured | None, field: str) -> str | None:
    value = None if part is None else getattr(part, field)
    return joules(value) if isinstance(value, str) else None if value is None else str(value)
