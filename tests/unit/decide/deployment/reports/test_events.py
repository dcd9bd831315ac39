"""Events: one for each transition that a user waits for or should look at, and none while nothing changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.observations import (
    HASH,
    NOW,
    OTHER,
    deployment,
    model,
    observation,
    plan,
    pod,
    without_plan,
    workload,
)

from energylens.api.llmdeployment import GivenUpPlan, JobStartStatus
from energylens.decide.deployment.loads.load import Followed, FollowedLoad
from energylens.decide.deployment.observed.observation import BudgetView, Observation, PlanChoice
from energylens.decide.deployment.pods.children import Children, children
from energylens.decide.deployment.reports.events import transitions
from energylens.decide.deployment.reports.status import status_of
from energylens.decide.deployment.trials.rollback import Return
from energylens.decide.reasons import Reason
from energylens.serving import Strategy

PAST = "2026-03-01T11:00:00Z"


def told(observed: Observation, made: Children | None = None) -> list[tuple[str, str]]:
    """Return reason and text of the events of a pass."""
    found = children(observed) if made is None else made
    return [(reason.value, text) for reason, text in transitions(observed, found, status_of(observed, found))]


def reasons(observed: Observation, made: Children | None = None) -> list[str]:
    return [reason for reason, _ in told(observed, made)]


def after(first: Observation, spec: dict[str, Any] | None = None, **changes: Any) -> Observation:
    """Return the next pass after one that wrote its status."""
    status = status_of(first, children(first))
    return replace(first, deployment=deployment(status, **(spec or {})), **changes)


def settled(**spec: Any) -> Observation:
    """Return a deployment that serves, in a pass in which nothing changes."""
    return after(observation(deployment=deployment(**spec)), spec)


def test_a_pass_in_which_nothing_changes_tells_nothing() -> None:
    assert told(settled()) == []


def test_a_first_plan_of_mode_auto_is_told_by_becoming_ready_alone() -> None:
    first = replace(observation().planning, adopted=True, decision="FirstPlan")
    assert reasons(observation(planning=first, takes_over=True)) == ["BecameReady"]
    manual = deployment(planning={"mode": "Manual", "approvedPlanHash": HASH})
    assert reasons(observation(planning=first, takes_over=True, deployment=manual)) == ["PlanAdopted", "BecameReady"]


def test_an_adopted_plan_is_told_with_its_weighing_or_its_layout() -> None:
    moved = replace(settled(), takes_over=True)
    (reason, text), *_ = told(moved)
    assert reason == "PlanAdopted"
    assert "H100" in text
    weighed = replace(moved, planning=replace(moved.planning, decision="SavesEnough", weighed="saves 5 %"))
    assert told(weighed) == [("PlanAdopted", "SavesEnough: saves 5 %")]
    approved = deployment(planning={"mode": "Manual", "approvedPlanHash": HASH})
    manual = replace(
        weighed, deployment=after(observation(), {"planning": {"mode": "Manual", "approvedPlanHash": HASH}}).deployment
    )
    assert approved.spec == manual.deployment.spec
    assert told(manual) == [("PlanAdopted", f"plan {HASH} is approved; SavesEnough: saves 5 %")]
    assert told(replace(settled(), planning=replace(moved.planning, plan=None), takes_over=True)) == []


def test_a_rollback_is_told_instead_of_the_plan() -> None:
    back = Return(plan=plan(), reason="HigherEnergy", message="")
    planning = replace(observation().planning, rollback=back, message="it took more")
    assert told(replace(settled(), planning=planning, takes_over=True)) == [
        ("PlanRolledBack", "HigherEnergy: it took more")
    ]


@pytest.mark.parametrize(("mode", "reason"), [("Manual", "PlanPending"), ("Advisory", "PlanShown")])
def test_a_proposed_plan_is_told_once(mode: str, reason: str) -> None:
    spec: dict[str, Any] = {"planning": {"mode": mode}}
    fresh = observation(deployment=deployment(**spec), workload=None, pods=())
    assert reasons(fresh) == [reason]
    assert told(fresh)[0][1].endswith(f"; {children(fresh).message}")
    again = after(fresh, spec)
    assert told(again) == []
    other = PlanChoice(plan(OTHER), model(), True, Reason.PLANNED, "")
    assert reasons(replace(again, planning=other)) == [reason]
    # The same plan, which had another reason before.
    assert reasons(after(observation(workload=None, pods=()), spec)) == [reason]


def test_a_plan_is_rejected_once_for_each_reason() -> None:
    bad = observation(planning=without_plan(Reason.SLO_INFEASIBLE), workload=None, pods=())
    assert told(bad) == [("PlanRejected", "SLOInfeasible: it is SLOInfeasible")]
    assert told(after(bad)) == []
    assert reasons(replace(after(bad), planning=without_plan(Reason.MODEL_TOO_LARGE))) == ["PlanRejected"]
    assert reasons(replace(settled(), planning=without_plan(Reason.SLO_INFEASIBLE, plan()))) == ["PlanRejected"]
    waits = observation(planning=without_plan(Reason.AWAITING_BUDGET), workload=None, pods=())
    assert told(waits) == []


def test_a_rollout_is_told_where_pods_ran_before() -> None:
    made = replace(children(observation()), strategy=Strategy("Surge", 1, 0, "a GPU is free"))
    assert told(settled(), made) == [("RolloutStarted", "Surge: a GPU is free")]
    unnamed = replace(made, strategy=Strategy("Recreate", 0, 1))
    assert told(settled(), unnamed) == [("RolloutStarted", "Recreate: Recreate")]
    assert reasons(observation(), made) == ["BecameReady"]


DOWN: dict[str, Any] = {"workload": workload(ready=1), "pods": (pod("p0"), pod("p1", ready=False))}


def test_becoming_ready_and_unready_are_told() -> None:
    assert told(observation()) == [("BecameReady", f"2 of 2 replicas of plan {HASH} are ready")]
    down = replace(settled(), **DOWN)
    assert told(down) == [("BecameUnready", f"PodsNotReady: 1 of 2 replicas of plan {HASH} are ready")]
    assert told(after(down)) == []
    assert reasons(replace(after(down), workload=workload(), pods=(pod("p0"), pod("p1")))) == ["BecameReady"]
    assert told(observation(**DOWN)) == []


def test_an_autoscaler_that_stops_the_last_replica_makes_nothing_unready() -> None:
    spec: dict[str, Any] = {"scaling": {"mode": "External", "minReplicas": 0}, "replicas": 0}
    assert told(after(observation(), spec)) == []
    assert reasons(after(observation(), {"suspend": True})) == ["BecameUnready"]


def test_a_fight_over_fields_is_told_once() -> None:
    fight = replace(settled(), contested="replicas-bot changes spec.replicas")
    assert told(fight) == [("FieldManagerConflict", "replicas-bot changes spec.replicas")]
    assert told(after(fight)) == []
    assert told(replace(settled(), refused="quota")) == []
    assert reasons(observation(contested="a bot")) == ["BecameReady", "FieldManagerConflict"]


def test_replicas_that_follow_a_schedule_are_told_when_they_are_written() -> None:
    scaled = replace(settled(), planning=replace(observation().planning, scaled="3 replicas instead of 2"))
    assert told(scaled) == [("ReplicasScaled", "3 replicas instead of 2")]
    assert told(scaled, replace(children(scaled), acting=False)) == []


def test_a_verification_is_told_when_it_begins_and_fails() -> None:
    began = replace(settled(), planning=replace(observation().planning, began=True, message="one replica starts"))
    assert told(began) == [("VerificationStarted", "one replica starts")]
    lost = GivenUpPlan(
        hash=OTHER,
        gpu_product="a",
        replicas=1,
        layout="TP1",
        max_batch_size=1,
        inputs="",
        reason="HigherEnergy",
        message="",
        time=PAST,
    )
    given_up = replace(settled(), planning=replace(observation().planning, gave_up=lost, message="0.5 J"))
    assert told(given_up) == [("PlanGivenUp", "HigherEnergy: 0.5 J")]


def followed(rate: int, prompts: int | None = None, outputs: int | None = None) -> FollowedLoad:
    def length(step: int | None) -> Followed | None:
        return None if step is None else Followed(declared=400.0, step=step)

    return FollowedLoad(declared=2.0, step=rate, prompts=length(prompts), outputs=length(outputs))


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        (followed(0), followed(0), ""),
        (followed(0), followed(1), "plans are made for 2.5 requests per second instead of 2"),
        (followed(0, 0, 0), followed(0, 1, 0), "plans are made for prompts of 500 tokens instead of 400"),
        (followed(0, 0, 0), followed(0, 0, -1), "plans are made for outputs of 320 tokens instead of 400"),
        (
            followed(0, 0, 0),
            followed(1, 1, 0),
            "plans are made for 2.5 requests per second instead of 2 and prompts of 500 tokens instead of 400",
        ),
        # Only one of the lengths is followed.
        (followed(0), followed(0, None, 1), "plans are made for outputs of 500 tokens instead of 400"),
        # Lengths are followed from now on.
        (followed(0), followed(0, 1, 0), "plans are made for prompts of 500 tokens instead of 400"),
        (followed(0), followed(0, 0, 0), ""),
        (followed(0, 1), followed(0), ""),
    ],
)
def test_a_followed_load_is_told_with_both_numbers(before: FollowedLoad, now: FollowedLoad, text: str) -> None:
    known = after(observation(load=before), load=now)
    assert told(known) == ([("LoadFollowed", text)] if text else [])
    assert reasons(observation(load=now)) == ["BecameReady"]
    assert told(after(observation(load=before), load=None)) == []


JOB: dict[str, Any] = {
    "workload": {
        "inputTokens": 1,
        "outputTokens": 1,
        "job": {
            "requests": 100,
            "completeWithinSeconds": 3600,
            "start": {"completeBy": "2026-03-02T00:00:00Z", "forecastConfigMapRef": {"name": "grid"}},
        },
    }
}


def waits(time: str) -> JobStartStatus:
    return JobStartStatus(state="Waiting", start_time=time, reason="BestHours", message="starts later")


def test_a_start_is_told_when_it_is_planned_and_moved() -> None:
    fields: dict[str, Any] = {"deployment": deployment(**JOB), "workload": None, "pods": ()}
    first = observation(**fields, job_start=waits("2026-03-01T15:00:00Z"))
    assert told(first) == [("StartPlanned", "starts later")]
    assert told(after(first, JOB)) == []
    moved = after(first, JOB, job_start=waits("2026-03-01T16:00:00Z"))
    assert told(moved) == [("StartPlanned", "starts later; until now it was 2026-03-01T15:00:00Z")]
    assert told(observation(**fields, job_start=waits(PAST))) == []
    paused = JobStartStatus(state="Suspended", start_time="2026-03-01T15:00:00Z", reason="Suspended", message="")
    known = {"jobStart": paused.model_dump(by_alias=True, mode="json", exclude_none=True)}
    again = observation(**{**fields, "deployment": deployment(known, **JOB)}, job_start=waits("2026-03-01T15:00:00Z"))
    assert told(again) == [("StartPlanned", "starts later")]


OVER = BudgetView("False", Reason.OVER_BUDGET, "900 W are committed")
WITHIN = BudgetView("True", Reason.WITHIN_BUDGET, "700 W are committed")
OWN: dict[str, Any] = {"energy": {"budget": {"powerWatts": 800}}}


def test_a_deployments_own_budget_is_told_when_it_is_exceeded_and_when_it_holds_again() -> None:
    over = replace(settled(**OWN), budget=OVER)
    assert told(over) == [("BudgetExceeded", "900 W are committed")]
    assert told(after(over, OWN)) == []
    assert told(replace(after(over, OWN), budget=WITHIN)) == [("BudgetHolds", "700 W are committed")]
    unknown = BudgetView("Unknown", Reason.BUDGET_NOT_CHECKED, "")
    assert told(replace(after(over, OWN), budget=unknown)) == []
    assert told(replace(settled(**OWN), budget=WITHIN)) == []
    # A shared budget tells of it once, by its own condition.
    assert told(replace(settled(), budget=OVER)) == []
    assert reasons(observation(deployment=deployment(**OWN), budget=OVER)) == ["BecameReady", "BudgetExceeded"]
    assert NOW.tzinfo is not None
