"""The plan that runs and the plan that it replaced, with the energy per token of both. Pure.

Both stand in the status, so that a comparison survives restarts. A plan is compared with the one that it replaced while
both serve the same model at a similar load.
"""

from __future__ import annotations

import math
from datetime import datetime

from energylens.api.llmdeployment import (
    ActiveRevision,
    LLMDeployment,
    LLMDeploymentStatus,
    PlanStatus,
    PrefillRevision,
    PreviousRevision,
    WorkloadRef,
)
from energylens.api.quantity import format_milli
from energylens.api.timestamp import timestamp
from energylens.decide.deployment.observed.observation import Observation, plan_label
from energylens.decide.deployment.pods.rollouts import RolloutProgress, prefill_rollout
from energylens.decide.deployment.trials.windows import is_new_window
from energylens.decide.learned.comparison import is_comparable, joules
from energylens.measure.types import WindowMeasurement
from energylens.serving import workload_ref
from energylens.serving.workload import prefill_ref

NEWEST_SHARE = 0.3
"""Weight of the newest window in the mean: a single window may contain a burst."""
SAME_LOAD = 0.05
"""Relative difference of two planned loads up to which they are the same; a followed load moves by steps of 25 %."""
_LAYOUT = ("gpu_product", "layout", "max_batch_size", "max_batched_tokens")


def active_revision(observed: Observation, state: RolloutProgress) -> ActiveRevision | None:
    """Return the plan that runs; None if nothing runs."""
    deployment, plan, live = observed.deployment, observed.planning.plan, observed.workload
    if live is None:
        return None
    if plan is None:
        return deployment.status.active_revision
    ref = workload_ref(deployment, plan).model_copy(
        update={"api_version": live["apiVersion"], "kind": live["kind"], "name": live["metadata"]["name"]}
    )
    found = _known(observed, state.running_hash).model_copy(
        update={
            "plan_hash": state.running_hash,
            "workload_ref": ref,
            "ready_replicas": state.ready,
            "updated_replicas": state.updated,
            "prefill": _prefill(observed),
        }
    )
    if observed.canary_pods:
        # Beside the canary of a new plan the other replicas have less of the load than before.
        return found
    return with_window(found, deployment, observed.measurement)


def _prefill(observed: Observation) -> PrefillRevision | None:
    """Return the prefill replicas of the plan that runs; None if that plan has none."""
    state, running = prefill_rollout(observed), plan_label(observed.workload)
    plan = next((p for p in (observed.planning.plan, observed.standing) if p is not None and p.hash == running), None)
    if state is None or plan is None or plan.prefill is None:
        return None
    return PrefillRevision(
        replicas=plan.prefill.replicas,
        layout=plan.prefill.degrees,
        workload_ref=prefill_ref(observed.deployment),
        ready_replicas=state.ready,
        updated_replicas=state.updated,
    )


def _known(observed: Observation, running_hash: str) -> ActiveRevision:
    """Return the figures of the plan that runs; they are absent if its plan is not known."""
    deployment, plan = observed.deployment, observed.planning.plan
    before = deployment.status.active_revision
    same = before if before is not None and before.plan_hash == running_hash else None
    empty = ActiveRevision(plan_hash=running_hash, workload_ref=WorkloadRef(api_version="", kind="", name=""))
    if plan is not None and plan.hash == running_hash:
        known = same or empty
        if observed.planning.good:
            # The hash covers the model. A plan that stays because the spec has none may be for another model.
            known = known.model_copy(update={"model": deployment.spec.model.name})
        return _figures(known, plan)
    if observed.standing is not None and observed.standing.hash == running_hash:
        return _figures(same or empty, observed.standing)
    return same or empty


def _figures(known: ActiveRevision, plan: PlanStatus) -> ActiveRevision:
    return known.model_copy(
        update={
            "gpu_product": plan.gpu_product,
            "gpus": plan.gpus,
            "replicas": plan.replicas,
            "layout": plan.layout,
            "max_batch_size": plan.max_batch_size,
            "max_batched_tokens": plan.max_batched_tokens,
            "joules_per_output_token": plan.predicted.joules_per_output_token,
            "output_tokens_per_second": plan.predicted.output_tokens_per_second,
            "itl_milliseconds": plan.predicted.itl_milliseconds,
            "power_watts": plan.predicted.power_watts,
        }
    )


def with_window(active: ActiveRevision, deployment: LLMDeployment, found: WindowMeasurement | None) -> ActiveRevision:
    """Return the running plan with one more measured window of its pods in its mean."""
    if found is None or found.reason != "Measured" or not is_new_window(deployment, found):
        return active
    energy, tokens = found.joules_per_output_token, found.output_tokens_per_second
    if energy is None or not tokens:
        return active
    known, load = active.measured_joules_per_output_token, active.measured_output_tokens_per_second
    if known is not None and load and is_comparable(tokens / load):
        energy = NEWEST_SHARE * energy + (1 - NEWEST_SHARE) * joules(known)
        tokens = NEWEST_SHARE * tokens + (1 - NEWEST_SHARE) * load
    return active.model_copy(
        update={
            "measured_joules_per_output_token": format_milli(energy),
            "measured_output_tokens_per_second": round(tokens),
        }
    )


def previous_revision(
    status: LLMDeploymentStatus, active: ActiveRevision | None, now: datetime
) -> PreviousRevision | None:
    """Return the plan that the running plan replaced.

    Args:
        status: The last status, in which the plan that ran then is ``activeRevision``.
        active: The plan that runs now; None if nothing runs, which replaces no plan.
        now: The current time.
    """
    before, known = status.active_revision, status.previous_revision
    if active is None:
        return known
    if before is None or before.plan_hash == active.plan_hash:
        # After an interval without a workload, another plan may run by now.
        return known if known is not None and known.replaced_by == active.plan_hash else None
    if before.model is None or before.model != active.model:
        return None
    if known is not None and known.replaced_by != before.plan_hash:
        known = None
    if known is not None and known.plan_hash == active.plan_hash:
        return None
    if _follows_load(before, active):
        return None if known is None else known.model_copy(update={"replaced_by": active.plan_hash})
    figures = before.model_dump(include=set(PreviousRevision.model_fields) - {"replaced_by", "replaced_time"})
    return PreviousRevision(**figures, replaced_by=active.plan_hash, replaced_time=timestamp(now))


def _follows_load(before: ActiveRevision, after: ActiveRevision) -> bool:
    """Return whether the same replicas in another number serve another load: such a plan is no other plan."""
    loads = before.output_tokens_per_second, after.output_tokens_per_second
    if loads[0] is None or loads[1] is None or any(getattr(before, name) != getattr(after, name) for name in _LAYOUT):
        return False
    return before.replicas != after.replicas and not math.isclose(loads[0], loads[1], rel_tol=SAME_LOAD)


def saved_watts(previous_joules: float, previous_tokens: float, joules: float, tokens: float) -> float | None:
    """Return the power saved at the present load against the previous plan, W; negative if the plan takes more.

    None if the loads differ too much to compare energies per token.

    Args:
        previous_joules: Measured energy per output token of the previous plan, J.
        previous_tokens: Load of these windows, tokens generated per second.
        joules: Measured energy per output token of the running plan, J.
        tokens: Its load, tokens generated per second.
    """
    if previous_tokens <= 0 or not is_comparable(tokens / previous_tokens):
        return None
    return (previous_joules - joules) * tokens
