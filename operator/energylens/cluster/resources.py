"""The kinds of Kubernetes objects that the operator touches, and their paths on the API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energylens.records import dataclass


@dataclass(frozen=True)
class Resource:
    """One kind of object."""

    group: str
    """"" is the core group."""
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """API version, such as ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of a collection or of an object."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{base}{scope}/{self.plural}{tail}"


LLM_DEPLOYMENT = Resource("energylens.dev", "v1alpha1", "LLMDeployment", "llmdeployments")
ENERGY_BUDGET = Resource("energylens.dev", "v1alpha1", "EnergyBudget", "energybudgets")
CLUSTER_ENERGY_BUDGET = Resource(
    "energylens.dev", "v1alpha1", "ClusterEnergyBudget", "clusterenergybudgets", namespaced=False
)
DEPLOYMENT = Resource("apps", "v1", "Deployment", "deployments")
LEADER_WORKER_SET = Resource("leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", "leaderworkersets")
INFERENCE_POOL = Resource("inference.networking.k8s.io", "v1", "InferencePool", "inferencepools")
SERVICE = Resource("", "v1", "Service", "services")
CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps")
POD_DISRUPTION_BUDGET = Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
POD = Resource("", "v1", "Pod", "pods")
PERSISTENT_VOLUME_CLAIM = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
NODE = Resource("", "v1", "Node", "nodes", namespaced=False)
RESOURCE_SLICE = Resource("resource.k8s.io", "v1", "ResourceSlice", "resourceslices", namespaced=False)
RESOURCE_CLAIM = Resource("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims")
RESOURCE_CLAIM_TEMPLATE = Resource("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates")
DEVICE_CLASS = Resource("resource.k8s.io", "v1", "DeviceClass", "deviceclasses", namespaced=False)
DEVICE_TAINT_RULE = Resource("resource.k8s.io", "v1", "DeviceTaintRule", "devicetaintrules", namespaced=False)
OLDER_DEVICE_TAINT_RULE = Resource(
    "resource.k8s.io", "v1beta2", "DeviceTaintRule", "devicetaintrules", namespaced=False
)
"""The same in Kubernetes 1.36, which serves no v1 of it, and v1beta2 only on request."""
DEVICE_OBJECTS = (RESOURCE_SLICE, RESOURCE_CLAIM, DEVICE_CLASS, OLDER_DEVICE_TAINT_RULE, DEVICE_TAINT_RULE)
"""Kinds from which the GPUs of dynamic resource allocation are counted; of two versions of a kind the newer one last.
"""
NAMESPACE = Resource("", "v1", "Namespace", "namespaces", namespaced=False)
EVENT = Resource("events.k8s.io", "v1", "Event", "events")
WORKLOAD = Resource("kueue.x-k8s.io", "v1beta2", "Workload", "workloads")
"""Kueue's object about a pod, or a group of pods, that it admits."""
OLDER_WORKLOAD = Resource("kueue.x-k8s.io", "v1beta1", "Workload", "workloads")
"""The same up to Kueue 0.13, which serves no v1beta2; its conditions are the same."""
LEASE = Resource("coordination.k8s.io", "v1", "Lease", "leases")
REVIEW = Resource("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False)
"""The request that asks whether the sender has a right."""

CHILDREN = (
    DEPLOYMENT,
    LEADER_WORKER_SET,
    SERVICE,
    INFERENCE_POOL,
    CONFIG_MAP,
    POD_DISRUPTION_BUDGET,
    RESOURCE_CLAIM_TEMPLATE,
)
"""Kinds that an LLMDeployment may own."""

_BY_KIND = {
    resource.kind: resource
    for resource in (
        LLM_DEPLOYMENT,
        ENERGY_BUDGET,
        CLUSTER_ENERGY_BUDGET,
        *CHILDREN,
        POD,
        NODE,
        NAMESPACE,
        EVENT,
        LEASE,
    )
}


def resource_of(manifest: Mapping[str, Any]) -> Resource:
    """Return the resource of a manifest.

    Raises:
        KeyError: its kind is not one that the operator touches.
    """
    return _BY_KIND[manifest["kind"]]
