"""Which week is planned: the part of learned hours that a plan sustains, restricted weeks, and replicas on one node."""

from __future__ import annotations

import functools
from collections.abc import Generator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.deployment.plans.test_scheduled import (
    CAP,
    DAY,
    MONDAY_NOON,
    at,
    first,
    plan_of,
    replicas,
    schedule_of,
    small,
    status_of,
    weekly,
)
from tests.unit.decide.observations import PRODUCT

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.quantity import parse_quantity
from energylens.decide.deployment.loads.learned_hours import LearnedHours
from energylens.decide.deployment.loads.load import rate_of
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans import schedule as seals
from energylens.decide.deployment.plans import scheduled as module
from energylens.decide.deployment.plans.case import Case
from energylens.decide.deployment.plans.scheduled import Weeks, _is_restricted, _mean, prepared, scheduled
from energylens.decide.reasons import Reason
from energylens.planner.search.week_load import HOURS
from energylens.planner.types import ClusterSnapshot, GpuNode, Infeasible, PowerAllowance
from energylens.planner.week.planning import WeekPlan, WeekProblem, finished

BUSIEST = 14
"""The highest learned step of a declared rate of 2 requests per second: 45.5 requests per second."""
NONE = Infeasible("LoadTooHigh", "there is no plan")


def week_of(choice: PlanChoice) -> WeekPlan:
    assert choice.week is not None
    return choice.week


@functools.cache
def carried_week() -> WeekPlan:
    return week_of(scheduled(weekly(busy="29.1"), {}))


class Planner:
    """Plans weeks whose busiest hour has at most a rate, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: float) -> None:
        self.most, self.asked, self.week = most, 0, carried_week()
        monkeypatch.setattr(module, "_week_in_steps", self.plan)

    def plan(self, _: Case, asked: LLMDeployment, __: Weeks) -> Generator[None, None, WeekPlan | Infeasible]:
        self.asked += 1
        yield
        profile = asked.spec.workload.profile
        assert profile is not None
        assert profile.hours is not None
        busiest = max(float(parse_quantity(entry.requests_per_second)) for entry in profile.hours)
        return self.week if busiest <= self.most else NONE


def learning(status: dict[str, Any] | None = None) -> Case:
    steps = (0,) * (HOURS - 1) + (BUSIEST,)
    learned = LearnedHours("UTC", 2.0, steps=steps)
    return at(weekly(status, busy=f"{rate_of(2.0, BUSIEST):g}"), MONDAY_NOON, learned=learned)


@pytest.mark.parametrize("step", range(BUSIEST))
def test_learned_hours_are_limited_to_the_highest_step_that_a_plan_sustains(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = Planner(monkeypatch, rate_of(2.0, step))
    found = finished(module._most_carried_in_steps(learning(), {}))
    assert found is not None
    assert float(parse_quantity(found[0])) == rate_of(2.0, step)
    profile = found[1].spec.workload.profile
    assert profile is not None
    assert profile.hours is not None
    assert max(float(parse_quantity(entry.requests_per_second)) for entry in profile.hours) == rate_of(2.0, step)
    assert planner.asked <= 4


def test_without_a_plan_for_the_declared_rate_no_hour_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    Planner(monkeypatch, 1.0)
    assert finished(module._most_carried_in_steps(learning(), {})) is None
    found = scheduled(learning(), {})
    assert (found.good, found.plan, found.message) == (False, None, "there is no plan")
    # Hours of the spec have no step.
    assert finished(module._most_carried_in_steps(at(learning(), learned=None), {})) is None


def test_a_week_for_a_part_of_the_load_is_followed_and_planned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Planner(monkeypatch, 29.1)
    found = scheduled(learning(), {})
    assert (found.good, found.adopted, found.decision) == (True, True, "FirstPlan")
    note = "; no learned hour is planned for more than 29.1 requests per second: there is no plan"
    assert found.message.endswith(note)
    assert schedule_of(found).inputs_hash == ""
    again = scheduled(learning(status_of(found)), {})
    assert (again.good, again.adopted, again.decision, again.weighed) == (True, False, "MostCarried", "")
    assert (again.message.endswith(note), schedule_of(again).inputs_hash) == (True, "")
    assert (plan_of(again), again.reason) == (plan_of(found), Reason.PLANNED)


def test_weeks_for_parts_of_the_load_are_prepared_in_steps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    planner = Planner(monkeypatch, 29.1)
    assert len(list(prepared(learning(), {}))) == planner.asked == 5
    planner.asked, planner.most = 0, 100.0
    assert len(list(prepared(learning(), {}))) == planner.asked == 1


@pytest.mark.parametrize(
    ("allowance", "restricted", "expected"),
    [(None, True, False), (PowerAllowance(3000.0, CAP), True, True), (PowerAllowance(3000.0, CAP), False, False)],
)
def test_only_a_budget_restricts_a_week(allowance: PowerAllowance | None, restricted: bool, expected: bool) -> None:
    week = week_of(first())
    found = replace(week, peak=replace(week.peak, restricted=restricted))
    assert _is_restricted(at(weekly(), allowance=allowance), found) is expected


def test_a_week_that_a_budget_restricted_stands_under_the_same_budget_only() -> None:
    tight = PowerAllowance(DAY, CAP)
    case = at(weekly(), MONDAY_NOON, allowance=tight)
    exact = case.hash_of(case.inputs.deployment, None)
    made = seals.sealed(schedule_of(first()), plan_of(first()), exact)
    status = status_of(first(), inputsHash=made.inputs_hash)

    def stands(allowance: PowerAllowance | None) -> bool:
        return scheduled(at(weekly(status), MONDAY_NOON, allowance=allowance), {}).week is None

    assert stands(tight)
    assert not stands(replace(tight, watts=DAY + 1))
    assert not stands(None)


def test_power_that_a_budget_leaves_exactly_changes_nothing() -> None:
    noon = scheduled(at(weekly(status_of(first())), MONDAY_NOON), {})
    sheds = PowerAllowance(DAY, CAP, sheds=True)
    case = at(weekly(status_of(noon)), MONDAY_NOON, allowance=sheds)
    assert scheduled(case, {}).plan is case.inputs.deployment.status.plan
    less = at(weekly(status_of(noon)), MONDAY_NOON, allowance=replace(sheds, watts=DAY - 1))
    assert replicas(scheduled(less, {})) == 3


def test_a_schedule_that_no_longer_fits_has_fewer_replicas_in_the_hours_that_lack_power_only() -> None:
    lacking = tuple(DAY - 100 if 8 <= hour < 18 else 3000.0 for hour in range(HOURS))
    denied = PowerAllowance(3000.0, CAP, hours=lacking)
    monday = scheduled(at(weekly(status_of(first())), MONDAY_NOON, allowance=denied), {})
    tuesday = scheduled(at(weekly(status_of(first())), MONDAY_NOON + timedelta(days=1), allowance=denied), {})
    assert (monday.decision, replicas(monday), replicas(tuesday)) == ("Infeasible", 3, 4)


def test_replicas_that_stay_keep_the_time_since_which_they_start() -> None:
    noon = scheduled(at(weekly(status_of(first())), MONDAY_NOON), {})
    since = status_of(noon, startingSince="2026-03-02T07:58:00Z")
    later = scheduled(at(weekly(since), MONDAY_NOON + timedelta(hours=1)), {})
    assert (replicas(later), schedule_of(later).starting_since) == (4, "2026-03-02T07:58:00Z")


def test_a_measured_start_outlasts_another_schedule_of_the_same_layout() -> None:
    known = status_of(first(), startSeconds=300, startingSince="2026-03-01T11:59:00Z")
    found = scheduled(weekly(known, busy="55"), {})
    assert (found.decision, replicas(found)) == ("NewSchedule", 1)
    assert (schedule_of(found).start_seconds, schedule_of(found).starting_since) == (300, "2026-03-01T11:59:00Z")


def test_the_mean_gpus_of_a_week_are_those_of_all_pods_of_its_replicas() -> None:
    week = week_of(first())
    pairs = week.plan.model_copy(update={"gpus": 2 * week.plan.replicas})
    # 50 hours with 4 replicas and 118 with one are 1.9 replicas.
    assert _mean(replace(week, plan=pairs)).gpus == 4


def test_the_start_of_another_layout_is_not_that_of_the_one_before() -> None:
    asked = {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}}
    measured = {"plan": small(), "schedule": status_of(first(), startSeconds=7)["schedule"]}
    found = scheduled(weekly(measured, "15", planning=asked), {})
    assert (found.adopted, found.decision) == (True, "NoLongerValid")
    assert schedule_of(found).start_seconds == schedule_of(first()).start_seconds != 7


def test_a_layout_that_the_spec_forbids_is_left_at_once() -> None:
    replan = {"minEnergySavingPercent": 100, "cooldownSeconds": 3600}
    asked = {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}, "replan": replan}
    case = weekly({"plan": small()}, "15", planning=asked)
    found = scheduled(at(case, adopted_at=case.inputs.now), {})
    assert (found.good, found.adopted, found.decision) == (True, True, "NoLongerValid")
    assert found.weighed.startswith("spec.planning.overrides.maxBatchSize=64, and the running plan has 8; new plan: ")


@pytest.mark.parametrize(
    ("serves_lws", "feasible", "limits"), [(False, True, [2]), (False, False, [2, None]), (True, False, [None])]
)
def test_weeks_with_replicas_on_one_node_come_first(
    serves_lws: bool, feasible: bool, limits: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def planned(problem: WeekProblem) -> Generator[None, None, WeekPlan | Infeasible]:
        asked.append(problem.deployment.spec.hardware.max_gpus_per_replica)
        yield
        return week_of(first()) if feasible else NONE

    monkeypatch.setattr(module, "plan_week_in_steps", planned)
    nodes = ClusterSnapshot((GpuNode("a", PRODUCT, 2), GpuNode("b", PRODUCT, 1)))
    found = scheduled(at(weekly(), snapshot=nodes, serves_lws=serves_lws), {})
    assert (found.good, asked) == (feasible, limits)


def test_a_week_with_hardly_any_load_has_a_token_per_second_at_least() -> None:
    mean = _mean(replace(week_of(first()), tokens=1000.0))
    assert mean.predicted.output_tokens_per_second == 1
