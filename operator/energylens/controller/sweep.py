"""Compares the store with what the API server lists, in both directions.

Waiting for what the store has not heard of tells when the initial lists are in. Dropping what the server no longer has
is needed because kopf says nothing of objects that were deleted while a watch was down: after 410 Gone it lists again
and goes on with what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import (
    CLUSTER_ENERGY_BUDGET,
    ENERGY_BUDGET,
    LEADER_WORKER_SET,
    LLM_DEPLOYMENT,
    NAMESPACE,
    NODE,
    POD,
    POD_DISRUPTION_BUDGET,
    Resource,
)
from energylens.controller.handlers import MANAGED, Handle, takers, watched_children
from energylens.controller.kinds import ALL_KINDS, Found
from energylens.controller.store import Key, Store

LISTS_GET_OLD_AFTER = 20
"""Looks at the store before listing again: what was deleted since the list never comes."""
LOOK_SECONDS = 0.25

_WITHOUT_UID = (NODE, NAMESPACE)
"""Kinds of which the store knows names only: what has the same name is the same."""

ObjectName = tuple[str, str]
"""Namespace ("" for cluster-scoped objects) and name."""


class Sweeper:
    """Lists names and uids of all watched kinds."""

    def __init__(
        self,
        cluster: ClusterPort,
        store: Store,
        enqueue: Callable[[Key], None],
        namespaces: tuple[str, ...] = (),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Compare ``store`` with ``cluster``; ``enqueue`` the deployments that a difference concerns."""
        self._cluster = cluster
        self._store = store
        self._enqueue = enqueue
        self._namespaces = namespaces
        self._sleep = sleep
        self.found = Found(ALL_KINDS)
        """The kinds that are watched now."""

    async def settle(self) -> list[str]:
        """Wait until the store knows every object that the API server has, or the lists have become old.

        Returns:
            What did not come, such as ``LLMDeployment team/a``; nothing where all is known.

        Raises:
            ClusterError: a kind cannot be listed.
        """
        listed = {resource: await self._listed(resource) for resource in self._watched()}
        for _ in range(LISTS_GET_OLD_AFTER):
            missing = self._missing(listed)
            if not missing:
                break
            await self._sleep(LOOK_SECONDS)
        return missing

    def _missing(self, listed: Mapping[Resource, Mapping[ObjectName, str]]) -> list[str]:
        return [
            f"{resource.kind} {'/'.join(filter(None, name))}"
            for resource, names in listed.items()
            for name in sorted(names.keys() - self._known(resource).keys())
        ]

    async def sweep(self) -> bool:
        """Drop what the API server no longer has, and hear of changes to PodDisruptionBudgets.

        Returns:
            Whether the API server has something that the store does not know: a watch that is late, or dead.

        Raises:
            ClusterError: a kind cannot be listed.
        """
        behind = False
        handles = takers(self._store, self._enqueue)
        for resource in self._watched():
            # What is known before the list was there before it; so, where the list lacks it, it is gone.
            before = dict(self._known(resource))
            listed = await self._listed(resource)
            now = self._known(resource)
            behind = behind or not listed.keys() <= now.keys()
            for name, uid in before.items():
                if listed.get(name) != uid and now.get(name) == uid:
                    self._drop(resource, name, uid, handles[resource])
        if LEADER_WORKER_SET in self.found.unserved:
            # They went with their kind; whether somebody heard of each does not matter.
            for name, uid in dict(self._known(LEADER_WORKER_SET)).items():
                self._drop(LEADER_WORKER_SET, name, uid, handles[LEADER_WORKER_SET])
        await self.hear_of_disruption_budgets()
        return behind

    async def hear_of_disruption_budgets(self) -> None:
        """Take the PodDisruptionBudgets, which are not watched: their status changes with every pod."""
        kind = POD_DISRUPTION_BUDGET.kind
        before = dict(self._known(POD_DISRUPTION_BUDGET))
        found: set[ObjectName] = set()
        for namespace in self._namespaces or (None,):
            for body in await self._cluster.list_objects(
                POD_DISRUPTION_BUDGET, namespace=namespace, label_selector=MANAGED
            ):
                name = (body["metadata"]["namespace"], body["metadata"]["name"])
                found.add(name)
                old = self._store.children.get((kind, *name))
                owner = self._store.put_child(kind, body, deleted=False)
                if owner is not None and (old is None or _identity(old.body) != _identity(body)):
                    self._enqueue(owner)
        handle = takers(self._store, self._enqueue)[POD_DISRUPTION_BUDGET]
        for name, uid in before.items():
            if name not in found:
                self._drop(POD_DISRUPTION_BUDGET, name, uid, handle)

    def _watched(self) -> Iterator[Resource]:
        order = (LLM_DEPLOYMENT, ENERGY_BUDGET, NODE, POD, CLUSTER_ENERGY_BUDGET, NAMESPACE)
        yield from (kind for kind in order if kind in self.found.kinds)
        yield from watched_children(self.found.kinds)

    async def _listed(self, resource: Resource) -> dict[ObjectName, str]:
        selector = MANAGED if resource in watched_children(self.found.kinds) else ""
        found: dict[ObjectName, str] = {}
        for namespace in (self._namespaces or (None,)) if resource.namespaced else (None,):
            found |= await self._cluster.list_uids(resource, namespace=namespace, label_selector=selector)
        return {name: "" if resource in _WITHOUT_UID else uid for name, uid in found.items()}

    def _known(self, resource: Resource) -> dict[ObjectName, str]:
        store = self._store
        if resource is LLM_DEPLOYMENT:
            return {key: body["metadata"].get("uid", "") for key, body in store.deployments.items()}
        if resource is POD:
            return {key: body["metadata"]["uid"] for key, body in store.pods.items()}
        if resource is NODE:
            return {("", name): "" for name in store.nodes}
        if resource is NAMESPACE:
            return {("", name): "" for name in store.namespaces}
        if resource in (ENERGY_BUDGET, CLUSTER_ENERGY_BUDGET):
            return {
                key: body["metadata"].get("uid", "")
                for key, body in store.budgets.items()
                if bool(key[0]) == resource.namespaced
            }
        return {
            (namespace, name): child.body["metadata"].get("uid", "")
            for (kind, namespace, name), child in store.children.items()
            if kind == resource.kind
        }

    def _drop(self, resource: Resource, name: ObjectName, uid: str, handle: Handle) -> None:
        metadata: dict[str, Any] = {"namespace": name[0], "name": name[1], "uid": uid}
        child = self._store.children.get((resource.kind, *name))
        if child is not None:
            metadata["labels"] = child.body["metadata"].get("labels")
        handle({"metadata": metadata}, True)


def _identity(body: dict[str, Any]) -> tuple[Any, ...]:
    metadata = body["metadata"]
    return metadata.get("uid"), metadata.get("generation"), metadata.get("labels")
