"""The old workload of another kind serves until the new pods are ready, and gives way only where they wait for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.observations import (
    NOW,
    OLD,
    PRODUCT,
    RECREATE,
    SURGE,
    deployment,
    model,
    observation,
    plan,
    pod,
    snapshot,
    workload,
)

from energylens.data import load_gpus
from energylens.decide.deployment.observed.observation import Observation, PlanChoice, PodState
from energylens.decide.deployment.pods.handover import SCALED_DOWN, SETTLE_SECONDS, Handover, handover
from energylens.decide.deployment.pods.rollouts import EXCEEDED_QUOTA
from energylens.decide.deployment.pods.workloads import workload_revision
from energylens.decide.reasons import Reason
from energylens.planner.types import ClusterSnapshot, GpuNode
from energylens.serving import Placement, Strategy, manifests
from energylens.serving.metadata import PREFIX
from energylens.serving.timing import DEFAULT_GRACE_PERIOD_SECONDS

SEVERAL = plan(nodes_per_replica=2, tensor_parallel=16, gpus=16, replicas=1)
GRACE = 45


def groups(strategy: Strategy = RECREATE, **status: Any) -> dict[str, Any]:
    """Return a live LeaderWorkerSet of one group of two pods."""
    body: dict[str, Any] = dict(
        manifests(deployment(), SEVERAL, model(), strategy=strategy, placement=Placement(load_gpus()[PRODUCT]))[0]
    )
    counts = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 0, **status}
    return {**body, "metadata": {**body["metadata"], "generation": 1, "uid": "g1"}, "status": counts}


def old_deployment(scaled_down: str = "", replicas: int = 2) -> dict[str, Any]:
    """Return the Deployment of the previous plan."""
    live = workload()
    live["spec"] = {**live["spec"], "replicas": replicas}
    live["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = GRACE
    marks = {SCALED_DOWN: scaled_down} if scaled_down else {}
    live["metadata"] = {**live["metadata"], "annotations": {"team": "a", f"{PREFIX}x": "y", **marks}}
    return live


def new_pod(name: str, *, leads: bool = True, **changes: Any) -> PodState:
    fields: dict[str, Any] = {"ready": False, "group": "0", **changes}
    return pod(name, workload_revision(groups()), leads=leads, **fields)


WAITING = (new_pod("g-0", unschedulable="no GPU"), new_pod("g-0-1", leads=False, unschedulable="no GPU"))
OLD_PODS = (pod("a", OLD), pod("b", OLD))


def moving(**changes: Any) -> Observation:
    """Return two old replicas on the only node, and a group that waits for their GPUs."""
    fields: dict[str, Any] = {
        "planning": PlanChoice(SEVERAL, model(), True, Reason.PLANNED, ""),
        "serves_lws": True,
        "workload": groups(),
        "outgoing": old_deployment(),
        "pods": (*OLD_PODS, *WAITING),
        "snapshot": snapshot(0),
        **changes,
    }
    return observation(**fields)


def left(**changes: Any) -> int:
    found = handover(moving(**changes))
    assert found is not None
    return found.replicas


def test_without_an_old_or_a_new_workload_there_is_no_handover() -> None:
    assert handover(moving(outgoing=None)) is None
    assert handover(moving(workload=None)) is None


READY = (new_pod("g-0", ready=True), new_pod("g-0-1", leads=False, ready=True))


def test_the_old_workload_goes_when_all_new_replicas_are_ready() -> None:
    done = {"pods": (*OLD_PODS, *READY)}
    assert left(workload=groups(readyReplicas=1), **done) == 0
    assert left(workload=groups(readyReplicas=0), **done) == 2
    # What the controller said of an earlier template does not count.
    assert left(workload=groups(readyReplicas=1, observedGeneration=0), **done) == 2


def test_a_group_controller_that_reports_no_generation_is_believed() -> None:
    live = groups(readyReplicas=1)
    live["status"] = {key: value for key, value in live["status"].items() if key != "observedGeneration"}
    assert left(workload=live, pods=(*OLD_PODS, *READY)) == 0


def test_a_deployment_that_takes_over_must_have_been_seen_by_its_controller() -> None:
    back = {
        "planning": PlanChoice(plan(), model(), True, Reason.PLANNED, ""),
        "outgoing": groups(),
        "pods": (pod("p0"), pod("p1")),
    }
    assert left(workload=workload(), **back) == 0
    assert left(workload=workload(seen=False), **back) == 1
    unknown = workload()
    unknown["status"] = {}
    assert left(workload=unknown, **back) == 1


def test_the_first_generation_must_have_been_seen_too() -> None:
    live = workload()
    live["metadata"] = {**live["metadata"], "generation": 1}
    live["status"] = {key: value for key, value in live["status"].items() if key != "observedGeneration"}
    back = PlanChoice(plan(), model(), True, Reason.PLANNED, "")
    assert left(workload=live, planning=back, outgoing=groups(), pods=(pod("p0"), pod("p1"))) == 1


def test_the_last_old_replica_gives_way_too_and_none_below() -> None:
    one = {"outgoing": old_deployment(replicas=1), "pods": (OLD_PODS[0], *WAITING)}
    assert left(**one) == 0
    asked = deployment(rollout={"strategy": "Recreate"})
    assert left(outgoing=old_deployment(replicas=0), deployment=asked) == 0


def test_an_old_group_is_whole_with_all_of_its_pods() -> None:
    old = groups()
    old["metadata"] = {**old["metadata"], "annotations": {}}
    members = (pod("o-0", OLD, group="0"), pod("o-0-1", OLD, group="0", leads=False))
    new = pod("p0", ready=False, unschedulable="no GPU")
    back: dict[str, Any] = {
        "planning": PlanChoice(plan(), model(), True, Reason.PLANNED, ""),
        "workload": workload(strategy=RECREATE, ready=0),
        "outgoing": old,
    }
    assert left(**back, pods=(*members, new)) == 0
    assert left(**back, pods=(members[0], new)) == 1


def test_one_old_pod_on_the_wanted_gpus_is_in_the_way() -> None:
    far = replace(OLD_PODS[1], node="elsewhere")
    assert left(pods=(OLD_PODS[0], far, *WAITING)) == 1


def test_a_replica_of_which_one_pod_is_ready_is_still_starting() -> None:
    half = (new_pod("g-1-0", group="1", node="a", ready=True), new_pod("g-1-1", group="1", node="b", leads=False))
    assert left(pods=(*OLD_PODS, *WAITING, *half)) == 2


def test_a_stopped_deployment_keeps_no_old_replica() -> None:
    assert left(deployment=deployment(suspend=True)) == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1),
        ({"outgoing": old_deployment(replicas=0)}, 0),
        # A surge waits for GPUs of others.
        ({"workload": groups(SURGE)}, 2),
        ({"workload": {**groups(), "spec": {**groups()["spec"], "rolloutStrategy": {}}}}, 2),
        ({"pods": (*OLD_PODS, new_pod("g-0"), new_pod("g-0-1", leads=False))}, 2),
        ({"pods": (*OLD_PODS, *WAITING[:1])}, 1),
        # An old pod ended or ends: first its GPUs are waited for.
        ({"pods": (OLD_PODS[0], *WAITING)}, 2),
        ({"pods": (OLD_PODS[0], replace(OLD_PODS[1], finished=True), *WAITING)}, 2),
        ({"pods": (OLD_PODS[0], replace(OLD_PODS[1], ends_by="2026-03-01T12:00:30Z"), *WAITING)}, 2),
        # Old pods on other GPUs are not in the way.
        ({"snapshot": ClusterSnapshot((GpuNode("h100-0", "NVIDIA-H200", 0),))}, 2),
        ({"snapshot": ClusterSnapshot((GpuNode("other", PRODUCT, 0),))}, 2),
        ({"planning": PlanChoice(None, model(), True, Reason.PLANNED, "")}, 2),
        ({"pods": (*OLD_PODS, *(replace(each, finished=True) for each in WAITING))}, 2),
    ],
)
def test_old_replicas_give_way_one_by_one_while_new_pods_wait_for_their_gpus(
    changes: dict[str, Any], expected: int
) -> None:
    assert left(**changes) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(GRACE + SETTLE_SECONDS - 1, 2), (GRACE + SETTLE_SECONDS, 1), (9000, 1)]
)
def test_new_pods_get_the_time_to_take_the_gpus_that_became_free(seconds: int, expected: int) -> None:
    told = NOW.timestamp() - seconds
    stamp = type(NOW).fromtimestamp(told, NOW.tzinfo).isoformat()
    assert left(outgoing=old_deployment(stamp)) == expected
    default = old_deployment(type(NOW).fromtimestamp(NOW.timestamp() - seconds, NOW.tzinfo).isoformat())
    del default["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert left(outgoing=default) == (1 if seconds >= DEFAULT_GRACE_PERIOD_SECONDS + SETTLE_SECONDS else 2)


def test_a_spec_that_asks_for_recreate_stops_the_first_old_replica_at_once() -> None:
    asked = {"deployment": deployment(rollout={"strategy": "Recreate"}), "pods": OLD_PODS}
    assert left(**asked) == 1
    assert left(outgoing=old_deployment("2026-03-01T11:59:59Z"), **asked) == 2
    assert left(pods=OLD_PODS) == 2


@pytest.mark.parametrize(
    ("nodes", "ready", "expected"),
    [
        (("", ""), False, 1),
        (("h100-1", ""), False, 1),
        (("h100-1", "h100-2"), False, 2),
        (("h100-1", "h100-2"), True, 1),
    ],
)
def test_a_quota_that_old_pods_use_is_freed_unless_a_new_replica_is_starting(
    nodes: tuple[str, str], ready: bool, expected: int
) -> None:
    pods = tuple(new_pod(f"g-{at}", leads=not at, node=node, ready=ready) for at, node in enumerate(nodes))
    far = ClusterSnapshot((GpuNode("other", PRODUCT, 0),))
    live = groups()
    live["spec"] = {**live["spec"], "replicas": 2}
    refused = {"pods": (*OLD_PODS, *pods), "snapshot": far, "workload": live, "refused_pods": EXCEEDED_QUOTA}
    assert left(**refused) == expected
    assert left(**{**refused, "refused_pods": "forbidden"}) == 2


def test_a_queue_that_stays_full_is_freed_too() -> None:
    queued = new_pod("g-0", node="", queued="a gate", waits_for_quota=True, created="2026-03-01T11:58:00Z")
    assert left(pods=(*OLD_PODS, queued), snapshot=ClusterSnapshot(())) == 1
    assert left(pods=(*OLD_PODS, replace(queued, waits_for_quota=False)), snapshot=ClusterSnapshot(())) == 2


def test_a_replica_that_starts_is_waited_for_though_another_pod_finds_no_node() -> None:
    second = tuple(new_pod(f"g-1-{at}", group="1", node=f"h100-{at}", leads=not at) for at in range(2))
    assert left(pods=(*OLD_PODS, *WAITING, *second)) == 2
    assert left(pods=(*OLD_PODS, *WAITING, second[0])) == 1


def test_the_old_workload_is_written_with_fewer_replicas_and_the_time() -> None:
    old = old_deployment()
    found = Handover(old, 1, "2026-03-01T12:00:00Z").manifest
    assert found is not None
    assert found["spec"] == {**old["spec"], "replicas": 1}
    assert found["metadata"]["annotations"] == {f"{PREFIX}x": "y", SCALED_DOWN: "2026-03-01T12:00:00Z"}
    assert found["metadata"]["name"] == "llama"
    assert (found["kind"], found["apiVersion"]) == ("Deployment", "apps/v1")
    assert Handover(old, 2).manifest is None
    assert Handover(old, 0).manifest is None
    bare = {**old, "metadata": {**old["metadata"], "annotations": None}}
    again = Handover(bare, 1, "now").manifest
    assert again is not None
    assert again["metadata"]["annotations"] == {SCALED_DOWN: "now"}
