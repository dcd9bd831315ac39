"""How far a rollout is: replicas of both roles, groups over several nodes, deadlines, and edges of time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.observations import (
    HASH,
    NOW,
    OLD,
    OTHER,
    deployment,
    model,
    observation,
    plan,
    pod,
    without_plan,
    workload,
)

from energylens.api.llmdeployment import PrefillReplicas
from energylens.decide.deployment.observed.observation import Observation, PlanChoice, PodState
from energylens.decide.deployment.pods.deadlines import (
    deadline_exceeded,
    late,
    late_rollout,
    queued_for_long,
    waits_in_queue,
)
from energylens.decide.deployment.pods.rollouts import (
    EXCEEDED_QUOTA,
    looks_again,
    main_rollout,
    overdue,
    prefill_rollout,
    refused_pods,
    rollout,
    trouble,
)
from energylens.decide.deployment.pods.workloads import existing_replicas, group_size, pod_spec_of, replicas_of
from energylens.decide.reasons import Reason
from energylens.serving.timing import PROGRESS_DEADLINE_SECONDS, startup_seconds

PREFILL = PrefillReplicas(
    replicas=2, tensor_parallel=1, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=4
)
WITH_ROLES = PlanChoice(plan(prefill=PREFILL), model(), True, Reason.PLANNED, "")
FAILED = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": EXCEEDED_QUOTA}
LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}


def stamp(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def roles(prefill: dict[str, Any] | None, prefill_pods: tuple[PodState, ...] = (), **changes: Any) -> Observation:
    fields: dict[str, Any] = {"planning": WITH_ROLES, "prefill": prefill, "prefill_pods": prefill_pods, **changes}
    return observation(**fields)


def test_what_others_edited_out_of_a_workload_counts_as_none() -> None:
    bodies: list[dict[str, Any]] = [{}, {"spec": None, "status": None}, {"spec": {}, "status": {}}]
    for live in bodies:
        assert (replicas_of(live), existing_replicas(live), group_size(live)) == (0, 0, 1)
        assert pod_spec_of(live) == {}
    assert existing_replicas(None) == 0
    assert existing_replicas(workload(replicas=3)) == 3
    assert replicas_of(workload()) == 2
    assert pod_spec_of(workload())["containers"]
    assert group_size({"spec": {"leaderWorkerTemplate": {"size": 4}}}) == 4


def test_without_a_workload_nothing_exists() -> None:
    found = rollout(observation(workload=None, pods=()))
    assert (found.exists, found.current, found.ready, found.updated, found.wanted) == (False, False, 0, 0, 0)


def test_a_workload_without_a_status_has_no_pods_yet() -> None:
    live = {**workload(), "status": None}
    found = main_rollout(observation(workload=live, pods=()))
    assert (found.current, found.updated, found.wanted) == (False, 0, 2)
    assert found.pending == "the controller of the Deployment has not acted on its last change yet"
    seen = {**workload(), "status": {"observedGeneration": 2}}
    assert main_rollout(observation(workload=seen, pods=())).pending == "0 of 2 replicas are of the newest revision"
    none = {**seen, "spec": {**workload()["spec"], "replicas": 0}}
    assert main_rollout(observation(workload=none, pods=())).current
    assert not main_rollout(observation(workload=workload(replicas=2, updated=3), pods=())).current


@pytest.mark.parametrize(
    ("generation", "observed_generation", "is_seen"),
    [(None, 0, True), (None, None, True), (1, None, False), (1, 1, True), (2, 1, False), (2, 3, True)],
)
def test_a_workload_counts_as_its_controller_has_seen_it(
    generation: int | None, observed_generation: int | None, is_seen: bool
) -> None:
    live = workload()
    known = {"generation": generation, "observedGeneration": observed_generation}
    given = {key: value for key, value in known.items() if value is not None}
    without = {key: value for key, value in live["metadata"].items() if key != "generation"}
    live["metadata"] = {**without, **{key: given[key] for key in given.keys() & {"generation"}}}
    counts = {key: value for key, value in live["status"].items() if key != "observedGeneration"}
    live["status"] = {**counts, **{key: given[key] for key in given.keys() & {"observedGeneration"}}}
    assert main_rollout(observation(workload=live)).updated == (2 if is_seen else 0)


def test_ready_replicas_are_never_more_than_wanted() -> None:
    three = (pod("a"), pod("b"), pod("c"))
    assert main_rollout(observation(pods=three)).ready == 2


def test_replicas_of_both_roles_are_counted_together() -> None:
    found = rollout(roles(workload(), (pod("f0"), pod("f1"))))
    assert (found.ready, found.updated, found.wanted, found.current, found.pending) == (4, 4, 4, True, "")
    half = rollout(roles(workload(ready=1, updated=1), (pod("f0"),)))
    assert (half.ready, half.updated, half.wanted, half.current) == (3, 3, 4, False)
    assert half.pending == "prefill: 1 of 2 replicas are of the newest revision"


def test_prefill_replicas_alone_answer_nothing() -> None:
    found = rollout(roles(workload(), (pod("f0"), pod("f1")), pods=()))
    assert (found.ready, found.wanted) == (0, 4)


def test_what_the_decode_replicas_wait_for_is_told_first() -> None:
    found = rollout(roles(workload(updated=1), (pod("f0"),), workload=workload(seen=False)))
    assert found.pending == "the controller of the Deployment has not acted on its last change yet"
    assert not found.current


def test_prefill_replicas_of_the_previous_plan_are_waited_for() -> None:
    old = workload(plan(OTHER))
    found = rollout(observation(prefill=old))
    assert (found.current, found.ready, found.wanted) == (False, 2, 2)
    assert found.pending == "the prefill replicas of the previous plan are not gone yet"
    both = rollout(observation(prefill=old, workload=workload(updated=1)))
    assert both.pending == "1 of 2 replicas are of the newest revision"
    assert rollout(observation()).current


def test_before_the_prefill_deployment_is_made_its_replicas_are_missing() -> None:
    for live in (None, workload(plan(OTHER))):
        found = prefill_rollout(roles(live))
        assert found is not None
        assert (found.wanted, found.current, found.pending) == (2, False, "its Deployment is not made yet")


def test_prefill_replicas_that_wait_for_decode_pods_are_wanted_all_the_same() -> None:
    none = workload(ready=0, updated=0, replicas=0)
    none["spec"] = {**none["spec"], "replicas": 0}
    found = prefill_rollout(roles(none))
    assert found is not None
    assert (found.wanted, found.pending) == (2, "replicas start when every decode pod can read their KV cache")
    stopped = prefill_rollout(roles(none, deployment=deployment(suspend=True)))
    assert stopped is not None
    assert (stopped.wanted, stopped.current) == (0, True)


def test_prefill_replicas_belong_to_the_plan_whose_pods_run() -> None:
    # The plan that runs has no prefill replicas, whatever the next one has.
    assert prefill_rollout(observation()) is None
    next_one = PlanChoice(plan(OTHER, prefill=PREFILL), model(), True, Reason.PLANNED, "")
    assert prefill_rollout(observation(planning=next_one, standing=plan())) is None
    standing = observation(
        planning=PlanChoice(plan(OTHER), model(), True, Reason.PLANNED, ""), standing=plan(prefill=PREFILL)
    )
    assert prefill_rollout(standing) is not None
    # Of a plan that is not known any more, the labels say whether there are any.
    unknown = observation(planning=without_plan(Reason.MODEL_UNKNOWN), prefill=workload(), prefill_pods=(pod("f0"),))
    found = prefill_rollout(unknown)
    assert found is not None
    assert (found.wanted, found.ready) == (2, 1)
    assert prefill_rollout(replace(unknown, prefill=workload(plan(OTHER)))) is None
    assert prefill_rollout(replace(unknown, prefill=None)) is None
    unlabelled = {**workload(), "metadata": {"labels": {}}}
    assert prefill_rollout(replace(unknown, workload=unlabelled, prefill=unlabelled)) is None


@pytest.mark.parametrize(("seconds", "is_recent"), [(599, True), (600, False)])
def test_a_pod_that_failed_ten_minutes_ago_says_nothing_any_more(seconds: float, is_recent: bool) -> None:
    failed = pod("bad", ready=False, failed="Evicted", finished=True, created=stamp(seconds))
    observed = observation(workload=workload(ready=1), pods=(pod("p0"), failed))
    found = trouble(observed, rollout(observed))
    assert (found is not None and found.reason is Reason.PODS_FAILING) is is_recent


def test_pods_of_the_wanted_revision_count_and_others_only_where_there_are_none() -> None:
    old = pod("old", OLD, ready=False, unschedulable="no node")
    alone = observation(workload=workload(ready=0), pods=(old,))
    found = trouble(alone, rollout(alone))
    assert found is not None
    assert found.text == "old waits for a node: no node"
    beside = observation(workload=workload(ready=0), pods=(old, pod("new", ready=False)))
    assert trouble(beside, rollout(beside)) is None


@pytest.mark.parametrize("gone", [{"finished": True}, {"ends_by": stamp(-30)}])
def test_a_pod_that_ended_or_ends_waits_for_nothing(gone: dict[str, Any]) -> None:
    observed = observation(workload=workload(ready=1), pods=(pod("p0"), pod("p1", unschedulable="no node", **gone)))
    assert trouble(observed, rollout(observed)) is None


def test_trouble_of_prefill_pods_is_found_behind_that_of_decode_pods() -> None:
    waiting = pod("f0", ready=False, unschedulable="no node")
    observed = roles(workload(ready=0), (waiting,))
    found = trouble(observed, rollout(observed))
    assert found is not None
    assert found.text == "f0 waits for a node: no node"
    first = replace(observed, pods=(pod("p0", ready=False, unschedulable="no GPU"),))
    found = trouble(first, rollout(first))
    assert found is not None
    assert found.text == "p0 waits for a node: no GPU"


@pytest.mark.parametrize(("seconds", "is_stuck"), [(60, False), (61, True)])
def test_a_pod_may_take_a_minute_longer_to_end(seconds: float, is_stuck: bool) -> None:
    assert bool(overdue(observation(pods=(pod("p0", ends_by=stamp(seconds)),)))) is is_stuck


@pytest.mark.parametrize(
    ("status", "spec_replicas", "told"),
    [
        ({"updatedReplicas": 0, "conditions": [FAILED]}, 2, f"FailedCreate: {EXCEEDED_QUOTA}"),
        ({"updatedReplicas": 0, "conditions": [{**FAILED, "message": ""}]}, 2, "FailedCreate"),
        ({"updatedReplicas": 0, "conditions": [{**FAILED, "reason": ""}]}, 2, EXCEEDED_QUOTA),
        ({"updatedReplicas": 0, "conditions": [{**FAILED, "status": "False"}]}, 2, "by its events"),
        ({"updatedReplicas": 0, "conditions": [{**FAILED, "reason": "FailedDelete"}]}, 2, "by its events"),
        ({"updatedReplicas": 0, "conditions": [{**LATE, "status": "True"}]}, 2, "by its events"),
        # No replica is wanted, so that none can complete the newest revision.
        ({"updatedReplicas": 0, "conditions": [FAILED]}, 0, f"FailedCreate: {EXCEEDED_QUOTA}"),
        ({"updatedReplicas": 1, "conditions": [FAILED]}, 1, "by its events"),
        ({"conditions": None}, 2, "by its events"),
        (None, 2, "by its events"),
    ],
)
def test_the_condition_of_a_deployment_says_why_pods_are_rejected(
    status: dict[str, Any] | None, spec_replicas: int, told: str
) -> None:
    live = workload()
    live["spec"] = {**live["spec"], "replicas": spec_replicas}
    live["status"] = status if status is None else {"observedGeneration": 2, **status}
    assert refused_pods(observation(workload=live, pods=(), refused_pods="by its events")) == told


def test_only_a_rollout_under_way_changes_by_time_alone() -> None:
    assert not looks_again(observation(workload=None, pods=()))
    started = pod("p1", ready=False, creating=True)
    assert looks_again(observation(workload=workload(ready=1), pods=(pod("p0"), started)))
    for more in ({"queued": "a gate"}, {"admitted_since": stamp(10)}):
        assert looks_again(observation(workload=workload(ready=1), pods=(pod("p0"), pod("p1", ready=False, **more))))
        # Replicas are all there: the pod belongs to no rollout.
        assert not looks_again(observation(pods=(pod("p0"), pod("p1"), pod("p2", ready=False, **more))))
    assert looks_again(observation(workload=workload(seen=False), pods=(pod("p0"), pod("p1"), started)))
    assert looks_again(observation(outgoing={**workload(), "kind": "LeaderWorkerSet"}))


@pytest.mark.parametrize(
    ("changes", "is_late"),
    [
        ({}, True),
        ({"pods": (pod("p0"), pod("p1"))}, False),
        ({"pods": (pod("p0"), pod("p1")), "workload": workload(updated=1, conditions=(LATE,))}, True),
        ({"workload": None}, False),
        ({"workload": workload(ready=0)}, False),
    ],
    ids=["missed", "all ready", "ready before all are updated", "no workload", "no deadline passed"],
)
def test_a_rollout_that_is_complete_is_not_late(changes: dict[str, Any], is_late: bool) -> None:
    fields: dict[str, Any] = {"workload": workload(ready=0, conditions=(LATE,)), "pods": (pod("p0", ready=False),)}
    observed = observation(**{**fields, **changes})
    assert bool(late(observed, rollout(observed))) is is_late


def test_a_late_rollout_is_told_in_the_words_of_its_controller() -> None:
    assert deadline_exceeded(workload(conditions=(LATE,))) == "timed out"
    assert deadline_exceeded(workload(conditions=({**LATE, "message": ""},))) == "the progress deadline has passed"
    assert deadline_exceeded(workload(conditions=({**LATE, "reason": "NewReplicaSetAvailable"},))) == ""
    assert deadline_exceeded(workload(conditions=({**LATE, "type": "Available"},))) == ""
    assert deadline_exceeded({**workload(), "status": {"conditions": None}}) == ""
    assert deadline_exceeded(None) == ""


def admitted(seconds: float, **changes: Any) -> PodState:
    return pod("p0", ready=False, admitted_since=stamp(seconds), **changes)


@pytest.mark.parametrize(
    ("pods", "waits"),
    [
        ((admitted(PROGRESS_DEADLINE_SECONDS),), True),
        ((admitted(PROGRESS_DEADLINE_SECONDS + 1),), False),
        ((admitted(9000), admitted(10)), True),
        ((admitted(10, finished=True),), False),
        ((replace(admitted(10), revision=OLD),), False),
        ((pod("p0", ready=False, queued="a gate"),), True),
        ((pod("p0", OLD, ready=False, queued="a gate"),), False),
        ((), False),
    ],
)
def test_a_pod_waits_in_a_queue_until_a_deadline_after_its_admission(pods: tuple[PodState, ...], waits: bool) -> None:
    live = workload()
    live["spec"] = {key: value for key, value in live["spec"].items() if key != "progressDeadlineSeconds"}
    assert waits_in_queue(live, pods, NOW) is waits
    assert (
        waits_in_queue({**live, "spec": {**live["spec"], "progressDeadlineSeconds": 5}}, (admitted(6),), NOW) is False
    )


@pytest.mark.parametrize(
    ("changes", "is_long"),
    [({}, True), ({"created": stamp(60)}, False), ({"created": ""}, False), ({"waits_for_quota": False}, False)],
)
def test_a_pod_waits_for_quota_for_a_minute_before_others_make_room(changes: dict[str, Any], is_long: bool) -> None:
    fields: dict[str, Any] = {"waits_for_quota": True, "created": stamp(61), **changes}
    assert queued_for_long((pod("p0", ready=False, **fields),), NOW) is is_long


@pytest.mark.parametrize(("short", "is_told"), [(1, True), (0, False)])
def test_a_deadline_as_long_as_the_start_is_not_said_to_be_too_short(short: int, is_told: bool) -> None:
    asked = startup_seconds(model()) - short
    observed = observation(
        deployment=deployment(rollout={"progressDeadlineSeconds": asked}),
        workload=workload(ready=0, conditions=(LATE,)),
        pods=(pod("p0", ready=False),),
    )
    assert ("is less than the" in late(observed, rollout(observed))) is is_told


GROUPED = {**workload(), "kind": "LeaderWorkerSet"}


def test_a_group_controller_that_reports_no_generation_has_acted_when_all_pods_are_of_its_revision() -> None:
    live = {**GROUPED, "status": {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}}

    def seen(*pods: PodState) -> bool:
        return main_rollout(observation(workload=live, pods=pods)).updated == 2

    assert seen(pod("a", group="0"), pod("b", group="1"))
    assert seen(pod("a", group="0"), pod("stray", OLD))
    assert not seen(pod("a", group="0"), pod("b", OLD, group="1"))
    assert not seen(pod("a", OLD, group="0"), pod("b", OLD, group="1"))
    assert not seen()


def test_groups_of_which_no_controller_said_that_they_are_ready_are_not() -> None:
    live = {**GROUPED, "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2}}
    assert main_rollout(observation(workload=live, pods=(pod("a", group="0"), pod("b", group="1")))).ready == 0


def grouped(reason: str, since: float, *, status: str = "True", running: str = HASH, **more: Any) -> Observation:
    """Return groups whose condition Progressing has had this reason for so many seconds."""
    said = {
        "type": "Progressing",
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": stamp(since),
    }
    active = {
        "planHash": running,
        "workloadRef": {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": "llama"},
        "readyReplicas": 0,
        "updatedReplicas": 0,
    }
    limit: dict[str, Any] = {"rollout": {"progressDeadlineSeconds": 7200}}
    asked = deployment({"conditions": [said], "activeRevision": active, **more.pop("also", {})}, **limit)
    return observation(deployment=asked, workload=GROUPED, **{"pods": (pod("g", ready=False, group="0"),), **more})


@pytest.mark.parametrize(
    ("observed", "is_late"),
    [
        (grouped("Starting", 7200), False),
        (grouped("Starting", 7201), True),
        (grouped("Starting", 7201, running=OTHER), False),
        (grouped("Starting", 7201, planning=PlanChoice(plan(), None, True, Reason.PLANNED, "")), False),
        (grouped("NotStarted", 7201, status="False"), False),
        (grouped("ProgressDeadlineExceeded", 10, status="False"), True),
        # A replica became ready since: the time begins again, though the condition says so still.
        (grouped("ProgressDeadlineExceeded", 10, status="False", pods=(pod("g", group="0"),)), True),
        (grouped("Starting", 9000, pods=(pod("g", group="0"),)), False),
        (grouped("Starting", 9000, pods=(pod("g", OLD, group="0"),)), True),
        (grouped("Starting", 9000, also={"planAdoptionTime": stamp(10)}), False),
    ],
)
def test_a_group_is_late_when_none_became_ready_for_the_time_of_the_deadline(
    observed: Observation, is_late: bool
) -> None:
    live = rollout(observed)
    told = late(observed, live)
    assert told == ("no replica became ready for 7200 s" if is_late else "")


def told_late(reason: str = "ProgressDeadlineExceeded", **changes: Any) -> str:
    fields: dict[str, Any] = {"plan": plan(), "workload": GROUPED, "running": HASH, **changes}
    observed = grouped(reason, 10, status="False", running=fields["running"])
    said = observed.deployment.status.conditions[0].model_copy(update={"message": "no replica became ready"})
    kept = said if fields.get("known", True) else said.model_copy(update={"type": "Ready"})
    status = observed.deployment.status.model_copy(update={"conditions": (kept,)})
    asked = observed.deployment.model_copy(update={"status": status})
    return late_rollout(asked, fields["plan"], fields["workload"])


def test_the_last_status_says_whether_a_rollout_of_groups_was_late() -> None:
    assert told_late() == "no replica became ready"
    assert told_late("Starting") == ""
    assert told_late(running=OTHER) == ""
    assert told_late(known=False) == ""
    assert told_late(plan=plan(OTHER)) == ""
    assert told_late(workload={**GROUPED, "metadata": {}}) == ""
    assert late_rollout(deployment(), plan(), GROUPED) == ""


def test_a_pod_in_a_queue_makes_no_rollout_late_when_its_pods_are_known() -> None:
    live = workload(ready=0, conditions=(LATE,))
    queued = (pod("p0", ready=False, queued="a gate"),)
    assert late_rollout(deployment(), plan(), live, queued) == "timed out"
    assert late_rollout(deployment(), plan(), live, queued, NOW) == ""
