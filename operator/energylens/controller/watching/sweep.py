"""Compares the store with what the API server lists, in both directions.

Waiting for what the store has not heard of tells when the initial lists are in. Dropping what the server no longer has
is needed because kopf does not report objects that were deleted while a watch was down: after 410 Gone it lists again
and goes on with what is there. Reading what changed without an event is needed because a watch that lost one event goes
on with the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from energylens.cluster.port import ClusterPort, Identity
from energylens.cluster.resources import (
    CLUSTER_ENERGY_BUDGET,
    ENERGY_BUDGET,
    INFERENCE_POOL,
    LEADER_WORKER_SET,
    LLM_DEPLOYMENT,
    NAMESPACE,
    NODE,
    POD,
    POD_DISRUPTION_BUDGET,
    RESOURCE_CLAIM_TEMPLATE,
    Resource,
)
from energylens.controller.state.same import identity_of
from energylens.controller.state.store import Key, Store
from energylens.controller.watching.handlers import DEVICE_KINDS, MANAGED, Handle, takers, watched_children
from energylens.controller.watching.kinds import ALL_KINDS, WatchableKinds

LISTS_GET_OLD_AFTER = 20
"""Looks at the store without anything new before what is missing is listed again: some may have been deleted."""
LOOK_SECONDS = 0.25

_WITHOUT_UID = (NODE, NAMESPACE)
"""Kinds of which the store knows names only: what has the same name is the same."""

MOST_READ = 100
"""Objects that are read one by one; where a watch missed more, to list the kind again costs less."""

ObjectName = tuple[str, str]
"""Namespace ("" for cluster-scoped objects) and name."""


class Missed(NamedTuple):
    """An object that the store does not know as it is."""

    resource: Resource
    name: ObjectName

    def __str__(self) -> str:
        """Return such as ``LLMDeployment team/a``."""
        return f"{self.resource.kind} {'/'.join(filter(None, self.name))}"


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
        self.found = WatchableKinds(ALL_KINDS)
        """The kinds that are watched now."""

    async def settle(self) -> list[Missed]:
        """Wait until the store knows every object as the API server has it, or nothing more of the lists comes in.

        Late watches still bring something every few seconds; as long as they do, this waits.

        Returns:
            What did not come and still exists; nothing where all is known.

        Raises:
            ClusterError: a kind cannot be listed.
        """
        listed = {resource: await self._listed(resource) for resource in self._watched()}
        missing, idle_looks = self._missing(listed), 0
        while missing and idle_looks < LISTS_GET_OLD_AFTER:
            await self._sleep(LOOK_SECONDS)
            # Objects that came in are not compared again: to compare thousands takes long.
            rest = {resource: {name: listed[resource][name] for name in names} for resource, names in missing.items()}
            before, missing = missing, self._missing(rest)
            idle_looks = idle_looks + 1 if missing == before else 0
        if missing:
            there = {resource: await self._listed(resource) for resource in missing}
            # What was deleted since the list never comes, and no watch missed it.
            rest = {
                resource: {name: listed[resource][name] for name in names if name in there[resource]}
                for resource, names in missing.items()
            }
            missing = self._missing(rest)
        return [Missed(resource, name) for resource, names in missing.items() for name in names]

    async def read(self, missed: Sequence[Missed]) -> None:
        """Hear from the API server of what no watch has told.

        Raises:
            ClusterError: a kind cannot be listed.
        """
        handles = takers(self._store, self._enqueue)
        for resource, (namespace, name) in missed:
            # By lists, since the operator has no right to get every kind.
            for body in await self._cluster.list_objects(resource, namespace=namespace or None, name=name):
                handles[resource](body, False)

    def _missing(self, listed: Mapping[Resource, Mapping[ObjectName, Identity]]) -> dict[Resource, list[ObjectName]]:
        return {resource: behind for resource, names in listed.items() if (behind := self._behind(resource, names))}

    def _behind(self, resource: Resource, listed: Mapping[ObjectName, Identity]) -> list[ObjectName]:
        """Return what the store does not know, or knows in an older state."""
        # During the initial lists fewer and fewer of thousands are missing, and only these are looked up.
        known = {name: self._identity(resource, name) for name in listed}
        return sorted(
            name for name, now in listed.items() if (before := known[name]) is None or now.is_newer_than(before)
        )

    async def sweep(self) -> bool:
        """Drop what the API server no longer has, and hear of changes to PodDisruptionBudgets.

        Returns:
            Whether the API server has something that the store does not know, or something newer: a watch that is late,
            lost an event, or is dead.

        Raises:
            ClusterError: a kind cannot be listed.
        """
        behind = False
        handles = takers(self._store, self._enqueue)
        for resource in self._watched():
            # What is known before the list was there before it; so, where the list lacks it, it is gone.
            before = self._uids(resource)
            listed = await self._listed(resource)
            behind = behind or bool(self._behind(resource, listed))
            now = self._uids(resource)
            for name, uid in before.items():
                there = name in listed and listed[name].uid == uid
                if not there and now.get(name) == uid:
                    self._drop(resource, name, uid, handles[resource])
        for kind in (LEADER_WORKER_SET, RESOURCE_CLAIM_TEMPLATE, INFERENCE_POOL):
            if kind in self.found.unserved:
                # They went with their kind; whether somebody heard of each does not matter.
                self._drop_all(kind, handles[kind])
        watched = {kind.kind for kind in self.found.kinds}
        for kind in DEVICE_KINDS:
            if kind.kind not in watched:
                # GPUs are not counted by objects of which no watch tells any more.
                self._drop_all(kind, handles[kind])
        await self.hear_of_disruption_budgets()
        return behind

    async def hear_of_disruption_budgets(self) -> None:
        """Take the PodDisruptionBudgets, which are not watched: their status changes with every pod."""
        kind = POD_DISRUPTION_BUDGET.kind
        before = self._uids(POD_DISRUPTION_BUDGET)
        found: set[ObjectName] = set()
        for namespace in self._namespaces or (None,):
            for body in await self._cluster.list_objects(
                POD_DISRUPTION_BUDGET, namespace=namespace, label_selector=MANAGED
            ):
                name = (body["metadata"]["namespace"], body["metadata"]["name"])
                found.add(name)
                old = self._store.children.get((kind, *name))
                owners = self._store.put_child(kind, body, deleted=False)
                if old is None or _seen(old.body) != _seen(body):
                    for owner in owners:
                        self._enqueue(owner)
        handle = takers(self._store, self._enqueue)[POD_DISRUPTION_BUDGET]
        for name, uid in before.items():
            if name not in found:
                self._drop(POD_DISRUPTION_BUDGET, name, uid, handle)

    def _watched(self) -> Iterator[Resource]:
        order = (LLM_DEPLOYMENT, ENERGY_BUDGET, NODE, POD, CLUSTER_ENERGY_BUDGET, NAMESPACE, *DEVICE_KINDS)
        yield from (kind for kind in order if kind in self.found.kinds)
        yield from watched_children(self.found.kinds)

    async def _listed(self, resource: Resource) -> dict[ObjectName, Identity]:
        selector = MANAGED if resource in watched_children(self.found.kinds) else ""
        found: dict[ObjectName, Identity] = {}
        for namespace in (self._namespaces or (None,)) if resource.namespaced else (None,):
            found |= await self._cluster.list_identities(resource, namespace=namespace, label_selector=selector)
        if resource in _WITHOUT_UID:
            return {name: identity._replace(uid="") for name, identity in found.items()}
        return found

    def _uids(self, resource: Resource) -> dict[ObjectName, str]:
        """Return the uid of each object of a kind that the store knows."""
        found = {name: self._identity(resource, name) for name in self._names(resource)}
        return {name: identity.uid for name, identity in found.items() if identity is not None}

    def _names(self, resource: Resource) -> list[ObjectName]:
        store = self._store
        if resource is LLM_DEPLOYMENT:
            return list(store.deployments)
        if resource is POD:
            return list(store.pods)
        if resource in DEVICE_KINDS:
            return list(store.devices.bodies[resource.kind])
        if resource in _WITHOUT_UID:
            return [("", name) for name in (store.nodes if resource is NODE else store.namespaces)]
        if resource in (ENERGY_BUDGET, CLUSTER_ENERGY_BUDGET):
            return [key for key in store.budgets if bool(key[0]) == resource.namespaced]
        return [(namespace, name) for kind, namespace, name in store.children if kind == resource.kind]

    def _identity(self, resource: Resource, name: ObjectName) -> Identity | None:
        """Return the identity of an object as the store knows it; None if the store does not."""
        store = self._store

        def heard(uid: str) -> Identity:
            return Identity(uid, store.versions.get((resource.kind, *name), ""))

        if resource in _WITHOUT_UID:
            return heard("") if name[1] in (store.nodes if resource is NODE else store.namespaces) else None
        body: Mapping[str, Any] | None
        if resource is LLM_DEPLOYMENT:
            body = store.deployments.get(name)
        elif resource is POD:
            body = store.pods.get(name)
        elif resource in DEVICE_KINDS:
            device = store.devices.bodies[resource.kind].get(name)
            return None if device is None else heard(device["metadata"]["uid"])
        elif resource in (ENERGY_BUDGET, CLUSTER_ENERGY_BUDGET):
            body = store.budgets.get(name)
        else:
            child = store.children.get((resource.kind, *name))
            body = None if child is None else child.body
        return None if body is None else identity_of(body)

    def _drop_all(self, resource: Resource, handle: Handle) -> None:
        for name, uid in self._uids(resource).items():
            self._drop(resource, name, uid, handle)

    def _drop(self, resource: Resource, name: ObjectName, uid: str, handle: Handle) -> None:
        metadata: dict[str, Any] = {"namespace": name[0], "name": name[1], "uid": uid}
        child = self._store.children.get((resource.kind, *name))
        if child is not None:
            metadata["labels"] = child.body["metadata"].get("labels")
        handle({"metadata": metadata}, True)


def _seen(body: Mapping[str, Any]) -> tuple[Any, ...]:
    metadata = body["metadata"]
    return metadata.get("uid"), metadata.get("generation"), metadata.get("labels")
