"""Conditions on a measurement between two windows: the last verdict stays for a limited time, and for its pods only."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.observations import HASH, NOW, OTHER, deployment, measured, observation, pod, workload

from energylens.api.base import Condition
from energylens.api.timestamp import timestamp
from energylens.decide.deployment.reports.measured_conditions import (
    KEPT_WINDOWS,
    LEAST_KEPT_SECONDS,
    measured_conditions,
)
from energylens.decide.reasons import Reason

VALIDATION = deployment().spec.validation
KEPT = VALIDATION.warmup_seconds + KEPT_WINDOWS * VALIDATION.window_seconds
REF = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}
NAMES = ("EnergyMetricsAvailable", "PredictionAccurate", "SLOMet")


def said(name: str, status: str, reason: str) -> dict[str, str]:
    last = "2026-03-01T10:00:00Z"
    return {"type": name, "status": status, "reason": reason, "message": f"{reason} it is", "lastTransitionTime": last}


BEFORE = (
    said(NAMES[0], "True", "Measured"),
    said(NAMES[1], "False", "OutsideTolerance"),
    said(NAMES[2], "True", "Met"),
)


def found(
    *conditions: dict[str, str], age: float = 0.0, running: str = HASH, spec: dict[str, Any] | None = None, **seen: Any
) -> list[Condition]:
    end = timestamp(NOW - timedelta(seconds=age))
    status = {
        "activeRevision": {"planHash": running, "workloadRef": REF, "readyReplicas": 2, "updatedReplicas": 2},
        "conditions": list(conditions or BEFORE),
        "measured": {"windowStart": end, "windowEnd": end, "coveragePercent": 100},
    }
    return measured_conditions(observation(deployment=deployment(status, **(spec or {})), **seen))


def reasons(conditions: list[Condition]) -> list[tuple[str, str]]:
    return [(each.status, each.reason) for each in conditions]


PASSED = ("NotServing", "Disabled", "NotServing")
KEPT_REASONS = [("True", "Measured"), ("False", "OutsideTolerance"), ("True", "Met")]
COLLECTING = [("Unknown", "Collecting")] * 3


def test_without_a_source_nothing_is_measured() -> None:
    off = found(spec={"validation": {"source": "None"}}, measurement=measured())
    assert reasons(off) == [("Unknown", "Disabled")] * 3
    assert {each.message for each in off} == {"spec.validation.source is None"}


@pytest.mark.parametrize("measurement", [None, measured("Collecting")])
def test_the_last_verdict_stays_while_the_next_window_is_collected(measurement: Any) -> None:
    kept = found(measurement=measurement)
    assert reasons(kept) == KEPT_REASONS
    assert [each.message for each in kept] == [each["message"] for each in BEFORE]


def test_the_verdict_on_other_pods_is_not_kept() -> None:
    other = found(running=OTHER)
    assert reasons(other) == COLLECTING
    assert other[0].message == "the first window is not complete"
    assert found(running=OTHER, measurement=measured("Collecting"))[0].message == "it is Collecting"
    assert reasons(measured_conditions(observation())) == COLLECTING


@pytest.mark.parametrize(("age", "stays"), [(KEPT, True), (KEPT + 1, False)])
def test_a_verdict_stays_for_three_windows(age: float, stays: bool) -> None:
    kept = found(age=age)
    assert reasons(kept) == (KEPT_REASONS if stays else COLLECTING)
    if not stays:
        end = timestamp(NOW - timedelta(seconds=age))
        assert kept[0].message == f"no complete window since {end}; 2 of 2 replicas are ready"


@pytest.mark.parametrize(("age", "stays"), [(LEAST_KEPT_SECONDS, True), (LEAST_KEPT_SECONDS + 1, False)])
def test_a_verdict_of_short_windows_stays_while_an_update_of_the_operator_takes(age: float, stays: bool) -> None:
    short = {"validation": {"windowSeconds": 60, "warmupSeconds": 0}}
    assert reasons(found(age=age, spec=short)) == (KEPT_REASONS if stays else COLLECTING)


def test_without_ready_pods_nothing_is_known() -> None:
    down = found(workload=workload(ready=0), pods=(pod("p0", ready=False),))
    assert reasons(down) == [("Unknown", "NotServing")] * 3
    assert {each.message for each in down} == {"no replica is ready"}


def test_reasons_that_have_passed_are_not_kept() -> None:
    passed = [said(name, "Unknown", reason) for name, reason in zip(NAMES, PASSED, strict=True)]
    assert reasons(found(*passed)) == COLLECTING


@pytest.mark.parametrize("reason", ["NoSource", "SourceUnreachable", "NoSeries", "PodLabelsMissing", "NotAttributable"])
def test_a_missing_source_is_kept_until_a_window_is_collected(reason: str) -> None:
    before = (said(NAMES[0], "False", reason), *BEFORE[1:])
    assert reasons(found(*before)) == [("False", reason), *KEPT_REASONS[1:]]
    assert reasons(found(*before, measurement=measured("Collecting"))) == COLLECTING


def test_an_edited_condition_gets_the_status_of_its_reason() -> None:
    edited = (said(NAMES[0], "False", "Measured"), said(NAMES[1], "True", "Met"), said(NAMES[2], "True", "Violated"))
    assert reasons(found(*edited)) == [("True", "Measured"), ("Unknown", "Collecting"), ("False", "Violated")]


@pytest.mark.parametrize(
    ("joules", "reason"),
    # 0.4 J are predicted, and the tolerance is 15 %.
    [(0.4, Reason.WITHIN_TOLERANCE), (0.4 / 1.15, Reason.WITHIN_TOLERANCE), (0.4 / 1.16, Reason.OUTSIDE_TOLERANCE)],
)
def test_the_tolerance_includes_its_edge(joules: float, reason: Reason) -> None:
    accuracy = measured_conditions(observation(measurement=measured(joules_per_output_token=joules)))[1]
    assert accuracy.reason == reason
