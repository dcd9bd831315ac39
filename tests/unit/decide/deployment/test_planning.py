"""Plans of a constant load: when a plan stands, what is remembered, and what budgets make of it."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.deployment.test_case import constant
from tests.unit.decide.deployment.test_scheduled import CAP, plan_of
from tests.unit.decide.observations import NOW, PRODUCT

from energylens.api.llmdeployment import PlanStatus
from energylens.decide.deployment import planning
from energylens.decide.deployment.inputs import Inputs
from energylens.decide.deployment.observation import PlanChoice
from energylens.decide.deployment.planning import PlanningService
from energylens.decide.reasons import Reason
from energylens.planner.explain import relaxations
from energylens.planner.types import ClusterSnapshot, Feasible, GpuNode, Infeasible, PowerAllowance


@pytest.fixture(autouse=True)
def without_nearest_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the nearest load out of the explanations: finding it takes most of the time."""
    monkeypatch.setattr(relaxations, "_loads", lambda *_: ())


def asked(current: PlanStatus | None = None, rate: str = "60", **spec: Any) -> Inputs:
    case = constant(rate, **spec)
    if current is None:
        return case.inputs
    status = case.inputs.deployment.status.model_copy(update={"plan": current})
    return replace(case.inputs, deployment=case.inputs.deployment.model_copy(update={"status": status}))


@functools.cache
def best() -> PlanStatus:
    return plan_of(PlanningService().planning_for(asked()))


def planned(inputs: Inputs) -> PlanChoice:
    return PlanningService().planning_for(inputs)


def test_the_first_plan_is_adopted_with_the_hash_of_its_inputs() -> None:
    found = planned(asked())
    assert (found.good, found.adopted, found.decision, found.reason) == (True, True, "FirstPlan", Reason.PLANNED)
    assert (plan_of(found).replicas, bool(plan_of(found).inputs_hash)) == (4, True)
    assert [each.replicas for each in plan_of(found).fewer_replicas]
    assert found.table is not None
    assert isinstance(found.result, Feasible)


def test_a_plan_of_the_same_inputs_stands_without_a_search() -> None:
    inputs = asked(best())
    found = planned(inputs)
    assert found.plan is inputs.deployment.status.plan
    assert (found.good, found.adopted, found.result, found.table, found.restricted) == (True, False, None, None, False)
    tabled = planned(replace(inputs, want_table=True))
    assert (tabled.plan, tabled.adopted) == (best(), False)
    assert tabled.table is not None


@pytest.mark.parametrize("changes", [{"max_batch_size": 8}, {"hash": "0" * 16}, {"inputs_hash": "0" * 16}])
def test_a_plan_that_was_edited_or_is_of_other_inputs_is_planned_again(changes: dict[str, Any]) -> None:
    found = planned(asked(best().model_copy(update=changes)))
    assert (found.good, plan_of(found).hash, plan_of(found).inputs_hash) == (True, best().hash, best().inputs_hash)
    assert found.result is not None


def test_figures_with_a_correction_are_stale_without_corrections() -> None:
    corrected = best().model_copy(update={"correction": "1.1"})
    assert planned(asked(corrected)).result is not None


def test_a_plan_without_its_smaller_powers_gets_them_and_stands() -> None:
    found = planned(asked(best().model_copy(update={"fewer_replicas": ()})))
    assert plan_of(found).fewer_replicas == best().fewer_replicas
    assert plan_of(found).hash == best().hash


FULL = ClusterSnapshot((GpuNode("h100-0", PRODUCT, 1),))


def test_an_answer_is_remembered_until_something_changes_or_a_resync(monkeypatch: pytest.MonkeyPatch) -> None:
    service, searches = PlanningService(), []
    search = planning._planned

    def counted(*args: Any, **options: Any) -> PlanChoice:
        searches.append(args)
        return search(*args, **options)

    monkeypatch.setattr(planning, "_planned", counted)
    inputs = replace(asked(), snapshot=FULL)
    first = service.planning_for(inputs)
    assert (first.good, first.plan, first.decision) == (False, None, "Infeasible")
    assert isinstance(first.result, Infeasible)
    soon = replace(inputs, now=NOW + timedelta(seconds=service.resync_seconds - 1))
    assert (service.planning_for(inputs), service.planning_for(soon), len(searches)) == (first, first, 1)
    late = replace(inputs, now=NOW + timedelta(seconds=service.resync_seconds))
    service.planning_for(late)
    assert len(searches) == 2
    more = replace(inputs, snapshot=ClusterSnapshot((GpuNode("h100-0", PRODUCT, 8),)))
    assert service.planning_for(more).good
    service.planning_for(inputs)
    assert len(searches) == 4
    service.forget("team", "llama")
    service.planning_for(inputs)
    assert len(searches) == 5


def test_what_no_plan_sustains_keeps_the_running_plan_and_says_so() -> None:
    first = planned(replace(asked(), snapshot=FULL))
    kept = planned(replace(asked(best()), snapshot=FULL))
    assert (kept.good, kept.decision, kept.adopted) == (False, "Infeasible", False)
    assert plan_of(kept).hash == best().hash
    assert kept.message == f"{first.message}; the running plan stays"
    assert "the running plan" not in first.message


def test_a_new_deployment_waits_for_the_first_check_of_its_budget() -> None:
    unknown = PowerAllowance(1.0, CAP, because="it is not counted", awaits_look=True)
    found = planned(replace(asked(), allowance=unknown))
    assert (found.good, found.reason, found.decision, found.plan) == (
        False,
        Reason.AWAITING_BUDGET,
        "AwaitingBudget",
        None,
    )
    text = f"{CAP}: it is not counted; planning waits until the operator has checked the budget"
    assert found.message == text
    standing = planned(replace(asked(), allowance=unknown, standing=best()))
    assert standing.plan == best()


def watts(replicas: int) -> int:
    """Return the predicted power of the best plan with fewer replicas."""
    return next(each.power_watts for each in best().fewer_replicas if each.replicas == replicas)


@pytest.mark.parametrize(
    ("left", "said"), [(2, "2 replicas run, and sustain less"), (1, "1 replica runs, and sustains less")]
)
def test_a_budget_that_sheds_removes_replicas_of_the_running_plan(left: int, said: str) -> None:
    sheds = PowerAllowance(float(watts(left)), CAP, sheds=True)
    found = planned(replace(asked(best()), allowance=sheds))
    assert (found.good, found.reason, found.decision, found.adopted) == (True, Reason.SHED, "Shed", True)
    assert (plan_of(found).replicas, plan_of(found).shed_by, plan_of(found).shed_from_replicas) == (left, CAP, 4)
    assert found.message.startswith(f"{CAP} leaves {watts(left)} W: {said} than the load; ")
    # The same budget takes no more in the next look.
    again = planned(replace(asked(plan_of(found)), allowance=sheds))
    assert (again.reason, again.adopted, plan_of(again).replicas) == (Reason.SHED, False, left)
    back = planned(asked(plan_of(found)))
    assert (back.decision, back.adopted, back.weighed) == ("ShedEnded", True, f"{CAP} returns the power that it took")
    assert (plan_of(back).replicas, plan_of(back).shed_by) == (4, None)


def test_a_budget_that_denies_growth_leaves_a_plan_that_fits_and_restricts_a_new_one() -> None:
    enough = PowerAllowance(float(best().predicted.power_watts), CAP)
    stands = planned(replace(asked(best()), allowance=enough))
    assert (stands.plan, stands.adopted, stands.restricted) == (best(), False, False)
    less = replace(enough, watts=enough.watts - 1)
    denied = planned(replace(asked(best()), allowance=less))
    assert denied.result is not None
    assert denied.plan is not None
    assert not denied.adopted or denied.plan.predicted.power_watts <= less.watts


def small() -> PlanStatus:
    overrides = {"overrides": {"tensorParallel": 1, "maxBatchSize": 8}}
    return plan_of(planned(asked(rate="15", planning=overrides)))


@pytest.mark.parametrize(("saving", "seconds", "adopted"), [(0, 3600, True), (0, 3599, False), (100, 3600, False)])
def test_another_layout_is_adopted_for_a_saving_and_after_the_cooldown(
    saving: int, seconds: int, adopted: bool
) -> None:
    replan = {"minEnergySavingPercent": saving, "cooldownSeconds": 3600}
    inputs = asked(small(), "15", planning={"overrides": {"tensorParallel": 1}, "replan": replan})
    found = planned(replace(inputs, adopted_at=NOW - timedelta(seconds=seconds)))
    assert (found.good, found.adopted) == (True, adopted)
    assert (plan_of(found).max_batch_size > 8) is adopted
    assert found.reason == (Reason.PLANNED if adopted else Reason.KEEPING_RUNNING_PLAN)
    # A plan whose replacement does not pay yet is judged again.
    assert bool(plan_of(found).inputs_hash) is adopted


def test_another_engine_setting_is_adopted_with_the_running_layout() -> None:
    changed = asked(
        small(),
        "15",
        engine={"extraArgs": ["--enforce-eager"]},
        planning={
            "overrides": {"tensorParallel": 1},
            "replan": {"minEnergySavingPercent": 100, "cooldownSeconds": 0},
        },
    )
    found = planned(changed)
    assert (found.adopted, found.decision) == (False, "OtherModelOrEngine")
    assert found.weighed.startswith("the spec asks for another model or engine: ")
    assert plan_of(found).max_batch_size == 8
    assert plan_of(found).serving_hash != small().serving_hash
