"""Whether a new plan is verified on one replica, and the plan to run meanwhile. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from energylens.api.llmdeployment import PlanStatus
from energylens.api.words import counted
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans.case import Case, in_words
from energylens.decide.deployment.plans.replica import one_replica
from energylens.decide.deployment.plans.verdict import figures, judged, with_share
from energylens.decide.deployment.trials.rollback import inputs_of
from energylens.decide.deployment.trials.verification import (
    Beside,
    Situation,
    Step,
    as_many,
    followed_at_once,
    same_pods,
    step,
    without_trial,
)
from energylens.decide.reasons import Reason
from energylens.planner import adoption
from energylens.planner.search.identity import identified, serving_hash
from energylens.planner.types import Feasible
from energylens.serving import canary_ref
from energylens.serving.rollout import free_replicas
from energylens.serving.timing import progress_deadline_seconds, startup_seconds
from energylens.serving.workload import fits_group

LEAST_SHARE_SERVED = 0.99
"""Share of its part of the load that a replica must sustain by prediction; below 1 because figures are rounded."""


def verified(case: Case, choice: PlanChoice) -> PlanChoice:
    """Return the plan to run if the spec asks to measure a new plan on one replica first.

    Args:
        case: The case that is planned.
        choice: The plan that planning would adopt.
    """
    seen, before = case.inputs.beside, case.inputs.deployment.status.verification
    if seen is None:
        return choice
    spec = case.inputs.deployment.spec
    plain = replace(choice, verification=without_trial(before))
    if choice.rollback is not None:
        # The current plan was measured long ago.
        return replace(choice, verification=without_trial(before).model_copy(update={"followed": None}))
    if choice.plan is None or not choice.good or spec.is_stopped or spec.planning.mode == "Advisory":
        return plain
    wanted = _approved(case, choice.plan)
    running = seen.running
    if wanted is None or running is None:
        return plain
    if same_pods(running, wanted):
        return replace(choice, verification=as_many(without_trial(before), running, wanted))
    known = before.followed if before is not None else None
    if known is not None and known.plan_hash == wanted.hash:
        # The plan is decided, but its pods are not written yet.
        return plain
    exempt = _exempt(seen) or ("the running plan separates prefill and decode" if running.prefill is not None else "")
    if exempt:
        return replace(choice, verification=followed_at_once(before, wanted, exempt, case.inputs.now))
    return _as_chosen(case, choice, running, step(_situation(case, seen, running, wanted)))


def _approved(case: Case, plan: PlanStatus) -> PlanStatus | None:
    """Return the plan that may be adopted; None while it waits for approval."""
    planning, before = case.inputs.deployment.spec.planning, case.inputs.deployment.status.verification
    if planning.mode != "Manual" or planning.approved_plan_hash == plan.hash:
        return plan
    trial = before.plan if before is not None else None
    approved = trial is not None and trial.hash == planning.approved_plan_hash
    return trial if approved and trial is not None and _planned_again(case, trial) is not None else None


def _exempt(seen: Beside) -> str:
    """Return why a new plan cannot be compared with, or endanger, running pods; "" if it can."""
    if not seen.serving:
        return "no replica of the running plan is ready"
    if not seen.same_model:
        return "the running replicas serve another model, and the Service would mix the two"
    return ""


def _situation(case: Case, seen: Beside, running: PlanStatus, wanted: PlanStatus) -> Situation:
    deployment = case.inputs.deployment
    return Situation(
        deployment=deployment,
        running=running,
        wanted=wanted,
        inputs=_inputs(case),
        still_holds=lambda plan: _planned_again(case, plan) is not None,
        is_needed=lambda: running.serving_hash != serving_hash(deployment.spec) or not _planned_again(case, running),
        obstacle=lambda plan: _obstacle(case, seen, running, plan),
        judge=lambda plan, window: judged(case, running, plan, window, seen.window),
        replica=seen.replica,
        deadline_seconds=progress_deadline_seconds(
            deployment.spec.rollout.progress_deadline_seconds, startup_seconds(case.model)
        ),
        now=case.inputs.now,
    )


def _inputs(case: Case) -> str:
    """Return the hash of a verdict's inputs: another spec, model, product or predictor may change the verdict."""
    deployment = case.inputs.deployment
    document: Mapping[str, Any] = {
        "spec": inputs_of(deployment.spec),
        "serving": serving_hash(deployment.spec),
        "model": repr(case.model),
        "products": sorted({node.product for node in case.inputs.snapshot.nodes if node.allocatable}),
        "predictor": case.predictor.version,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _planned_again(case: Case, plan: PlanStatus) -> PlanStatus | None:
    """Return a plan with its figures under the current inputs; None if it does not meet the spec."""
    asked = case.asked(case.inputs.load)
    pinned = adoption.pinned_to(asked, plan, case.gpus)
    found = None if isinstance(pinned, str) else case.plan(pinned)
    return identified(found.plan, asked.spec) if isinstance(found, Feasible) else None


def _obstacle(case: Case, seen: Beside, running: PlanStatus, plan: PlanStatus) -> str:
    """Return why one replica of a plan cannot be measured beside the running pods; "" if it can."""
    inputs, replica = case.inputs, one_replica(plan)
    deployment, allowance = inputs.deployment, inputs.allowance
    if seen.exclusive:
        return seen.exclusive
    if plan.nodes_per_replica > 1 and not fits_group(name := canary_ref(deployment, plan).name):
        return f"the name of its object, {name!r}, is too long for a LeaderWorkerSet"
    most = deployment.spec.hardware.max_gpus
    if most is not None and running.gpus + replica.gpus > most:
        more = counted(replica.gpus, "GPU")
        return f"{running.gpus} GPUs run, and {more} more would exceed spec.hardware.maxGPUs={most}"
    watts = running.predicted.power_watts + replica.predicted.power_watts
    if allowance is not None and watts > allowance.watts:
        return (
            f"the running plan and one replica draw {watts} W, but {allowance.source} leaves {allowance.watts:.0f} W"
            f"{f' ({allowance.because})' if allowance.because else ''}"
        )
    trial = deployment.status.verification
    if trial is not None and trial.plan is not None and same_pods(trial.plan, plan):
        # The replica has its GPUs, or waits for GPUs that were free when it started.
        return ""
    if free_replicas(deployment, plan, inputs.snapshot) < 1:
        gpus = f"{counted(replica.gpus, 'GPU')} of {plan.gpu_product}"
        nodes = f" on {counted(plan.nodes_per_replica, 'node')}" if plan.nodes_per_replica > 1 else ""
        return f"{gpus}{nodes} for one replica {'are' if replica.gpus > 1 else 'is'} not free"
    return _too_much_for_one(case, running, plan)


def _too_much_for_one(case: Case, running: PlanStatus, plan: PlanStatus) -> str:
    """Return why one replica cannot sustain the share of the load that the Service would give it; "" if it can."""
    pods = running.replicas + 1
    if plan.replicas <= pods:
        return ""
    asked = with_share(case.asked(case.inputs.load), 1 / pods)
    found = figures(case, asked, plan, 1)
    share = f"the Service gives one of {pods} replicas 1/{pods} of the load, but the plan is made for 1/{plan.replicas}"
    if found is None:
        return f"{share}; its figures at that load are not known"
    most, slo = found.predicted, asked.spec.slo
    wanted = plan.predicted.output_tokens_per_second / pods
    if most.output_tokens_per_second < LEAST_SHARE_SERVED * wanted:
        return f"{share}; it sustains {most.output_tokens_per_second} of {wanted:.0f} tokens/s"
    for name, value, limit in (
        ("TTFT", most.ttft_milliseconds, slo.ttft_milliseconds),
        ("ITL", most.itl_milliseconds, slo.itl_milliseconds),
        ("TPOT", most.tpot_milliseconds, slo.tpot_milliseconds),
        ("E2E", most.end_to_end_milliseconds, slo.end_to_end_milliseconds),
    ):
        if limit is not None and value is not None and value > limit:
            return f"{share}; {name} would be {value} ms, more than {limit} ms"
    return ""


def _as_chosen(case: Case, choice: PlanChoice, running: PlanStatus, found: Step) -> PlanChoice:
    """Return the choice of planning for a step."""
    if found.action == "Follow" and choice.plan is not None:
        same = found.plan.hash == choice.plan.hash
        plan = choice.plan if same else _planned_again(case, found.plan) or found.plan
        weighed = "; ".join(filter(None, (choice.weighed, found.message)))
        is_verified = found.reason is Reason.VERIFIED
        return replace(
            choice,
            plan=plan,
            reason=Reason.PLANNED,
            message=in_words(plan),
            adopted=True,
            decision="Verified" if is_verified else choice.decision,
            weighed=weighed,
            table=choice.table if same else None,
            verification=found.status,
        )
    stated = case.inputs.deployment.status.plan
    return PlanChoice(
        stated if stated is not None and stated.hash == running.hash else running,
        case.model,
        True,
        found.reason,
        found.message,
        decision=found.reason.value,
        result=choice.result,
        carried_step=choice.carried_step,
        verification=found.status,
        replica=one_replica(found.plan) if found.action == "Verify" else None,
        held=True,
        began=found.began,
        gave_up=found.gave_up,
    )
