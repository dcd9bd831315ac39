"""The plan for a number of replicas that an autoscaler sets, within the power of budgets."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.deployment.plans.test_scheduled import CAP, PINNED, at, dumped, plan_of, weekly
from tests.unit.decide.deployment.plans.test_verdict import case_of
from tests.unit.decide.observations import NOW, PRODUCT, deployment

from energylens.api.llmdeployment import PlanStatus, PrefillReplicas
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans.case import Case
from energylens.decide.deployment.plans.external import MOST_REFUSED, Refused, external, is_external
from energylens.decide.reasons import Reason
from energylens.planner.explain import relaxations
from energylens.planner.search.problem import NO_BINDING_CONSTRAINT
from energylens.planner.types import Feasible, Infeasible, PowerAllowance


@pytest.fixture(autouse=True)
def without_nearest_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the nearest load out of the explanations: finding it takes most of the time."""
    monkeypatch.setattr(relaxations, "_loads", lambda *_: ())


def asked(current: PlanStatus | None = None, replicas: int = 2, rate: str = "60", **spec: Any) -> Case:
    status: dict[str, Any] = {} if current is None else {"plan": dumped(current)}
    status |= spec.pop("status", {})
    fields: dict[str, Any] = {
        "planning": PINNED,
        "workload": {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": rate},
        "hardware": {"gpuProducts": [PRODUCT]},
        "scaling": {"mode": "External"},
        "replicas": replicas,
    }
    return case_of(deployment(status, **{**fields, **spec}))


@functools.cache
def of(replicas: int) -> PlanChoice:
    return external(asked(replicas=replicas), {})


def watts(replicas: int) -> int:
    return plan_of(of(replicas)).predicted.power_watts


def test_only_the_external_mode_leaves_the_replicas_to_the_spec() -> None:
    assert is_external(asked().inputs.deployment)
    assert not is_external(weekly(scaling={"startSeconds": 5}).inputs.deployment)
    assert not is_external(deployment())


def test_the_first_plan_has_the_replicas_of_the_spec_and_says_how_many_the_planner_has() -> None:
    found = external(asked(), {})
    assert (found.good, found.reason, found.decision, found.adopted) == (True, Reason.PLANNED, "FirstPlan", True)
    assert (plan_of(found).replicas, plan_of(found).planned_replicas, plan_of(found).gpus) == (2, 4, 2)
    assert found.weighed.startswith("first plan: 4 x ")
    assert found.message.endswith(
        f"; spec.replicas decides (scaling.mode External): {watts(2)} W; for 60 requests per second the plan would "
        "have 4 replicas"
    )
    assert found.table is not None
    assert isinstance(found.result, Feasible)
    assert found.scaled == ""
    load = {"inputTokens": 512, "outputTokens": 256, "concurrency": 8}
    assert "; for 8 requests at once the plan would have 1 replica" in external(asked(workload=load), {}).message


def test_a_plan_of_the_same_inputs_stands() -> None:
    case = asked(plan_of(of(2)))
    found = external(case, {})
    assert found.plan is case.inputs.deployment.status.plan
    assert (found.plan, found.good, found.adopted, found.result, found.scaled) == (of(2).plan, True, False, None, "")
    assert found.message == of(2).message
    tabled = external(at(asked(plan_of(of(2))), want_table=True), {})
    assert (tabled.plan, tabled.adopted, tabled.decision) == (of(2).plan, False, "SameLayout")
    assert tabled.table is not None
    edited = plan_of(of(2)).model_copy(update={"max_batch_size": 8})
    assert plan_of(external(asked(edited), {})).max_batch_size == 64


def test_another_number_of_replicas_is_told_with_both_powers() -> None:
    found = external(asked(plan_of(of(2)), 3), {})
    assert (found.plan, found.adopted, found.decision, found.weighed) == (of(3).plan, False, "SameLayout", "")
    assert found.scaled == f"spec.replicas: 3 replicas instead of 2, {watts(3)} W instead of {watts(2)} W"
    fewer = external(asked(plan_of(of(3)), 1), {})
    assert fewer.scaled == f"spec.replicas: 1 replica instead of 3, {watts(1)} W instead of {watts(3)} W"


ZERO = {
    "type": "Ready",
    "status": "True",
    "reason": "ScaledToZero",
    "message": "",
    "lastTransitionTime": "2026-03-01T00:00:00Z",
}
SCALES = {"mode": "External", "minReplicas": 0}


def test_zero_replicas_keep_the_plan_of_one_and_draw_nothing() -> None:
    to_zero = external(asked(plan_of(of(2)), 0, scaling=SCALES), {})
    assert plan_of(to_zero).replicas == 1
    assert to_zero.scaled == f"spec.replicas: 0 replicas instead of 2, 0 W instead of {watts(2)} W"
    stays = external(asked(plan_of(to_zero), 0, scaling=SCALES, status={"conditions": [ZERO]}), {})
    assert (stays.plan, stays.scaled) == (to_zero.plan, "")
    back = external(asked(plan_of(to_zero), 1, scaling=SCALES, status={"conditions": [ZERO]}), {})
    assert back.scaled == f"spec.replicas: 1 replica instead of 0, {watts(1)} W instead of 0 W"


def test_replicas_must_be_set() -> None:
    case = asked()
    spec = case.inputs.deployment.spec.model_copy(update={"replicas": None})
    bare = at(case, deployment=case.inputs.deployment.model_copy(update={"spec": spec}))
    with pytest.raises(ValueError, match="External needs replicas"):
        external(bare, {})


def test_a_load_without_a_plan_keeps_the_layout_and_follows_the_replicas() -> None:
    refused: Refused = {}
    first = external(asked(rate="9000"), refused)
    assert (first.good, first.plan, first.decision) == (False, None, "Infeasible")
    assert isinstance(first.result, Infeasible)
    assert first.message == first.result.message
    (known,) = refused.values()
    kept = external(asked(plan_of(of(2)), 3, rate="9000"), refused)
    assert kept.result is known
    assert (kept.good, kept.decision, kept.reason) == (False, "Infeasible", Reason.LOAD_TOO_HIGH)
    assert kept.message == f"{first.message}; the running layout stays"
    assert (plan_of(kept).replicas, plan_of(kept).planned_replicas) == (3, 4)
    assert (kept.adopted, kept.table) == (False, None)
    # The next reconcile searches again.
    again = external(asked(plan_of(kept), 3, rate="9000"), refused)
    assert (again.good, again.result is known) == (False, True)
    full: Refused = {(number,): known for number in range(MOST_REFUSED)}
    external(asked(rate="9000"), full)
    assert len(full) == MOST_REFUSED
    assert (0,) not in full
    assert (1,) in full


def test_a_load_without_a_plan_is_searched_once_whatever_a_budget_sheds() -> None:
    refused: Refused = {}
    for left in (1, 2):
        sheds = PowerAllowance(float(watts(left)), CAP, sheds=True)
        external(at(asked(rate="9000"), allowance=sheds), refused)
    assert len(refused) == 1


def test_without_a_plan_the_replicas_of_the_running_one_count_as_planned() -> None:
    adopted = plan_of(of(2)).model_copy(update={"planned_replicas": None})
    kept = external(asked(adopted, 3, rate="9000"), {})
    assert (plan_of(kept).replicas, plan_of(kept).planned_replicas) == (3, 2)


def test_a_layout_that_the_spec_forbids_keeps_its_replicas() -> None:
    other = {"gpuProducts": ["NVIDIA-L40S"]}
    running = plan_of(of(2))
    kept = external(asked(running, 3, rate="9000", hardware=other), {})
    assert (kept.good, kept.plan, kept.decision, kept.scaled) == (False, running, "Infeasible", "")


def test_a_layout_that_an_override_forbids_is_left_at_once() -> None:
    replan = {"minEnergySavingPercent": 100, "cooldownSeconds": 3600}
    case = asked(small(), rate="15", planning={**PINNED, "replan": replan})
    found = external(at(case, adopted_at=NOW), {})
    assert (found.adopted, found.decision, plan_of(found).max_batch_size) == (True, "NoLongerValid", 64)


def test_a_plan_of_two_roles_stays_as_it_is_without_a_plan_for_the_load() -> None:
    prefill = PrefillReplicas(
        replicas=1, tensor_parallel=1, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=4
    )
    current = plan_of(of(2)).model_copy(update={"prefill": prefill})
    found = external(asked(current, 5, rate="9000"), {})
    assert (found.good, plan_of(found).replicas, found.decision) == (False, 2, "Infeasible")
    assert found.message.endswith("; the running plan stays")


@pytest.mark.parametrize(("left", "replicas", "said"), [(2, 2, "2 replicas run"), (1, 1, "1 replica runs")])
def test_a_budget_that_denies_growth_limits_the_replicas(left: int, replicas: int, said: str) -> None:
    # The load itself needs one replica.
    whole, most = (plan_of(external(asked(replicas=n, rate="2"), {})).predicted.power_watts for n in (4, left))
    denies = PowerAllowance(float(most + 1), CAP)
    current = plan_of(external(asked(replicas=4, rate="2"), {}))
    found = external(at(asked(current, 4, rate="2"), allowance=denies), {})
    assert (found.good, found.reason, found.decision) == (False, Reason.BUDGET_EXCEEDED, "Limited")
    assert plan_of(found).replicas == replicas
    assert found.message == (f"spec.replicas=4 needs {whole} W, and {CAP}={most + 1} leaves {most + 1} W: {said}")
    assert plan_of(found).shed_by is None


def test_power_that_suffices_exactly_limits_nothing() -> None:
    enough = PowerAllowance(float(watts(4)), CAP)
    assert external(at(asked(plan_of(of(4)), 4), allowance=enough), {}).result is None
    planned = external(at(asked(plan_of(of(4)), 4), allowance=enough, want_table=True), {})
    assert (planned.good, plan_of(planned).replicas) == (True, 4)


def test_a_budget_that_sheds_removes_replicas_and_keeps_the_layout() -> None:
    sheds = PowerAllowance(float(watts(2) + 1), CAP, sheds=True)
    found = external(at(asked(plan_of(of(4)), 4), allowance=sheds), {})
    assert (found.good, found.reason, found.decision, found.adopted) == (True, Reason.SHED, "Shed", False)
    assert (plan_of(found).replicas, plan_of(found).shed_by, plan_of(found).shed_from_replicas) == (2, CAP, 4)
    assert (plan_of(found).binding_constraint, plan_of(of(2)).binding_constraint) == (CAP, NO_BINDING_CONSTRAINT)
    assert found.message == f"{CAP} leaves {watts(2) + 1} W: 2 replicas of 4 run"
    # The search for a layout does not count the power that is shed.
    assert isinstance(found.result, Feasible)
    assert found.result.plan.replicas == 4
    back = external(asked(plan_of(found), 4), {})
    assert (plan_of(back).replicas, plan_of(back).shed_by) == (4, None)


def test_a_new_deployment_waits_for_its_budget_and_a_plan_that_stands_does_not() -> None:
    unknown = PowerAllowance(1.0, CAP, because="it is not counted", awaits_look=True)
    waits = external(at(asked(), allowance=unknown), {})
    assert (waits.reason, waits.good, waits.plan) == (Reason.AWAITING_BUDGET, False, None)
    running = external(at(asked(plan_of(of(3))), allowance=unknown), {})
    assert (running.reason, running.plan) == (Reason.AWAITING_BUDGET, of(3).plan)
    # The plan of the status was never approved, and another one runs.
    standing = external(at(asked(plan_of(of(3))), allowance=unknown, standing=of(4).plan), {})
    assert (standing.reason, standing.plan) == (Reason.AWAITING_BUDGET, of(4).plan)
    enough = replace(unknown, watts=5000.0)
    assert external(at(asked(plan_of(of(2))), allowance=enough), {}).plan == of(2).plan


@functools.cache
def small() -> PlanStatus:
    """Return a running plan with small batches."""
    planning = {"overrides": {"tensorParallel": 1, "maxBatchSize": 8}}
    return plan_of(external(asked(rate="15", planning=planning), {}))


@pytest.mark.parametrize(("saving", "seconds", "adopted"), [(0, 3600, True), (0, 3599, False), (100, 3600, False)])
def test_another_layout_is_adopted_for_a_saving_and_after_the_cooldown(
    saving: int, seconds: int, adopted: bool
) -> None:
    planning = {
        "overrides": {"tensorParallel": 1},
        "replan": {"minEnergySavingPercent": saving, "cooldownSeconds": 3600},
    }
    case = at(asked(small(), rate="15", planning=planning), adopted_at=NOW - timedelta(seconds=seconds))
    found = external(case, {})
    assert (found.adopted, found.good) == (adopted, True)
    assert (plan_of(found).max_batch_size > 8) is adopted
    assert bool(found.weighed) is adopted
    assert plan_of(found).replicas == 2
    assert found.scaled == ""
