"""What ``Ready`` and ``Progressing`` count, which replicas have to be ready, and what their messages name."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide.observations import (
    HASH,
    OLD,
    OTHER,
    RECREATE,
    SURGE,
    deployment,
    model,
    observation,
    plan,
    pod,
    without_plan,
    workload,
)

from energylens.api.base import Condition
from energylens.api.llmdeployment import PrefillReplicas, ScheduledReplicas, ScheduleStatus
from energylens.decide.deployment.loads.load import Followed, FollowedLoad
from energylens.decide.deployment.observed.observation import Observation, PlanChoice
from energylens.decide.deployment.pods.children import children
from energylens.decide.deployment.reports.conditions import all_conditions
from energylens.decide.reasons import Reason
from energylens.serving import Strategy

PREFILL = PrefillReplicas(
    replicas=1, tensor_parallel=1, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=4
)
EXTERNAL = {"mode": "External", "minReplicas": 1}
WAS_READY = {
    "type": "Ready",
    "status": "True",
    "reason": "PodsReady",
    "message": "",
    "lastTransitionTime": "2026-03-01T11:00:00Z",
}


def conditions(observed: Observation) -> dict[str, Condition]:
    return {condition.type: condition for condition in all_conditions(observed, children(observed))}


def ready(**changes: Any) -> Condition:
    return conditions(observation(**changes))["Ready"]


def of_plan(replicas: int, *, plan_hash: str = HASH, exist: int | None = None) -> dict[str, Any]:
    """Return the workload of a plan of so many replicas, of which as many exist unless ``exist`` says otherwise."""
    made = plan(plan_hash, replicas=replicas, gpus=replicas)
    return workload(made, ready=replicas, updated=replicas, replicas=replicas if exist is None else exist)


def scaled(count_before: int, **spec: Any) -> Any:
    """Return a deployment that was ready with so many replicas at the last reconcile."""
    active = {
        "planHash": HASH,
        "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"},
        "readyReplicas": count_before,
        "updatedReplicas": count_before,
    }
    fine = {**WAS_READY, "type": "Degraded", "status": "False"}
    status = {"conditions": [WAS_READY, fine], "activeRevision": active}
    return deployment(status, **{"scaling": EXTERNAL, "replicas": 2, **spec})


def test_before_the_first_workload_ready_says_why_there_is_none() -> None:
    fresh: dict[str, Any] = {"workload": None, "pods": ()}
    assert ready(planning=without_plan(Reason.MODEL_UNKNOWN), **fresh).message == "it is ModelUnknown"
    waits = ready(deployment=deployment(planning={"mode": "Manual"}), **fresh)
    assert HASH in waits.message
    assert waits.message != "2 x H100 TP1"


def test_replicas_are_counted_against_the_plan_that_runs_not_against_the_next_one() -> None:
    # The plan to come has 2 replicas; the one that serves has 1 and is whole.
    one = plan(OTHER, replicas=1, gpus=1)
    found = ready(workload=of_plan(1, plan_hash=OTHER), pods=(pod("p0"),), standing=one)
    assert "the workload asks for" not in found.message
    assert f"plan {OTHER}" in found.message


@pytest.mark.parametrize(("asked", "text"), [(3, "3 of 3 replicas"), (2, "2 of 3 replicas")])
def test_prefill_replicas_belong_to_the_replicas_of_a_plan(asked: int, text: str) -> None:
    both = plan(prefill=PREFILL)
    found = ready(
        planning=PlanChoice(both, model(), True, Reason.PLANNED, ""),
        workload=of_plan(asked - 1),
        prefill=of_plan(1),
        prefill_pods=(pod("f0"),),
    )
    assert text in found.message
    assert ("the workload asks for" in found.message) is (asked == 2)


def test_a_workload_of_an_unknown_plan_that_somebody_scaled_to_none_is_not_ready() -> None:
    found = ready(workload=of_plan(0, plan_hash=OTHER), pods=(), planning=without_plan(Reason.MODEL_UNKNOWN))
    assert (found.status, found.reason) == ("False", "PodsNotReady")
    assert found.message.startswith(f"0 of 0 replicas of plan {OTHER} are ready")


def test_one_replica_is_enough_where_the_plan_has_one() -> None:
    one = PlanChoice(plan(replicas=1, gpus=1), model(), True, Reason.PLANNED, "")
    found = ready(planning=one, workload=of_plan(1), pods=(pod("p0"),))
    assert (found.status, found.message) == ("True", f"1 of 1 replicas of plan {HASH} are ready")


def test_ready_names_the_pod_that_waits_before_the_pods_that_still_serve() -> None:
    live = workload(ready=1, updated=1, replicas=2)
    for new, text in [
        (pod("new", ready=False, waiting="ContainerCreating"), "new: ContainerCreating"),
        (pod("new", ready=False), "1 replica of the previous revision still serves"),
    ]:
        assert ready(workload=live, pods=(pod("old", OLD), new)).message.endswith(f"are ready; {text}")
    two = (pod("a", OLD), pod("b", OLD), pod("new", ready=False))
    assert ready(workload=live, pods=two).message.endswith("2 replicas of the previous revision still serve")
    followers = (pod("a", OLD), pod("b", OLD, leads=False), pod("c", OLD, ready=False), pod("new", ready=False))
    assert ready(workload=live, pods=followers).message.endswith("1 replica of the previous revision still serves")


def test_old_pods_beside_a_whole_new_plan_are_gone_soon_and_not_said_to_serve() -> None:
    found = ready(workload=workload(replicas=3), pods=(pod("p0"), pod("p1"), pod("old", OLD)))
    told = f"plan {HASH} is not rolled out yet: 1 replica of the previous revision is not gone yet"
    assert (found.status, found.message) == ("False", told)


SCALES = {
    "one more starts": ({"replicas": 2}, 1, "True", "1 of 2 replicas"),
    "one that was ready is lost": ({"replicas": 2}, 2, "False", "1 of 2 replicas"),
    "ready ones are none": ({"replicas": 2}, 0, "False", "1 of 2 replicas"),
}


@pytest.mark.parametrize("name", SCALES)
def test_ready_stays_true_while_an_autoscaler_adds_replicas_beside_those_that_were_ready(name: str) -> None:
    spec, before, status, text = SCALES[name]
    found = ready(
        deployment=scaled(before, **spec),
        workload=workload(ready=1, updated=2, replicas=2),
        pods=(pod("p0"), pod("p1", ready=False)),
    )
    assert found.status == status
    assert text in found.message
    assert ("; the others start" in found.message) is (status == "True")


NOT_JUST_SCALED: dict[str, dict[str, Any]] = {
    "was not ready before": {"deployment": deployment(scaled(1).status.model_dump(by_alias=True) | {"conditions": []})},
    "no plan": {"planning": without_plan(Reason.MODEL_UNKNOWN)},
    "somebody changes fields": {"unsettled": "replicas-bot changes spec.replicas"},
    "another kind serves": {"outgoing": {**workload(), "kind": "LeaderWorkerSet"}},
    "another plan is to come": {"planning": PlanChoice(plan(OTHER), model(), True, Reason.PLANNED, "")},
    "pods of another revision": {"pods": (pod("p0"), pod("p1", OLD))},
}


@pytest.mark.parametrize("name", NOT_JUST_SCALED)
def test_a_rollout_is_no_scaling(name: str) -> None:
    fields: dict[str, Any] = {
        "deployment": scaled(1),
        "workload": workload(ready=1, updated=2, replicas=2),
        "pods": (pod("p0"), pod("p1", ready=False)),
    }
    assert ready(**fields).status == "True"
    assert ready(**{**fields, **NOT_JUST_SCALED[name]}).status == "False"


def test_pods_of_another_revision_that_ended_do_not_matter_for_scaling() -> None:
    found = ready(
        deployment=scaled(1),
        workload=workload(ready=1, updated=2, replicas=2),
        pods=(pod("p0"), pod("p1", ready=False), pod("gone", OLD, ready=False, finished=True)),
    )
    assert found.status == "True"


def test_only_ready_of_the_last_status_counts_for_scaling() -> None:
    planned, unready = {**WAS_READY, "type": "PlanReady"}, {**WAS_READY, "status": "False"}
    kept = scaled(1).status.model_dump(by_alias=True, exclude_none=True, mode="json")
    asked = deployment({**kept, "conditions": [unready, planned]}, scaling=EXTERNAL, replicas=2)
    live = workload(ready=1, updated=2, replicas=2)
    assert ready(deployment=asked, workload=live, pods=(pod("p0"), pod("p1", ready=False))).status == "False"


def test_stopping_replicas_leave_ready_true_and_are_named() -> None:
    found = ready(
        deployment=scaled(1, replicas=1),
        workload=of_plan(1, exist=2),
        planning=PlanChoice(plan(replicas=1, gpus=1), model(), True, Reason.PLANNED, ""),
        pods=(pod("p0"), pod("p1", ready=False, ends_by="2026-03-01T12:01:00Z")),
    )
    assert (found.status, found.message) == ("True", f"1 of 1 replicas of plan {HASH} are ready; others stop")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "Starting"),
        ({"workload": workload(ready=0, replicas=3)}, "RollingSurge"),
        ({"workload": workload(ready=0, replicas=1, updated=1)}, "Starting"),
        ({"pods": (pod("p0", ready=False), pod("old", OLD))}, "RollingSurge"),
        ({"pods": (pod("p0", ready=False), pod("old", OLD, ready=False, finished=True))}, "Starting"),
        ({"outgoing": {**workload(), "kind": "LeaderWorkerSet"}}, "RollingSurge"),
        ({"workload": {**workload(), "status": {}}}, "Starting"),
        ({"workload": {**workload(), "status": {"replicas": 1}}}, "RollingSurge"),
    ],
    ids=[
        "first pods",
        "old replicas left",
        "fewer",
        "old pods",
        "old pods ended",
        "other kind",
        "no status yet",
        "none updated",
    ],
)
def test_a_rollout_replaces_pods_and_a_start_does_not(changes: dict[str, Any], reason: str) -> None:
    fields: dict[str, Any] = {"workload": workload(ready=0), "pods": (pod("p0", ready=False),)}
    found = conditions(observation(**{**fields, **changes}))["Progressing"]
    assert (found.status, found.reason) == ("True", reason)


def test_plan_ready_tells_of_the_rate_that_longer_requests_leave() -> None:
    load = FollowedLoad(declared=2.0, step=-1, prompts=Followed(declared=512.0, step=1))
    told = conditions(observation(load=load))["PlanReady"].message
    assert told.startswith("2 x H100 TP1; planned for 1.")
    assert told.endswith("tokens (declared: 512)")
    assert conditions(observation())["PlanReady"].message == "2 x H100 TP1"


@pytest.mark.parametrize(("early", "text"), [(True, "the others start early"), (False, "the others start")])
def test_replicas_for_the_next_hour_start_early_and_those_of_an_autoscaler_just_start(early: bool, text: str) -> None:
    # It is Sunday noon: the second replica is for 13:00.
    entries = tuple(
        ScheduledReplicas(day="Sun", hour=hour, requests_per_second="1", replicas=replicas, power_watts=100)
        for hour, replicas in ((0, 1), (13, 2))
    )
    figures = {"start_seconds": 3600, "start_joules": 0, "week_watt_hours": 1, "released_gpu_hours": 0}
    schedule = ScheduleStatus(**figures, replicas=2, starts=1, hours=entries)
    week = {"hours": [{"days": ["Sun"], "fromHour": 13, "toHour": 14, "requestsPerSecond": 2}]}
    load = {"inputTokens": 1, "outputTokens": 1, "requestsPerSecond": 1, "profile": week}
    by_hour = {"scaling": None, "replicas": None, "workload": load}
    planning = PlanChoice(plan(), model(), True, Reason.PLANNED, "", schedule=schedule if early else None)
    found = ready(
        deployment=scaled(1, **(by_hour if early else {})),
        planning=planning,
        workload=workload(ready=1, updated=2, replicas=2),
        pods=(pod("p0"), pod("p1", ready=False)),
    )
    assert (found.status, found.message.partition("; ")[2]) == ("True", text)


def test_without_a_schedule_or_an_autoscaler_all_replicas_must_be_ready() -> None:
    found = ready(
        deployment=scaled(1, scaling=None, replicas=None),
        workload=workload(ready=1, updated=2, replicas=2),
        pods=(pod("p0"), pod("p1", ready=False)),
    )
    assert (found.status, found.reason) == ("False", "PodsNotReady")


@pytest.mark.parametrize(
    ("strategy", "text"),
    [(SURGE, "new replicas start before old ones stop"), (RECREATE, "old replicas stop first")],
)
def test_progressing_says_in_which_order_pods_are_replaced(strategy: Strategy, text: str) -> None:
    live = workload(strategy=strategy, ready=1, updated=1)
    found = conditions(observation(workload=live, pods=(pod("old", OLD), pod("new", ready=False))))["Progressing"]
    assert found.message == f"1 of 2 replicas are of plan {HASH}, 0 are ready; {text}"
