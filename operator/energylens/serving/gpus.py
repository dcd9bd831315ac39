"""How the pods of a plan get their GPUs: by requests of ``nvidia.com/gpu``, or by a ResourceClaim of each pod."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.planner.inventory.devices import DEVICE_CLASS, DRIVER, PRODUCT_ATTRIBUTE
from energylens.planner.inventory.node_gpus import GPU_RESOURCE
from energylens.planner.inventory.products import PRODUCT_LABEL
from energylens.planner.inventory.snapshot import CLAIMED_GPUS_LABEL, OWNER_LABEL
from energylens.planner.types import GpuAccess
from energylens.predictor.gpu_names import node_label_values
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass
from energylens.serving.arguments import gpus_per_pod
from energylens.serving.metadata import child

CLAIM = "energylens-gpus"
"""Name of the claim within a pod."""
CLAIMED_PRODUCT_LABEL = "energylens.dev/claimed-product"
"""Label of pods that get their GPUs by a ResourceClaim: the GPU product."""


@dataclass(frozen=True)
class Placement:
    """Where pods may run, and how they get their GPUs."""

    gpu: GpuSpec | None = None
    """The plan's product, for the names by which nodes have it; None if it is not in the table of products."""
    avoid: Sequence[str] = ()
    """Names of nodes that the pods keep away from though they would fit."""
    access: GpuAccess = "Resource"
    """How the pods get their GPUs."""


BY_REQUEST = Placement()
"""Pods that request GPUs and find them by the plan's product label only."""


def claim_template(deployment: LLMDeployment, plan: PlanStatus, placement: Placement) -> dict[str, Any]:
    """Return the ResourceClaimTemplate of a plan's pods.

    The name contains a hash of the content, because Kubernetes allows no change of the content, and pods of two plans
    may be created while one plan replaces the other.
    """
    spec = _claim_spec(deployment, plan, placement.gpu)
    name = _template_name(deployment, spec)
    return child(deployment, "resource.k8s.io/v1", "ResourceClaimTemplate", name, {"spec": spec}, plan)


def resources(deployment: LLMDeployment, plan: PlanStatus, placement: Placement) -> dict[str, Any]:
    """Return ``resources`` of the engine's container."""
    if placement.access == "Claim":
        return {"claims": [{"name": CLAIM}]}
    gpus = str(gpus_per_pod(plan))
    return {"limits": {GPU_RESOURCE: gpus}, "requests": {GPU_RESOURCE: gpus}}


def pod_claims(deployment: LLMDeployment, plan: PlanStatus, placement: Placement) -> list[dict[str, Any]]:
    """Return ``resourceClaims`` of a pod; none if the pod requests its GPUs."""
    if placement.access != "Claim":
        return []
    name = _template_name(deployment, _claim_spec(deployment, plan, placement.gpu))
    return [{"name": CLAIM, "resourceClaimTemplateName": name}]


def claim_labels(plan: PlanStatus, placement: Placement) -> dict[str, str]:
    """Return the labels of a pod that describe its claim; none if the pod requests its GPUs."""
    if placement.access != "Claim":
        return {}
    return {CLAIMED_GPUS_LABEL: str(gpus_per_pod(plan)), CLAIMED_PRODUCT_LABEL: plan.gpu_product}


def access_of(template: Mapping[str, Any]) -> GpuAccess:
    """Return how the pods of a template get their GPUs."""
    claims = (template.get("spec") or {}).get("resourceClaims") or ()
    return "Claim" if any(claim.get("name") == CLAIM for claim in claims) else "Resource"


def gpus_of(template: Mapping[str, Any]) -> int:
    """Return the GPUs of a pod of a template; 0 after an edit by others."""
    if access_of(template) == "Claim":
        text = _label(template, CLAIMED_GPUS_LABEL)
        return int(text) if text.isdecimal() else 0
    return sum(
        int(((container.get("resources") or {}).get("limits") or {}).get(GPU_RESOURCE) or 0)
        for container in (template.get("spec") or {}).get("containers") or ()
    )


def product_of(template: Mapping[str, Any]) -> str:
    """Return the GPU product of the pods of a template; "" for none, as after an edit by others."""
    if access_of(template) == "Claim":
        return _label(template, CLAIMED_PRODUCT_LABEL)
    required = (((template.get("spec") or {}).get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in required.get("nodeSelectorTerms") or ():
        for expression in term.get("matchExpressions") or ():
            if expression["key"] == PRODUCT_LABEL and expression["operator"] == "In":
                return str(expression["values"][0])
    return ""


def _label(template: Mapping[str, Any], name: str) -> str:
    return str(((template.get("metadata") or {}).get("labels") or {}).get(name, ""))


def _template_name(deployment: LLMDeployment, spec: Mapping[str, Any]) -> str:
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return f"{deployment.metadata.name}-gpus-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _claim_spec(deployment: LLMDeployment, plan: PlanStatus, gpu: GpuSpec | None) -> dict[str, Any]:
    """Return the claim of one pod: whole GPUs of the plan's product.

    The driver names products as NVML does, with blanks where the node label has dashes. The label says whose GPUs a
    claim holds while its pod has no node yet, and after the pod is gone.
    """
    values = ", ".join(json.dumps(value) for value in (node_label_values(gpu) if gpu else (plan.gpu_product,)))
    product = f'device.attributes["{DRIVER}"].{PRODUCT_ATTRIBUTE}.replace(" ", "-") in [{values}]'
    request = {
        "deviceClassName": DEVICE_CLASS,
        "allocationMode": "ExactCount",
        "count": gpus_per_pod(plan),
        "selectors": [{"cel": {"expression": product}}],
    }
    return {
        "metadata": {"labels": {OWNER_LABEL: deployment.metadata.name}},
        "spec": {"devices": {"requests": [{"name": "gpus", "exactly": request}]}},
    }
