"""The latest objects from the watches, trimmed to what decisions need, and the keys that a change affects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, Protocol

from energylens.cluster.managers import status_managers
from energylens.cluster.port import Identity
from energylens.cluster.resources import RESOURCE_CLAIM_TEMPLATE
from energylens.controller.state.devices import CLAIM, DeviceStore
from energylens.controller.state.pods import Pods
from energylens.controller.state.same import identity_of, is_newer, is_same_object
from energylens.controller.state.status_memory import StatusMemory
from energylens.decide.deployment.pods.workloads import WORKLOADS, Workloads
from energylens.decide.trimmed import Packed, PackedObject, packed, shared, trim_child, trim_node
from energylens.planner.inventory.snapshot import OWNER_LABEL
from energylens.records import dataclass
from energylens.serving.queues import PASSED_ANNOTATIONS
from energylens.serving.workload import CANARY_SUFFIX, LWS_SUFFIX, PREFILL_SUFFIX, SUFFIXES

Key = tuple[str, str]
"""Namespace and name of an LLMDeployment."""
Body = dict[str, Any]
ChildKey = tuple[str, str, str]
"""Kind, namespace and name."""


@dataclass(slots=True)
class Child:
    """A live child object."""

    body: PackedObject
    verified: str | None = None
    """Hash of the manifest that the body was found to hold; None after every change."""


@dataclass(frozen=True)
class Edited:
    """A status that somebody else wrote to."""

    stated: Body
    parts: tuple[str, ...]
    """Parts that differ from the operator's last write, or that cannot be true."""
    managers: tuple[str, ...]


class Observer(Protocol):
    """Keeps something that is counted from a store, and counts again only what changed."""

    def node_changed(self, name: str) -> None:
        """Hear that a node came, changed or went."""
        ...

    def pod_changed(self, pod: Key) -> None:
        """Hear that a pod came or went, or holds other GPUs."""
        ...

    def deployment_changed(self, key: Key) -> None:
        """Hear that an LLMDeployment or a workload of it came, changed or went."""
        ...


@dataclass
class Store:
    """Caches of the watched objects. Older resource versions never replace newer ones."""

    deployments: dict[Key, Body] = field(default_factory=dict)
    budgets: dict[Key, Body] = field(default_factory=dict)
    """EnergyBudgets, and ClusterEnergyBudgets under the namespace ""."""
    namespaces: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Labels of each namespace."""
    namespaces_version: int = 0
    """Counts their changes."""
    edited: dict[Key, Edited] = field(default_factory=dict)
    """LLMDeployments whose status is not to be used."""
    statuses: StatusMemory | None = field(default=None, compare=False)
    """The operator's own statuses; None to use the API server's."""
    budget_statuses: StatusMemory | None = field(default=None, compare=False)
    edited_budgets: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    """Budgets whose status is not to be used, and where it differs."""
    children: dict[ChildKey, Child] = field(default_factory=dict)
    _claim_templates: dict[Key, set[ChildKey]] = field(default_factory=dict)
    nodes: dict[str, Body] = field(default_factory=dict)
    devices: DeviceStore = field(default_factory=DeviceStore)
    watched_pods: Pods = field(default_factory=Pods)
    versions: dict[ChildKey, str] = field(default_factory=dict)
    """Resource versions of nodes, namespaces and devices: what is kept of them is compared, and has none."""
    inventory_version: int = 0
    """Counts changes of nodes and of GPUs held by pods."""
    nodes_version: int = 0
    """Counts changes of nodes."""
    observers: list[Observer] = field(default_factory=list, compare=False)

    def put_deployment(self, body: Body, deleted: bool) -> Key | None:
        """Take an LLMDeployment; return its key when there is something to do."""
        key = _key(body)
        old = self.deployments.get(key)
        if deleted:
            if not is_same_object(body, old):
                return None
            self.deployments.pop(key, None)
            self.edited.pop(key, None)
            if self.statuses is not None:
                self.statuses.forget(key)
            # What it had reserved is free again, also where it never had a pod.
            self.inventory_version += 1
            self.deployment_changed(key)
            return key
        if old is not None and not is_newer(body, old):
            return None
        trimmed = {
            "apiVersion": body.get("apiVersion"),
            "kind": body.get("kind"),
            "metadata": {
                **{n: value for n, value in body["metadata"].items() if n not in ("managedFields", "annotations")},
                **_passed_annotations(body["metadata"]),
            },
        }
        trimmed = shared(trimmed)
        trimmed |= {"spec": Packed(body.get("spec") or {}), "status": body.get("status") or {}}
        edited = self._believe(key, body, trimmed)
        trimmed["status"] = packed(trimmed["status"])
        self.deployments[key] = trimmed
        self.deployment_changed(key)
        return None if old is not None and _same(old, trimmed) and not edited else key

    def _believe(self, key: Key, body: Body, trimmed: Body) -> bool:
        """Use the plausible parts of a status; return whether another writer changed it."""
        if self.statuses is None:
            return False
        trimmed["status"], parts = self.statuses.believed(key, body)
        before = self.edited.pop(key, None)
        if not parts:
            return False
        managers = tuple(status_managers(body["metadata"].get("managedFields") or ()))
        self.edited[key] = Edited(body.get("status") or {}, parts, managers)
        return before != self.edited[key]

    def put_budget(self, body: Body, deleted: bool) -> list[Key]:
        """Take an EnergyBudget or ClusterEnergyBudget; return the keys of the deployments that it may be about."""
        key = _key(body)
        old = self.budgets.get(key)
        if deleted:
            if not is_same_object(body, old):
                return []
            self.budgets.pop(key, None)
            self.edited_budgets.pop(key, None)
            if self.budget_statuses is not None:
                self.budget_statuses.forget(key)
        else:
            if old is not None and not is_newer(body, old):
                return []
            metadata = body["metadata"]
            kept = ("uid", "generation", "resourceVersion")
            self.budgets[key] = {
                "metadata": {
                    "name": key[1],
                    **({"namespace": key[0]} if key[0] else {}),
                    **{name: metadata[name] for name in kept if name in metadata},
                },
                "spec": body.get("spec") or {},
                "status": body.get("status") or {},
            }
            if self.budget_statuses is not None:
                self.edited_budgets.pop(key, None)
                self.budgets[key]["status"], parts = self.budget_statuses.believed(key, body)
                if parts:
                    self.edited_budgets[key] = parts
            if old is not None and old["spec"] == self.budgets[key]["spec"]:
                return []
        return [other for other in self.deployments if key[0] in ("", other[0])]

    def put_namespace(self, body: Body, deleted: bool) -> list[Key]:
        """Take a namespace; return the keys of its deployments where its labels changed under a ClusterEnergyBudget."""
        metadata = body["metadata"]
        name, old = metadata["name"], self.namespaces.get(metadata["name"])
        if not self._heard("Namespace", body, deleted):
            return []
        if deleted:
            self.namespaces.pop(name, None)
            self.namespaces_version += 1
            return []
        self.namespaces[name] = dict(metadata.get("labels") or {})
        self.namespaces_version += old != self.namespaces[name]
        capped = any(not namespace for namespace, _ in self.budgets)
        if not capped or old == self.namespaces[name]:
            return []
        return [key for key in self.deployments if key[0] == name]

    def put_child(self, kind: str, body: Body, deleted: bool) -> tuple[Key, ...]:
        """Take a child; return the keys of the LLMDeployments that have something to do.

        They are that which the child's label names, and that which it named before.
        """
        metadata = body["metadata"]
        child_key = (kind, metadata["namespace"], metadata["name"])
        old = self.children.get(child_key)
        before = None if old is None else _owner(old.body)
        if deleted:
            if not is_same_object(body, old.body if old is not None else None):
                return ()
            self.children.pop(child_key, None)
        elif old is not None and not is_newer(body, old.body):
            return ()
        else:
            self.children[child_key] = Child(PackedObject(trim_child(body), kind, *identity_of(body)))
        owner = _owner(body)
        self._child_changed(child_key, before, owner)
        return tuple(dict.fromkeys(key for key in (owner, before) if key is not None))

    def put_node(self, body: Body, deleted: bool) -> None:
        """Take a node."""
        name = body["metadata"]["name"]
        if not self._heard("Node", body, deleted):
            return
        trimmed = None if deleted else shared(trim_node(body))
        if self.nodes.get(name) == trimmed:
            return
        self.inventory_version += 1
        self.nodes_version += 1
        if trimmed is None:
            del self.nodes[name]
        else:
            self.nodes[name] = trimmed
        for observer in self.observers:
            observer.node_changed(name)

    def put_device_object(self, kind: str, body: Body, deleted: bool) -> None:
        """Take a ResourceSlice, ResourceClaim, DeviceClass or DeviceTaintRule."""
        key = _key(body)
        old = self.devices.bodies[kind].get(key)
        if deleted and not is_same_object(body, old):
            return
        if not self._heard(kind, body, deleted, known=old):
            return
        nodes = self.devices.put(kind, key, None if deleted else body)
        if not nodes:
            return
        self.inventory_version += 1
        self.nodes_version += kind != CLAIM
        for observer in self.observers:
            for node in sorted(nodes):
                observer.node_changed(node)

    def put_pod(self, body: Body, deleted: bool) -> Key | None:
        """Take a pod; return the key of its LLMDeployment when it has one and something changed."""
        change = self.watched_pods.put(_key(body), body, deleted)
        if change is None:
            return None
        if change.holds_other_gpus:
            self.inventory_version += 1
            for observer in self.observers:
                observer.pod_changed(_key(body))
        return change.owner

    @property
    def pods(self) -> Mapping[Key, PackedObject]:
        """The pods, trimmed and packed."""
        return self.watched_pods.bodies

    def _heard(self, kind: str, body: Body, deleted: bool, known: Body | None = None) -> bool:
        """Note the version of an object; return False where a newer one of the same object is known."""
        key, metadata = (kind, *_key(body)), body["metadata"]
        new, old = metadata.get("resourceVersion", ""), self.versions.get(key, "")
        same = known is None or known["metadata"].get("uid") == metadata.get("uid", "")
        if same and Identity("", old).is_newer_than(Identity("", new)):
            return False
        if deleted:
            self.versions.pop(key, None)
        else:
            self.versions[key] = new
        return True

    def drop_child(self, kind: str, namespace: str, name: str) -> None:
        """Forget a child that was deleted just now."""
        old = self.children.pop((kind, namespace, name), None)
        self._child_changed((kind, namespace, name), None if old is None else _owner(old.body), None)

    def _child_changed(self, child: ChildKey, before: Key | None, owner: Key | None) -> None:
        kind, namespace, name = child
        if kind == RESOURCE_CLAIM_TEMPLATE.kind:
            if before is not None:
                self._claim_templates[before].discard(child)
                if not self._claim_templates[before]:
                    del self._claim_templates[before]
            if owner is not None and child in self.children:
                self._claim_templates.setdefault(owner, set()).add(child)
        if kind == "Deployment":
            self.deployment_changed((namespace, name))
        # One with a suffix may be the Deployment of an LLMDeployment of that name, too.
        for suffix in SUFFIXES.get(kind, ()):
            if name.endswith(suffix):
                self.deployment_changed((namespace, name.removesuffix(suffix)))

    def deployment_changed(self, key: Key) -> None:
        """Tell that a deployment, its workload or the plan that it holds changed."""
        for observer in self.observers:
            observer.deployment_changed(key)

    def workloads(self, key: Key) -> Workloads:
        """Return what runs the pods of an LLMDeployment."""
        names = (("Deployment", key[1]), ("LeaderWorkerSet", f"{key[1]}{LWS_SUFFIX}"))
        return Workloads(_owned_by(key, [self.children.get((kind, key[0], name)) for kind, name in names]))

    def canaries(self, key: Key) -> tuple[PackedObject, ...]:
        """Return what runs the one replica by which a plan of an LLMDeployment is verified.

        There are two while a verified plan on one node gives way to one on several, or the other way round.
        """
        return _owned_by(key, [self.children.get((kind, key[0], f"{key[1]}{CANARY_SUFFIX}")) for kind in WORKLOADS])

    def prefill(self, key: Key) -> PackedObject | None:
        """Return what runs the prefill pods of an LLMDeployment; None where nothing does."""
        return next(iter(_owned_by(key, [self.children.get(("Deployment", key[0], key[1] + PREFILL_SUFFIX))])), None)

    def claim_templates(self, key: Key) -> tuple[PackedObject, ...]:
        """Return the ResourceClaimTemplates of an LLMDeployment, by name."""
        return tuple(self.children[name].body for name in sorted(self._claim_templates.get(key, ())))

    def pods_owned(self, key: Key) -> list[PackedObject]:
        """Return the pods of an LLMDeployment, by name."""
        return self.watched_pods.owned(key)


def _owned_by(key: Key, found: Iterable[Child | None]) -> tuple[PackedObject, ...]:
    """Return the children of an LLMDeployment; names with suffixes may be those of another one's children."""
    bodies = [child.body for child in found if child is not None]
    return tuple(body for body in bodies if (body["metadata"].get("labels") or {}).get(OWNER_LABEL) == key[1])


def _key(body: Mapping[str, Any]) -> Key:
    return body["metadata"].get("namespace") or "", body["metadata"]["name"]


def _owner(child: Mapping[str, Any]) -> Key | None:
    name = (child["metadata"].get("labels") or {}).get(OWNER_LABEL)
    return (child["metadata"]["namespace"], name) if name else None


def _same(old: Body, new: Body) -> bool:
    """Return whether nothing changed that a pass would look at."""

    def seen(body: Body) -> tuple[Any, ...]:
        metadata = body["metadata"]
        parts = ("deletionTimestamp", "labels", "annotations")
        return body["spec"], body["status"], *(metadata.get(part) for part in parts)

    return seen(old) == seen(new)


def _passed_annotations(metadata: Mapping[str, Any]) -> Body:
    """Return the annotations that pods get; others change often, and nothing depends on them."""
    given = metadata.get("annotations") or {}
    kept = {name: given[name] for name in PASSED_ANNOTATIONS if name in given}
    return {"annotations": kept} if kept else {}
