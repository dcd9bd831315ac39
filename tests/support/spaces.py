"""Namespaces with GPU nodes of their own, so that what happens in one changes no plan in another."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.api_client import ApiClient, ApiError
from tests.support.operator_cluster import SECONDS

from energylens.cluster.resources import LLM_DEPLOYMENT, NAMESPACE, NODE, POD, resource_of
from energylens_dev.devcluster import eventually
from energylens_dev.devcluster.nodes import NODE_LABEL, NodePool, node_manifests

SPACE_LABEL = "test.energylens.dev/space"
L40S = "NVIDIA-L40S"


@dataclass
class Space:
    """A namespace with nodes that only its deployments select."""

    api: ApiClient
    namespace: str
    nodes: list[str] = field(default_factory=list)

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Apply objects in the namespace; LLMDeployments get the nodes of it."""
        for manifest in manifests:
            placed = json.loads(json.dumps(manifest))
            placed["metadata"]["namespace"] = self.namespace
            if placed["kind"] == LLM_DEPLOYMENT.kind:
                hardware = placed["spec"].setdefault("hardware", {})
                selector = hardware.setdefault("nodeSelector", {}) if isinstance(hardware, dict) else None
                # What is neither is for the API server to refuse.
                if isinstance(selector, dict):
                    selector[SPACE_LABEL] = self.namespace
            self.api.apply(resource_of(placed), placed)

    def add_nodes(self, product: str, count: int, gpus: int) -> None:
        """Add GPU nodes that only this namespace selects."""
        for manifest in node_manifests([NodePool(product, count, gpus)]):
            if "nvidia.com/gpu.product" not in manifest["metadata"]["labels"]:
                continue
            name = f"{self.namespace}-{len(self.nodes)}"
            metadata = manifest["metadata"]
            metadata["name"] = metadata["labels"]["kubernetes.io/hostname"] = name
            metadata["labels"][SPACE_LABEL] = self.namespace
            # With this label the node would be one of the development cluster's own.
            del metadata["labels"][NODE_LABEL]
            self.api.apply(NODE, manifest)
            self.nodes.append(name)


def replicas(count: int, **overrides: int) -> dict[str, Any]:
    """Return ``spec.planning`` with a fixed layout."""
    return {"overrides": {"tensorParallel": 1, "maxBatchSize": 32, "replicas": count, **overrides}}


@contextmanager
def space(api: ApiClient, prefix: str, product: str = L40S, nodes: int = 2, gpus: int = 4) -> Iterator[Space]:
    """Make a namespace with nodes, and take both away again."""
    found = Space(api, f"{prefix}-{uuid.uuid4().hex[:8]}")
    api.apply(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": found.namespace}})
    try:
        found.add_nodes(product, nodes, gpus)
        eventually(lambda: _has_account(api, found.namespace))
        yield found
    finally:
        for body in api.list(LLM_DEPLOYMENT, found.namespace):
            api.delete(LLM_DEPLOYMENT, found.namespace, body["metadata"]["name"])
        eventually(lambda: not api.list(POD, found.namespace), SECONDS)
        for name in found.nodes:
            api.delete(NODE, "", name)
        api.delete(NAMESPACE, "", found.namespace)


def _has_account(api: ApiClient, namespace: str) -> bool:
    """Return whether the controller has made the account that pods of a new namespace get."""
    try:
        api.request("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True
