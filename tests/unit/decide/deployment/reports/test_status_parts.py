"""Parts of the status: which are kept, which follow this reconcile, and which the spec leaves out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.observations import HASH, NOW, OTHER, deployment, measured, observation, plan, pod, workload

from energylens.api.llmdeployment import (
    BudgetStatus,
    EnergyAccount,
    JobStartStatus,
    LearnedCorrection,
    ScheduledReplicas,
    ScheduleStatus,
    VerificationStatus,
)
from energylens.decide.deployment.observed.observation import Observation, PlanChoice
from energylens.decide.deployment.pods.children import children
from energylens.decide.deployment.reports.status import is_unplanned, status_of
from energylens.decide.reasons import Reason
from energylens.planner.types import Change, Infeasible, Relaxation

PAST = "2026-03-01T11:00:00Z"


def written(observed: Observation) -> dict[str, Any]:
    return status_of(observed, children(observed))


def after(status: dict[str, Any], *, spec: dict[str, Any] | None = None, **changes: Any) -> Observation:
    """Return the observation of the next pass, with the status that the last one wrote."""
    return observation(deployment=deployment(status, **(spec or {})), **changes)


ACTIVE = {
    "planHash": HASH,
    "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"},
    "readyReplicas": 2,
    "updatedReplicas": 2,
}
MEASURED = {"windowStart": PAST, "windowEnd": PAST, "coveragePercent": 100}


@pytest.mark.parametrize(("active", "is_kept"), [(ACTIVE, True), ({**ACTIVE, "planHash": OTHER}, False), (None, False)])
def test_measured_figures_are_of_the_plan_that_runs(active: dict[str, Any] | None, is_kept: bool) -> None:
    known = {"measured": MEASURED, "prediction": {"samples": 3}, **({"activeRevision": active} if active else {})}
    found = written(after(known))
    assert ("measured" in found, "prediction" in found) == (is_kept, is_kept)


def test_windows_of_another_plan_are_not_counted_on() -> None:
    known = {"prediction": {"samples": 3}, "activeRevision": ACTIVE}
    assert written(after(known, measurement=measured()))["prediction"]["samples"] == 4
    other = {**known, "activeRevision": {**ACTIVE, "planHash": OTHER}}
    assert written(after(other, measurement=measured()))["prediction"]["samples"] == 1


def test_the_energy_of_the_period_is_in_watt_hours() -> None:
    account = EnergyAccount(
        period_start=PAST,
        reset_time="2026-04-01T00:00:00Z",
        accounted_until=PAST,
        measured_joules=7200,
        predicted_joules=0,
    )
    known = {"measured": MEASURED, "activeRevision": ACTIVE}
    assert written(after(known, energy_account=account))["measured"]["energyWattHoursThisPeriod"] == 2
    assert "energyWattHoursThisPeriod" not in written(after(known))["measured"]


def factors(windows: int) -> LearnedCorrection:
    return LearnedCorrection(gpu_product="a", layout="TP1", windows=windows, ttft="1", itl="1", power="1", energy="1")


def test_learned_factors_stay_until_there_are_newer_ones() -> None:
    stated = factors(2).model_dump(by_alias=True, mode="json")
    known = {"prediction": {"samples": 3, "correction": stated}, "activeRevision": ACTIVE}
    assert written(after(known))["prediction"]["correction"]["windows"] == 2
    assert written(after(known, learned=factors(5)))["prediction"]["correction"]["windows"] == 5


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"metadata": {"generation": 2}, "status": {"observedGeneration": 2}}, False),
        ({"metadata": {"generation": 3}, "status": {"observedGeneration": 2}}, True),
        ({"metadata": {"generation": 1}, "status": None}, True),
        ({"metadata": {"generation": 1}}, True),
    ],
)
def test_a_spec_of_another_generation_was_not_planned(body: dict[str, Any], expected: bool) -> None:
    assert is_unplanned(body) is expected


@pytest.mark.parametrize(
    ("kind", "reason", "expected"),
    [("PlanReady", "AwaitingBudget", True), ("PlanReady", "Planned", False), ("Ready", "AwaitingBudget", False)],
)
def test_a_plan_that_waits_for_a_budget_was_not_planned(kind: str, reason: str, expected: bool) -> None:
    known = {"observedGeneration": 1, "conditions": [{"type": kind, "reason": reason}, {}]}
    assert is_unplanned({"metadata": {"generation": 1}, "status": known}) is expected
    assert not is_unplanned({"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "conditions": None}})


WEEK = {
    "inputTokens": 1,
    "outputTokens": 1,
    "requestsPerSecond": 1,
    "profile": {"hours": [{"days": ["Sun"], "fromHour": 13, "toHour": 14, "requestsPerSecond": 2}]},
}


def schedule(**changes: Any) -> ScheduleStatus:
    entry = ScheduledReplicas(day="Sun", hour=0, requests_per_second="1", replicas=1, power_watts=100)
    figures = {"start_seconds": 60, "start_joules": 0, "week_watt_hours": 1, "released_gpu_hours": 0, "starts": 1}
    return ScheduleStatus(**{**figures, "replicas": 1, "hours": (entry,), **changes})


def test_a_schedule_follows_the_plan_and_stays_while_there_is_none() -> None:
    stated = {"schedule": schedule(starts=7).model_dump(by_alias=True, mode="json", exclude_none=True)}
    now = PlanChoice(plan(), observation().planning.model, True, Reason.PLANNED, "", schedule=schedule())
    assert written(after(stated, spec={"workload": WEEK}, planning=now))["schedule"]["starts"] == 1
    for without in (replace(now, schedule=None), replace(now, plan=None)):
        kept = written(after(stated, spec={"workload": WEEK}, planning=without))
        assert kept["schedule"]["starts"] == 7
    assert "schedule" not in written(after(stated, planning=now))


def test_a_schedule_learns_its_start_from_pods_of_the_workload_only() -> None:
    starts = schedule(starting_since=PAST)
    now = PlanChoice(plan(), observation().planning.model, True, Reason.PLANNED, "", schedule=starts)
    fields: dict[str, Any] = {"spec": {"workload": WEEK}, "planning": now}

    def made(*revisions: str | None) -> dict[str, Any]:
        pods = tuple(
            replace(pod(f"p{at}", revised), created="2026-03-01T11:10:00Z", ready_since="2026-03-01T11:13:20Z")
            for at, revised in enumerate(revisions)
        )
        found: dict[str, Any] = written(after({}, pods=pods, **fields))["schedule"]
        return found

    assert made(None, None)["startSeconds"] == 200
    assert "startingSince" not in made(None, None)
    assert made(None, "0" * 16)["startSeconds"] == 60
    assert written(after({}, workload=None, pods=(), **fields))["schedule"]["startSeconds"] == 60


JOB = {
    "requests": 100,
    "completeWithinSeconds": 3600,
    "start": {"completeBy": "2026-03-02T00:00:00Z", "forecastConfigMapRef": {"name": "grid"}},
}


def test_when_a_job_starts_is_kept_while_nothing_can_be_planned() -> None:
    waits = JobStartStatus(state="Waiting", start_time=PAST, reason="BestHours", message="known")
    known = {"jobStart": waits.model_dump(by_alias=True, mode="json", exclude_none=True)}
    asked = {"workload": {"inputTokens": 1, "outputTokens": 1, "job": JOB}}
    fields: dict[str, Any] = {"workload": None, "pods": ()}
    assert written(after(known, spec=asked, **fields))["jobStart"]["message"] == "known"
    now = waits.model_copy(update={"message": "new"})
    assert written(after(known, spec=asked, job_start=now, **fields))["jobStart"]["message"] == "new"
    at_once = {"workload": {**asked["workload"], "job": {key: JOB[key] for key in JOB if key != "start"}}}
    assert "jobStart" not in written(after(known, spec=at_once, **fields))
    assert "jobStart" not in written(after(known, **fields))


def test_verification_is_kept_only_where_the_spec_asks_for_it() -> None:
    followed = {"planHash": HASH, "verified": True, "message": "0.3 J", "time": PAST}
    known = {"verification": {"followed": followed, "goodWindows": 0}}
    asked = {"rollout": {"verify": "Measured"}}
    assert written(after(known, spec=asked))["verification"]["followed"]["message"] == "0.3 J"
    assert "verification" not in written(after(known))
    now = VerificationStatus(message="canary waits")
    planning = replace(observation().planning, verification=now)
    assert written(after(known, spec=asked, planning=planning))["verification"]["message"] == "canary waits"


def test_less_energy_left_alone_writes_no_budget() -> None:
    known = BudgetStatus(name="site", action="Deny", used_percent=40, remaining_watt_hours=600)
    stated = {"budget": known.model_dump(by_alias=True, mode="json", exclude_none=True)}

    def left(**changes: Any) -> Any:
        return written(after(stated, budget_status=known.model_copy(update=changes)))["budget"]["remainingWattHours"]

    assert left(remaining_watt_hours=595) == 600
    assert left(remaining_watt_hours=594, used_percent=41) == 594
    assert written(after({}, budget_status=known))["budget"]["remainingWattHours"] == 600
    assert "budget" not in written(after(stated))


def test_a_plan_that_was_adopted_keeps_its_time() -> None:
    known = {"planAdoptionTime": PAST}
    assert written(after(known))["planAdoptionTime"] == PAST
    assert written(after({}))["planAdoptionTime"] == "2026-03-01T12:00:00Z"
    assert written(after(known, takes_over=True))["planAdoptionTime"] == "2026-03-01T12:00:00Z"
    waits: dict[str, Any] = {"spec": {"planning": {"mode": "Manual"}}, "takes_over": True}
    assert written(after(known, **waits))["planAdoptionTime"] == PAST
    shown = {"spec": {"planning": {"mode": "Advisory"}}}
    assert written(after(known, **shown, takes_over=True))["planAdoptionTime"] == PAST
    assert "planAdoptionTime" not in written(after({}, **shown))
    none = PlanChoice(None, None, False, Reason.MODEL_UNKNOWN, "")
    assert "planAdoptionTime" not in written(after(known, planning=none, workload=None, pods=()))


def test_the_twenty_nearest_changes_are_listed() -> None:
    many = tuple(Relaxation(Change(f"field{at}", "1", "2"), 1.0) for at in range(25))
    none = PlanChoice(None, None, False, Reason.SLO_INFEASIBLE, "", result=Infeasible("SLOInfeasible", "", (), many))
    found = written(observation(planning=none, workload=None, pods=()))["relaxations"]
    assert [entry["field"] for entry in found] == [f"field{at}" for at in range(20)]
    few = replace(none, result=Infeasible("SLOInfeasible", "", (), ()))
    assert "relaxations" not in written(observation(planning=few, workload=None, pods=()))


def rolled(**changes: Any) -> dict[str, Any]:
    """Return what is known of the last good plan after a window of a plan that may be rolled back."""
    spec = {"validation": {"onDrift": "Rollback"}}
    first = written(after({}, spec=spec))
    window = measured(window_start=NOW.timestamp() - 600, window_end=NOW.timestamp())
    found: dict[str, Any] = written(after(first, spec=changes.pop("spec", spec), measurement=window, **changes))
    return found.get("rollback", {})


def test_a_window_makes_a_plan_the_last_good_one_where_a_rollback_is_asked_for() -> None:
    assert rolled()["lastGoodPlan"]["plan"]["hash"] == HASH
    assert rolled(spec={}) == {}
    # Beside a canary the other replicas have less of the load.
    assert "lastGoodPlan" not in rolled(canary_pods=(pod("c", canary=True),))


def test_a_workload_that_runs_no_pods_yet_counts_none() -> None:
    assert written(observation(workload=None, pods=()))["replicas"] == 0
    assert written(observation(workload=workload(replicas=3)))["replicas"] == 3


def test_a_window_without_a_plan_or_pods_is_of_no_plan() -> None:
    assert "measured" not in written(observation(workload=None, pods=(), measurement=measured()))
    none = PlanChoice(None, None, False, Reason.MODEL_UNKNOWN, "")
    kept = written(after({"measured": MEASURED, "activeRevision": ACTIVE}, planning=none, measurement=measured()))
    assert kept["measured"]["windowEnd"] == PAST
    empty = measured(energy_joules=None)
    assert "measured" not in written(after(written(observation()), measurement=empty))
