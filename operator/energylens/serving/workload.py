"""The object that runs the pods: a Deployment, or a LeaderWorkerSet where a replica spans nodes."""

from __future__ import annotations

from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, WorkloadRef
from energylens.predictor.model.architecture import ModelSpec
from energylens.serving import sglang, vllm
from energylens.serving.arguments import Launch
from energylens.serving.errors import ServingError
from energylens.serving.gpus import Placement
from energylens.serving.metadata import (
    CANARY,
    LWS_RECREATE_AFTER_START,
    PLAN_SUMMARY,
    PREFILL,
    REVISION_LABEL,
    ROLE_LABEL,
    child,
    plan_summary,
    revision,
    selector_labels,
)
from energylens.serving.pod import grace_period_seconds, pod_template
from energylens.serving.queues import owner_labels
from energylens.serving.roles import Role
from energylens.serving.rollout import Strategy
from energylens.serving.timing import drain_seconds, progress_deadline_seconds, startup_seconds

LWS_API_VERSION = "leaderworkerset.x-k8s.io/v1"
LWS_SUFFIX = "-group"
"""A LeaderWorkerSet makes a headless Service of its own name, which must not be that of our Service."""
CANARY_SUFFIX = f"-{CANARY}"
PREFILL_SUFFIX = f"-{PREFILL}"
SUFFIXES = {"Deployment": (CANARY_SUFFIX, PREFILL_SUFFIX), "LeaderWorkerSet": (LWS_SUFFIX, CANARY_SUFFIX)}
"""Kind to the suffixes of the names of workloads, beyond the name of their LLMDeployment."""
MAX_GROUP_NAME_LENGTH = 48
"""Longest name of a LeaderWorkerSet: its StatefulSets append a group number, and a label of 63 characters also holds a
revision hash."""


def workload_ref(deployment: LLMDeployment, plan: PlanStatus) -> WorkloadRef:
    """Return a reference to the object that runs the pods of a plan."""
    name = deployment.metadata.name
    if plan.nodes_per_replica > 1:
        return WorkloadRef(api_version=LWS_API_VERSION, kind="LeaderWorkerSet", name=f"{name}{LWS_SUFFIX}")
    return WorkloadRef(api_version="apps/v1", kind="Deployment", name=name)


def canary_ref(deployment: LLMDeployment, plan: PlanStatus) -> WorkloadRef:
    """Return a reference to the object that runs the replica that verifies a plan."""
    name = f"{deployment.metadata.name}{CANARY_SUFFIX}"
    return workload_ref(deployment, plan).model_copy(update={"name": name})


def prefill_ref(deployment: LLMDeployment) -> WorkloadRef:
    """Return a reference to the object that runs the prefill pods of a plan with separate prefill and decode."""
    name = f"{deployment.metadata.name}{PREFILL_SUFFIX}"
    return WorkloadRef(api_version="apps/v1", kind="Deployment", name=name)


def fits_group(name: str) -> bool:
    """Return whether a LeaderWorkerSet may have a name."""
    return len(name) <= MAX_GROUP_NAME_LENGTH


def workload(
    deployment: LLMDeployment,
    plan: PlanStatus,
    model: ModelSpec,
    strategy: Strategy,
    placement: Placement,
    *,
    canary: bool = False,
    role: Role | None = None,
    runs: bool = True,
    whole: PlanStatus | None = None,
) -> dict[str, Any]:
    """Return the Deployment or LeaderWorkerSet of a plan or, with ``canary``, of the replica that verifies the plan.

    With ``role``, ``plan`` is that of the pods of one role, ``whole`` that of both roles, and without ``runs`` there is
    no replica for the moment.

    The canary's pods have the labels that the Service selects, and a role by which the canary's own selector and the
    measurement distinguish these pods. The selectors of the two Deployments overlap: each Deployment owns its
    ReplicaSets, and pods without an owner are not adopted, since ReplicaSets also select by the template's hash. The
    same holds for prefill pods.

    Raises:
        ServingError: The spec's extra arguments or pod template contradict the plan, or the name is too long for it.
    """
    spec = deployment.spec
    startup = startup_seconds(model)
    launch = Launch(deployment, plan, model, startup, drain_seconds(grace_period_seconds(deployment)), role)
    engine = vllm if spec.engine.type == "VLLM" else sglang
    leader, follower = engine.commands(launch)
    if role is not None and plan.nodes_per_replica > 1:
        raise ServingError("spec.planning.disaggregation", "prefill and decode are separated on one node each only")
    replicas = 0 if spec.is_stopped or not runs else plan.replicas
    ref = canary_ref(deployment, plan) if canary else workload_ref(deployment, plan)
    if role == "prefill":
        ref = prefill_ref(deployment)
    if follower is not None:
        _check_group_name(deployment, ref.name)
    template = pod_template(deployment, plan, leader, startup, placement, role)
    followers = None if follower is None else pod_template(deployment, plan, follower, startup, placement)
    # Pods of the decode role are those of the main Deployment, whose selector cannot change.
    own = {ROLE_LABEL: CANARY} if canary else {ROLE_LABEL: PREFILL} if role == "prefill" else {}
    label = {REVISION_LABEL: revision(template, followers, plan.nodes_per_replica), **own}
    for one in (template, followers):
        if one is not None:
            one["metadata"]["labels"] |= label
    body: dict[str, Any] = {"replicas": replicas}
    if followers is None:
        body["selector"] = {"matchLabels": selector_labels(deployment) | own}
        body |= _deployment_spec(deployment, template, strategy, startup)
    else:
        body |= _group_spec(template, followers, strategy, plan.nodes_per_replica)
    annotations = {PLAN_SUMMARY: plan_summary(whole or plan)}
    if followers is not None:
        annotations[LWS_RECREATE_AFTER_START] = "true"
    queue = owner_labels(deployment.metadata)
    return child(deployment, ref.api_version, ref.kind, ref.name, {"spec": body}, plan, annotations, queue)


def _check_group_name(deployment: LLMDeployment, name: str) -> None:
    if not fits_group(name):
        most = MAX_GROUP_NAME_LENGTH - (len(name) - len(deployment.metadata.name))
        raise ServingError(
            "metadata.name",
            f"{deployment.metadata.name!r} must have at most {most} characters where a replica spans several nodes",
        )


def _deployment_spec(
    deployment: LLMDeployment, template: dict[str, Any], strategy: Strategy, startup: int
) -> dict[str, Any]:
    """Return the spec of a Deployment but for its replicas and its selector; ``startup`` is in seconds."""
    rollout = deployment.spec.rollout
    return {
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": strategy.max_surge, "maxUnavailable": strategy.max_unavailable},
        },
        "progressDeadlineSeconds": progress_deadline_seconds(rollout.progress_deadline_seconds, startup),
        "revisionHistoryLimit": rollout.revision_history_limit,
        "template": template,
    }


def _group_spec(leader: dict[str, Any], follower: dict[str, Any], strategy: Strategy, size: int) -> dict[str, Any]:
    """Return the spec of a LeaderWorkerSet with groups of ``size`` pods, but for its replicas."""
    return {
        # Leaders become ready only after their workers have joined, so waiting for ready leaders would never end.
        "startupPolicy": "LeaderCreated",
        "rolloutStrategy": {
            "type": "RollingUpdate",
            "rollingUpdateConfiguration": {
                "maxSurge": strategy.max_surge,
                "maxUnavailable": strategy.max_unavailable,
            },
        },
        "leaderWorkerTemplate": {
            "size": size,
            # One engine over several pods cannot lose one of them. RecreateGroupAfterStart is an enum value that
            # releases before 0.9 refuse; the annotation means the same from 0.8 on, and nothing before.
            "restartPolicy": "RecreateGroupOnPodRestart",
            "leaderTemplate": leader,
            "workerTemplate": follower,
        },
    }
