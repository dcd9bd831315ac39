"""The object that runs the pods: a Deployment, or a LeaderWorkerSet where a replica spans nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, WorkloadRef
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec
from energylens.serving import sglang, vllm
from energylens.serving.arguments import Launch
from energylens.serving.errors import ServingError
from energylens.serving.metadata import (
    LWS_RECREATE_AFTER_START,
    PLAN_SUMMARY,
    REVISION_LABEL,
    child,
    plan_summary,
    revision,
    selector_labels,
)
from energylens.serving.pod import grace_period_seconds, pod_template
from energylens.serving.rollout import Strategy
from energylens.serving.timing import drain_seconds, progress_deadline_seconds, startup_seconds

LWS_API_VERSION = "leaderworkerset.x-k8s.io/v1"
LWS_SUFFIX = "-group"
"""A LeaderWorkerSet makes a headless Service of its own name, which must not be that of our Service."""
MAX_GROUP_NAME_LENGTH = 48
"""Its StatefulSets add a group number to the name, and a revision hash beside it in one label of 63 characters."""


def workload_ref(deployment: LLMDeployment, plan: PlanStatus) -> WorkloadRef:
    """Return which object runs the pods of a plan."""
    name = deployment.metadata.name
    if plan.nodes_per_replica > 1:
        return WorkloadRef(api_version=LWS_API_VERSION, kind="LeaderWorkerSet", name=f"{name}{LWS_SUFFIX}")
    return WorkloadRef(api_version="apps/v1", kind="Deployment", name=name)


def workload(
    deployment: LLMDeployment,
    plan: PlanStatus,
    model: ModelSpec,
    strategy: Strategy,
    gpu: GpuSpec | None,
    avoid: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the Deployment or LeaderWorkerSet of a plan.

    Raises:
        ServingError: The spec's extra arguments or pod template contradict the plan, or the name is too long for it.
    """
    spec = deployment.spec
    startup = startup_seconds(model)
    launch = Launch(deployment, plan, model, startup, drain_seconds(grace_period_seconds(deployment)))
    engine = vllm if spec.engine.type == "VLLM" else sglang
    leader, follower = engine.commands(launch)
    replicas = 0 if spec.suspend else plan.replicas
    ref = workload_ref(deployment, plan)
    if follower is not None and len(ref.name) > MAX_GROUP_NAME_LENGTH:
        most = MAX_GROUP_NAME_LENGTH - len(LWS_SUFFIX)
        raise ServingError(
            "metadata.name",
            f"{deployment.metadata.name!r} must have at most {most} characters where a replica spans several nodes",
        )
    template = pod_template(deployment, plan, leader, startup, gpu, avoid)
    followers = None if follower is None else pod_template(deployment, plan, follower, startup, gpu, avoid)
    label = {REVISION_LABEL: revision(template, followers, plan.nodes_per_replica)}
    for one in (template, followers):
        if one is not None:
            one["metadata"]["labels"] |= label
    if followers is None:
        body = {
            "replicas": replicas,
            "selector": {"matchLabels": selector_labels(deployment)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": strategy.max_surge, "maxUnavailable": strategy.max_unavailable},
            },
            "progressDeadlineSeconds": progress_deadline_seconds(spec.rollout.progress_deadline_seconds, startup),
            "revisionHistoryLimit": spec.rollout.revision_history_limit,
            "template": template,
        }
    else:
        body = {
            "replicas": replicas,
            # Leaders turn ready only after their workers have joined, so that waiting for them would never end.
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {
                    "maxSurge": strategy.max_surge,
                    "maxUnavailable": strategy.max_unavailable,
                },
            },
            "leaderWorkerTemplate": {
                "size": plan.nodes_per_replica,
                # One engine over several pods cannot lose one of them. RecreateGroupAfterStart is an enum value that
                # releases before 0.9 refuse; the annotation means the same from 0.8 on, and nothing before.
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": template,
                "workerTemplate": followers,
            },
        }
    annotations = {PLAN_SUMMARY: plan_summary(plan)}
    if followers is not None:
        annotations[LWS_RECREATE_AFTER_START] = "true"
    return child(deployment, ref.api_version, ref.kind, ref.name, {"spec": body}, plan, annotations)
