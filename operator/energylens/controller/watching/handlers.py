"""The connection to kopf: handlers pass watch events to the store and the queue, and decide nothing.

Only `on.event` handlers: kopf then writes nothing to any object, and no deletion waits for the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import kopf

from energylens.cluster.resources import (
    CLUSTER_ENERGY_BUDGET,
    CONFIG_MAP,
    DEPLOYMENT,
    DEVICE_CLASS,
    DEVICE_TAINT_RULE,
    ENERGY_BUDGET,
    INFERENCE_POOL,
    LEADER_WORKER_SET,
    LLM_DEPLOYMENT,
    NAMESPACE,
    NODE,
    OLDER_DEVICE_TAINT_RULE,
    POD,
    POD_DISRUPTION_BUDGET,
    RESOURCE_CLAIM,
    RESOURCE_CLAIM_TEMPLATE,
    RESOURCE_SLICE,
    SERVICE,
    Resource,
)
from energylens.controller.state.store import Key, Store
from energylens.controller.watching.heartbeat import Heartbeats
from energylens.controller.watching.kinds import ALL_KINDS
from energylens.controller.watching.kopf_state import NoDiffs, NoProgress
from energylens.controller.watching.login import log_in

MANAGED = "app.kubernetes.io/managed-by=energylens"
ERROR_BACKOFFS = (1.0, 2.0, 3.0, 5.0)
"""Seconds between kopf's attempts of a request; by default kopf retries for a minute, whatever the refusal."""
LIST_PAGE = 50
"""Objects of a page of the initial lists. A page is parsed whole, all kinds are listed at once, and the process keeps
the memory: with 600 LLMDeployments it took 79 MiB for pages of 500 objects, 28 for 100 and 18 for 50."""
DEVICE_KINDS = (DEVICE_CLASS, RESOURCE_SLICE, RESOURCE_CLAIM, DEVICE_TAINT_RULE, OLDER_DEVICE_TAINT_RULE)
"""Kinds of dynamic resource allocation, from which GPUs are counted."""
Enqueue = Callable[[Key], None]
Handle = Callable[[dict[str, Any], bool], None]
"""Function that receives an object and whether it was deleted."""


def watched_children(kinds: Collection[Resource]) -> tuple[Resource, ...]:
    """Return the kinds of children that are watched; PodDisruptionBudgets change with every pod and are not."""
    children = (DEPLOYMENT, SERVICE, CONFIG_MAP, LEADER_WORKER_SET, RESOURCE_CLAIM_TEMPLATE, INFERENCE_POOL)
    return tuple(kind for kind in children if kind in kinds)


def settings_for(kinds: Collection[Resource]) -> kopf.OperatorSettings:
    """Return kopf's settings; the reasons are in docs/operator.md."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = NoDiffs()
    settings.persistence.progress_storage = NoProgress()
    settings.watching.chunk_size = LIST_PAGE
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 30
    settings.networking.error_backoffs = ERROR_BACKOFFS
    settings.queueing.idle_timeout = 0.1
    # kopf would kill the process this long after it ended with an error, which may be temporary.
    settings.process.ultimate_exiting_timeout = None
    for child in watched_children(kinds):
        settings.watching.label_selectors[child.group, child.version, child.plural] = MANAGED
    return settings


def takers(store: Store, enqueue: Enqueue) -> dict[Resource, Handle]:
    """Return functions that put an object of each kind into the store and its deployments into the queue."""

    def enqueue_found(key: Key | None) -> None:
        if key is not None:
            enqueue(key)

    def child(kind: str) -> Handle:
        def handle(body: dict[str, Any], deleted: bool) -> None:
            for key in store.put_child(kind, body, deleted):
                enqueue(key)

        return handle

    def device(kind: str) -> Handle:
        return lambda body, deleted: store.put_device_object(kind, body, deleted)

    def budget(body: dict[str, Any], deleted: bool) -> None:
        for key in store.put_budget(body, deleted):
            enqueue(key)

    def namespace(body: dict[str, Any], deleted: bool) -> None:
        for key in store.put_namespace(body, deleted):
            enqueue(key)

    return {
        LLM_DEPLOYMENT: lambda body, deleted: enqueue_found(store.put_deployment(body, deleted)),
        ENERGY_BUDGET: budget,
        CLUSTER_ENERGY_BUDGET: budget,
        NAMESPACE: namespace,
        NODE: store.put_node,
        POD: lambda body, deleted: enqueue_found(store.put_pod(body, deleted)),
        **{kind: device(kind.kind) for kind in DEVICE_KINDS},
        **{kind: child(kind.kind) for kind in (*watched_children(ALL_KINDS), POD_DISRUPTION_BUDGET)},
    }


def registry_for(
    store: Store,
    enqueue: Enqueue,
    kinds: Collection[Resource],
    kubeconfig: Path | None,
    heartbeats: Heartbeats,
) -> kopf.OperatorRegistry:
    """Return the handlers of ``kinds``; ``heartbeats`` records each watch."""
    registry = kopf.OperatorRegistry()

    def on_event(resource: Resource, handle: Handle) -> None:
        @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=resource.plural)
        async def handler(event: Any, **_: Any) -> None:
            body = {"apiVersion": resource.api_version, "kind": resource.kind, **event["object"]}
            handle(body, event["type"] == "DELETED")

    for resource, handle in takers(store, enqueue).items():
        if resource in kinds and resource is not POD_DISRUPTION_BUDGET:
            on_event(resource, handle)

    @kopf.on.login(registry=registry, id="login")
    async def login(**kwargs: Any) -> Any:
        return await log_in(kubeconfig, heartbeats, **kwargs)

    return registry
