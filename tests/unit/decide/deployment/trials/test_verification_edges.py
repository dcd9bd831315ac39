"""The deadlines of a verification, the windows that count, and whose pods a verdict belongs to."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.deployment.trials.test_verification import (
    BAD,
    RUNNING,
    THIRD,
    WANTED,
    after,
    begun,
    made,
    situation,
    window,
)
from tests.unit.decide.observations import NOW, deployment

from energylens.api.llmdeployment import FollowedPlan, VerificationStatus
from energylens.decide.deployment.trials.verification import (
    MOST_WINDOWS,
    SeenReplica,
    Step,
    as_many,
    same_pods,
    step,
)
from energylens.decide.reasons import Reason
from energylens.measure.types import WindowMeasurement

VALIDATION = deployment().spec.validation
SERVING = VALIDATION.warmup_seconds + MOST_WINDOWS * VALIDATION.window_seconds


def later(memory: VerificationStatus, seconds: float, replica: SeenReplica, **changes: Any) -> Step:
    return step(situation(memory, replica=replica, now=NOW + timedelta(seconds=seconds), **changes))


def rejected(found: Step) -> tuple[str, str] | None:
    return None if found.gave_up is None else (found.gave_up.reason, found.gave_up.message)


@pytest.mark.parametrize(
    ("seconds", "trouble", "expected"),
    [
        (900, "", None),
        (901, "", ("ProgressDeadline", "the replica was not ready within 900 s")),
        (901, "p0: OOM", ("ProgressDeadline", "the replica was not ready within 900 s: p0: OOM")),
    ],
)
def test_a_replica_has_its_deadline_to_become_ready(
    seconds: int, trouble: str, expected: tuple[str, str] | None
) -> None:
    assert rejected(later(begun(), seconds, SeenReplica(trouble=trouble))) == expected
    # A replica that becomes ready late is measured.
    assert rejected(later(begun(), seconds, SeenReplica(ready=True))) is None


def ready() -> VerificationStatus:
    return step(situation(begun())).status


def test_a_replica_that_serves_has_eight_windows_for_a_verdict() -> None:
    serves = SeenReplica(ready=True)
    assert rejected(later(ready(), SERVING, serves)) is None
    text = f"no verdict within {SERVING} s of serving: the replica is ready"
    assert rejected(later(ready(), SERVING + 1, serves)) == ("NotMeasured", text)
    silent = ready().model_copy(update={"message": None})
    assert rejected(later(silent, SERVING + 1, serves)) == (
        "NotMeasured",
        f"no verdict within {SERVING} s of serving: nothing was measured",
    )
    # Time in a queue does not count, even after the replica served.
    assert rejected(later(ready(), 10 * SERVING, SeenReplica(queued=True))) is None


@pytest.mark.parametrize(
    ("replica", "expected"),
    [
        (SeenReplica(), ("ProgressDeadline", "the replica is no longer ready: it restarts")),
        (SeenReplica(trouble="p0: OOM"), ("ProgressDeadline", "the replica is no longer ready: p0: OOM")),
        (SeenReplica(unschedulable=True), ("Unschedulable", "the replica is no longer ready: it restarts")),
    ],
)
def test_a_replica_that_restarts_may_take_as_long_as_a_first_start(
    replica: SeenReplica, expected: tuple[str, str]
) -> None:
    assert rejected(later(ready(), SERVING, replica)) is None
    assert rejected(later(ready(), SERVING + 1, replica)) == expected
    slow = SERVING + 1000.0
    assert rejected(later(ready(), slow, replica, deadline_seconds=slow)) is None
    assert rejected(later(ready(), slow + 1, replica, deadline_seconds=slow)) == expected
    # A replica that serves has no start to wait for.
    assert rejected(later(ready(), SERVING + 1, SeenReplica(ready=True), deadline_seconds=slow)) is not None


def counted(found: WindowMeasurement, memory: VerificationStatus | None = None) -> int:
    now = NOW + timedelta(minutes=30)
    replica = SeenReplica(ready=True, window=found)
    return step(situation(memory or begun(), replica=replica, now=now)).status.good_windows


def test_a_window_counts_once_it_is_complete_and_began_after_the_verification() -> None:
    first = window(10)
    assert counted(first) == 1
    assert counted(window(9.9)) == 0
    assert counted(replace(first, window_start=None)) == 0
    assert counted(replace(first, window_end=None)) == 0
    assert counted(replace(first, reason="Collecting")) == 0
    assert counted(first, after(begun(), 10).status) == 1
    assert counted(window(20), after(begun(), 10).status.model_copy(update={"good_windows": 0})) == 1


def test_one_bad_window_rejects_nothing_and_a_good_one_forgives_it() -> None:
    bad: dict[str, Any] = {"judge": lambda candidate, window: BAD}
    once = after(begun(), 11, **bad)
    assert (once.action, once.status.bad_windows, once.status.good_windows) == ("Verify", 1, 0)
    good = after(once.status, 21)
    assert (good.status.bad_windows, good.status.good_windows) == (0, 1)
    again = after(good.status, 31, **bad)
    assert (again.action, again.status.bad_windows, again.status.good_windows) == ("Verify", 1, 0)


@pytest.mark.parametrize(("on_object", "kept"), [("", True), (WANTED.hash, True), (THIRD.hash, False)])
def test_the_plan_on_the_object_of_the_replica_is_the_one_in_verification(on_object: str, kept: bool) -> None:
    replica = SeenReplica(ready=True, plan_hash=on_object)
    found = step(situation(after(begun(), 11).status, wanted=THIRD, replica=replica))
    assert found.plan.hash == (WANTED if kept else THIRD).hash
    assert found.began is not kept


def followed(plan_hash: str) -> VerificationStatus:
    said = FollowedPlan(plan_hash=plan_hash, verified=True, message="it was measured", time="2026-03-01T11:00:00Z")
    return VerificationStatus(followed=said)


def test_a_result_belongs_to_the_pods_that_were_measured() -> None:
    more = made(replicas=3, gpus=3)
    assert same_pods(RUNNING, more)
    none = VerificationStatus()
    assert as_many(none, RUNNING, more) == none
    assert as_many(followed(more.hash), RUNNING, more) == followed(more.hash)
    assert as_many(followed(RUNNING.hash), RUNNING, more) == followed(more.hash)
    assert as_many(followed(THIRD.hash), RUNNING, more).followed is None


def test_plans_with_other_pods_differ_whatever_their_replicas() -> None:
    assert not same_pods(RUNNING, THIRD)
    assert not same_pods(RUNNING, WANTED)
    shed = made(replicas=1, gpus=1, shed_from_replicas=2, planned_replicas=4)
    assert same_pods(RUNNING, shed)


def test_a_plan_that_was_rejected_for_its_figures_stays_rejected_for_its_inputs_only() -> None:
    bad: dict[str, Any] = {"judge": lambda candidate, window: BAD}
    memory = after(begun(), 11, 21, **bad).status
    found = later(memory, 1e7, SeenReplica())
    assert (found.action, found.reason) == ("Keep", Reason.GIVEN_UP)
    other = later(memory, 1e7, SeenReplica(), wanted=THIRD)
    assert (other.action, other.began) == ("Verify", True)
