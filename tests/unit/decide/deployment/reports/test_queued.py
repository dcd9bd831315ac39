"""Pods that a queue holds back: a reason, and neither a failure nor a missed deadline."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.observations import NOW, OLD, SURGE, deployment, observation, plan, pod, workload

from energylens.decide.deployment.observed.observation import Observation, PodState, pod_state
from energylens.decide.deployment.pods.children import children
from energylens.decide.deployment.pods.deadlines import late_rollout
from energylens.decide.deployment.pods.rollouts import looks_again
from energylens.decide.deployment.reports.conditions import all_conditions
from energylens.decide.reasons import Reason
from energylens.decide.trimmed import trim_pod
from energylens.serving.metadata import OWNER_LABEL

GATE = "kueue.x-k8s.io/admission"
TIMED_OUT = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}


def stamp(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(*gates: str, labels: dict[str, str] | None = None, **status: Any) -> PodState:
    body = {
        "metadata": {"name": "p", "namespace": "team", "labels": {OWNER_LABEL: "llama", **(labels or {})}},
        "spec": {"schedulingGates": [{"name": gate} for gate in gates], "containers": []},
        "status": {"phase": "Pending", **status},
    }
    return pod_state(trim_pod(body))


@pytest.mark.parametrize(
    ("gates", "labels", "expected"),
    [
        ((), {}, ""),
        ((GATE,), {"kueue.x-k8s.io/queue-name": "serving"}, "admission by Kueue, queue serving"),
        ((GATE, "kueue.x-k8s.io/topology"), {}, "admission by Kueue"),
        (("example.com/a", "example.com/b"), {}, "scheduling gates example.com/a, example.com/b"),
    ],
)
def test_gates_say_what_a_pod_waits_for(gates: tuple[str, ...], labels: dict[str, str], expected: str) -> None:
    found = read(*gates, labels=labels)
    assert found.queued == expected
    assert found.waits_for_quota is (GATE in gates)


def test_a_pod_that_ended_waits_for_nothing() -> None:
    assert read(GATE, phase="Failed").queued == ""


def test_pods_of_others_keep_no_gates() -> None:
    body = {"metadata": {"name": "p", "namespace": "a"}, "spec": {"schedulingGates": [{"name": GATE}]}}
    assert "schedulingGates" not in trim_pod(body)["spec"]


@pytest.mark.parametrize(("managed", "expected"), [({"kueue.x-k8s.io/managed": "true"}, stamp(60)), ({}, "")])
def test_admission_is_when_a_pod_that_kueue_held_was_bound(managed: dict[str, str], expected: str) -> None:
    bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(60)}
    assert read(labels=managed, conditions=[bound]).admitted_since == expected
    assert read(GATE, labels=managed, conditions=[bound | {"status": "False"}]).admitted_since == ""


def waiting(*pods: PodState, **changes: Any) -> Observation:
    live = workload(ready=0, conditions=(TIMED_OUT,))
    return observation(workload=live, pods=pods, **changes)


def conditions(observed: Observation) -> dict[str, Any]:
    return {c.type: c for c in all_conditions(observed, children(observed))}


QUEUED = pod("p0", ready=False, node="", queued="admission by Kueue, queue serving: insufficient quota")


def test_queued_pods_are_a_reason_and_not_a_failure() -> None:
    observed = waiting(QUEUED, pod("p1", ready=False))
    found = conditions(observed)
    assert (found["Ready"].status, found["Ready"].reason) == ("False", Reason.QUEUED)
    assert "p0 waits for admission by Kueue, queue serving: insufficient quota" in found["Ready"].message
    assert (found["Progressing"].status, found["Progressing"].reason) == ("True", Reason.QUEUED)
    assert (found["Degraded"].status, found["Degraded"].reason) == ("False", Reason.AS_EXPECTED)
    assert looks_again(observed)


def test_a_failing_pod_is_told_before_a_queued_one() -> None:
    failing = pod("p1", ready=False, waiting="CrashLoopBackOff", failing=True)
    assert conditions(waiting(QUEUED, failing))["Ready"].reason == Reason.PODS_FAILING


@pytest.mark.parametrize(
    ("pods", "is_late"),
    [
        ((QUEUED,), False),
        ((pod("p0", ready=False, admitted_since=stamp(3000)),), False),
        ((pod("p0", ready=False, admitted_since=stamp(3700)),), True),
        # The last pod that was admitted counts.
        ((pod("p0", ready=False, admitted_since=stamp(3700)), pod("p1", ready=False, admitted_since=stamp(9))), False),
        ((pod("p0", ready=False),), True),
    ],
)
def test_the_deadline_begins_when_pods_leave_the_queue(pods: tuple[PodState, ...], is_late: bool) -> None:
    found = conditions(waiting(*pods))
    assert (found["Degraded"].reason == Reason.PROGRESS_DEADLINE_EXCEEDED) is is_late
    assert (found["Progressing"].reason == Reason.PROGRESS_DEADLINE_EXCEEDED) is is_late
    # The same decides about a rollback.
    told = late_rollout(deployment(), plan(), workload(ready=0, conditions=(TIMED_OUT,)), pods, NOW)
    assert bool(told) is is_late


@pytest.mark.parametrize(("seconds", "quota", "stops"), [(5, True, False), (61, True, True), (61, False, False)])
def test_old_pods_make_room_in_a_queue_that_stays_full(seconds: float, quota: bool, stops: bool) -> None:
    queued = pod("p1", ready=False, node="", queued="a gate", waits_for_quota=quota, created=stamp(seconds))
    observed = observation(workload=workload(strategy=SURGE), pods=(pod("p0", OLD), queued))
    found = children(observed)
    assert (found.strategy is not None and found.strategy.name == "Recreate") is stops
    # Without old pods there is nobody to make room.
    alone = children(observation(workload=workload(strategy=SURGE), pods=(queued,)))
    assert alone.strategy is None
