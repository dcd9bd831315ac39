"""Writes statuses, and takes out what others put into them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from energylens.cluster.errors import NotFoundError, RefusedError
from energylens.cluster.port import ClusterPort, Object
from energylens.cluster.resources import LLM_DEPLOYMENT, Resource
from energylens.cluster.undeclared import refused_paths
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.state.schema_gaps import sent_without
from energylens.controller.state.status_memory import StatusMemory
from energylens.controller.state.store import Body, Key, Store


async def write_status(
    cluster: ClusterPort,
    metrics: Metrics,
    resource: Resource,
    memory: StatusMemory | None,
    body: Body,
    status: Mapping[str, Any],
) -> Object | None:
    """Apply the status of an object, and remove what an apply leaves of others' fields.

    Args:
        cluster: Takes the writes.
        metrics: Counts them.
        resource: The object's kind.
        memory: Knows the statuses of that kind, and learns of this one; None where others' fields stay.
        body: The object as it is known.
        status: The whole status.

    Returns:
        The object as the API server has it now; None where it is gone.

    Raises:
        ClusterError: the API server did not take it.
    """
    metadata = body["metadata"]
    key = metadata.get("namespace") or "", metadata["name"]
    manifest = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {name: metadata[name] for name in ("name", "namespace", "uid") if name in metadata},
    }
    writes = metrics.writes.labels(f"{resource.kind}/status")

    async def apply(sent: Mapping[str, Any]) -> Object:
        writes.inc()
        return await cluster.apply_status({**manifest, "status": sent})

    try:
        if memory is None:
            return await apply(status)
        answer, sent = await _declared_part(apply, resource.kind, memory, (key, body), status)
        foreign = memory.foreign(sent, answer)
        if foreign:
            writes.inc()
            answer = await cluster.patch_status({**manifest, "status": foreign})
    except NotFoundError:
        return None
    memory.wrote(key, body, status, sent)
    return answer


async def _declared_part(
    apply: Callable[[Mapping[str, Any]], Awaitable[Object]],
    kind: str,
    memory: StatusMemory,
    of: tuple[Key, Body],
    status: Mapping[str, Any],
) -> tuple[Object, dict[str, Any]]:
    """Apply what the API server's schema declares of a status; return the answer and what was sent.

    An older CustomResourceDefinition refuses the whole status for one field of it.
    """
    left_out = memory.gaps.of(kind)
    while True:
        sent = sent_without(status, left_out)
        memory.attempts(*of, status, sent)
        try:
            answer = await apply(sent)
        except RefusedError as error:
            refused = refused_paths(str(error))
            if sent_without(sent, refused) == sent:
                raise
            left_out |= refused
        else:
            memory.gaps.learn(kind, status, left_out)
            return answer, sent


class StatusWriter:
    """The only way to the status of an LLMDeployment."""

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
        memory = self._store.statuses
        answer = await write_status(self._cluster, self._metrics, LLM_DEPLOYMENT, memory, body, status)
        if answer is not None:
            self._store.put_deployment(answer, deleted=False)
