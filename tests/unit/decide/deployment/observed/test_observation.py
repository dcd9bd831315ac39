"""What is read from a pod, from the plan that the pods were made from, and from the ConfigMaps of a job."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide.observations import HASH, deployment, plan, pod, workload

from energylens.api.llmdeployment import PlanStatus
from energylens.decide.deployment.observed.named_maps import NamedMaps, names_of
from energylens.decide.deployment.observed.observation import (
    PodState,
    of_main,
    plan_label,
    pod_state,
    recorded_plan,
    standing_plan,
)
from energylens.decide.deployment.observed.troubles import starts, waits, why_failed
from energylens.decide.trimmed import trim_pod
from energylens.planner.search.identity import identified
from energylens.serving.metadata import OWNER_LABEL

READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-03-01T11:00:00Z"}
UNREADY = {**READY, "status": "False"}
NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
BOUND = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-03-01T10:00:00Z"}


def read(
    labels: dict[str, str] | None = None, metadata: dict[str, Any] | None = None, node: str = "h100-0", **status: Any
) -> PodState:
    body = {
        "metadata": {
            "name": "p",
            "namespace": "team",
            "labels": {OWNER_LABEL: "llama", **(labels or {})},
            **(metadata or {}),
        },
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": "Running", **status},
    }
    return pod_state(trim_pod(body))


def engine(ready: bool = False, restarts: int = 0, **state: Any) -> dict[str, Any]:
    return {"name": "engine", "ready": ready, "restartCount": restarts, "state": state}


WAITS = engine(waiting={"reason": "CrashLoopBackOff", "message": "back-off"})
CREATING = engine(waiting={"reason": "ContainerCreating"})


@pytest.mark.parametrize(
    ("changes", "is_ready"),
    [
        ({}, True),
        ({"conditions": [UNREADY]}, False),
        ({"conditions": []}, False),
        ({"metadata": {"deletionTimestamp": "2026-03-01T12:00:00Z"}}, False),
        ({"phase": "Succeeded"}, False),
        ({"phase": "Failed"}, False),
    ],
)
def test_a_pod_is_ready_by_its_condition_until_it_ends(changes: dict[str, Any], is_ready: bool) -> None:
    found = read(**{"conditions": [READY], **changes})
    assert (found.ready, found.ready_since) == (is_ready, "2026-03-01T11:00:00Z" if is_ready else "")


@pytest.mark.parametrize(
    ("changes", "waiting", "failing"),
    [
        ({"containerStatuses": [WAITS]}, "CrashLoopBackOff: back-off", True),
        ({"containerStatuses": [WAITS], "conditions": [READY]}, "", False),
        ({"containerStatuses": [WAITS], "phase": "Failed"}, "", False),
        ({"containerStatuses": [CREATING]}, "", False),
    ],
)
def test_only_a_pod_that_is_not_ready_and_has_not_ended_waits(
    changes: dict[str, Any], waiting: str, failing: bool
) -> None:
    found = read(**changes)
    assert (found.waiting, found.failing) == (waiting, failing)


@pytest.mark.parametrize(
    ("changes", "creating"),
    [
        ({}, True),
        ({"node": ""}, False),
        ({"conditions": [READY]}, False),
        ({"phase": "Failed"}, False),
        ({"containerStatuses": [CREATING, engine(running={})]}, False),
        ({"containerStatuses": [WAITS]}, False),
    ],
)
def test_a_pod_on_a_node_is_created_until_one_of_its_containers_starts(changes: dict[str, Any], creating: bool) -> None:
    assert read(**{"containerStatuses": [CREATING, CREATING], **changes}).creating is creating


def test_the_scheduler_s_message_and_failures_and_restarts_are_read() -> None:
    assert read(conditions=[NO_NODE], node="").unschedulable == "0/3 nodes are available"
    assert read(conditions=[{**NO_NODE, "reason": "SchedulingGated"}], node="").unschedulable == ""
    assert read(phase="Failed", reason="Evicted", message="low on memory").failed == "Evicted: low on memory"
    assert read(reason="Evicted", message="low on memory").failed == ""
    assert [read(phase=phase).finished for phase in ("Failed", "Succeeded", "Running")] == [True, True, False]
    again, calm = engine(ready=True, restarts=1), engine(ready=True)
    assert (read(containerStatuses=[again, calm]).restarted, read(containerStatuses=[calm]).restarted) == (True, False)


def test_the_labels_say_what_a_pod_is_of() -> None:
    found = read({"leaderworkerset.sigs.k8s.io/worker-index": "1", "leaderworkerset.sigs.k8s.io/group-index": "2"})
    assert (found.leads, found.group) == (False, "2")
    assert read({"leaderworkerset.sigs.k8s.io/worker-index": "0"}).leads
    plain = read()
    assert (plain.leads, plain.canary, plain.prefill, plain.group, plain.kv_cache) == (True, False, False, "", "")
    roles = {name: read({"energylens.dev/role": name}) for name in ("canary", "prefill", "decode")}
    assert [(name, each.canary, each.prefill) for name, each in roles.items()] == [
        ("canary", True, False),
        ("prefill", False, True),
        ("decode", False, False),
    ]
    queued = {"kueue.x-k8s.io/managed": "true"}
    assert read(queued, conditions=[BOUND]).admitted_since == "2026-03-01T10:00:00Z"
    assert read(queued, conditions=[{**BOUND, "status": "False"}]).admitted_since == ""
    assert read(conditions=[BOUND]).admitted_since == ""


def test_pods_of_the_canary_and_of_prefill_are_not_those_of_the_plan_s_workload() -> None:
    own = pod("p0")
    assert of_main((own, pod("c", canary=True), pod("f", prefill=True))) == (own,)


RUNNING = identified(plan(), deployment().spec)
WAITING = identified(plan(max_batch_size=64), deployment().spec)
MANUAL = {"planning": {"mode": "Manual"}}


def table(of: PlanStatus | None = RUNNING) -> dict[str, Any]:
    return {"data": {} if of is None else {"plan.json": of.model_dump_json(by_alias=True, exclude_none=True)}}


def waiting(wanted: PlanStatus | None = WAITING, **spec: Any) -> Any:
    status = {} if wanted is None else {"plan": wanted.model_dump(mode="json", by_alias=True, exclude_none=True)}
    return deployment(status, **{**MANUAL, **spec})


def test_the_running_plan_stands_while_another_one_waits_for_approval() -> None:
    live = workload(RUNNING)
    assert plan_label(live) == RUNNING.hash
    assert standing_plan(waiting(), table(), live) == RUNNING
    assert standing_plan(waiting(), table(WAITING), live) is None
    assert standing_plan(waiting(), None, live) is None
    # The plan of the status is the running one, or nothing runs, or it is approved.
    assert standing_plan(waiting(RUNNING), table(), live) is None
    assert standing_plan(waiting(), table(), None) is None
    assert standing_plan(waiting(None), table(), live) is None
    approved = waiting(planning={"mode": "Manual", "approvedPlanHash": WAITING.hash})
    assert standing_plan(approved, table(), live) is None


def test_a_recorded_plan_is_one_whose_hash_is_its_own() -> None:
    assert recorded_plan(table()) == RUNNING
    for missing in (None, {}, {"data": None}, table(None), {"data": {"plan.json": ""}}, {"data": {"plan.json": "{"}}):
        assert recorded_plan(missing) is None
    assert recorded_plan(table(RUNNING.model_copy(update={"max_batch_size": 8}))) is None
    assert plan().hash == HASH
    assert recorded_plan(table(plan())) is None


def trimmed(name: str, *, ready: bool = False, restarts: int = 0, waiting: Any = None, ended: Any = None) -> Any:
    return {"name": name, "ready": ready, "restarts": restarts, "waiting": waiting or {}, "ended": ended or {}}


def test_the_first_container_that_is_stuck_is_told_with_how_it_ended() -> None:
    failed = {"reason": "Error", "exitCode": 1, "message": "x" * 400 + "\n"}
    init = trimmed("fetch", waiting={"reason": "ErrImagePull", "message": "no such image"})
    stuck = trimmed("engine", restarts=3, waiting={"reason": "CrashLoopBackOff"}, ended=failed)
    starting = trimmed("sidecar", waiting={"reason": "PodInitializing"})
    assert waits([starting, init, stuck]) == ("ErrImagePull: no such image", True)
    text = f"CrashLoopBackOff; container engine ended: Error (exit code 1), restarted 3 times: {'x' * 300}"
    assert waits([starting, stuck]) == (text, True)


def test_a_container_that_ended_and_waits_for_nothing_is_told_unless_it_is_ready() -> None:
    killed = {"reason": "OOMKilled", "exitCode": 137}
    first, second = trimmed("a", ended=killed), trimmed("b", ended={"signal": 9})
    assert waits([first, second]) == ("container a ended: OOMKilled (exit code 137)", False)
    assert waits([second]) == ("container b ended: Error", False)
    assert waits([trimmed("a", ready=True, ended=killed)]) == ("", False)
    for done in ({"reason": "Completed"}, {}):
        assert waits([trimmed("a", ended=done)]) == ("", False)
    assert waits([trimmed("a", ended={"reason": "ContainerStatusUnknown"})])[0] == (
        "container a ended: ContainerStatusUnknown"
    )


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        (("ContainerCreating", "PodInitializing"), True),
        (("ContainerCreating", ""), False),
        (("ContainerCreating", "ErrImagePull"), False),
        ((), True),
    ],
)
def test_a_pod_starts_while_all_of_its_containers_wait_to_be_created(reasons: tuple[str, ...], expected: bool) -> None:
    assert starts([trimmed("c", waiting={"reason": reason} if reason else {}) for reason in reasons]) is expected


def test_a_pod_that_failed_is_told_by_its_node_or_by_its_containers() -> None:
    both = [trimmed("a", ended={"reason": "Error", "exitCode": 2}), trimmed("b", ended={"reason": "Completed"})]
    assert why_failed({"reason": "Evicted", "message": "disk", "containers": both}) == "Evicted: disk"
    assert why_failed({"message": "disk", "containers": []}) == "disk"
    assert why_failed({"containers": both}) == "container a ended: Error (exit code 2)"
    twice = [both[0], trimmed("c", ended={"signal": 9})]
    assert why_failed({"containers": twice}) == "container a ended: Error (exit code 2); container c ended: Error"
    assert why_failed({"containers": []}) == "Failed"


@pytest.mark.parametrize(
    ("start", "names"),
    [
        (None, ()),
        ({"completeBy": "2026-03-02T00:00:00Z", "forecastConfigMapRef": {"name": "grid"}}, ("grid",)),
        ({"completeBy": "2026-03-02T00:00:00Z", "tariffConfigMapRef": {"name": "tariff"}}, ("tariff",)),
    ],
)
def test_a_job_names_the_config_map_that_weighs_its_hours(start: Any, names: tuple[str, ...]) -> None:
    job: dict[str, Any] = {"requests": 100, "completeWithinSeconds": 3600}
    asked = deployment(
        workload={"inputTokens": 1, "outputTokens": 1, "job": job if start is None else {**job, "start": start}}
    )
    assert names_of(asked) == names
    read = NamedMaps.of(asked, lambda name: {"metadata": {"name": name}})
    assert read.job_hours.body == ({"metadata": {"name": names[0]}} if names else None)
