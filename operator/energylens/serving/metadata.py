"""Names, labels and owner of the objects that a plan becomes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from energylens.api.base import API_VERSION
from energylens.api.llmdeployment import LLMDeployment, PlanStatus

APPLICATION = "energylens-llm"
OWNER_LABEL = "energylens.dev/llmdeployment"
PLAN_LABEL = "energylens.dev/plan"
APPLIED_HASH = "energylens.dev/applied-hash"
POWER_LIMIT = "dynamo.nvidia.com/gpu-power-limit"
"""Annotation of pods: whole watts for each of their GPUs. NVIDIA Dynamo's power agent acts on it, and so does ours."""
LWS_WORKER_INDEX = "leaderworkerset.sigs.k8s.io/worker-index"


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
    """Return the labels that select the deployment's pods."""
    return {"app.kubernetes.io/name": APPLICATION, OWNER_LABEL: deployment.metadata.name}


def plan_labels(plan: PlanStatus) -> dict[str, str]:
    """Return the label that ties an object to the plan it was made from."""
    return {PLAN_LABEL: plan.hash}


def child(
    deployment: LLMDeployment, api_version: str, kind: str, name: str, body: dict[str, Any], plan: PlanStatus
) -> dict[str, Any]:
    """Return a child object: owned by the deployment, labelled, and carrying the hash of its own content."""
    metadata = deployment.metadata
    document = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": metadata.namespace,
            "labels": labels(deployment) | plan_labels(plan),
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
    document["metadata"]["annotations"] = {APPLIED_HASH: hashlib.sha256(text.encode()).hexdigest()[:16]}
    return document
