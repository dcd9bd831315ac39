"""The plan to follow, given the best plan: a chain of policies, of which the first applicable policy decides."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.api.words import counted
from energylens.decide.deployment.loads.load import FollowedLoad
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans.case import Case, in_words
from energylens.decide.deployment.trials import rollback
from energylens.decide.reasons import Reason
from energylens.planner import adoption
from energylens.planner.engines.disaggregation import interrupts
from energylens.planner.search.identity import identified
from energylens.planner.shedding import with_fewer_replicas
from energylens.planner.types import Feasible, Infeasible, PlanningResult
from energylens.predictor.model.parameters import weight_bytes
from energylens.records import dataclass


@dataclass(frozen=True)
class PolicyInput:
    """The best plan for a load, and the current plan."""

    case: Case
    load: FollowedLoad | None
    """The load of the best plan."""
    result: PlanningResult

    @cached_property
    def asked(self) -> LLMDeployment:
        """The deployment with the load of the best plan."""
        return self.case.asked(self.load)

    @property
    def before(self) -> PlanStatus | None:
        """The current plan; a plan that was never approved does not count."""
        return self.case.inputs.standing or self.case.inputs.deployment.status.plan

    @cached_property
    def current(self) -> PlanStatus | None:
        """The followed plan, with the model and the engine of the current spec."""
        return None if self.before is None else identified(self.before, self.asked.spec)

    @cached_property
    def obstacle(self) -> str:
        """Why a budget may not move the deployment to the result; "" if it may, or if no budget sheds."""
        if isinstance(self.result, Infeasible):
            return self.result.message
        allowance, fewest = self.case.inputs.allowance, self.asked.spec.energy.min_replicas
        if self.current is None or allowance is None or not allowance.sheds:
            return ""
        found = self.result.plan.replicas
        if found >= min(fewest, self.current.replicas):
            return ""
        return (
            f"the best plan that {allowance.source} leaves has {counted(found, 'replica')}, fewer than "
            f"spec.energy.minReplicas={fewest}; the running plan stays"
        )


Policy = Callable[[PolicyInput], PlanChoice | None]
"""Returns the plan to follow with reason and message, or None to leave the decision to later policies."""


def choose(question: PolicyInput) -> PlanChoice:
    """Return the plan to follow by the first applicable policy."""
    for policy in POLICIES:
        found = policy(question)
        if found is not None:
            return found
    raise AssertionError("the last policy answers every question")


def take_replicas(question: PolicyInput) -> PlanChoice | None:
    """If a budget sheds and no plan of less power sustains the full load, the running plan gets fewer replicas."""
    case, current = question.case, question.current
    allowance = case.inputs.allowance
    if current is None or not question.obstacle or allowance is None or not allowance.sheds:
        return None
    fewer = None
    if current.predicted.power_watts > allowance.watts:
        fewer = with_fewer_replicas(case.running(question.asked, current), allowance)
    plan = fewer or current
    if plan.shed_by is None:
        return None
    text = (
        f"{allowance.source} leaves {allowance.watts:.0f} W: {counted(plan.replicas, 'replica')} run"
        f"{'s, and sustains' if plan.replicas == 1 else ', and sustain'} less than the load; {question.obstacle}"
    )
    return PlanChoice(plan, case.model, True, Reason.SHED, text, adopted=fewer is not None, decision="Shed")


def stay_at_the_floor(question: PolicyInput) -> PlanChoice | None:
    """If a budget sheds and leaves only plans with fewer replicas than the spec allows, the running plan stays."""
    if question.current is None or not question.obstacle or isinstance(question.result, Infeasible):
        return None
    reason = Reason.KEEPING_RUNNING_PLAN
    return PlanChoice(question.current, question.case.model, True, reason, question.obstacle, decision="AtTheFloor")


def follow_none(question: PolicyInput) -> PlanChoice | None:
    """If no plan meets the spec, the running plan stays, and the condition has the reason."""
    result = question.result
    if isinstance(result, Feasible):
        return None
    kept = "; the running plan stays" if question.current is not None else ""
    reason, message = Reason(result.reason), f"{result.message}{kept}"
    return PlanChoice(question.before, question.case.model, False, reason, message, decision="Infeasible")


def give_back(question: PolicyInput) -> PlanChoice | None:
    """If a budget no longer sheds replicas, the best plan is adopted whatever its saving."""
    current, result = question.current, question.result
    if current is None or current.shed_by is None or isinstance(result, Infeasible):
        return None
    text = f"{current.shed_by} returns the power that it took"
    return _adopted(question, result.plan, "ShedEnded", text, result)


def adopt_what_pays(question: PolicyInput) -> PlanChoice | None:
    """The best plan is adopted if the running plan no longer meets the spec, or if its saving repays the switch."""
    case, asked, current, result = question.case, question.asked, question.current, question.result
    if isinstance(result, Infeasible):
        return None
    running: PlanningResult | str | None = None
    if current is not None:
        if current.prefill is not None and asked.spec.planning.disaggregation == "Follow":
            running = case.plan_pair_again(asked, current)
        else:
            pinned = adoption.pinned_to(asked, current, case.gpus)
            running = pinned if isinstance(pinned, str) else case.plan(pinned)
    since, now = case.inputs.adopted_at, case.inputs.now
    # Without pods there is nothing to interrupt.
    serving = None if asked.spec.is_stopped or asked.status.active_revision is None else current
    decision = adoption.decide(
        current,
        result,
        running=running,
        objective=asked.spec.energy.objective,
        replan=asked.spec.planning.replan,
        seconds_since_adoption=None if since is None else (now - since).total_seconds(),
        cost=adoption.switch_cost(result.plan, float(weight_bytes(case.model)), case.gpus[result.plan.gpu_product]),
        # The plan was rolled back for the current spec, whatever the followed load.
        rejected=rollback.rejected_for(case.inputs.deployment),
        interrupts=interrupts(asked.spec.engine.type, serving, result.plan),
    )
    if decision.adopt:
        return _adopted(question, decision.plan, decision.reason, decision.message, result)
    reason = Reason.ROLLED_BACK if decision.reason == "RolledBack" else Reason.KEEPING_RUNNING_PLAN
    kept = decision.plan.model_copy(update={"lowest_power_watts": result.plan.lowest_power_watts})
    if question.before is not None and kept.hash != question.before.hash:
        text = f"the spec asks for another model or engine: {in_words(kept)}; {decision.message}"
        return PlanChoice(kept, case.model, True, reason, text, decision="OtherModelOrEngine", weighed=text)
    return PlanChoice(kept, case.model, True, reason, decision.message, decision=decision.reason)


POLICIES: tuple[Policy, ...] = (take_replicas, stay_at_the_floor, follow_none, give_back, adopt_what_pays)
"""Policies in the order of their evaluation."""


def _adopted(question: PolicyInput, plan: PlanStatus, decision: str, weighed: str, result: Feasible) -> PlanChoice:
    return PlanChoice(
        plan,
        question.case.model,
        True,
        Reason.PLANNED,
        in_words(plan),
        adopted=True,
        decision=decision,
        table=result.table,
        weighed=weighed,
    )


def return_to_last_good(case: Case) -> PlanChoice | str:
    """Return the due return to the last good plan; "" if none is due, a text if a due return is impossible."""
    asked = case.asked(case.inputs.load)
    back = rollback.due(asked, case.inputs.late)
    if back is None:
        return ""
    what = f"{back.reason}: {back.message}; the previous plan, {in_words(back.plan)}, is not possible"
    pinned = adoption.pinned_to(asked, back.plan, case.gpus, called="the previous plan")
    if isinstance(pinned, str):
        return f"{what}: {pinned}"
    today = case.plan(pinned)
    # The objectives of the last good plan were measured; GPUs, memory and budgets must be checked again.
    if isinstance(today, Infeasible) and today.reason != "SLOInfeasible":
        return f"{what}: {today.message}"
    return PlanChoice(
        identified(back.plan, asked.spec),
        case.model,
        True,
        Reason.ROLLED_BACK,
        f"back to {in_words(back.plan)}: {back.message}",
        adopted=True,
        decision="RolledBack",
        weighed=back.message,
        rollback=back,
    )
