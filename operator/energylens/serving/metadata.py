"""Names, labels and owner of the objects that a plan becomes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from energylens.api.base import API_VERSION
from energylens.api.llmdeployment import LLMDeployment, PlanStatus

APPLICATION = "energylens-llm"
FOLLOWER_APPLICATION = "energylens-llm-follower"
"""``app.kubernetes.io/name`` of the pods of a group that answer no requests: no Service selects them."""
PREFIX = "energylens.dev/"
OWNER_LABEL = "energylens.dev/llmdeployment"
PLAN_LABEL = "energylens.dev/plan"
REVISION_LABEL = "energylens.dev/revision"
"""Label of pods: a hash of what they are. Plans that differ in nothing but the number of replicas share it."""
ROLE_LABEL = "energylens.dev/role"
CANARY = "canary"
"""Value of the role of the pods that run one replica of a plan that is verified."""
PREFILL, DECODE = "prefill", "decode"
"""Values of the role of the pods of a plan with separate prefill and decode. All other pods have no role."""
KV_CACHE_LABEL = "energylens.dev/kv-cache"
"""Label of those pods: with which others they can exchange the KV cache (:func:`energylens.serving.roles.exchange`)."""
PLAN_SUMMARY = "energylens.dev/plan-summary"
"""Annotation of the workload: what of its plan others must not get, for an operator that finds it without a status."""
APPLIED_HASH = "energylens.dev/applied-hash"
POWER_LIMIT = "dynamo.nvidia.com/gpu-power-limit"
"""Annotation of pods: whole watts for each of their GPUs. NVIDIA Dynamo's power agent acts on it, and so does ours."""
LWS_WORKER_INDEX = "leaderworkerset.sigs.k8s.io/worker-index"
LWS_GROUP_INDEX = "leaderworkerset.sigs.k8s.io/group-index"
LWS_RECREATE_AFTER_START = "leaderworkerset.sigs.k8s.io/experimental-recreate-group-after-start"
"""Annotation: while a pod of a group is pending, others that restart do not end it (``handleRestartPolicy`` in
LeaderWorkerSet's ``pkg/controllers/pod_controller.go``). Followers give up on a leader that pulls an image for long."""


def labels(deployment: LLMDeployment) -> dict[str, str]:
    """Return the labels of every object of a deployment; they never change, so that selectors may use them."""
    name = deployment.metadata.name
    return {
        "app.kubernetes.io/name": APPLICATION,
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/managed-by": "energylens",
        OWNER_LABEL: name,
    }


def selector_labels(deployment: LLMDeployment) -> dict[str, str]:
    """Return the labels that select the deployment's pods that answer requests, of any kind of workload."""
    return {"app.kubernetes.io/name": APPLICATION, OWNER_LABEL: deployment.metadata.name}


def group_labels(deployment: LLMDeployment) -> dict[str, str]:
    """Return the labels that select all of the deployment's pods, followers included."""
    return {"app.kubernetes.io/managed-by": "energylens", OWNER_LABEL: deployment.metadata.name}


def revision(*parts: object) -> str:
    """Return the hash of the pods' templates and of everything else that distinguishes kinds of pods."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def revision_of(labels: Mapping[str, str] | None) -> str:
    """Return the revision that a pod or a pod template carries; pods of earlier releases carry their plan's hash."""
    known = labels or {}
    return known.get(REVISION_LABEL) or known.get(PLAN_LABEL, "")


def plan_labels(plan: PlanStatus) -> dict[str, str]:
    """Return the label with the plan from which an object was made."""
    return {PLAN_LABEL: plan.hash}


def plan_summary(plan: PlanStatus) -> str:
    """Return the GPUs and the power that a plan holds, as JSON in the words of ``status.plan``."""
    fields = (
        "hash", "gpu_product", "gpus", "replicas", "nodes_per_replica", "tensor_parallel", "pipeline_parallel",
        "data_parallel", "shed_by",
    )  # fmt: skip
    found = plan.model_dump(mode="json", by_alias=True, exclude_none=True, include={*fields, "prefill"})
    return json.dumps(found | {"predicted": {"powerWatts": plan.predicted.power_watts}}, separators=(",", ":"))


def child(
    deployment: LLMDeployment,
    api_version: str,
    kind: str,
    name: str,
    body: dict[str, Any],
    plan: PlanStatus,
    annotations: Mapping[str, str] | None = None,
    more_labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return a child object: owned by the deployment, labelled, and carrying the hash of its own content."""
    metadata = deployment.metadata
    document: dict[str, Any] = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": metadata.namespace,
            "labels": {**(more_labels or {}), **labels(deployment), **plan_labels(plan)},
            **({"annotations": dict(annotations)} if annotations else {}),
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": "LLMDeployment",
                    "name": metadata.name,
                    "uid": metadata.uid,
                    "controller": True,
                    # True would need the permission to update finalizers of the owner.
                    "blockOwnerDeletion": False,
                }
            ],
        },
        **body,
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    document["metadata"]["annotations"] = {**(annotations or {}), APPLIED_HASH: digest}
    return document
