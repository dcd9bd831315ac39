"""Plans of a constant load: when a plan stands, what is remembered, and what budgets make of it."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.deployment.plans.test_case import constant
from tests.unit.decide.deployment.plans.test_scheduled import CAP, plan_of, weekly
from tests.unit.decide.observations import MODEL, NOW, PRODUCT
from tests.unit.decide.observations import model as served

from energylens.api.llmdeployment import LearnedCorrection, PlanStatus
from energylens.decide.deployment.loads.load import Followed, FollowedLoad
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans import planning
from energylens.decide.deployment.plans.case import Case
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.decide.deployment.plans.planning import MOST_TABLES, PlanningService, problem_of, solution_of
from energylens.decide.reasons import Reason
from energylens.planner.explain import relaxations
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.identity import sealed
from energylens.planner.search.problem import solve
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


@pytest.mark.parametrize(
    ("spec", "reason", "said"),
    [
        ({"engine": {"extraArgs": ["--tensor-parallel-size=2"]}}, Reason.INVALID_ENGINE_SETTINGS, "spec.engine.extraA"),
        ({"model": {"name": "nobody/knows"}}, Reason.MODEL_UNKNOWN, "spec.model.name='nobody/knows': "),
        ({"model": {"name": MODEL, "quantization": "INT4"}}, Reason.MODEL_UNSUPPORTED, "spec.model.quantization"),
    ],
)
def test_what_cannot_be_planned_keeps_the_running_plan_and_has_a_reason(
    spec: dict[str, Any], reason: Reason, said: str
) -> None:
    for current in (None, best()):
        found = planned(asked(current, **spec))
        assert (found.good, found.reason, found.plan, found.model) == (False, reason, current, None)
        assert found.message.startswith(said)
        assert not found.adopted


def test_an_engine_of_an_unknown_version_is_a_reason() -> None:
    inputs = asked(best())
    spec = inputs.deployment.spec
    engine = spec.engine.model_copy(update={"image": "vllm/vllm-openai:v0.1.0"})
    found = planned(
        replace(
            inputs,
            deployment=inputs.deployment.model_copy(update={"spec": spec.model_copy(update={"engine": engine})}),
        )
    )
    assert (found.good, found.reason, found.plan) == (False, Reason.INVALID_ENGINE_SETTINGS, best())
    assert found.message.startswith("spec.engine: no profile of vllm covers version '0.1.0'")


def test_only_a_week_is_planned_in_steps() -> None:
    service = PlanningService()
    assert list(service.prepare(asked())) == []
    assert list(service.prepare(replace(asked(), missing=planned(asked())))) == []
    week = weekly().inputs
    assert list(service.prepare(week))
    assert list(service.prepare(week)) == []
    unknown = weekly(model={"name": "nobody/knows"}).inputs
    assert list(service.prepare(unknown)) == []


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
    assert (tabled.plan, tabled.adopted, tabled.good) == (best(), False, True)
    assert tabled.table is not None


@pytest.mark.parametrize("changes", [{"max_batch_size": 8}, {"hash": "0" * 16}, {"inputs_hash": "0" * 16}])
def test_a_plan_that_was_edited_or_is_of_other_inputs_is_planned_again(changes: dict[str, Any]) -> None:
    found = planned(asked(best().model_copy(update=changes)))
    assert (found.good, plan_of(found).hash, plan_of(found).inputs_hash) == (True, best().hash, best().inputs_hash)
    assert found.result is not None


def test_figures_with_a_correction_are_stale_without_corrections() -> None:
    factors = LearnedCorrection(
        itl="1", ttft="1", power="1100m", energy="1", gpu_product=PRODUCT, layout="TP1", windows=3
    )
    corrected = best().model_copy(update={"correction": factors})
    case = constant("60")
    known = sealed(corrected, case.hash_of(case.inputs.deployment, corrected, restricted=False))
    again = planned(asked(known))
    assert again.result is not None
    assert plan_of(again).correction is None
    # Plans use corrections, and none was learned that changes the plan.
    kept = planned(replace(asked(known), corrections=Corrections({}, "")))
    assert (kept.result, kept.plan) == (None, known)


def test_a_plan_without_its_smaller_powers_gets_them_and_stands() -> None:
    found = planned(asked(best().model_copy(update={"fewer_replicas": ()})))
    assert plan_of(found).fewer_replicas == best().fewer_replicas
    assert plan_of(found).hash == best().hash


FULL = ClusterSnapshot((GpuNode("h100-0", PRODUCT, 1),))
NONE = Infeasible("InsufficientGPUs", "there are too few GPUs")


def test_an_answer_is_remembered_until_something_changes_or_a_resync(monkeypatch: pytest.MonkeyPatch) -> None:
    service, searches = PlanningService(), []
    search = planning._planned

    def counted(*args: Any, **options: Any) -> PlanChoice:
        searches.append(args)
        return search(*args, **options)

    evaluate = Case.evaluate
    monkeypatch.setattr(planning, "_planned", counted)
    # The explanation of a full cluster takes long.
    monkeypatch.setattr(Case, "evaluate", lambda self: (None, NONE) if self.inputs.snapshot == FULL else evaluate(self))
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


def test_evaluations_with_a_table_are_remembered_for_the_latest_deployments(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = planned(asked())
    searches: list[str] = []

    def searched(case: Case, *_: Any, **__: Any) -> PlanChoice:
        searches.append(case.inputs.deployment.metadata.name)
        return answer

    monkeypatch.setattr(planning, "_planned", searched)
    service = PlanningService()

    def ask(number: int, after: float = 0.0) -> None:
        one = replace(asked(), now=NOW + timedelta(seconds=after))
        metadata = one.deployment.metadata.model_copy(update={"name": f"d{number}"})
        service.planning_for(replace(one, deployment=one.deployment.model_copy(update={"metadata": metadata})))

    for number in range(MOST_TABLES):
        ask(number)
    ask(0)
    assert len(searches) == MOST_TABLES
    ask(MOST_TABLES)
    # The oldest is forgotten, and the next one is not.
    ask(1)
    assert len(searches) == MOST_TABLES + 1
    ask(0)
    assert searches[-1] == "d0"
    # An evaluation that is made again is the latest: d2 and d4 are forgotten before it.
    ask(3, after=service.resync_seconds)
    ask(MOST_TABLES + 1)
    ask(MOST_TABLES + 2)
    count = len(searches)
    ask(3, after=service.resync_seconds)
    assert len(searches) == count
    ask(4)
    assert searches[-1] == "d4"


def test_an_evaluation_without_a_table_is_remembered_whatever_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = PlanChoice(None, served(), False, Reason.INSUFFICIENT_GPUS, "", result=NONE)
    searches: list[object] = []

    def searched(*found: object, **__: object) -> PlanChoice:
        searches.append(found)
        return answer

    monkeypatch.setattr(planning, "_planned", searched)
    service = PlanningService()
    for number in (*range(MOST_TABLES + 1), 0):
        one = asked()
        metadata = one.deployment.metadata.model_copy(update={"name": f"d{number}"})
        service.planning_for(replace(one, deployment=one.deployment.model_copy(update={"metadata": metadata})))
    assert len(searches) == MOST_TABLES + 1


def test_a_plan_for_the_part_of_the_load_that_is_sustained_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, part = FollowedLoad(60.0, step=9), FollowedLoad(60.0, step=1)
    monkeypatch.setattr(Case, "evaluate", lambda self: (part, self.plan(self.asked(part))))
    first = planned(replace(asked(), load=whole))
    assert (first.good, first.adopted, first.carried_step) == (True, True, 1)
    again = planned(replace(asked(first.plan), load=whole))
    assert (again.good, again.adopted, again.decision, again.carried_step) == (True, False, "SamePlan", 1)
    assert (again.plan, again.reason) == (first.plan, Reason.PLANNED)
    assert again.table is not None
    # Replicas that a budget removed return.
    shed = planned(replace(asked(plan_of(first).model_copy(update={"shed_by": CAP})), load=whole))
    assert (shed.decision, shed.adopted) == ("ShedEnded", True)


def test_the_table_of_another_plan_is_not_the_plan_s() -> None:
    result = planned(asked()).result
    assert isinstance(result, Feasible)
    assert planning._table(result, result.plan) is result.table
    assert planning._table(result, result.plan.model_copy(update={"hash": "0" * 16})) is None
    assert planning._table(NONE, result.plan) is None


def test_the_longest_request_belongs_to_followed_lengths_only() -> None:
    lengths = Followed(512.0, step=1)

    def longest(load: FollowedLoad | None) -> int | None:
        found = planning._within_context(replace(asked(), load=load), served()).load
        return None if found is None else found.longest

    assert (longest(None), longest(FollowedLoad(60.0))) == (None, None)
    assert longest(FollowedLoad(60.0, prompts=lengths)) == 131072
    assert longest(FollowedLoad(60.0, outputs=lengths)) == 131072


def test_explanations_solve_the_problem_that_was_planned() -> None:
    inputs = asked()
    problem = problem_of(inputs, served())
    choice = planned(inputs)
    assert solution_of(problem, choice).chosen == solve(problem).chosen
    found = weekly()
    week = PlanningService().planning_for(found.inputs)
    assert week.week is not None
    asking = problem_of(found.inputs, served())
    solution = solution_of(asking, week)
    assert solution.chosen is not None
    assert int(solution.rows.replicas[solution.chosen]) == week.week.plan.replicas


def test_what_no_plan_sustains_keeps_the_running_plan_and_says_so() -> None:
    first = planned(replace(asked(), snapshot=FULL))
    inputs = replace(asked(best()), snapshot=FULL)
    kept = planned(inputs)
    assert kept.plan is inputs.deployment.status.plan
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


def test_a_budget_that_denies_growth_leaves_a_plan_that_fits_and_says_what_it_lacks() -> None:
    enough = PowerAllowance(float(best().predicted.power_watts), CAP)
    stands = planned(replace(asked(best()), allowance=enough))
    assert (stands.plan, stands.adopted, stands.restricted) == (best(), False, False)
    less = replace(enough, watts=enough.watts - 1)
    denied = planned(replace(asked(best()), allowance=less))
    assert (denied.good, denied.adopted, denied.decision) == (False, False, "Infeasible")
    assert f"the lowest predicted power is {enough.watts:.0f} W" in denied.message
    assert denied.message.endswith("; the running plan stays")
    assert (plan_of(denied).hash, plan_of(denied).replicas) == (best().hash, 4)


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
    assert found.decision == ("EnergySaving" if adopted else "SavingTooSmall" if saving else "Cooldown")
    # A plan whose replacement does not pay yet is judged again.
    assert bool(plan_of(found).inputs_hash) is adopted


def test_the_best_plan_gets_another_engine_setting_at_once() -> None:
    found = planned(asked(best(), engine={"extraArgs": ["--enable-prefix-caching"]}))
    assert (found.good, found.decision, found.adopted) == (True, "OtherModelOrEngine", False)
    assert plan_of(found).serving_hash != best().serving_hash
    assert plan_of(found).hash != best().hash


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
