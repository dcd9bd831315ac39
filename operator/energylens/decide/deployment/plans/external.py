"""The plan to follow if an autoscaler or a person sets the replicas: the planned layout is kept. Pure."""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping
from dataclasses import replace

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.api.words import counted
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans.at_replicas import Found, Target, layout_of, plan_at, waits_for_budget
from energylens.decide.deployment.plans.case import Case, in_words
from energylens.decide.reasons import Reason
from energylens.planner import adoption, effective_allowance
from energylens.planner.search.identity import identified, is_made_from
from energylens.planner.types import Feasible, Infeasible, PlanningResult
from energylens.predictor.model.parameters import weight_bytes

Refused = MutableMapping[tuple[Hashable, ...], Infeasible]
"""Loads without a plan, by the inputs of the search."""
MOST_REFUSED = 256


def is_external(deployment: LLMDeployment) -> bool:
    """Return whether ``spec.replicas`` sets the number of replicas of the planned layout."""
    scaling = deployment.spec.scaling
    return scaling is not None and scaling.mode == "External"


def external(case: Case, refused: Refused) -> PlanChoice:
    """Return the plan for the replicas of the spec, with the layout planned for the stated load."""
    deployment = case.inputs.deployment
    wanted, current = deployment.spec.replicas, deployment.status.plan
    if wanted is None:
        raise ValueError("scaling.mode External needs replicas; the API server and the parser refuse a spec without")
    asked, wanted = case.asked(None), max(wanted, 1)
    token = f"{case.hash_of(asked, None, restricted=False)}:{wanted}"
    if current is not None and _stands(case, current, token):
        scaled = _scaled(deployment, current, current)
        return PlanChoice(current, case.model, True, Reason.PLANNED, _said(case, current), scaled=scaled)
    waiting = waits_for_budget(case)
    if waiting is not None:
        return waiting
    result = _planned(case, asked, refused)
    if isinstance(result, Infeasible) and current is None:
        reason = Reason(result.reason)
        return PlanChoice(None, case.model, False, reason, result.message, decision="Infeasible", result=result)
    if isinstance(result, Infeasible) and current is not None and current.prefill is not None:
        # Replicas of such a plan are of two kinds, and spec.replicas is one number.
        text = f"{result.message}; the running plan stays"
        return PlanChoice(current, case.model, False, Reason(result.reason), text, decision="Infeasible", result=result)
    base, decision, weighed = _layout(case, result)
    planned = base.replicas if base.planned_replicas is None else base.planned_replicas
    # Without a plan for the stated load, the next reconcile searches again.
    found = plan_at(case, Target(asked, base, wanted, planned, token if isinstance(result, Feasible) else ""))
    choice = PlanChoice(
        found.plan,
        case.model,
        True,
        Reason.PLANNED,
        _said(case, found.plan),
        adopted=bool(weighed),
        decision=decision,
        table=result.table if isinstance(result, Feasible) else None,
        result=result,
        weighed=weighed,
        scaled=_scaled(deployment, current, found.plan),
    )
    return _judged(case, choice, found, result, wanted)


def _planned(case: Case, asked: LLMDeployment, refused: Refused) -> PlanningResult:
    """Return the plan for the stated load; an infeasible load is remembered, since its search takes longest."""
    inputs, unshed = case.inputs, case.unshed
    nodes = tuple((node.name, node.free_now, node.schedulable) for node in inputs.snapshot.nodes)
    key = (asked.metadata.uid, unshed.hash_of(asked, None), nodes, unshed.inputs.allowance, inputs.serves_lws)
    known = refused.get(key)
    if known is not None:
        return known
    result = unshed.within_what_is_served(asked)
    if isinstance(result, Infeasible):
        while len(refused) >= MOST_REFUSED:
            refused.pop(next(iter(refused)))
        refused[key] = result
    return result


def _judged(case: Case, choice: PlanChoice, found: Found, result: PlanningResult, wanted: int) -> PlanChoice:
    """Return the choice with its problem: no plan for the stated load, or too little power for the replicas."""
    if found.shed:
        return replace(choice, reason=Reason.SHED, message=found.shed, decision="Shed")
    if isinstance(result, Infeasible):
        message = f"{result.message}; the running layout stays"
        return replace(choice, good=False, reason=Reason(result.reason), message=message, decision="Infeasible")
    allowance = effective_allowance(case.inputs.deployment.spec, case.inputs.allowance)
    if allowance is None or found.plan.replicas >= wanted:
        return choice
    message = (
        f"spec.replicas={wanted} needs {found.whole_watts} W, and {allowance} leaves {allowance.watts:.0f} W: "
        f"{counted(found.plan.replicas, 'replica')} {'runs' if found.plan.replicas == 1 else 'run'}"
    )
    return replace(choice, good=False, reason=Reason.BUDGET_EXCEEDED, message=message, decision="Limited")


def _stands(case: Case, current: PlanStatus, token: str) -> bool:
    allowance = effective_allowance(case.inputs.deployment.spec, case.inputs.allowance)
    return (
        not case.inputs.want_table
        and current.shed_by is None
        and current == identified(current, case.inputs.deployment.spec)
        and is_made_from(current, token)
        and (allowance is None or current.predicted.power_watts <= allowance.watts)
    )


def _layout(case: Case, result: PlanningResult) -> tuple[PlanStatus, str, str]:
    """Return a plan of the layout to follow, the decision, and its reasons; "" if the layout stays."""
    deployment, inputs = case.inputs.deployment, case.inputs
    current = deployment.status.plan
    if not isinstance(result, Feasible):
        assert current is not None
        return current, "Infeasible", ""
    best = result.plan
    if current is None:
        return best, "FirstPlan", f"first plan: {in_words(best)}"
    if layout_of(current) == layout_of(best):
        return best, "SameLayout", ""
    pinned = adoption.pinned_to(case.asked(None), current.model_copy(update={"replicas": None}), case.gpus)
    running = pinned if isinstance(pinned, str) else case.unshed.plan(pinned)
    since = inputs.adopted_at
    decision = adoption.decide(
        running.plan if isinstance(running, Feasible) else current,
        result,
        running=running,
        objective=deployment.spec.energy.objective,
        replan=deployment.spec.planning.replan,
        seconds_since_adoption=None if since is None else (inputs.now - since).total_seconds(),
        cost=adoption.switch_cost(best, float(weight_bytes(case.model)), case.gpus[best.gpu_product]),
    )
    if decision.adopt or not isinstance(running, Feasible):
        return best, decision.reason, decision.message
    return running.plan, decision.reason, ""


def _said(case: Case, plan: PlanStatus) -> str:
    """Return a plan in words, with the power of its replicas and the planner's number of replicas."""
    workload = case.inputs.deployment.spec.workload
    load = (
        f"{workload.concurrency} requests at once"
        if workload.requests_per_second is None
        else f"{workload.requests_per_second} requests per second"
    )
    return (
        f"{in_words(plan)}; spec.replicas decides (scaling.mode External): {plan.predicted.power_watts} W; for {load} "
        f"the plan would have {counted(plan.planned_replicas or plan.replicas, 'replica')}"
    )


def _scaled(deployment: LLMDeployment, current: PlanStatus | None, plan: PlanStatus) -> str:
    """Return the message of a change of replicas, with both numbers and powers; "" without a change."""
    if current is None or layout_of(current) != layout_of(plan):
        return ""
    was_zero = any(c.reason == Reason.SCALED_TO_ZERO for c in deployment.status.conditions)
    before, watts = (0, 0) if was_zero else (current.replicas, current.predicted.power_watts)
    is_zero = deployment.spec.is_at_zero
    after, then = (0, 0) if is_zero else (plan.replicas, plan.predicted.power_watts)
    if after == before:
        return ""
    return f"spec.replicas: {counted(after, 'replica')} instead of {before}, {then} W instead of {watts} W"
