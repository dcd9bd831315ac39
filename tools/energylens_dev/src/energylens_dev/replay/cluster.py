"""Listing nodes, pods and LLMDeployments of a cluster."""

# mypy: disable-error-code="no-untyped-call,index"

from __future__ import annotations

import json
from typing import Any

import kubernetes
import urllib3

from energylens_dev.replay.fleet import ClusterState

TIMEOUT_SECONDS = 10


class ClusterError(Exception):
    """The API server gave no answer that can be used; the message is one line."""


class KubernetesCluster:
    """A cluster by its kubeconfig; every call blocks."""

    def __init__(self, kubeconfig: str) -> None:
        self._client = kubernetes.config.new_client_from_config(kubeconfig)

    def snapshot(self) -> ClusterState:
        """Return the objects that a replay needs, as plain dictionaries.

        Raises:
            ClusterError: the API server cannot be reached or refuses.
        """
        try:
            return self._snapshot()
        except kubernetes.client.ApiException as error:
            raise ClusterError(f"the API server answered {error.status} {error.reason}") from error
        except urllib3.exceptions.HTTPError as error:
            raise ClusterError(f"the API server cannot be reached: {error}") from error

    def _snapshot(self) -> ClusterState:
        core = kubernetes.client.CoreV1Api(self._client)
        return ClusterState(
            nodes=_items(core.list_node(_request_timeout=TIMEOUT_SECONDS, _preload_content=False)),
            pods=_items(core.list_pod_for_all_namespaces(_request_timeout=TIMEOUT_SECONDS, _preload_content=False)),
            deployments=self._deployments(),
        )

    def _deployments(self) -> list[dict[str, Any]]:
        """Return the LLMDeployments; none where the API server does not serve the kind, or not any more."""
        custom = kubernetes.client.CustomObjectsApi(self._client)
        try:
            found: list[dict[str, Any]] = custom.list_cluster_custom_object(
                "energylens.dev", "v1alpha1", "llmdeployments", _request_timeout=TIMEOUT_SECONDS
            )["items"]
        except kubernetes.client.ApiException as error:
            if error.status != 404:
                raise
            return []
        return found


def _items(response: Any) -> list[dict[str, Any]]:
    if response.status != 200:
        raise ClusterError(f"the API server answered {response.status}: {response.data[:200]!r}")
    found: list[dict[str, Any]] = json.loads(response.data)["items"]
    return found
