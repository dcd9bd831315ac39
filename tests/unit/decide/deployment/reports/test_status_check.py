"""Which values of a status the operator may have written: each rule holds to its edge, and breaks beyond."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.decide.observations import NOW, plan

from energylens.api.llmdeployment import PlanStatus
from energylens.decide.deployment.reports.status_check import (
    HIGHEST_STEP,
    MOST,
    MOST_START_SECONDS_STATED,
    MOST_TOKENS,
    checked_status,
    own_part,
    sane_account,
)
from energylens.decide.stated import MOST_JOULES
from energylens.planner.search.identity import action_hash

PAST, AHEAD, TOO_FAR = "2026-03-01T11:00:00Z", "2026-03-01T12:05:00Z", "2026-03-01T12:05:01Z"
"""An hour ago, as far ahead as another machine's clock may be, and farther."""


def written(made: PlanStatus) -> dict[str, Any]:
    """Return a plan as the operator writes it."""
    known = made.model_copy(update={"hash": action_hash(made)})
    return known.model_dump(mode="json", by_alias=True, exclude_none=True)


PLAN = written(plan())
LENGTH = {"tokens": 640, "declaredTokens": 512, "steps": 1, "changeTime": PAST}
WORKLOAD = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}
STATUS: dict[str, Any] = {
    "observedGeneration": 3,
    "plan": PLAN,
    "planAdoptionTime": PAST,
    "schedule": {
        "replicas": 1,
        "startSeconds": 60,
        "startingSince": PAST,
        "startJoules": 0,
        "weekWattHours": 1,
        "starts": 1,
        "releasedGPUHours": 0,
        "hours": [
            {"day": day, "hour": hour, "requestsPerSecond": "1", "replicas": 1, "powerWatts": 300}
            for day, hour in (("Mon", 8), ("Mon", 18), ("Tue", 0))
        ],
    },
    "jobStart": {
        "state": "Waiting",
        "reason": "BestHours",
        "message": "",
        "startTime": PAST,
        "endTime": "2026-03-01T18:00:00Z",
        "latestStartTime": "2026-03-01T17:00:00Z",
        "startSeconds": 60,
    },
    "learnedLoad": {
        "timeZone": "UTC",
        "declaredRequestsPerSecond": "2",
        "windowEnd": PAST,
        "coveredHours": 1,
        "requestsPerSecond": ["1"] * 168,
        "measuredSeconds": [0] * 168,
        "plannedSteps": [0] * 168,
    },
    "load": {
        "requestsPerSecond": "2",
        "declaredRequestsPerSecond": "2",
        "changeTime": PAST,
        "windowEnd": PAST,
        "highestBelowRequestsPerSecond": "1",
        "inputTokens": LENGTH,
        "outputTokens": {**LENGTH, "belowSince": PAST, "highestBelowTokens": 400},
    },
    "rollback": {
        "lastGoodPlan": {"plan": PLAN, "joulesPerOutputToken": "1", "outputTokensPerSecond": 100},
        "trial": {"planHash": "f" * 16, "goodWindows": 1, "badWindows": 0},
    },
    "verification": {
        "plan": PLAN,
        "inputs": "1" * 16,
        "startTime": PAST,
        "readyTime": PAST,
        "windowEnd": PAST,
        "goodWindows": 1,
        "followed": {"planHash": "f" * 16, "verified": True, "message": "", "time": PAST},
        "givenUp": [
            {
                "hash": "e" * 16,
                "gpuProduct": "a",
                "replicas": 1,
                "layout": "TP1",
                "maxBatchSize": 1,
                "inputs": "1" * 16,
                "reason": "HigherEnergy",
                "message": "",
                "time": PAST,
            }
        ],
    },
    "measured": {"windowStart": PAST, "windowEnd": PAST, "coveragePercent": 100},
    "activeRevision": {"planHash": PLAN["hash"], "workloadRef": WORKLOAD, "powerWatts": 800},
    "previousRevision": {"planHash": "d" * 16, "replacedBy": PLAN["hash"], "replacedTime": PAST},
    "prediction": {"samples": 1},
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "PodsReady", "message": "", "lastTransitionTime": PAST}
    ],
}


def checked(status: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    metadata = {"name": "llama", "namespace": "team", "uid": "1", "generation": 3}
    api = {"apiVersion": "energylens.dev/v1alpha1", "kind": "LLMDeployment"}
    return checked_status({**api, "metadata": metadata, "spec": {}, "status": status}, NOW)


def with_value(path: str, value: Any) -> dict[str, Any]:
    """Return a plausible status with another value, or without one."""
    # A plain copy would keep the plans of all parts one object.
    status = json.loads(json.dumps(STATUS))
    *parents, last = path.split(".")
    at: Any = status
    for name in parents:
        at = at[int(name)] if name.isdigit() else at[name]
    key: Any = int(last) if last.isdigit() else last
    if value is None:
        del at[key]
    else:
        at[key] = value
    return status


def test_what_the_operator_writes_is_left_as_it_is() -> None:
    assert checked(STATUS) == (STATUS, ())
    assert checked({}) == ({}, ())


LARGEST = str(MOST)
BEYOND = str(MOST + 1)
RATES = ["1"] * 167
EDGES: list[tuple[str, Any, Any]] = [
    ("observedGeneration", 0, -1),
    ("observedGeneration", 3, 4),
    ("planAdoptionTime", AHEAD, TOO_FAR),
    ("planAdoptionTime", PAST, "yesterday"),
    ("planAdoptionTime", PAST, "2026-03-01T11:00:00"),
    ("plan.predicted.powerWatts", 0, -1),
    ("plan.predicted.powerWatts", MOST, MOST + 1),
    ("plan.predicted.joulesPerOutputToken", LARGEST, BEYOND),
    ("plan.predicted.joulesPerOutputToken", "0", "-1"),
    # Figures behind an absent one are checked, too.
    ("plan.predicted.itlMilliseconds", 0, -1),
    ("plan.hash", PLAN["hash"], "c" * 16),
    ("schedule.startSeconds", 0, -1),
    ("schedule.startSeconds", MOST_START_SECONDS_STATED, MOST_START_SECONDS_STATED + 1),
    ("schedule.startingSince", AHEAD, TOO_FAR),
    ("schedule.hours", STATUS["schedule"]["hours"][:1], []),
    ("schedule.hours.1.hour", 9, 8),
    ("schedule.hours.1.hour", 23, 7),
    ("schedule.hours.2.day", "Sun", "Mon"),
    ("schedule.hours.0.replicas", MOST, MOST + 1),
    ("schedule.hours.0.powerWatts", MOST, MOST + 1),
    ("schedule.hours.0.requestsPerSecond", "1m", "0"),
    ("jobStart.startSeconds", 0, -1),
    ("jobStart.startSeconds", MOST_START_SECONDS_STATED, MOST_START_SECONDS_STATED + 1),
    *((f"jobStart.{name}", PAST, None) for name in ("startTime", "endTime", "latestStartTime")),
    ("jobStart.startTime", "2126-03-01T00:00:00Z", "soon"),
    ("jobStart.startTime", PAST, "2026-03-01T11:00:00"),
    ("jobStart.startTime", "0002-01-01T00:00:00Z", "0001-12-31T00:00:00Z"),
    ("jobStart.startTime", "9998-12-31T00:00:00Z", "9999-01-01T00:00:00Z"),
    ("learnedLoad.declaredRequestsPerSecond", "1m", "0"),
    ("learnedLoad.windowEnd", AHEAD, TOO_FAR),
    ("learnedLoad.requestsPerSecond", [*RATES, "0"], [*RATES, "-1"]),
    ("learnedLoad.requestsPerSecond", [*RATES, LARGEST], [*RATES, BEYOND]),
    ("load.declaredRequestsPerSecond", "1m", "0"),
    ("load.requestsPerSecond", "20k", "20001"),
    ("load.declaredRequestsPerSecond", "20k", "20001"),
    ("load.highestBelowRequestsPerSecond", "0", "-1"),
    *((f"load.{name}", AHEAD, TOO_FAR) for name in ("changeTime", "windowEnd", "belowSince")),
    ("load.inputTokens.declaredTokens", 1, 0),
    ("load.outputTokens.declaredTokens", MOST_TOKENS, MOST_TOKENS + 1),
    ("load.inputTokens.steps", -10, -11),
    ("load.outputTokens.steps", HIGHEST_STEP, HIGHEST_STEP + 1),
    ("load.inputTokens.highestBelowTokens", 0, -1),
    ("load.outputTokens.highestBelowTokens", MOST_TOKENS, MOST_TOKENS + 1),
    ("load.inputTokens.changeTime", AHEAD, TOO_FAR),
    ("load.outputTokens.belowSince", AHEAD, TOO_FAR),
    ("rollback.lastGoodPlan.plan.hash", PLAN["hash"], "c" * 16),
    ("rollback.lastGoodPlan.joulesPerOutputToken", "0", "-1"),
    ("rollback.trial.goodWindows", 0, -1),
    ("rollback.trial.badWindows", MOST, MOST + 1),
    ("verification.plan.hash", PLAN["hash"], "c" * 16),
    ("verification.startTime", PAST, None),
    ("verification.inputs", "", None),
    ("verification.goodWindows", 0, -1),
    ("verification.goodWindows", 1, 2),
    ("verification.badWindows", 1, 2),
    *((f"verification.{name}", AHEAD, TOO_FAR) for name in ("startTime", "readyTime", "windowEnd")),
    ("verification.givenUp.0.time", AHEAD, TOO_FAR),
    ("verification.followed.time", AHEAD, TOO_FAR),
    ("measured.windowStart", AHEAD, TOO_FAR),
    ("measured.windowEnd", "", TOO_FAR),
    *(
        (f"{revision}.{name}", value, beyond)
        for revision in ("activeRevision", "previousRevision")
        for name in ("joulesPerOutputToken", "measuredJoulesPerOutputToken")
        for value, beyond in (("0", "-1"), (LARGEST, BEYOND))
    ),
    *(
        (f"{revision}.{name}", value, beyond)
        for revision in ("activeRevision", "previousRevision")
        for name in ("outputTokensPerSecond", "measuredOutputTokensPerSecond")
        for value, beyond in ((0, -1), (MOST, MOST + 1))
    ),
    ("activeRevision.powerWatts", MOST, MOST + 1),
    ("previousRevision.replacedTime", AHEAD, TOO_FAR),
    ("prediction.samples", MOST, MOST + 1),
]


@pytest.mark.parametrize(("path", "kept", "dropped"), EDGES, ids=lambda value: str(value)[:40])
def test_a_value_is_kept_up_to_its_edge_and_its_part_dropped_beyond(path: str, kept: Any, dropped: Any) -> None:
    edge = with_value(path, kept)
    assert checked(edge) == (edge, ())
    found, left_out = checked(with_value(path, dropped))
    part = path.partition(".")[0]
    assert part not in found
    assert found.keys() == STATUS.keys() - {part}
    (line,) = left_out
    assert line.startswith(f"status.{part}")


def replanned(**changes: Any) -> dict[str, Any]:
    return {**STATUS, "plan": written(plan(**changes))}


def test_a_plan_has_the_gpus_that_its_replicas_need_and_a_known_product() -> None:
    whole = {"replicas": 3, "tensor_parallel": 2, "pipeline_parallel": 2, "data_parallel": 2}
    assert checked(replanned(**whole, gpus=24))[1] == ()
    for count in (23, 25, 12):
        found, (line,) = checked(replanned(**whole, gpus=count))
        assert line == f"status.plan: {count} GPUs, and 3 replicas of 8 GPUs"
        assert "plan" not in found
    assert checked(replanned(gpu_product="no-such-gpu"))[1] == ("status.plan: GPU product 'no-such-gpu' is not known",)


def test_a_job_that_is_suspended_has_no_times() -> None:
    start = {"state": "Suspended", "reason": "AlreadyRunning", "message": ""}
    assert checked({**STATUS, "jobStart": start})[1] == ()
    assert checked({**STATUS, "jobStart": {**start, "state": "Waiting"}})[1] != ()


def test_windows_are_counted_only_while_a_plan_is_verified() -> None:
    followed = STATUS["verification"]["followed"]
    assert checked({**STATUS, "verification": {"followed": followed}})[1] == ()
    for count in ("goodWindows", "badWindows"):
        assert checked({**STATUS, "verification": {count: 1}})[1] == ("status.verification: 1 windows",)


def test_each_followed_length_is_checked_though_the_other_is_absent() -> None:
    for present, absent in (("inputTokens", "outputTokens"), ("outputTokens", "inputTokens")):
        load = {name: value for name, value in STATUS["load"].items() if name != absent}
        assert checked({**STATUS, "load": load})[1] == ()
        wrong = {**load, present: {**load[present], "declaredTokens": 0}}
        assert checked({**STATUS, "load": wrong})[1] == ("status.load: 0 tokens and 1 steps",)


def test_conditions_keep_what_the_operator_may_have_said() -> None:
    (ready,) = STATUS["conditions"]
    foreign = {**ready, "type": "Synced"}
    nonsense = {**ready, "type": "Degraded", "reason": "Nonsense"}
    later = {**ready, "type": "PlanReady", "reason": "Planned", "lastTransitionTime": TOO_FAR}
    measured = {**ready, "type": "EnergyMetricsAvailable", "reason": "TooFewTokens"}
    status = {**STATUS, "conditions": [measured, foreign, ready]}
    assert checked(status) == ({**STATUS, "conditions": [ready, measured]}, ())
    found, left_out = checked({**STATUS, "conditions": [later, nonsense, ready]})
    assert left_out == ("status.conditions: a reason or a time that the operator does not write",)
    assert [(c["type"], c.get("lastTransitionTime")) for c in found["conditions"]] == [
        ("Ready", PAST), ("PlanReady", ""),
    ]  # fmt: skip
    timeless = {**ready, "lastTransitionTime": ""}
    assert checked({**STATUS, "conditions": [timeless]})[1] == ()


def test_a_status_that_cannot_be_read_is_dropped_whole() -> None:
    found, (line,) = checked_status({"metadata": {}, "spec": {}, "status": STATUS}, NOW)
    assert found == {}
    assert line
    assert "plan" not in checked({**STATUS, "plan": "none"})[0]
    assert own_part({"conditions": "none"}) == {"conditions": "none"}


ACCOUNT = {
    "periodStart": "2026-03-01T00:00:00Z",
    "resetTime": "2026-04-01T00:00:00Z",
    "measuredJoules": 5000,
    "predictedJoules": 7,
    "predictedWatts": 300,
    "accountedUntil": PAST,
}
STAMP = "2026-03-01T12:00:00Z"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({}, {}),
        ({"periodStart": AHEAD}, {}),
        ({"periodStart": TOO_FAR}, {"periodStart": STAMP}),
        ({"periodStart": 5}, {"periodStart": STAMP}),
        ({"resetTime": "2126-04-01T00:00:00Z"}, {}),
        ({"resetTime": "never"}, {"resetTime": STAMP}),
        ({"accountedUntil": AHEAD}, {}),
        ({"accountedUntil": TOO_FAR}, {"accountedUntil": STAMP}),
        ({"notMeasuredSince": AHEAD}, {}),
        ({"notMeasuredSince": TOO_FAR}, {"notMeasuredSince": STAMP}),
        ({"predictedWatts": 0}, {}),
        ({"predictedWatts": -1}, {"predictedWatts": 0}),
        ({"predictedWatts": True}, {"predictedWatts": 0}),
        ({"measuredJoules": MOST_JOULES}, {}),
        # Where a sum is lost, the whole period is predicted again.
        ({"measuredJoules": MOST_JOULES + 1}, {"measuredJoules": 0, "accountedUntil": ACCOUNT["periodStart"]}),
        ({"predictedJoules": -1}, {"predictedJoules": 0, "accountedUntil": ACCOUNT["periodStart"]}),
        ({"predictedJoules": "1"}, {"predictedJoules": 0, "accountedUntil": ACCOUNT["periodStart"]}),
    ],
)
def test_an_account_keeps_what_is_possible(edit: dict[str, Any], expected: dict[str, Any]) -> None:
    stated = {**ACCOUNT, **edit}
    assert sane_account({"energyAccount": stated}, NOW) == {**stated, **expected}


@pytest.mark.parametrize(
    ("measured", "joules"),
    [(2, 5000), (3, 7200), (1, 5000), (0, 5000), ("9", 5000), (-1, 5000), (MOST_JOULES + 1, 5000)],
)
def test_an_account_has_at_least_the_energy_that_was_measured(measured: Any, joules: int) -> None:
    status = {"energyAccount": ACCOUNT, "measured": {"energyWattHoursThisPeriod": measured}}
    found = sane_account(status, NOW)
    assert found is not None
    # A watt-hour may have been rounded up.
    assert found["measuredJoules"] == joules


def test_an_account_that_somebody_deleted_comes_back_with_what_was_measured() -> None:
    assert sane_account({}, NOW) is None
    assert sane_account({"measured": {"energyWattHoursThisPeriod": 1}}, NOW) is None
    assert sane_account({"measured": "nothing"}, NOW) is None
    found = sane_account({"measured": {"energyWattHoursThisPeriod": 3}}, NOW)
    times = dict.fromkeys(("periodStart", "resetTime", "accountedUntil"), STAMP)
    assert found == {**times, "measuredJoules": 7200}
    assert sane_account({"energyAccount": "nonsense"}, NOW) == times


def test_an_account_that_was_edited_is_told_of() -> None:
    stated = {**STATUS, "energyAccount": {**ACCOUNT, "measuredJoules": -5}}
    found, (line,) = checked(stated)
    assert line == "status.energyAccount: less than was measured, or an impossible value"
    assert found["energyAccount"]["measuredJoules"] == 0
    assert checked({**STATUS, "energyAccount": ACCOUNT})[1] == ()


def test_the_clock_may_differ_by_five_minutes() -> None:
    assert datetime.fromisoformat(AHEAD) - NOW == timedelta(minutes=5)
    assert NOW.tzinfo is UTC
