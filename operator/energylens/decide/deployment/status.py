"""The status of an LLMDeployment from an observation. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from energylens.api.llmdeployment import (
    ActiveRevision,
    BudgetStatus,
    ItlPercentiles,
    JobStartStatus,
    LengthPercentiles,
    LLMDeployment,
    LLMDeploymentStatus,
    Measured,
    PlanStatus,
    PredictionStatus,
    RelaxationStatus,
    RollbackStatus,
    ScheduleStatus,
    VerificationStatus,
    WorkloadRef,
)
from energylens.api.quantity import format_milli
from energylens.api.timestamp import timestamp
from energylens.decide.deployment import rollback
from energylens.decide.deployment.children import Children
from energylens.decide.deployment.conditions import all_conditions
from energylens.decide.deployment.following import load_status
from energylens.decide.deployment.job_start import followed_start
from energylens.decide.deployment.learned_hours import learned_status
from energylens.decide.deployment.observation import Observation
from energylens.decide.deployment.replica import is_asked
from energylens.decide.deployment.rollouts import existing_replicas, rollout, workload_revision
from energylens.decide.deployment.schedule import with_measured_start
from energylens.decide.deployment.verification import without_trial
from energylens.decide.learned.comparison import energy_error_percent, error_percent
from energylens.decide.planned import Body
from energylens.decide.reasons import ConditionType, Reason
from energylens.measure.types import LengthQuantile, Percentile, WindowMeasurement
from energylens.planner.types import Infeasible, PlanningResult, Relaxation
from energylens.serving import workload_ref
from energylens.serving.metadata import selector_labels

PERCENTILES: tuple[Percentile, ...] = ("P50", "P90", "P95", "P99")
SOURCES: dict[str, Literal["Prometheus", "DCGMExporter"]] = {
    "prometheus": "Prometheus",
    "dcgm-exporter": "DCGMExporter",
}
"""Names of energy sources in the API."""
MAX_RELAXATIONS = 20
"""Maximum number of relaxations in the API."""


def status_of(observed: Observation, children: Children) -> dict[str, Any]:
    """Return the whole status, as the operator writes it."""
    deployment, plan = observed.deployment, observed.planning.plan
    before, state = deployment.status, rollout(observed)
    active = before.active_revision
    if observed.workload is None:
        active = None
    elif plan is not None:
        live = observed.workload
        ref = workload_ref(deployment, plan).model_copy(
            update={
                "api_version": live["apiVersion"],
                "kind": live["kind"],
                "name": live["metadata"]["name"],
            }
        )
        active = _running(observed, state.running_hash).model_copy(
            update={
                "plan_hash": state.running_hash,
                "workload_ref": ref,
                "ready_replicas": state.ready,
                "updated_replicas": state.updated,
            }
        )
    measured, prediction = before.measured, before.prediction
    if active is None or before.active_revision is None or active.plan_hash != before.active_revision.plan_hash:
        measured, prediction = None, None
    found = observed.measurement
    if found is not None and found.energy_joules is not None and plan is not None and active is not None:
        samples = before.prediction.samples if before.prediction is not None and prediction is not None else 0
        measured = measured_status(found)
        prediction = prediction_status(plan, found, samples, before.measured)
    if measured is not None:
        account = observed.energy_account
        watt_hours = None if account is None else round(account.measured_joules / 3600.0)
        measured = measured.model_copy(update={"energy_watt_hours_this_period": watt_hours})
    if prediction is not None:
        prediction = prediction.model_copy(update={"correction": observed.learned or prediction.correction})
    status = LLMDeploymentStatus(
        observed_generation=deployment.metadata.generation,
        replicas=existing_replicas(observed.workload),
        selector=",".join(f"{name}={value}" for name, value in selector_labels(deployment).items()),
        plan=plan,
        plan_adoption_time=_adoption_time(observed, children),
        load=load_status(observed.load),
        schedule=_schedule(observed),
        learned_load=learned_status(observed.learned_hours),
        job_start=_job_start(observed),
        relaxations=_relaxations(observed.planning.result),
        active_revision=active,
        measured=measured,
        prediction=prediction,
        rollback=_rollback(observed),
        verification=_verification(observed),
        budget=_budget(observed),
        energy_account=observed.energy_account,
        conditions=all_conditions(observed, children),
    )
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def _running(observed: Observation, running_hash: str) -> ActiveRevision:
    """Return the running plan; unknown figures are absent."""
    empty = ActiveRevision(plan_hash=running_hash, workload_ref=WorkloadRef(api_version="", kind="", name=""))
    for plan in (observed.planning.plan, observed.standing):
        if plan is not None and plan.hash == running_hash:
            return empty.model_copy(
                update={
                    "gpu_product": plan.gpu_product,
                    "gpus": plan.gpus,
                    "replicas": plan.replicas,
                    "layout": plan.layout,
                    "max_batch_size": plan.max_batch_size,
                    "max_batched_tokens": plan.max_batched_tokens,
                    "joules_per_output_token": plan.predicted.joules_per_output_token,
                    "itl_milliseconds": plan.predicted.itl_milliseconds,
                    "power_watts": plan.predicted.power_watts,
                }
            )
    before = observed.deployment.status.active_revision
    return before if before is not None and before.plan_hash == running_hash else empty


def is_unplanned(deployment: Body) -> bool:
    """Return whether the current spec was not planned yet: it is new, or the last reconcile waited for a budget."""
    status = deployment.get("status") or {}
    if status.get("observedGeneration") != deployment["metadata"].get("generation"):
        return True
    reasons = (c.get("reason") for c in status.get("conditions") or () if c.get("type") == ConditionType.PLAN_READY)
    return Reason.AWAITING_BUDGET in reasons


def is_new_window(deployment: LLMDeployment, found: WindowMeasurement | None) -> bool:
    """Return whether a window is not the window in the status."""
    before = deployment.status.measured
    return found is not None and (before is None or before.window_end != _time(found.window_end))


def _rollback(observed: Observation) -> RollbackStatus | None:
    deployment, found, planning = observed.deployment, observed.measurement, observed.planning
    if not rollback.triggers(deployment.spec):
        return None
    if planning.rollback is not None:
        return rollback.after_return(deployment, planning.rollback, observed.now)
    if found is None or planning.plan is None or not is_new_window(deployment, found) or observed.canary_pods:
        # Beside a canary, the other replicas have a smaller share of the load.
        return deployment.status.rollback
    return rollback.after_window(deployment, planning.plan, found)


def _schedule(observed: Observation) -> ScheduleStatus | None:
    """Return the schedule, with the start-up time once a start was measured."""
    deployment, planning = observed.deployment, observed.planning
    if deployment.spec.workload.profile is None:
        return None
    if planning.schedule is None or planning.plan is None:
        return deployment.status.schedule
    live = observed.workload
    mine = () if live is None else [pod for pod in observed.pods if pod.revision == workload_revision(live)]
    return with_measured_start(planning.schedule, deployment, planning.plan.replicas, mine)


def _job_start(observed: Observation) -> JobStartStatus | None:
    """Return when the pods of a job start, or did; a pass that could not plan keeps what is known."""
    job = observed.deployment.spec.workload.job
    if job is None or job.start is None:
        return None
    if observed.job_start is None:
        return observed.deployment.status.job_start
    return followed_start(observed.job_start, observed.workload, observed.pods, observed.now)


def _verification(observed: Observation) -> VerificationStatus | None:
    """Return the state of verification; a reconcile that could not plan ends a running verification."""
    if not is_asked(observed.deployment):
        return None
    return observed.planning.verification or without_trial(observed.deployment.status.verification)


def _budget(observed: Observation) -> BudgetStatus | None:
    """Return the part about the binding budget; a change of used energy below one percent causes no write."""
    found, before = observed.budget_status, observed.deployment.status.budget
    if found is None or before is None:
        return found
    same = found.model_copy(update={"remaining_watt_hours": before.remaining_watt_hours})
    return before if same == before else found


def _adoption_time(observed: Observation, children: Children) -> str | None:
    planning, known = observed.planning, observed.deployment.status.plan_adoption_time
    if planning.plan is None:
        return None
    if children.reason in (Reason.AWAITING_APPROVAL, Reason.ADVISORY):
        # Nothing was adopted yet: keep the time of the running plan.
        return known
    # A status of an earlier release has no time: its plan counts from now.
    return known if known and not observed.takes_over else _time(observed.now.timestamp())


def _relaxations(result: PlanningResult | None) -> tuple[RelaxationStatus, ...] | None:
    if not isinstance(result, Infeasible) or not result.relaxations:
        return None
    return tuple(map(relaxation_status, result.relaxations[:MAX_RELAXATIONS]))


def relaxation_status(relaxation: Relaxation) -> RelaxationStatus:
    """Return a change that would allow a plan, at the resolution of the API."""
    also = relaxation.also
    return RelaxationStatus(
        field=relaxation.field,
        value=relaxation.value,
        allowed=relaxation.allowed,
        with_field=also.field if also else None,
        with_value=also.value if also else None,
        with_allowed=also.allowed if also else None,
        joules_per_output_token=format_milli(relaxation.joules_per_output_token),
    )


def measured_status(found: WindowMeasurement) -> Measured:
    """Return a window's figures, rounded to the resolution of the API."""

    def whole(value: float | None) -> int | None:
        return None if value is None else round(value)

    def up(value: float | None) -> int | None:
        return None if value is None else math.ceil(value)

    def quantity(value: float | None) -> str | None:
        return None if value is None else format_milli(value)

    def per_request(tokens: float | None) -> int | None:
        return round(tokens / found.requests) if tokens is not None and found.requests else None

    def percent(share: float | None) -> int | None:
        return None if share is None else round(100 * share)

    ratio, bound = found.joules_per_output_token, found.error_bound_joules
    usage = found.kv_cache_usage
    return Measured(
        window_start=_time(found.window_start),
        window_end=_time(found.window_end),
        source=SOURCES.get(found.source),
        coverage_percent=round(found.coverage_percent),
        power_watts=whole(found.power_watts),
        idle_power_watts=whole(found.idle_power_watts),
        output_tokens_per_second=whole(found.output_tokens_per_second),
        requests_per_second=quantity(found.requests_per_second),
        input_tokens=per_request(found.prompt_tokens),
        output_tokens=per_request(found.output_tokens),
        input_tokens_percentiles=_length_percentiles(found.prompt_lengths),
        output_tokens_percentiles=_length_percentiles(found.output_lengths),
        running_requests=quantity(found.mean_running),
        waiting_requests=quantity(found.mean_waiting),
        kv_cache_percent=percent(usage),
        prefix_cache_hit_percent=percent(found.prefix_cache_hits),
        draft_tokens=quantity(found.draft_tokens),
        acceptance_percent=percent(found.acceptance),
        joules_per_output_token=quantity(ratio),
        energy_bound_percent=up(100 * bound / found.energy_joules)
        if bound is not None and found.energy_joules
        else None,
        ttft_milliseconds=up(found.latency.ttft_ms) if found.latency else None,
        itl_milliseconds=up(found.latency.itl_ms) if found.latency else None,
        tpot_milliseconds=up(found.latency.tpot_ms) if found.latency else None,
        end_to_end_milliseconds=up(found.latency.end_to_end_ms) if found.latency else None,
        itl_percentiles=_itl_percentiles(found),
    )


def _length_percentiles(found: Mapping[Percentile, LengthQuantile]) -> LengthPercentiles | None:
    p50, p95 = found.get("P50"), found.get("P95")
    if p50 is None or p95 is None:
        return None

    def end(quantile: LengthQuantile) -> int | None:
        return round(quantile.bucket[1]) if math.isfinite(quantile.bucket[1]) else None

    return LengthPercentiles(
        p50=round(p50.tokens),
        p50_from=round(p50.bucket[0]),
        p50_to=end(p50),
        p95=round(p95.tokens),
        p95_from=round(p95.bucket[0]),
        p95_to=end(p95),
    )


def _itl_percentiles(found: WindowMeasurement) -> ItlPercentiles | None:
    values = {percentile: latency.itl_ms for percentile, latency in found.latency_by_percentile.items()}
    p50, p90, p95, p99 = (values.get(name) for name in PERCENTILES)
    if p50 is None or p90 is None or p95 is None or p99 is None:
        return None
    return ItlPercentiles(
        **dict(zip(("p50", "p90", "p95", "p99"), map(format_milli, (p50, p90, p95, p99)), strict=True))
    )


def prediction_status(
    plan: PlanStatus, found: WindowMeasurement, samples: int, before: Measured | None
) -> PredictionStatus:
    """Return the errors of one window; ``samples`` counts windows, each once."""
    predicted, latency = plan.predicted, found.latency
    new = before is None or before.window_end != _time(found.window_end)
    return PredictionStatus(
        energy_error_percent=energy_error_percent(plan, found.joules_per_output_token),
        power_error_percent=error_percent(predicted.power_watts, found.power_watts),
        itl_error_percent=error_percent(predicted.itl_milliseconds, latency.itl_ms if latency else None),
        tpot_error_percent=error_percent(predicted.tpot_milliseconds, latency.tpot_ms if latency else None),
        end_to_end_error_percent=error_percent(
            predicted.end_to_end_milliseconds, latency.end_to_end_ms if latency else None
        ),
        ttft_error_percent=error_percent(predicted.ttft_milliseconds, latency.ttft_ms if latency else None),
        samples=samples + 1 if new else samples,
    )


def _time(seconds: float | None) -> str:
    return "" if seconds is None else timestamp(datetime.fromtimestamp(seconds, tz=UTC))
