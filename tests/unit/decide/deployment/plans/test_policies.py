"""The plan to follow, given the best plan: what a budget that sheds may do, returns to a good plan, and adoption."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.deployment.plans.test_case import constant
from tests.unit.decide.deployment.plans.test_planning import asked, small
from tests.unit.decide.deployment.plans.test_scheduled import CAP, at
from tests.unit.decide.deployment.plans.test_verifying import PREFILL
from tests.unit.decide.deployment.pods.test_children_held import ROUTED
from tests.unit.decide.observations import NOW, OTHER, PRODUCT, plan

from energylens.api.llmdeployment import (
    ActiveRevision,
    LastGoodPlan,
    PlanStatus,
    PlanTrial,
    RollbackStatus,
    WorkloadRef,
)
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans.case import Case
from energylens.decide.deployment.plans.planning import PlanningService
from energylens.decide.deployment.plans.policies import PolicyInput, choose, return_to_last_good
from energylens.decide.deployment.trials.rollback import Return, after_return
from energylens.decide.reasons import Reason
from energylens.planner import adoption
from energylens.planner.search.identity import identified
from energylens.planner.types import Feasible, Infeasible, PlanningResult, PowerAllowance


def with_status(case: Case, **fields: Any) -> Case:
    asked = case.inputs.deployment
    return at(case, deployment=asked.model_copy(update={"status": asked.status.model_copy(update=fields)}))


def infeasible(reason: Any) -> PlanningResult:
    return Infeasible(reason, "there is no plan")


def question(
    current: PlanStatus | None, found: int, allowance: PowerAllowance | None, fewest: int = 2, **spec: Any
) -> PolicyInput:
    """Return the question whether a best plan of ``found`` replicas replaces a current plan."""
    case = at(constant(**spec, energy={"minReplicas": fewest}), allowance=allowance)
    better = plan(OTHER, replicas=found, gpus=found, max_batch_size=64)
    return PolicyInput(with_status(case, plan=current), None, Feasible(better, ()))


SHEDS = PowerAllowance(700.0, CAP, sheds=True)


@pytest.mark.parametrize(
    ("runs", "found", "allowance", "is_obstacle"),
    [
        (3, 2, SHEDS, False),
        (3, 1, SHEDS, True),
        # Fewer replicas than the spec allows run already.
        (1, 1, SHEDS, False),
        (3, 1, replace(SHEDS, sheds=False), False),
        (3, 1, None, False),
        (None, 1, SHEDS, False),
    ],
)
def test_a_budget_that_sheds_moves_no_deployment_below_its_fewest_replicas(
    runs: int | None, found: int, allowance: PowerAllowance | None, is_obstacle: bool
) -> None:
    current = None if runs is None else plan(replicas=runs, gpus=runs)
    text = (
        f"the best plan that {CAP} leaves has 1 replica, fewer than spec.energy.minReplicas=2; the running plan stays"
    )
    assert question(current, found, allowance).obstacle == (text if is_obstacle else "")


def test_a_plan_that_fits_what_a_budget_leaves_stays_rather_than_having_fewer_replicas() -> None:
    current = plan(replicas=3, gpus=3)
    found = choose(question(current, 1, PowerAllowance(800.0, CAP, sheds=True)))
    assert (found.good, found.reason, found.decision) == (True, Reason.KEEPING_RUNNING_PLAN, "AtTheFloor")
    assert (found.adopted, found.plan) == (False, question(current, 1, None).current)
    assert found.message.endswith("fewer than spec.energy.minReplicas=2; the running plan stays")


def test_a_plan_whose_power_a_budget_took_stays_shed() -> None:
    current = plan(replicas=2, gpus=2, shed_by=CAP)
    found = choose(question(current, 1, PowerAllowance(800.0, CAP, sheds=True)))
    assert (found.decision, found.adopted, found.reason) == ("Shed", False, Reason.SHED)


def test_the_running_plan_counts_while_another_one_waits_for_approval() -> None:
    waiting = question(plan(OTHER), 2, None)
    none = replace(waiting, result=infeasible("InsufficientGPUs"))
    assert choose(none).plan == plan(OTHER)
    found = choose(replace(none, case=at(none.case, standing=plan())))
    assert (found.good, found.plan, found.decision) == (False, plan(), "Infeasible")
    assert found.message == "there is no plan; the running plan stays"


def asks(monkeypatch: pytest.MonkeyPatch, question: PolicyInput) -> dict[str, Any]:
    """Return what adoption is asked about a question."""
    seen: dict[str, Any] = {}

    def decide(current: PlanStatus, result: Feasible, **options: Any) -> adoption.Adoption:
        seen.update(options)
        return adoption.Adoption(False, "SavingTooSmall", "", current)

    monkeypatch.setattr(adoption, "decide", decide)
    monkeypatch.setattr(Case, "plan", lambda *_: "planned alone")
    monkeypatch.setattr(Case, "plan_pair_again", lambda *_: "planned as a pair")
    choose(question)
    return seen


@pytest.mark.parametrize(
    ("prefill", "mode", "expected"),
    [
        (None, "Follow", "planned alone"),
        (PREFILL, "Follow", "planned as a pair"),
        # The spec no longer asks for roles.
        (PREFILL, "Compare", "spec.planning.disaggregation is Compare, and the running plan separates "),
    ],
)
def test_a_plan_of_two_roles_is_evaluated_as_a_pair(
    prefill: Any, mode: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = plan(prefill=prefill, max_batch_size=64)
    asking = question(current, 2, None, planning={"disaggregation": mode}, routing=ROUTED["routing"])
    assert asks(monkeypatch, asking)["running"].startswith(expected)


ACTIVE = ActiveRevision(
    plan_hash="a" * 16,
    gpu_product=PRODUCT,
    replicas=2,
    workload_ref=WorkloadRef(api_version="apps/v1", kind="Deployment", name="llama"),
)


@pytest.mark.parametrize(
    ("spec", "active", "stops"), [({}, ACTIVE, True), ({}, None, False), ({"suspend": True}, ACTIVE, False)]
)
def test_without_pods_a_switch_interrupts_nothing(
    spec: dict[str, Any], active: ActiveRevision | None, stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = question(plan(), 2, None, engine={"type": "SGLang"}, **spec)
    assert isinstance(asking.result, Feasible)
    roles = Feasible(asking.result.plan.model_copy(update={"prefill": PREFILL}), ())
    case = with_status(asking.case, active_revision=active)
    interrupts = asks(monkeypatch, PolicyInput(case, None, roles))["interrupts"]
    assert interrupts.startswith("decode replicas of SGLang process no prompts") is stops
    assert bool(interrupts) is stops


def test_a_plan_that_was_rolled_back_is_not_adopted_again() -> None:
    replan = {"minEnergySavingPercent": 0, "cooldownSeconds": 0}
    spec = {"planning": {"overrides": {"tensorParallel": 1}, "replan": replan}, "validation": {"onDrift": "Rollback"}}
    inputs = asked(small(), "15", **spec)
    better = PlanningService().planning_for(inputs)
    assert (better.adopted, better.plan is not None) == (True, True)
    followed = with_status(constant("15", **spec), plan=better.plan).inputs.deployment
    memory = after_return(followed, Return(small(), "HigherEnergy", "it took more"), NOW)
    status = inputs.deployment.status.model_copy(update={"rollback": memory})
    known = replace(inputs, deployment=inputs.deployment.model_copy(update={"status": status}))
    found = PlanningService().planning_for(known)
    assert (found.good, found.adopted, found.decision) == (True, False, "RolledBack")
    assert found.reason is Reason.ROLLED_BACK
    assert found.plan is not None
    assert found.plan.hash == small().hash


def going_back(**spec: Any) -> Case:
    """Return a deployment whose plan took more energy than the one before in two windows."""
    case = constant(**{"validation": {"onDrift": "Rollback"}, "planning": {}, **spec})
    good = LastGoodPlan(plan=plan(), joules_per_output_token="400m", output_tokens_per_second=2000)
    trial = PlanTrial(plan_hash=OTHER, bad_windows=2, reason="HigherEnergy", message="it took more")
    memory = RollbackStatus(last_good_plan=good, trial=trial)
    return with_status(case, plan=plan(OTHER, tensor_parallel=2), rollback=memory)


def test_a_plan_that_took_more_energy_is_left_for_the_last_good_one() -> None:
    case = going_back()
    found = return_to_last_good(case)
    assert isinstance(found, PlanChoice)
    assert (found.good, found.adopted, found.decision, found.reason) == (True, True, "RolledBack", Reason.ROLLED_BACK)
    assert found.plan == identified(plan(), case.inputs.deployment.spec)
    assert found.message.startswith("back to 2 x NVIDIA-H100-80GB-HBM3 TP1, max batch 32: ")
    assert found.message.endswith(": it took more")
    assert (found.weighed, found.rollback) == ("it took more", Return(plan(), "HigherEnergy", "it took more"))
    assert return_to_last_good(with_status(case, rollback=None)) == ""


@pytest.mark.parametrize(("reason", "returns"), [("SLOInfeasible", True), ("InsufficientGPUs", False)])
def test_a_return_needs_gpus_and_not_another_prediction(
    reason: str, returns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Case, "plan", lambda *_: infeasible(reason))
    found = return_to_last_good(going_back())
    if returns:
        assert isinstance(found, PlanChoice)
        assert found.good
    else:
        assert isinstance(found, str)
        assert found.startswith("HigherEnergy: it took more; the previous plan, 2 x NVIDIA-H100-80GB-HBM3 TP1")
        assert found.endswith(", is not possible: there is no plan")


def test_no_return_to_a_plan_that_the_spec_forbids() -> None:
    found = return_to_last_good(going_back(hardware={"gpuProducts": ["NVIDIA-L40S"]}))
    assert isinstance(found, str)
    text = f"spec.hardware.gpuProducts=[NVIDIA-L40S], and the previous plan uses {PRODUCT}"
    assert found.endswith(f" is not possible: {text}")
