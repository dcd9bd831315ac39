"""Writes the status of LLMDeployments, and takes out what others put into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energylens.cluster.errors import NotFoundError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import LLM_DEPLOYMENT
from energylens.controller.metrics import Metrics
from energylens.controller.status_memory import removal
from energylens.controller.store import Body, Store
from energylens.decide.deployment.status_check import own_part


class StatusWriter:
    """The only way to a status."""

    def __init__(self, cluster: ClusterPort, store: Store, metrics: Metrics) -> None:
        """Write through ``cluster`` about the objects of ``store``."""
        self._cluster = cluster
        self._store = store
        self._metrics = metrics

    async def write(self, body: Body, status: Mapping[str, Any]) -> None:
        """Write a status; the store knows the answer, and the memory what was written.

        Raises:
            ClusterError: the API server did not take it.
        """
        metadata = body["metadata"]
        key = metadata["namespace"], metadata["name"]
        manifest = {
            "apiVersion": LLM_DEPLOYMENT.api_version,
            "kind": LLM_DEPLOYMENT.kind,
            "metadata": {name: metadata[name] for name in ("name", "namespace", "uid") if name in metadata},
        }
        memory = self._store.statuses
        if memory is not None:
            memory.attempts(key, body, status)
        self._metrics.writes.labels("LLMDeployment/status").inc()
        try:
            answer = await self._cluster.apply_status({**manifest, "status": status})
            # An apply leaves what other managers added.
            stated = answer.get("status") or {}
            foreign = removal(status, own_part(stated)) if memory is not None else {}
            if len(own_part(stated).get("conditions") or ()) < len(stated.get("conditions") or ()):
                # A list is patched as a whole, and has conditions of others.
                foreign.pop("conditions", None)
            if foreign:
                self._metrics.writes.labels("LLMDeployment/status").inc()
                answer = await self._cluster.patch_status({**manifest, "status": foreign})
        except NotFoundError:
            return
        if memory is not None:
            memory.wrote(key, body, status)
        self._store.put_deployment(answer, deleted=False)
