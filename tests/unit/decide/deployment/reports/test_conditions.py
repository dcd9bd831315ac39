"""Each condition and reason is reached by what it stands for, and by nothing else; times change with statuses only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from tests.unit.decide.observations import (
    HASH,
    MODEL,
    NOW,
    OLD,
    OTHER,
    RECREATE,
    SURGE,
    deployment,
    measured,
    model,
    observation,
    plan,
    pod,
    without_plan,
    workload,
)
from tests.unit.decide.test_docs import documented

from energylens.api.base import Condition
from energylens.api.llmdeployment import FollowedPlan, JobStartStatus, VerificationStatus
from energylens.controller.writing.failures import DEPLOYMENT_VERDICTS
from energylens.decide.deployment.observed.observation import BudgetView, Observation, PlanChoice
from energylens.decide.deployment.pods.children import children
from energylens.decide.deployment.reports.condition import keep_transition_times
from energylens.decide.deployment.reports.conditions import all_conditions
from energylens.decide.learned.comparison import energy_error_percent
from energylens.decide.reasons import ConditionType, Reason
from energylens.measure.types import EnergyReason, LatencyQuantiles
from energylens.serving.claims import Claims

LATE = ({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too slow"},)
REFUSED = ({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"},)
FRESH: dict[str, Any] = {"workload": None, "pods": ()}
OLD_PODS = (pod("old", OLD), pod("new", ready=False))
INFEASIBLE = (
    Reason.MODEL_UNKNOWN,
    Reason.MODEL_UNSUPPORTED,
    Reason.MODEL_CONFIG_MISSING,
    Reason.PROFILE_MISSING,
    Reason.PROFILE_INVALID,
    Reason.NO_MATCHING_GPUS,
    Reason.MODEL_TOO_LARGE,
    Reason.CONTEXT_TOO_SHORT,
    Reason.INSUFFICIENT_GPUS,
    Reason.SLO_INFEASIBLE,
    Reason.LOAD_TOO_HIGH,
    Reason.BUDGET_EXCEEDED,
    Reason.INVALID_OVERRIDE,
    Reason.INVALID_ENGINE_SETTINGS,
)
SHED = PlanChoice(plan(), None, True, Reason.SHED, "the cap leaves 300 W")
SLO: dict[str, Any] = {"slo": {"itlMilliseconds": 20}}


def conditions(observed: Observation) -> dict[str, Condition]:
    return {condition.type: condition for condition in all_conditions(observed, children(observed))}


def case(kind: str, status: str, reason: str, **changes: Any) -> Any:
    name = next((str(v) for k, v in changes.items() if k == "name"), "")
    changes.pop("name", None)
    return pytest.param(kind, status, reason, changes, id="-".join(filter(None, (kind, reason, name))))


def rolling(strategy: Any, **changes: Any) -> dict[str, Any]:
    return {"workload": workload(strategy=strategy, replicas=2, updated=1, ready=1), "pods": OLD_PODS, **changes}


ASKED: dict[str, Any] = {"rollout": {"verify": "Measured"}}


def held(reason: Reason) -> dict[str, Any]:
    """A new plan that is not followed, or not yet."""
    planning = PlanChoice(plan(), model(), True, reason, f"it is {reason.value}", held=True)
    return {"deployment": deployment(**ASKED), "planning": planning}


def followed(verified: bool) -> dict[str, Any]:
    said = FollowedPlan(plan_hash=HASH, verified=verified, message="0.3 J", time="2026-03-01T11:00:00Z")
    memory = VerificationStatus(followed=said)
    planning = PlanChoice(plan(), model(), True, Reason.PLANNED, "2 x H100 TP1", verification=memory)
    return {"deployment": deployment(**ASKED), "planning": planning}


def starts(reason: str, time: str | None = "2026-03-01T11:00:00Z") -> dict[str, Any]:
    """Return a job whose pods do not exist yet; at noon it is due by default."""
    start = {"completeBy": "2026-03-02T00:00:00Z", "forecastConfigMapRef": {"name": "grid"}}
    job = {"requests": 100, "completeWithinSeconds": 3600, "start": start}
    planned = JobStartStatus(state="Waiting", start_time=time, reason=reason, message="because")
    asked = deployment(workload={"inputTokens": 1, "outputTokens": 1, "job": job})
    return {**FRESH, "deployment": asked, "job_start": planned}


CASES = [
    # Ready
    case("Ready", "True", "PodsReady"),
    case("Ready", "False", "NotStarted", **FRESH),
    case("Ready", "False", "PodsNotReady", pods=(pod("p0"), pod("p1", ready=False))),
    case("Ready", "False", "PodsNotReady", name="only old pods are ready", **rolling(SURGE)),
    case("Ready", "False", "PodsNotReady", name="not seen by its controller", workload=workload(seen=False)),
    case(
        "Ready",
        "False",
        "PodsNotReady",
        name="pods of another plan",
        workload=workload(plan(OTHER)),
        pods=(pod("a"), pod("b")),
    ),
    case("Ready", "False", "Queued", pods=(pod("p0"), pod("p1", ready=False, node="", queued="admission by Kueue"))),
    case("Progressing", "True", "Queued", pods=(pod("p1", ready=False, node="", queued="admission by Kueue"),)),
    case("Ready", "False", "Unschedulable", pods=(pod("p0"), pod("p1", ready=False, unschedulable="no node"))),
    case("Ready", "False", "PodsRefused", workload=workload(ready=0, updated=0, conditions=REFUSED), pods=()),
    case("Ready", "False", "PodsFailing", pods=(pod("p0"), pod("p1", ready=False, failed="Evicted", finished=True))),
    case("Ready", "False", "Suspended", deployment=deployment(suspend=True)),
    case(
        "Ready",
        "False",
        "ScaledToZero",
        deployment=deployment(scaling={"mode": "External", "minReplicas": 0}, replicas=0),
    ),
    case("Ready", "False", "StartScheduled", **starts("BestHours", "2026-03-01T13:00:00Z")),
    case("PlanReady", "True", "StartScheduled", **starts("BestHours", "2026-03-01T13:00:00Z")),
    *(case("StartTimed", "True", reason, **starts(reason)) for reason in ("BestHours", "BestKnownHours")),
    case("StartTimed", "False", "BudgetExceeded", **starts("BudgetExceeded", None)),
    *(
        case("StartTimed", "False", reason, **starts(reason))
        for reason in (
            "NoTimeLeft",
            "AlreadyRunning",
            "ForecastMissing",
            "ForecastInvalid",
            "ForecastStale",
            "ForecastShort",
        )
    ),
    # Progressing
    case("Progressing", "False", "Complete"),
    case("Progressing", "False", "NotStarted", **FRESH),
    case("Progressing", "False", "NotStarted", name="suspended", deployment=deployment(suspend=True)),
    case("Progressing", "True", "Starting", workload=workload(ready=0), pods=(pod("p0", ready=False),)),
    case("Progressing", "True", "RollingSurge", **rolling(SURGE)),
    case("Progressing", "True", "RollingRecreate", **rolling(RECREATE)),
    case(
        "Progressing",
        "False",
        "ProgressDeadlineExceeded",
        workload=workload(ready=0, conditions=LATE),
        pods=(pod("p0", ready=False),),
    ),
    # PlanReady
    case("PlanReady", "True", "Planned"),
    case(
        "PlanReady",
        "True",
        "KeepingRunningPlan",
        planning=PlanChoice(plan(), None, True, Reason.KEEPING_RUNNING_PLAN, "saves 3 %"),
    ),
    case(
        "PlanReady",
        "True",
        "RolledBack",
        planning=PlanChoice(plan(), None, True, Reason.ROLLED_BACK, "it was better"),
    ),
    case("PlanReady", "True", "Shed", planning=SHED),
    case("PlanReady", "True", "Advisory", deployment=deployment(planning={"mode": "Advisory"}), **FRESH),
    case(
        "PlanReady",
        "False",
        "ClaimNotShareable",
        deployment=deployment(model={"name": MODEL, "cache": {"persistentVolumeClaim": "models"}}),
        claims=Claims({"models": ("ReadWriteOncePod",)}),
        **FRESH,
    ),
    case("PlanReady", "False", "AwaitingApproval", deployment=deployment(planning={"mode": "Manual"}), **FRESH),
    *(case("PlanReady", "False", reason.value, planning=without_plan(reason), **FRESH) for reason in INFEASIBLE),
    # SLOFeasible
    case("SLOFeasible", "True", "Feasible"),
    case("SLOFeasible", "False", "SLOInfeasible", planning=without_plan(Reason.SLO_INFEASIBLE), **FRESH),
    case("SLOFeasible", "False", "LoadTooHigh", planning=without_plan(Reason.LOAD_TOO_HIGH), **FRESH),
    case("SLOFeasible", "False", "Shed", planning=SHED),
    case("SLOFeasible", "Unknown", "NoPlan", planning=without_plan(Reason.MODEL_UNKNOWN), **FRESH),
    # SLOMet
    case("SLOMet", "True", "Met", deployment=deployment(**SLO), measurement=measured()),
    case("SLOMet", "True", "NoObjective", measurement=measured()),
    case(
        "SLOMet",
        "False",
        "Violated",
        deployment=deployment(**SLO),
        measurement=measured(latency=LatencyQuantiles(ttft_ms=None, itl_ms=80.0, itl_bucket_ms=(75.0, 100.0))),
    ),
    case(
        "SLOMet",
        "False",
        "Violated",
        name="energy",
        deployment=deployment(slo={"joulesPerOutputToken": "350m"}),
        measurement=measured(),
    ),
    case("SLOMet", "Unknown", "NotMeasured", deployment=deployment(**SLO), measurement=measured(latency=None)),
    case(
        "SLOMet",
        "False",
        "Violated",
        name="tpot",
        deployment=deployment(slo={"tpotMilliseconds": 20}),
        measurement=measured(latency=LatencyQuantiles(ttft_ms=None, itl_ms=15.0, tpot_ms=24.0)),
    ),
    case(
        "SLOMet",
        "Unknown",
        "NotMeasured",
        name="tpot",
        deployment=deployment(slo={"tpotMilliseconds": 20}),
        measurement=measured(latency=LatencyQuantiles(ttft_ms=90.0, itl_ms=15.0)),
    ),
    # WithinEnergyBudget
    case("WithinEnergyBudget", "True", "NoBudget"),
    case("WithinEnergyBudget", "True", "WithinBudget", budget=BudgetView("True", Reason.WITHIN_BUDGET, "")),
    case("WithinEnergyBudget", "True", "RunsOut", budget=BudgetView("True", Reason.RUNS_OUT, "")),
    case("WithinEnergyBudget", "False", "OverBudget", budget=BudgetView("False", Reason.OVER_BUDGET, "")),
    case(
        "WithinEnergyBudget", "Unknown", "BudgetUnreadable", budget=BudgetView("Unknown", Reason.BUDGET_UNREADABLE, "")
    ),
    case(
        "WithinEnergyBudget", "Unknown", "BudgetNotChecked", budget=BudgetView("Unknown", Reason.BUDGET_NOT_CHECKED, "")
    ),
    case("WithinEnergyBudget", "False", "PowerTaken", budget=BudgetView("False", Reason.POWER_TAKEN, "")),
    case("WithinEnergyBudget", "False", "GrowthDenied", planning=without_plan(Reason.BUDGET_EXCEEDED, plan())),
    # EnergyMetricsAvailable
    case("EnergyMetricsAvailable", "True", "Measured", measurement=measured()),
    *(
        case("EnergyMetricsAvailable", "False", reason, measurement=measured(reason))
        for reason in get_args(EnergyReason)
        if reason not in ("Measured", "Collecting")
    ),
    # PredictionAccurate
    case("PredictionAccurate", "True", "WithinTolerance", measurement=measured()),
    case("PredictionAccurate", "False", "OutsideTolerance", measurement=measured(joules_per_output_token=0.5)),
    case("PredictionAccurate", "Unknown", "NotMeasured", measurement=measured("TooFewTokens")),
    case("PredictionAccurate", "Unknown", "LoadDiffers", measurement=measured(output_tokens_per_second=1000.0)),
    case("PredictionAccurate", "Unknown", "LoadDiffers", name="up", measurement=measured(output_tokens_per_second=3e3)),
    *(
        one
        for kind in ("SLOMet", "EnergyMetricsAvailable", "PredictionAccurate")
        for one in (
            case(kind, "Unknown", "Collecting"),
            case(kind, "Unknown", "Collecting", name="half a window", measurement=measured("Collecting")),
            case(kind, "Unknown", "NotServing", **FRESH),
            case(
                kind,
                "Unknown",
                "Disabled",
                deployment=deployment(validation={"source": "None"}),
                measurement=measured(),
            ),
        )
    ),
    # Degraded
    case("Degraded", "False", "AsExpected"),
    case("Degraded", "True", "ApplyRefused", refused="Deployment llama: exceeded quota"),
    case("Degraded", "True", "APIServerError", refused="timed out", refused_for=Reason.API_SERVER_ERROR),
    case("Ready", "False", "FieldManagerConflict", unsettled="Deployment llama: replicas-bot changes spec.replicas"),
    case("Degraded", "True", "FieldManagerConflict", contested="Deployment llama: replicas-bot changes spec.replicas"),
    case("Degraded", "True", "PodsRefused", workload=workload(ready=0, updated=0, conditions=REFUSED), pods=()),
    case("Degraded", "True", "PodsFailing", pods=(pod("p0"), pod("p1", ready=False, waiting="no", failing=True))),
    case(
        "Degraded",
        "True",
        "ProgressDeadlineExceeded",
        workload=workload(ready=0, conditions=LATE),
        pods=(pod("p0", ready=False),),
    ),
    case(
        "Degraded",
        "True",
        "CannotRollBack",
        planning=PlanChoice(plan(), None, True, Reason.PLANNED, "", no_way_back="HigherEnergy: no H100 is left"),
    ),
    case("Degraded", "False", "AsExpected", name="late but done", workload=workload(conditions=LATE)),
    *(
        case(kind, status if kind == "PlanVerified" else "True", reason.value, **held(reason))
        for kind in ("PlanReady", "PlanVerified")
        for status, reason in (
            ("Unknown", Reason.VERIFYING),
            ("Unknown", Reason.NO_ROOM_TO_VERIFY),
            ("False", Reason.GIVEN_UP),
        )
    ),
    case("PlanVerified", "True", "Verified", **followed(True)),
    case("PlanVerified", "Unknown", "NotVerified", **followed(False)),
    case("PlanVerified", "Unknown", "NotVerified", name="first plan", deployment=deployment(**ASKED)),
]
SEVERAL_NODES = plan(nodes_per_replica=2, tensor_parallel=16, gpus=32)


@pytest.mark.parametrize(("kind", "status", "reason", "changes"), CASES)
def test_a_condition_says_what_was_observed(kind: str, status: str, reason: str, changes: dict[str, Any]) -> None:
    condition = conditions(observation(**changes))[kind]
    assert (condition.status, condition.reason) == (status, reason), condition
    assert condition.observed_generation == 3


def test_fewer_replicas_than_the_plan_has_are_not_ready_however_ready_they_are() -> None:
    scaled = workload(plan(replicas=1, gpus=1), replicas=1, updated=1, ready=1)
    ready = conditions(observation(workload=scaled, pods=(pod(),)))["Ready"]
    assert (ready.status, ready.reason) == ("False", "PodsNotReady")
    assert ready.message == f"1 of 2 replicas of plan {HASH} are ready; the workload asks for 1"


def test_a_replica_over_several_nodes_needs_leader_worker_set() -> None:
    planning = PlanChoice(SEVERAL_NODES, observation().planning.model, True, Reason.PLANNED, "")
    condition = conditions(observation(planning=planning, **FRESH))["PlanReady"]
    assert (condition.status, condition.reason) == ("False", "LeaderWorkerSetMissing")


def test_every_documented_status_and_reason_is_reached_and_every_reached_one_is_documented() -> None:
    reached = {(kind, status, reason) for kind, status, reason, _ in (c.values for c in CASES)}
    # Reached by tests of their own: above, and in tests/faults.
    reached |= {("PlanReady", "False", why) for why in ("LeaderWorkerSetMissing", "InvalidSpec", "AwaitingBudget")}
    for kind, status in DEPLOYMENT_VERDICTS.items():
        reached |= {(str(kind), status, "InternalError"), (str(kind), status, "APIServerError")}
        if (kind, status) not in ((ConditionType.PLAN_READY, "Unknown"), (ConditionType.DEGRADED, "True")):
            reached.add((str(kind), status, "InvalidSpec"))
    assert reached == documented()


def test_whatever_is_observed_every_condition_is_there_once_in_order() -> None:
    for _, _, _, changes in (c.values for c in CASES):
        observed = observation(**changes)
        kinds = [condition.type for condition in all_conditions(observed, children(observed))]
        # Nothing is verified where the spec does not ask for it.
        asked = observed.deployment.spec.rollout.verify == "Measured"
        left_out = [] if asked else [ConditionType.PLAN_VERIFIED]
        left_out += [] if observed.job_start is not None else [ConditionType.START_TIMED]
        assert kinds == [kind.value for kind in ConditionType if kind not in left_out]


def test_a_bad_spec_says_so_and_what_runs_stays_ready() -> None:
    found = conditions(observation(planning=without_plan(Reason.SLO_INFEASIBLE, plan())))
    assert found["PlanReady"].status == "False"
    assert found["Ready"].status == "True"
    assert found["Progressing"].reason == "Complete"


def test_messages_name_what_a_user_needs() -> None:
    waiting = conditions(observation(pods=(pod("p0"), pod("p1", ready=False, waiting="ImagePullBackOff: no image"))))
    assert waiting["Ready"].message == f"1 of 2 replicas of plan {HASH} are ready; p1: ImagePullBackOff: no image"
    blocked = conditions(observation(pods=(pod("p1", ready=False, unschedulable="Insufficient nvidia.com/gpu"),)))
    assert "p1 waits for a node: Insufficient nvidia.com/gpu" in blocked["Ready"].message
    off = conditions(observation(measurement=measured(joules_per_output_token=0.5)))
    assert off["PredictionAccurate"].message == "predicted energy per token is off by -20 %; tolerancePercent=15"
    manual = conditions(observation(deployment=deployment(planning={"mode": "Manual"}), **FRESH))
    assert HASH in manual["PlanReady"].message


def test_a_message_never_makes_a_status_too_large() -> None:
    endless = conditions(observation(refused="x" * 100_000))
    assert len(endless["Degraded"].message) <= 1000


@pytest.mark.parametrize(
    ("measured_joules", "error"), [(0.4, 0), (0.5, -20), (0.32, 25), (0.0, None), (None, None), (-1.0, None)]
)
def test_the_error_is_relative_to_what_was_measured(measured_joules: float | None, error: int | None) -> None:
    assert energy_error_percent(plan(), measured_joules) == error


def test_without_a_plan_there_is_no_error() -> None:
    assert energy_error_percent(None, 0.4) is None


def condition(kind: str, status: str, reason: str = "Any", message: str = "", time: str = "") -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message, last_transition_time=time)


EARLIER = "2026-02-01T00:00:00Z"


def test_the_transition_time_stays_while_the_status_does() -> None:
    before = (condition("Ready", "True", "PodsReady", "2 of 2", EARLIER),)
    (kept,) = keep_transition_times((condition("Ready", "True", "Other", "3 of 3"),), before, NOW)
    assert (kept.last_transition_time, kept.reason, kept.message) == (EARLIER, "Other", "3 of 3")


def test_the_transition_time_changes_with_the_status() -> None:
    before = (condition("Ready", "True", time=EARLIER),)
    (changed,) = keep_transition_times((condition("Ready", "False"),), before, NOW)
    assert changed.last_transition_time == "2026-03-01T12:00:00Z"


def test_a_new_condition_begins_now() -> None:
    (new,) = keep_transition_times((condition("Ready", "Unknown"),), (), NOW)
    assert new.last_transition_time == "2026-03-01T12:00:00Z"


def test_the_same_observation_gives_the_same_conditions_whenever_it_is_made() -> None:
    first = observation(measurement=measured())
    found = all_conditions(first, children(first))
    status = {"conditions": [c.model_dump(by_alias=True, exclude_none=True) for c in found]}
    later = replace(first, deployment=deployment(status), now=NOW.replace(year=2027))
    assert all_conditions(later, children(later)) == found


@pytest.mark.parametrize(
    ("tokens", "joules", "text"),
    [
        (
            1000.0,
            0.5,
            "the load was 50 % of the planned load, so energy per token cannot be compared; the error is -20 %",
        ),
        (2000.0, 0.5, "predicted energy per token is off by -20 %; tolerancePercent=15"),
        (2000.0, 0.32, "predicted energy per token is off by +25 %; tolerancePercent=15"),
    ],
)
def test_the_message_has_the_load_and_the_error_in_percent(tokens: float, joules: float, text: str) -> None:
    window = measured(output_tokens_per_second=tokens, joules_per_output_token=joules)
    assert conditions(observation(measurement=window))["PredictionAccurate"].message == text
