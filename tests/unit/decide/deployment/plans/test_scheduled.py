"""The plan of the current hour of a week: which schedule is followed, and when the week is planned again."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.unit.decide.deployment.plans.test_verdict import case_of
from tests.unit.decide.observations import NOW, PRODUCT, deployment

from energylens.api.llmdeployment import PlanStatus, ScheduleStatus
from energylens.api.timestamp import timestamp
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.observed.profile_hours import NoHours
from energylens.decide.deployment.plans.case import Case
from energylens.decide.deployment.plans.scheduled import (
    MOST_WEEKS,
    Weeks,
    _fits,
    _mean,
    _within_nodes,
    prepared,
    scheduled,
)
from energylens.decide.reasons import Reason
from energylens.planner.explain import relaxations
from energylens.planner.search.identity import identified
from energylens.planner.types import ClusterSnapshot, Feasible, GpuNode, PowerAllowance
from energylens.planner.week.planning import WeekPlan, WeekProblem, saving_text

BUSY = {"days": ["Mon", "Tue", "Wed", "Thu", "Fri"], "fromHour": 8, "toHour": 18, "requestsPerSecond": "60"}
PINNED = {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}}
MONDAY_NIGHT, MONDAY_NOON = datetime.fromisoformat("2026-03-02T01:00Z"), datetime.fromisoformat("2026-03-02T12:00Z")
MONDAY_EVENING = datetime.fromisoformat("2026-03-02T19:00Z")
CAP = "EnergyBudget team/cap"


@pytest.fixture(autouse=True)
def without_nearest_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the nearest load out of the explanations: finding it takes most of the time."""
    monkeypatch.setattr(relaxations, "_loads", lambda *_: ())


def weekly(status: dict[str, Any] | None = None, busy: str = "60", **spec: Any) -> Case:
    """Return a deployment with a load of 2 requests per second, and ``busy`` on workdays."""
    load = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "2"}
    fields: dict[str, Any] = {
        "planning": PINNED,
        "workload": load | {"profile": {"hours": [BUSY | {"requestsPerSecond": busy}]}},
        "hardware": {"gpuProducts": [PRODUCT]},
    }
    return case_of(deployment(status, **{**fields, **spec}))


def at(case: Case, now: datetime = NOW, **changes: Any) -> Case:
    return replace(case, inputs=replace(case.inputs, now=now, **changes), _hashes=[])


@functools.cache
def first() -> PlanChoice:
    return scheduled(weekly(), {})


def dumped(part: Any) -> dict[str, Any]:
    found: dict[str, Any] = part.model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


def status_of(choice: PlanChoice, **schedule: Any) -> dict[str, Any]:
    return {"plan": dumped(choice.plan), "schedule": {**dumped(choice.schedule), **schedule}}


def plan_of(choice: PlanChoice) -> PlanStatus:
    assert choice.plan is not None
    return choice.plan


def schedule_of(choice: PlanChoice) -> ScheduleStatus:
    assert choice.schedule is not None
    return choice.schedule


def replicas(choice: PlanChoice) -> int:
    return plan_of(choice).replicas


def test_the_first_week_is_planned_and_adopted() -> None:
    found = scheduled(weekly(), {})
    assert (found.good, found.reason, found.decision, found.adopted) == (True, Reason.PLANNED, "FirstPlan", True)
    assert found.weighed.startswith("first schedule: ")
    assert found.message.startswith("1 x NVIDIA-H100-80GB-HBM3 TP1, max batch 64: ")
    week = schedule_of(found)
    assert f"the week takes {week.week_watt_hours / 1000:.4g} kWh, the best constant plan" in found.message
    assert [(entry.day, entry.hour, entry.replicas) for entry in week.hours][:2] == [("Mon", 8, 4), ("Mon", 18, 1)]
    assert (week.starting_since, week.replicas, week.next_replicas) == (timestamp(NOW), 1, 4)
    assert plan_of(found).peak_power_watts == max(entry.power_watts for entry in week.hours)
    assert plan_of(found).planned_replicas == 4
    assert found.next_look == datetime.fromisoformat("2026-03-02T08:00Z") - timedelta(seconds=week.start_seconds)
    assert (found.scaled, found.week is None, found.table is None) == ("", False, False)
    assert found.result is not None


def test_a_week_is_planned_once() -> None:
    kept = status_of(first())
    case = weekly(kept)
    found = scheduled(case, {})
    # The plan of the status stands without another prediction.
    assert found.plan is case.inputs.deployment.status.plan
    assert (found.decision, found.adopted, found.weighed, found.week, found.result) == (
        "SamePlan",
        False,
        "",
        None,
        None,
    )
    assert (found.plan, found.schedule, found.scaled) == (first().plan, first().schedule, "")
    assert found.message == first().message
    again = scheduled(at(weekly(kept), want_table=True), {})
    assert (again.decision, again.adopted, again.plan) == ("SamePlan", False, first().plan)
    assert again.table is not None


@pytest.mark.parametrize(
    ("case", "decision"),
    [
        (weekly(status_of(first(), hours=[{**dumped(schedule_of(first()).hours[0]), "replicas": 9}])), "NewSchedule"),
        (weekly({"plan": dumped(first().plan)}), "NewSchedule"),
        (weekly(status_of(first(), inputsHash="")), "SamePlan"),
        (weekly(status_of(first()), busy="55"), "NewSchedule"),
        (weekly(status_of(first()), engine={"extraArgs": ["--enforce-eager"]}), "SamePlan"),
    ],
    ids=["edited", "without a schedule", "not sealed", "another load", "another engine"],
)
def test_a_schedule_of_other_inputs_is_planned_again(case: Case, decision: str) -> None:
    found = scheduled(case, {})
    assert (found.good, found.decision, found.adopted) == (True, decision, decision == "NewSchedule")
    assert found.weighed.startswith("new schedule: ") is (decision == "NewSchedule")
    assert found.week is not None


def test_replicas_follow_the_hours_and_the_change_is_told() -> None:
    noon = scheduled(at(weekly(status_of(first())), MONDAY_NOON), {})
    assert (noon.decision, noon.adopted, replicas(noon)) == ("SamePlan", False, 4)
    night, day = schedule_of(first()).hours[1].power_watts, schedule_of(first()).hours[0].power_watts
    change = f"4 replicas instead of 1 for 60 requests per second, {day} W instead of {night} W"
    assert noon.scaled.startswith(f"Mon 08:00 UTC: {change}; the week takes")
    assert schedule_of(noon).starting_since == timestamp(MONDAY_NOON)
    evening = scheduled(at(weekly(status_of(noon, startingSince="2026-03-02T08:00:00Z")), MONDAY_EVENING), {})
    assert (replicas(evening), schedule_of(evening).starting_since) == (1, "2026-03-02T08:00:00Z")
    assert evening.scaled.startswith("Mon 18:00 UTC: 1 replica instead of 4 for 2 requests per second")
    assert plan_of(noon).hash == plan_of(first()).hash


def test_a_measured_start_is_kept_unless_the_spec_states_one() -> None:
    found = scheduled(weekly(status_of(first(), startSeconds=300)), {})
    assert schedule_of(found).start_seconds == 300
    assert found.next_look == datetime.fromisoformat("2026-03-02T07:55Z")
    stated = scheduled(weekly(status_of(first(), startSeconds=300), scaling={"startSeconds": 900}), {})
    assert schedule_of(stated).start_seconds == 900


FLAT = tuple(3000.0 for _ in range(168))


def hours(**watts: float) -> PowerAllowance:
    """Return an allowance of 3 kW, with other watts in single hours of the week: ``h8=100``."""
    changed = [watts.get(f"h{hour}", most) for hour, most in enumerate(FLAT)]
    return PowerAllowance(3000.0, CAP, hours=tuple(changed))


DAY, NIGHT = (float(schedule_of(first()).hours[at_hour].power_watts) for at_hour in (0, 1))


@pytest.mark.parametrize(
    ("allowance", "fits"),
    [
        (PowerAllowance(DAY, CAP), True),
        (PowerAllowance(DAY - 1, CAP), False),
        (hours(), True),
        (hours(h8=DAY - 1), False),
        (hours(h17=DAY - 1), False),
        (hours(h7=DAY - 1), True),
        (hours(h18=DAY - 1), True),
        (hours(h18=NIGHT), True),
        (hours(h31=NIGHT - 1), False),
        (hours(h32=DAY - 1), False),
        # The last entry lasts from Friday evening to Monday morning.
        (hours(h0=NIGHT), True),
        (hours(h0=NIGHT - 1), False),
        (hours(h167=NIGHT - 1), False),
        (hours(h7=NIGHT - 1), False),
    ],
)
def test_a_schedule_fits_the_power_of_every_hour(allowance: PowerAllowance, fits: bool) -> None:
    assert _fits(schedule_of(first()), allowance) is fits


def test_a_schedule_that_fits_a_new_budget_stays() -> None:
    found = scheduled(at(weekly(status_of(first())), MONDAY_NOON, allowance=hours(h18=NIGHT)), {})
    assert (found.good, found.decision, found.week, replicas(found)) == (True, "SamePlan", None, 4)


def test_a_schedule_for_another_load_is_planned_again_under_a_budget_too() -> None:
    found = scheduled(at(weekly(status_of(first()), "55"), allowance=PowerAllowance(9000.0, CAP)), {})
    assert (found.decision, found.week is None) == ("NewSchedule", False)


def test_power_of_other_hours_removes_no_replica_of_this_one() -> None:
    lean = PowerAllowance(3000.0, CAP, hours=tuple(3000.0 if 8 <= hour % 24 < 18 else NIGHT for hour in range(168)))
    noon = scheduled(at(weekly(status_of(first())), MONDAY_NOON, allowance=lean), {})
    assert (noon.good, replicas(noon)) == (True, 4)


def test_a_budget_that_denies_the_day_keeps_the_schedule_with_fewer_replicas_by_day() -> None:
    denied = PowerAllowance(DAY - 100, CAP)
    found = scheduled(at(weekly(status_of(first())), MONDAY_NOON, allowance=denied), {})
    assert (found.good, found.decision) == (False, "Infeasible")
    assert found.message.endswith("; the running plan stays")
    assert replicas(found) == 3
    assert schedule_of(found).hours == schedule_of(first()).hours
    assert plan_of(found).shed_by is None
    night = scheduled(at(weekly(status_of(first())), MONDAY_NIGHT, allowance=denied), {})
    assert (night.good, replicas(night)) == (False, 1)
    nothing = scheduled(at(weekly(), allowance=PowerAllowance(100.0, CAP)), {})
    assert (nothing.good, nothing.plan, nothing.schedule, nothing.decision) == (False, None, None, "Infeasible")
    assert "the running plan" not in nothing.message


def test_a_budget_sheds_replicas_of_the_hours_above_its_power_only() -> None:
    sheds = PowerAllowance(DAY - 100, CAP, sheds=True)
    noon = scheduled(at(weekly(status_of(first())), MONDAY_NOON, allowance=sheds), {})
    assert (noon.good, noon.reason, noon.decision, replicas(noon)) == (True, Reason.SHED, "Shed", 3)
    assert noon.message == f"{CAP} leaves {DAY - 100:.0f} W: 3 replicas of 4 run"
    assert (plan_of(noon).shed_by, plan_of(noon).shed_from_replicas) == (CAP, 4)
    night = scheduled(at(weekly(status_of(first())), allowance=sheds), {})
    assert (night.decision, night.plan) == ("SamePlan", first().plan)
    back = scheduled(at(weekly(status_of(noon)), MONDAY_NOON), {})
    assert (back.reason, replicas(back), plan_of(back).shed_by) == (Reason.PLANNED, 4, None)


def own(watts: float) -> dict[str, Any]:
    """Return a spec whose own budget enforces a power."""
    return {"energy": {"budget": {"powerWatts": int(watts), "action": "Enforce"}}}


def test_the_budget_of_the_spec_limits_the_week_while_another_budget_sheds() -> None:
    sheds = PowerAllowance(NIGHT, CAP, sheds=True)
    denied = scheduled(at(weekly(**own(DAY - 1)), MONDAY_NOON, allowance=sheds), {})
    assert (denied.good, denied.plan, denied.reason) == (False, None, Reason.BUDGET_EXCEEDED)
    assert "spec.energy.budget.powerWatts" in denied.message
    found = scheduled(at(weekly(**own(DAY)), MONDAY_NOON, allowance=sheds), {})
    assert [entry.replicas for entry in schedule_of(found).hours][:2] == [4, 1]
    assert (found.decision, replicas(found), plan_of(found).shed_by) == ("Shed", 1, CAP)


def test_a_week_is_planned_once_whatever_a_budget_sheds() -> None:
    weeks: Weeks = {}
    for watts in (NIGHT, NIGHT + 1, DAY):
        scheduled(at(weekly(**own(DAY)), allowance=PowerAllowance(watts, CAP, sheds=True)), weeks)
        assert list(prepared(at(weekly(**own(DAY)), allowance=PowerAllowance(watts, CAP, sheds=True)), weeks)) == []
    assert len(weeks) == 1


@pytest.mark.parametrize("known", [True, False])
def test_without_hours_the_schedule_stays(known: bool) -> None:
    why = NoHours(Reason.PROFILE_MISSING, "there are no hours")
    found = scheduled(at(weekly(status_of(first()) if known else None), MONDAY_NOON, no_hours=why), {})
    assert (found.good, found.reason, found.decision) == (False, Reason.PROFILE_MISSING, "Infeasible")
    assert found.message == "there are no hours" + ("; the running plan stays" if known else "")
    assert (found.plan is not None, found.schedule is not None) == (known, known)
    assert (None if found.plan is None else found.plan.replicas) == (4 if known else None)


def test_without_hours_a_plan_without_a_schedule_stays_as_it_is() -> None:
    why = NoHours(Reason.PROFILE_MISSING, "there are no hours")
    found = scheduled(at(weekly({"plan": dumped(first().plan)}), MONDAY_NOON, no_hours=why), {})
    assert (found.plan, found.schedule, found.good) == (first().plan, None, False)
    assert found.message == "there are no hours; the running plan stays"


def test_a_new_deployment_waits_for_the_first_check_of_its_budget() -> None:
    unknown = PowerAllowance(1.0, CAP, because="its energy is not counted yet", awaits_look=True)
    found = scheduled(at(weekly(), allowance=unknown), {})
    assert (found.reason, found.good, found.plan, found.decision) == (
        Reason.AWAITING_BUDGET,
        False,
        None,
        "AwaitingBudget",
    )
    text = f"{CAP}: its energy is not counted yet; planning waits until the operator has checked the budget"
    assert found.message == text
    assert list(prepared(at(weekly(), allowance=unknown), {})) == []
    standing = at(weekly(status_of(first())), allowance=unknown, standing=first().plan)
    assert scheduled(replace(standing), {}).plan == first().plan


@functools.cache
def small() -> dict[str, Any]:
    """Return a plan for the load of the nights with small batches."""
    load = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "2"}
    case = weekly(planning={"overrides": {"tensorParallel": 1, "maxBatchSize": 8}}, workload=load)
    found = case.plan(case.inputs.deployment)
    assert isinstance(found, Feasible)
    return dumped(identified(found.plan, case.inputs.deployment.spec))


@pytest.mark.parametrize(("saving", "adopted"), [(0, True), (100, False)])
def test_another_layout_replaces_the_running_one_only_for_a_saving(saving: int, adopted: bool) -> None:
    replan = {"minEnergySavingPercent": saving, "cooldownSeconds": 0}
    asked = {"overrides": {"tensorParallel": 1}, "replan": replan}
    case = at(weekly({"plan": small()}, "15", planning=asked), adopted_at=NOW - timedelta(days=1))
    found = scheduled(case, {})
    assert (found.adopted, found.good) == (adopted, True)
    assert (plan_of(found).max_batch_size > 8) is adopted
    assert found.reason == (Reason.PLANNED if adopted else Reason.KEEPING_RUNNING_PLAN)
    if adopted:
        assert found.week is not None
        assert found.weighed.endswith(f"; {saving_text(found.week)}")
        # Pods of another layout start.
        assert schedule_of(found).starting_since == timestamp(NOW)
    else:
        assert "less than minEnergySavingPercent=100" in found.message
        assert schedule_of(found).inputs_hash == ""
        assert found.weighed == ""


def test_a_cooldown_holds_for_weeks_too() -> None:
    replan = {"minEnergySavingPercent": 0, "cooldownSeconds": 3600}
    asked = {"overrides": {"tensorParallel": 1}, "replan": replan}
    for seconds, adopted in ((3599, False), (3600, True)):
        since = NOW - timedelta(seconds=seconds)
        assert scheduled(at(weekly({"plan": small()}, "15", planning=asked), adopted_at=since), {}).adopted is adopted


def test_weeks_are_remembered_and_the_oldest_is_forgotten() -> None:
    weeks: Weeks = {}
    found = scheduled(weekly(), weeks)
    (key,) = weeks
    assert found.week is weeks[key]
    assert scheduled(weekly(), weeks).week is found.week
    full: Weeks = {(number,): weeks[key] for number in range(MOST_WEEKS)}
    scheduled(weekly(), full)
    assert len(full) == MOST_WEEKS
    assert (0,) not in full
    assert (1,) in full


def test_a_week_is_prepared_in_steps_where_one_is_to_be_planned() -> None:
    weeks: Weeks = {}
    assert list(prepared(weekly(), weeks))
    (known,) = weeks.values()
    assert scheduled(weekly(), weeks).week is known
    assert list(prepared(weekly(), weeks)) == []
    assert list(prepared(weekly(status_of(first())), {})) == []
    assert list(prepared(at(weekly(), no_hours=NoHours(Reason.PROFILE_MISSING, "")), {})) == []


def test_without_leader_worker_sets_replicas_fit_the_largest_node() -> None:
    nodes = ClusterSnapshot((GpuNode("a", PRODUCT, 2), GpuNode("b", PRODUCT, 8)))

    def limit(case: Case) -> int | None:
        inputs = case.inputs
        problem = WeekProblem(inputs.deployment, case.model, inputs.snapshot, case.gpus, case.predictor, None, None)
        return _within_nodes(case, problem).deployment.spec.hardware.max_gpus_per_replica

    assert limit(at(weekly(), snapshot=nodes)) == 8
    assert limit(at(weekly(hardware={"maxGPUsPerReplica": 4}), snapshot=nodes)) == 4
    assert limit(at(weekly(hardware={"maxGPUsPerReplica": 16}), snapshot=nodes)) == 8
    assert limit(at(weekly(), snapshot=nodes, serves_lws=True)) is None
    assert limit(at(weekly(), snapshot=ClusterSnapshot(()))) is None


def test_the_mean_of_a_week_has_its_energy_and_tokens() -> None:
    week = scheduled(weekly(), {}).week
    assert isinstance(week, WeekPlan)
    mean = _mean(week)
    assert mean.predicted.power_watts == round(week.joules / (168 * 3600))
    assert mean.predicted.output_tokens_per_second == round((50 * 60 + 118 * 2) * 256 / 168)
    # 50 hours with 4 replicas and 118 with one.
    assert mean.gpus == 2
    assert mean.predicted.joules_per_output_token == f"{1000 * week.joules / week.tokens:.0f}m"
