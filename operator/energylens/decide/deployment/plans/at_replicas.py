"""The plan of a layout with a given number of replicas, within the power available from budgets. Pure."""

from __future__ import annotations

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.api.words import counted
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans.case import Case
from energylens.decide.reasons import Reason
from energylens.planner import effective_allowance
from energylens.planner.search.identity import LAYOUT_FIELDS, identified, sealed
from energylens.planner.shedding import with_fewer_replicas
from energylens.records import dataclass


@dataclass(frozen=True)
class Target:
    """The layout and the number of replicas to run."""

    asked: LLMDeployment
    """The deployment, with the load of the predicted figures."""
    layout: PlanStatus
    """A plan of the layout, with any number of replicas."""
    replicas: int
    planned: int
    """Number of replicas in the plan's hash."""
    token: str
    """Identifies the target."""
    peak_watts: int | None = None
    """Predicted power of the busiest hour, W; None without a schedule."""


@dataclass(frozen=True)
class Found:
    """The plan of a target."""

    plan: PlanStatus
    whole_watts: int
    """Predicted power with all replicas of the target, W."""
    shed: str = ""
    """Why a budget sheds replicas; "" if none does."""


def plan_at(case: Case, target: Target) -> Found:
    """Return the plan of a target with its figures, with fewer replicas if budgets allow less power."""
    asked = target.asked
    found = case.running(asked, target.layout).at(target.replicas)
    if found is None:
        # The spec forbids the running layout; the condition reports that.
        return Found(target.layout, target.layout.predicted.power_watts)
    plan = _identified(case, target, found)
    whole = plan.predicted.power_watts
    allowance = effective_allowance(case.inputs.deployment.spec, case.inputs.allowance)
    if allowance is None or whole <= allowance.watts:
        return Found(sealed(case.priced_at(asked, plan), target.token), whole)
    fewer = with_fewer_replicas(case.running(asked, plan), allowance)
    if fewer is None:
        return Found(case.priced_at(asked, plan), whole)
    if allowance.sheds:
        shed = _identified(case, target, fewer)
        text = (
            f"{allowance.source} leaves {allowance.watts:.0f} W: {counted(shed.replicas, 'replica')} of "
            f"{target.replicas} run"
        )
        return Found(case.priced_at(asked, shed), whole, text)
    denied = fewer.model_copy(update={"shed_by": None, "shed_from_replicas": None, "shed_from_power_watts": None})
    return Found(case.priced_at(asked, _identified(case, target, denied)), whole)


def layout_of(plan: PlanStatus) -> tuple[object, ...]:
    """Return a key that is equal for two plans with the same pods, apart from model and engine."""
    return *(getattr(plan, name) for name in LAYOUT_FIELDS), plan.prefill


def waits_for_budget(case: Case) -> PlanChoice | None:
    """Return the choice to wait for the first check of a budget; None if there is no need to wait."""
    allowance, deployment = case.inputs.allowance, case.inputs.deployment
    if allowance is None or not allowance.awaits_look:
        return None
    text = f"{allowance.source}: {allowance.because}; planning waits until the operator has checked the budget"
    before = case.inputs.standing or deployment.status.plan
    return PlanChoice(before, case.model, False, Reason.AWAITING_BUDGET, text, decision="AwaitingBudget")


def _identified(case: Case, target: Target, plan: PlanStatus) -> PlanStatus:
    peak = target.peak_watts
    update = {
        "planned_replicas": target.planned,
        "peak_power_watts": None if peak is None else max(peak, plan.predicted.power_watts),
        "binding_constraint": plan.binding_constraint if plan.shed_by else target.layout.binding_constraint,
        "alternatives": (),
        "lowest_power_watts": None,
    }
    return identified(plan.model_copy(update=update), case.inputs.deployment.spec)
