"""The kopf wiring: watch events into the store and the queue. Handlers decide nothing.

Only `on.event` handlers: kopf then writes nothing to any object, and no deletion waits for the operator.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kopf

from energylens.cluster.resources import (
    CLUSTER_ENERGY_BUDGET,
    CONFIG_MAP,
    DEPLOYMENT,
    ENERGY_BUDGET,
    LEADER_WORKER_SET,
    LLM_DEPLOYMENT,
    NAMESPACE,
    NODE,
    POD,
    POD_DISRUPTION_BUDGET,
    SERVICE,
    Resource,
)
from energylens.controller.store import Key, Store

MANAGED = "app.kubernetes.io/managed-by=energylens"
Enqueue = Callable[[Key], None]
Handle = Callable[[dict[str, Any], bool], None]
"""Takes an object and whether it was deleted."""


def watched_children(serves_lws: bool) -> tuple[Resource, ...]:
    """Return the kinds of children that are watched; PodDisruptionBudgets change with every pod and are not."""
    return (DEPLOYMENT, SERVICE, CONFIG_MAP, *((LEADER_WORKER_SET,) if serves_lws else ()))


def settings_for(serves_lws: bool) -> kopf.OperatorSettings:
    """Return kopf's settings; the reasons are in docs/operator.md."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 30
    settings.queueing.idle_timeout = 0.1
    settings.process.ultimate_exiting_timeout = 3
    for child in watched_children(serves_lws):
        settings.watching.label_selectors[child.group, child.version, child.plural] = MANAGED
    return settings


def takers(
    store: Store, enqueue: Enqueue, serves_lws: bool, sees_cluster_budgets: bool = True
) -> dict[Resource, Handle]:
    """Return what puts an object of each kind into the store and its deployments into the queue."""

    def enqueue_found(key: Key | None) -> None:
        if key is not None:
            enqueue(key)

    def child(kind: str) -> Handle:
        return lambda body, deleted: enqueue_found(store.put_child(kind, body, deleted))

    def budget(body: dict[str, Any], deleted: bool) -> None:
        for key in store.put_budget(body, deleted):
            enqueue(key)

    def namespace(body: dict[str, Any], deleted: bool) -> None:
        for key in store.put_namespace(body, deleted):
            enqueue(key)

    return {
        LLM_DEPLOYMENT: lambda body, deleted: enqueue_found(store.put_deployment(body, deleted)),
        ENERGY_BUDGET: budget,
        **({CLUSTER_ENERGY_BUDGET: budget, NAMESPACE: namespace} if sees_cluster_budgets else {}),
        NODE: store.put_node,
        POD: lambda body, deleted: enqueue_found(store.put_pod(body, deleted)),
        **{kind: child(kind.kind) for kind in (*watched_children(serves_lws), POD_DISRUPTION_BUDGET)},
    }


def registry_for(
    store: Store,
    enqueue: Enqueue,
    alive: Callable[[], None],
    serves_lws: bool,
    kubeconfig: Path | None,
    sees_cluster_budgets: bool = True,
) -> kopf.OperatorRegistry:
    """Return the handlers of all watched kinds."""
    registry = kopf.OperatorRegistry()

    def on_event(resource: Resource, handle: Handle) -> None:
        @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=resource.plural)
        async def handler(event: Any, **_: Any) -> None:
            alive()
            body = {"apiVersion": resource.api_version, "kind": resource.kind, **event["object"]}
            handle(body, event["type"] == "DELETED")

    for resource, handle in takers(store, enqueue, serves_lws, sees_cluster_budgets).items():
        if resource is not POD_DISRUPTION_BUDGET:
            on_event(resource, handle)

    @kopf.on.login(registry=registry, id="login")
    def login(**kwargs: Any) -> Any:
        if kubeconfig is None:
            return kopf.login_with_service_account(**kwargs)
        return kopf.login_with_kubeconfig(**kwargs)

    return registry
