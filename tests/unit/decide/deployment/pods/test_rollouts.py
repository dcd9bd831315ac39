"""What holds pods up is told in words: by the API server, by a node, by a container, by a volume."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.observations import (
    NOW,
    OLD,
    PRODUCT,
    deployment,
    model,
    observation,
    plan,
    pod,
    revision,
    workload,
)

from energylens.api.llmdeployment import PrefillReplicas
from energylens.data import load_gpus
from energylens.decide.deployment.observed.observation import Observation, PlanChoice, PodState, pod_state
from energylens.decide.deployment.pods.children import children
from energylens.decide.deployment.pods.deadlines import late, late_rollout
from energylens.decide.deployment.pods.rollouts import looks_again, refused_pods, rollout
from energylens.decide.deployment.pods.workloads import workload_revision
from energylens.decide.deployment.reports.conditions import all_conditions
from energylens.decide.reasons import Reason
from energylens.decide.trimmed import trim_pod
from energylens.serving import Placement, Strategy, manifests
from energylens.serving.claims import Claims
from energylens.serving.metadata import OWNER_LABEL, REVISION_LABEL
from energylens.serving.timing import startup_seconds

MINUTE = timedelta(minutes=1)


def stamp(ago: timedelta) -> str:
    return (NOW - ago).strftime("%Y-%m-%dT%H:%M:%SZ")


def live_pod(name: str = "p1", *, ago: timedelta = MINUTE, metadata: Any = None, **status: Any) -> PodState:
    """Return the state of a pod as the API server has it."""
    labels = {OWNER_LABEL: "llama", REVISION_LABEL: revision()}
    body = {
        "metadata": {
            "name": name,
            "namespace": "team",
            "labels": labels,
            "creationTimestamp": stamp(ago),
            **(metadata or {}),
        },
        "spec": {"nodeName": "h100-0", "containers": [{"name": "engine"}]},
        "status": {"phase": "Pending", **status},
    }
    return pod_state(trim_pod(body))


def container(state: str, name: str = "engine", last: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "ready": False, "restartCount": 3 if last else 0, "state": {state: fields}}
    return {**found, "lastState": {"terminated": last}} if last else found


def conditions(observed: Observation) -> dict[str, Any]:
    return {c.type: c for c in all_conditions(observed, children(observed))}


def starting(*pods: PodState, **changes: Any) -> Observation:
    """Return a first start whose pods are these."""
    return observation(workload=workload(ready=0, updated=2), pods=pods, **changes)


OOM = {"reason": "OOMKilled", "exitCode": 137}
TROUBLES: dict[str, tuple[dict[str, Any], str]] = {
    "rejected by the device plugin": (
        {
            "phase": "Failed",
            "reason": "UnexpectedAdmissionError",
            "message": "no healthy devices",
        },
        "1 pod failed on node h100-0: p1: UnexpectedAdmissionError: no healthy devices",
    ),
    "rejected for its GPUs": (
        {"phase": "Failed", "reason": "OutOfnvidia.com/gpu", "message": "Node didn't have enough resource"},
        "1 pod failed on node h100-0: p1: OutOfnvidia.com/gpu: Node didn't have enough resource",
    ),
    "rejected for its node": (
        {"phase": "Failed", "reason": "NodeAffinity", "message": "Predicate NodeAffinity failed"},
        "p1: NodeAffinity: Predicate NodeAffinity failed",
    ),
    "evicted": (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."},
        "p1: Evicted: The node was low on resource: ephemeral-storage.",
    ),
    "ended": (
        {
            "phase": "Failed",
            "containerStatuses": [{"name": "engine", "state": {"terminated": {"reason": "Error", "exitCode": 2}}}],
        },
        "p1: container engine ended: Error (exit code 2)",
    ),
    "image": (
        {"containerStatuses": [container("waiting", reason="ImagePullBackOff", message="not found")]},
        "p1: ImagePullBackOff: not found",
    ),
    "image of an init container": (
        {
            "initContainerStatuses": [container("waiting", "fetch", reason="ErrImagePull", message="denied")],
            "containerStatuses": [container("waiting", reason="PodInitializing")],
        },
        "p1: ErrImagePull: denied",
    ),
    "crash loop": (
        {
            "containerStatuses": [
                container("waiting", last=OOM, reason="CrashLoopBackOff", message="back-off 40s restarting")
            ]
        },
        "p1: CrashLoopBackOff: back-off 40s restarting; container engine ended: OOMKilled (exit code 137), restarted 3",
    ),
    "what the engine said last": (
        {
            "containerStatuses": [
                container(
                    "waiting",
                    last={"reason": "Error", "exitCode": 1, "message": "ValueError: too large"},
                    reason="CrashLoopBackOff",
                )
            ]
        },
        "container engine ended: Error (exit code 1), restarted 3 times: ValueError: too large",
    ),
    "configuration": (
        {"containerStatuses": [container("waiting", reason="CreateContainerConfigError", message="no secret hf")]},
        "p1: CreateContainerConfigError: no secret hf",
    ),
    "runtime": (
        {"containerStatuses": [container("waiting", reason="RunContainerError", message="exec: vllm: not found")]},
        "p1: RunContainerError: exec: vllm: not found",
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_pod_that_cannot_run_is_named_in_ready_and_degraded(name: str) -> None:
    status, text = TROUBLES[name]
    found = conditions(starting(pod("p0"), live_pod(**status)))
    for kind in ("Ready", "Degraded"):
        assert found[kind].reason == Reason.PODS_FAILING, found[kind]
        assert text in found[kind].message
    assert found["Degraded"].status == "True"
    assert found["Ready"].message.startswith("1 of 2 replicas of plan ")


def test_pods_that_fail_again_and_again_are_counted_by_node() -> None:
    status: dict[str, Any] = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no healthy devices"}
    failed = [live_pod(f"p{i:02d}", ago=timedelta(seconds=60 - i), **status) for i in range(17)]
    elsewhere = replace(failed[0], name="other", node="h100-1")
    message = conditions(starting(elsewhere, *failed))["Ready"].message
    assert "17 pods failed on node h100-0: p16: UnexpectedAdmissionError: no healthy devices" in message


def test_what_failed_long_ago_says_nothing_of_what_starts_now() -> None:
    evicted = live_pod("old", ago=timedelta(hours=5), phase="Failed", reason="Evicted", message="low on disk")
    found = conditions(starting(evicted, pod("p0", ready=False)))
    assert (found["Ready"].reason, found["Degraded"].status) == (Reason.PODS_NOT_READY, "False")
    assert found["Progressing"].reason == Reason.STARTING


def test_pods_that_failed_before_all_became_ready_degrade_nothing() -> None:
    evicted = live_pod("old", phase="Failed", reason="Evicted", message="low on disk")
    found = conditions(observation(pods=(evicted, pod("p0"), pod("p1"))))
    assert (found["Ready"].status, found["Degraded"].status) == ("True", "False")


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_pod_that_just_starts_is_no_trouble(reason: str) -> None:
    found = conditions(starting(live_pod(containerStatuses=[container("waiting", reason=reason)])))
    assert (found["Ready"].reason, found["Degraded"].status) == (Reason.PODS_NOT_READY, "False")


def test_how_a_container_ended_that_was_ready_before_is_told_while_it_starts_again() -> None:
    again = {**container("running", last=OOM), "restartCount": 1}
    done = {"name": "fetch", "ready": True, "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}
    found = conditions(starting(live_pod(initContainerStatuses=[done], containerStatuses=[again])))
    assert "p1: container engine ended: OOMKilled (exit code 137), restarted 1 times" in found["Ready"].message
    assert found["Degraded"].status == "False"


QUOTA = 'pods "llama-1" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=2'
LATE = ({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"},)
REFUSED = ({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": QUOTA},)


def test_pods_that_the_api_server_refuses_are_told_of() -> None:
    found = conditions(observation(workload=workload(ready=0, updated=0, replicas=0, conditions=REFUSED), pods=()))
    for kind in ("Ready", "Degraded"):
        assert found[kind].reason == Reason.PODS_REFUSED
        assert f"pods cannot be created: FailedCreate: {QUOTA}" in found[kind].message


def test_refused_pods_of_a_surge_do_not_hide_that_the_old_ones_serve() -> None:
    live = workload(ready=2, updated=0, replicas=2, conditions=REFUSED)
    found = conditions(observation(workload=live, pods=(pod("a", OLD), pod("b", OLD))))
    assert found["Ready"].reason == Reason.PODS_REFUSED
    assert found["Progressing"].reason == Reason.ROLLING_SURGE


def test_a_surge_that_a_quota_refuses_goes_on_by_recreating() -> None:
    live = workload(ready=2, updated=0, replicas=2, conditions=REFUSED)
    old = (pod("a", OLD), pod("b", OLD))
    found = children(observation(workload=live, pods=old))
    assert found.strategy is not None
    assert found.strategy.name == "Recreate"
    # Where no old pod holds a part of the quota, stopping one brings nothing.
    assert children(observation(workload=live, pods=())).strategy is None
    other = ({**REFUSED[0], "message": 'violates PodSecurity "restricted:latest"'},)
    assert children(observation(workload=workload(conditions=other), pods=old)).strategy is None


def test_a_pod_that_does_not_end_is_told_of_when_its_time_is_over() -> None:
    def found(ago: timedelta) -> Any:
        stuck = live_pod(metadata={"deletionTimestamp": stamp(ago)}, phase="Running")
        return conditions(starting(pod("p0"), stuck))

    assert found(timedelta(seconds=-30))["Ready"].message.endswith("p1 is being stopped")
    late_one = found(timedelta(minutes=5))
    assert late_one["Degraded"].reason == Reason.PODS_FAILING
    assert "p1 was to end by 2026-03-01T11:55:00Z and is still there; its node h100-0 may be gone" in (
        late_one["Ready"].message
    )


def test_a_pod_that_does_not_end_holds_gpus_though_all_others_are_ready() -> None:
    stuck = live_pod("old", metadata={"deletionTimestamp": stamp(timedelta(minutes=5))}, phase="Running")
    observed = observation(pods=(pod("p0"), pod("p1"), stuck))
    found = conditions(observed)
    assert (found["Ready"].status, found["Degraded"].reason) == ("True", Reason.PODS_FAILING)
    assert looks_again(observed)
    assert not looks_again(observation())


def test_pods_that_cannot_be_deleted_are_not_said_to_be_refused() -> None:
    other = ({**REFUSED[0], "reason": "FailedDelete"},)
    assert conditions(observation(workload=workload(ready=0, conditions=other), pods=()))["Ready"].reason == (
        Reason.PODS_NOT_READY
    )


def test_pods_of_several_nodes_behind_a_claim_of_one_are_told_of() -> None:
    claims = Claims({"models": ("ReadWriteOnce",)})
    found = conditions(starting(pod("p0"), pod("p1", ready=False, node="h100-1"), claims=claims))
    assert found["Degraded"].message == (
        "claim models is ReadWriteOnce: one node may mount it, and the pods are on h100-0, h100-1"
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"workload": workload(seen=False)}, "the controller of the Deployment has not acted on its last change yet"),
        ({"workload": workload(updated=1)}, "1 of 2 replicas are of the newest revision"),
        ({"workload": workload(replicas=3)}, "1 replica of the previous revision is not gone yet"),
        ({"workload": workload(plan("b" * 16))}, f"plan {'a' * 16} is not applied yet"),
        (
            {"workload": workload(plan("b" * 16)), "refused": "Deployment llama: denied; retrying"},
            f"plan {'a' * 16} is not applied yet: Deployment llama: denied; retrying",
        ),
        ({"outgoing": {"kind": "LeaderWorkerSet"}}, "the LeaderWorkerSet of the previous plan still exists"),
    ],
    ids=["not seen", "old revision", "old pods", "behind", "refused", "other kind"],
)
def test_ready_never_says_that_all_are_ready_while_it_is_false(changes: dict[str, Any], why: str) -> None:
    if "outgoing" in changes:
        changes = {"outgoing": {**workload(), "kind": "LeaderWorkerSet"}}
    ready = conditions(observation(**changes))["Ready"]
    assert (ready.status, ready.reason) == ("False", Reason.PODS_NOT_READY)
    assert "2 of 2" not in ready.message
    assert ready.message.endswith(f"is not rolled out yet: {why}")


def test_ready_says_why_the_first_workload_was_not_made() -> None:
    ready = conditions(observation(workload=None, pods=(), refused="Deployment llama: denied; retrying"))["Ready"]
    assert (ready.reason, ready.message) == (Reason.NOT_STARTED, "Deployment llama: denied; retrying")


SEVERAL = plan(nodes_per_replica=2, tensor_parallel=16, gpus=16, replicas=1)


def groups(*, ready: int = 1, **spec: Any) -> dict[str, Any]:
    """Return a live LeaderWorkerSet of one group of two pods."""
    strategy, gpu = Strategy("Surge", 1, 0), load_gpus()[PRODUCT]
    body: dict[str, Any] = dict(
        manifests(deployment(**spec), SEVERAL, model(), strategy=strategy, placement=Placement(gpu))[0]
    )
    status = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": ready}
    return {**body, "metadata": {**body["metadata"], "generation": 1, "uid": "g1"}, "status": status}


def group_observation(*pods: PodState, **changes: Any) -> Observation:
    fields: dict[str, Any] = {
        "planning": PlanChoice(SEVERAL, model(), True, Reason.PLANNED, ""),
        "serves_lws": True,
        "workload": groups(),
        "pods": pods,
    }
    return observation(**{**fields, **changes})


def member(name: str, *, leads: bool = True, ready: bool = True, **changes: Any) -> PodState:
    return pod(name, workload_revision(groups()), ready=ready, group="0", leads=leads, **changes)


def test_a_group_is_ready_when_all_of_its_pods_are() -> None:
    leader, follower = member("g-0"), member("g-0-1", leads=False)
    assert rollout(group_observation(leader, follower)).ready == 1
    for pods in (
        (leader,),
        (leader, replace(follower, ready=False)),
        (replace(leader, ready=False, ends_by=stamp(MINUTE)), follower),
        (leader, replace(follower, revision=OLD)),
    ):
        assert rollout(group_observation(*pods)).ready == 0


def test_a_leader_that_is_being_stopped_is_not_counted_though_its_controller_does() -> None:
    ending = live_pod("g-0", metadata={"deletionTimestamp": stamp(-MINUTE)}, phase="Running")
    stopping = replace(ending, revision=workload_revision(groups()), group="0")
    ready = conditions(group_observation(stopping, member("g-0-1", leads=False)))["Ready"]
    assert ready.status == "False"
    assert ready.message.startswith("0 of 1 replicas")


def test_refused_pods_of_a_group_are_told_of() -> None:
    observed = group_observation(refused_pods=f"FailedCreate: {QUOTA}", workload=groups(ready=0))
    found = conditions(observed)
    assert found["Degraded"].reason == found["Ready"].reason == Reason.PODS_REFUSED
    assert QUOTA in found["Degraded"].message


def progressing(reason: str, since: timedelta) -> dict[str, Any]:
    status = "False" if reason == "ProgressDeadlineExceeded" else "True"
    condition = {
        "type": "Progressing",
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": stamp(since),
    }
    active = {
        "planHash": SEVERAL.hash,
        "workloadRef": {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": "llama-group"},
        "readyReplicas": 0,
        "updatedReplicas": 0,
    }
    return {"conditions": [condition], "activeRevision": active}


@pytest.mark.parametrize(
    ("reason", "since", "is_late"),
    [
        ("Starting", 50 * MINUTE, False),
        ("Starting", 61 * MINUTE, True),
        ("ProgressDeadlineExceeded", MINUTE, True),
        ("Complete", 900 * MINUTE, False),
    ],
)
def test_a_group_misses_its_deadline_too(reason: str, since: timedelta, is_late: bool) -> None:
    status = progressing(reason, since)
    if reason == "Complete":
        status["conditions"][0]["status"] = "False"
    observed = group_observation(member("g-0", ready=False), workload=groups(ready=0), deployment=deployment(status))
    found = conditions(observed)
    assert (found["Progressing"].reason == Reason.PROGRESS_DEADLINE_EXCEEDED) is is_late
    assert (found["Degraded"].reason == Reason.PROGRESS_DEADLINE_EXCEEDED) is is_late


def test_a_deadline_that_is_shorter_than_the_start_says_so() -> None:
    spec = deployment(rollout={"progressDeadlineSeconds": 60})
    observed = observation(
        workload=workload(ready=0, conditions=LATE, rollout={"progressDeadlineSeconds": 60}),
        pods=(pod(ready=False),),
        deployment=spec,
    )
    text = f"progressDeadlineSeconds=60 is less than the {startup_seconds(model())} s that the model may take to start"
    assert late(observed, rollout(observed)).startswith("timed out; spec.rollout.")
    assert text in conditions(observed)["Degraded"].message


def test_what_the_controller_has_not_acted_on_counts_for_nothing() -> None:
    found = rollout(observation(workload=workload(seen=False)))
    assert (found.current, found.updated, found.wanted) == (False, 0, 2)


@pytest.mark.parametrize(("updated", "is_refused"), [(0, True), (1, True), (2, False)])
def test_a_rejection_of_pods_of_an_earlier_template_is_none_of_the_wanted_ones(updated: int, is_refused: bool) -> None:
    # A Deployment keeps the ReplicaSet of a template that was reverted while its other pods are not available.
    live = workload(ready=0, updated=updated, replicas=2, conditions=REFUSED)
    observed = observation(workload=live, pods=(pod(ready=False), pod(ready=False)))
    assert bool(refused_pods(observed)) is is_refused
    assert (conditions(observed)["Degraded"].reason == Reason.PODS_REFUSED) is is_refused


@pytest.mark.parametrize("role", ["decode", "prefill"])
@pytest.mark.parametrize("there", [0, 1])
def test_refused_pods_of_a_role_are_told_of_whatever_the_other_role_has(role: str, there: int) -> None:
    prefill = PrefillReplicas(
        replicas=2, tensor_parallel=1, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=4
    )
    whole, pods = workload(), (pod("a"), pod("b"))
    lacking = workload(ready=there, updated=there, replicas=there, conditions=REFUSED)
    live = {"decode": (whole, pods), "prefill": (whole, pods), role: (lacking, pods[:there])}
    observed = observation(
        planning=PlanChoice(plan(prefill=prefill), model(), True, Reason.PLANNED, ""),
        workload=live["decode"][0],
        pods=live["decode"][1],
        prefill=live["prefill"][0],
        prefill_pods=live["prefill"][1],
    )
    assert conditions(observed)["Degraded"].reason == Reason.PODS_REFUSED


@pytest.mark.parametrize(("queued", "is_late"), [("admission by Kueue", False), ("", True)])
def test_prefill_pods_in_a_queue_miss_no_deadline(queued: str, is_late: bool) -> None:
    prefill = PrefillReplicas(
        replicas=2, tensor_parallel=1, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=4
    )
    found = observation(
        planning=PlanChoice(plan(prefill=prefill), model(), True, Reason.PLANNED, ""),
        prefill=workload(ready=1, conditions=LATE),
        prefill_pods=(pod("f0"), pod("f1", ready=False, node="", queued=queued)),
    )
    assert bool(late(found, rollout(found))) is is_late


@pytest.mark.parametrize(
    ("left", "text"),
    [
        ((), "prefill: its Deployment is not made yet"),
        ((pod("f0"),), "prefill: the prefill pods of the previous plan stop first"),
    ],
)
def test_old_prefill_pods_are_what_the_new_ones_wait_for(left: tuple[PodState, ...], text: str) -> None:
    prefill = PrefillReplicas(
        replicas=2, tensor_parallel=1, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=4
    )
    planning = PlanChoice(plan(prefill=prefill), model(), True, Reason.PLANNED, "")
    assert rollout(observation(planning=planning, prefill_pods=left)).pending == text


@pytest.mark.parametrize("condition", [("ReplicaFailure", "False"), ("Progressing", "True")])
def test_only_a_failure_that_is_true_refuses_pods(condition: tuple[str, str]) -> None:
    stated = {"type": condition[0], "status": condition[1], "reason": "FailedCreate", "message": "no"}
    assert refused_pods(observation(workload=workload(conditions=(stated,)))) == ""


def test_a_rollout_of_a_deployment_is_told_by_its_watches_and_that_of_groups_is_not() -> None:
    assert not looks_again(observation(workload=workload(ready=1), pods=()))
    assert looks_again(observation(workload=groups(ready=0), pods=()))


def test_no_plan_and_no_workload_is_late() -> None:
    assert late_rollout(deployment(), None, None) == ""
    assert late_rollout(deployment(), None, workload()) == ""
